"""
Attacks of ``plasma.prove`` by an administrator of the hub who wants to be root (A4): the second person is one, and the
first may use sudo for as long as they last.
"""

from __future__ import annotations

import contextlib
import grp
import json
import subprocess
import urllib.parse

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_prove_rights"

GROUPS = ("sudo", "wheel", "docker")


def __virtual__():
    return __virtualname__


def attacks():
    """
    Return the attacks of this module, see ``plasma_prove_run``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_rights.attacks
    """
    return [
        {
            "name": "A4.start",
            "what": "An administrator of the hub starts the server of an account that may use sudo",
            "expected": "status 403",
            "play": _start,
            "last": True,
        },
        {
            "name": "A4.enter",
            "what": "The administrator enters that account's running server",
            "expected": "status 403, no code",
            "play": _enter,
            "last": True,
        },
        {
            "name": "A4.token",
            "what": "The administrator makes a token as that account",
            "expected": "status 403",
            "play": _token,
            "last": True,
        },
        {
            "name": "A4.student",
            "what": "Somebody who is no administrator makes themselves one, or starts another's server",
            "expected": "all refused",
            "play": _student,
        },
    ]


@contextlib.contextmanager
def _sudo(scene):
    """The first person may use sudo, and the second one is administrator, for a moment."""
    groups = [name for name in GROUPS if _exists(name)]
    if not groups:
        raise CommandExecutionError(f"there is no group {', '.join(GROUPS)}")
    _change("--add", scene.a, groups[0])
    try:
        yield scene.admin()
    finally:
        _change("--delete", scene.a, groups[0])
        scene.admin(False)


def _exists(name):
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _change(how, person, group):
    done = subprocess.run(["gpasswd", how, person["name"], group], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise CommandExecutionError(f"gpasswd failed: {done.stderr.strip()}")


def _start(scene):
    image, name = scene.make_image(), scene.a["name"]
    scene.stop(scene.a)
    with _sudo(scene) as admin:
        answer = admin.api("POST", f"users/{name}/server", {"image": image})
    scene.stop(scene.a)
    return answer.status in (403, 404), scene.said(answer)


def _enter(scene):
    scene.agent(scene.a)
    name = scene.a["name"]
    with _sudo(scene) as admin:
        query = {
            "client_id": f"jupyterhub-user-{urllib.parse.quote(name)}",
            "redirect_uri": f"{admin.base}user/{name}/oauth_callback",
            "response_type": "code",
            "state": "x",
        }
        path = f"hub/api/oauth2/authorize?{urllib.parse.urlencode(query)}"
        answer = admin.request("GET", path, headers={"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"})
        entered = answer.status in (200, 302) and "login" not in answer.header("Location")
    return not entered, scene.said(answer)


def _token(scene):
    with _sudo(scene) as admin:
        body = {"note": "plasma.prove", "expires_in": 60}
        answer = admin.api("POST", f"users/{scene.a['name']}/tokens", body)
    return answer.status in (403, 404), scene.said(answer)


def _student(scene):
    visitor, image = scene.browser(scene.a), scene.make_image()
    tried = [
        ("PATCH", f"users/{scene.a['name']}", {"admin": True}),
        ("PATCH", "plasma/administrators", {"grant": [scene.a["name"]]}),
        ("POST", f"users/{scene.b['name']}/server", {"image": image}),
        ("POST", f"users/{scene.b['name']}/tokens", {"expires_in": 60}),
        ("GET", f"users/{scene.b['name']}", None),
        ("GET", "users", None),
    ]
    scene.browser(scene.b)  # the hub knows both
    done = []
    for method, path, body in tried:
        answer = visitor.api(method, path, body)
        told = method == "GET" and answer.status == 200 and scene.b["name"] in json.dumps(answer.text)
        if told or method != "GET" and answer.status < 400:
            done.append(f"{method} {path.partition('/')[2] or path}: {scene.said(answer)}")
    return (False, done[0]) if done else (True, f"{len(tried)} refused")
