"""
Attacks of ``plasma.prove`` with somebody's cookies (A15), and whether a hub without its configuration stays shut (A10).
They come last: one changes the first person's password.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import time

__virtualname__ = "plasma_prove_sessions"

NOTICED = 40  # seconds
# A hub that has worked with both keeps copies of them, which say that they have been there.
_OPENS = {
    "config.yaml": "from tljh_plasma import settings; settings.load()",
    "plasma.sqlite": (
        "import os, pathlib; from tljh_plasma.access import Store; "
        "Store(pathlib.Path(os.environ['TLJH_INSTALL_PREFIX'], 'state', 'plasma.sqlite')).upgrade()"
    ),
}


def __virtual__():
    return __virtualname__


def attacks():
    """
    Return the attacks of this module, see ``plasma_prove_run``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_sessions.attacks
    """
    return [
        {
            "name": "A10.shut",
            "what": "A hub whose configuration or permissions are gone opens (a copy is asked)",
            "expected": "it does not start",
            "play": _shut,
        },
        {
            "name": "A15.fixation",
            "what": "The id of a session that was planted before the login is that of the login",
            "expected": "another one",
            "play": _fixation,
            "last": True,
        },
        {
            "name": "A15.logout",
            "what": "A copied cookie works after the logout",
            "expected": "status 403",
            "play": _logout,
            "last": True,
        },
        {
            "name": "A15.password",
            "what": "A copied cookie works after a change of the password",
            "expected": f"status 403 within {NOTICED} s",
            "play": _password,
            "last": True,
        },
        {
            "name": "A15.hsts",
            "what": "Browsers may be led back to plain HTTP",
            "expected": "Strict-Transport-Security",
            "play": _hsts,
        },
    ]


def _shut(scene):
    copy = pathlib.Path(scene.directory, "prefix")
    for name in ("config", "state/kept"):
        os.makedirs(copy / name, mode=0o700, exist_ok=True)
    python, opened = pathlib.Path(scene.prefix, "hub", "bin", "python3"), []
    for name, code in _OPENS.items():
        (copy / "state" / "kept" / name).touch(mode=0o600)
        done = subprocess.run(
            [str(python), "-I", "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "TLJH_INSTALL_PREFIX": str(copy)},
        )
        if "ModuleNotFoundError" in done.stderr:
            return False, "not played: the plugin is not there"
        if not done.returncode:
            opened.append(name)
    if opened:
        return False, f"without {' and '.join(opened)} it takes what is usual"
    return True, f"it ends without {' or '.join(_OPENS)}"


def _fixation(scene):
    visitor = scene.visitor()
    visitor.open("hub/login")
    planted = {key: value for key, value in visitor.cookies.items() if "session" in key[2]}
    answer = visitor.submit(scene.a["name"], scene.a["password"])
    if answer.status != 302:
        return False, f"not played: the login failed ({scene.said(answer)})"
    kept = [key[2] for key, value in planted.items() if visitor.cookies.get(key) == value]
    return not kept, f"{', '.join(kept)} stayed" if kept else "another one"


def _logout(scene):
    visitor = scene.session(scene.a)
    copied = dict(visitor.cookies)
    visitor.open("hub/logout")
    return _works(scene, copied)


def _password(scene):
    copied = dict(scene.session(scene.a).cookies)
    scene.a["password"] = __salt__["plasma_prove_people.set_password"](scene.a["name"])
    # The hub looks at accounts of people who are logged in every 30 seconds.
    since = time.monotonic()
    while True:
        refused, seen = _works(scene, copied)
        passed = time.monotonic() - since
        if refused or passed > NOTICED:
            return refused, f"{seen} after {passed:.0f} s"
        time.sleep(1)


def _works(scene, cookies):
    thief = scene.visitor("127.66.15.1")
    thief.cookies = cookies
    answer = thief.api("GET", "user")
    return answer.status != 200, scene.said(answer)


def _hsts(scene):
    if not scene.where["secure"]:
        return None, "does not apply: this hub has no HTTPS"
    found = scene.visitor().open("hub/login").header("Strict-Transport-Security")
    return bool(found), found or "none"
