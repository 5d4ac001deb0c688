"""
Attacks of ``plasma.prove`` on what the hub lets people do: from a page of somebody's own server on whoever opens it
(A1), by an administrator who wants to be root (A4), and with somebody's cookies (A15).

A script on one origin can ask for whatever the browser's rules let it, with the visitor's cookies; what it says of
itself here is what a browser would say.
"""

from __future__ import annotations

import contextlib
import grp
import json
import re
import time
import urllib.parse

from salt.exceptions import CommandExecutionError

import plasma_prove_people
import plasma_run
from plasma_prove_agent import HOSTILE
from plasma_prove_scene import attack, refused_unless

# Pages of the hub and its service, which all hold a token or act for the visitor.
PAGES = (
    *("hub/home", "hub/token", "hub/spawn", "hub/admin"),
    *("services/plasma/environments", "services/plasma/permissions"),
)
# What a page of the same origin can have a browser ask for, other than opening it.
DESTINATIONS = ("empty", "iframe", "embed", "object", "script", "style", "image", "worker", "serviceworker")
TOKEN = re.compile(r'xsrf_token"?\s*[:=]\s*"([^"]+)"')
SUDO_GROUPS = ("sudo", "wheel", "docker")
NOTICED = 40  # seconds


@contextlib.contextmanager
def _visiting(scene):
    """The administrator who looks at pages of students; with a session at the service, too."""
    with scene.administrator() as visitor:
        if "visited" not in scene.notes:
            for page in PAGES:
                visitor.open(page)
            scene.notes["visited"] = True
        yield visitor


def _evil(scene):
    """The page of the first person's server."""
    return f"user/{scene.a['name']}/evil"


def _script_requests(scene, visitor):
    """``(page, destination, answer)`` of all requests that a script can have the administrator's browser make."""
    for page in PAGES:
        for destination in DESTINATIONS:
            mode = {"empty": "cors", "iframe": "navigate"}.get(destination, "no-cors")
            headers = {"Sec-Fetch-Dest": destination, "Sec-Fetch-Mode": mode}
            # A page may name any page of its own origin as the one it comes from.
            yield page, destination, visitor.script("GET", page, headers=headers, page=_evil(scene), keep=False)
            if destination == "empty":
                yield page, "empty, forged referrer", visitor.script("GET", page, headers=headers, keep=False)


@attack("A1.read", "no page for anything but a visit")
def _read(scene):
    """A script of a user's page reads the hub's pages, with their tokens, as the visitor"""
    with _visiting(scene) as visitor:
        read = [f"{page} for {how}" for page, how, answer in _script_requests(scene, visitor) if answer.status == 200]
        if read:
            return False, f"{len(read)} of {len(PAGES) * (len(DESTINATIONS) + 1)} were answered: {read[0]}"
        # That nobody gets a page would be no protection.
        refused = [page for page in PAGES[:2] if visitor.open(page).status != 200]
    if refused:
        return False, f"not played: a visit to {refused[0]} is refused, too"
    return True, "every one refused, visits go on"


@attack("A1.act", "status 403")
def _act(scene):
    """It makes an administrator's API token with what it read"""
    done = []
    with _visiting(scene) as visitor:
        found = TOKEN.search(visitor.script("GET", "hub/token", page=_evil(scene), keep=False).text)
        tokens = {"what it read": found[1] if found else "", "no token": "", "a made-up token": "x" * 40}
        body, path = json.dumps({"note": "plasma.prove", "expires_in": 60}), f"hub/api/users/{scene.b['name']}/tokens"
        for how, token in tokens.items():
            headers = {"X-XSRFToken": token, "Content-Type": "application/json"} if token else {}
            answer = visitor.script("POST", path, body, headers, page=_evil(scene), keep=False)
            if answer.status in (200, 201):
                done.append(f"a token with {how}")
    return refused_unless(done, str(answer), most=1)


@attack("A1.frame", "frame-ancestors, script-src, Cross-Origin-Opener-Policy on each")
def _headers(scene):
    """It frames a page of the hub, keeps hold of its window, or brings a script into it"""
    missing = []
    with _visiting(scene) as visitor:
        for page in PAGES:
            answer = visitor.open(page)
            policy = answer.header("Content-Security-Policy")
            scripts = re.search(r"(script-src|default-src)([^;]*)", policy)
            refused_frames = "frame-ancestors 'self'" not in policy and "DENY" in answer.header("X-Frame-Options")
            protections = {
                "frame-ancestors": "frame-ancestors 'none'" in policy or refused_frames,
                "script-src": "'nonce-" in policy or bool(scripts) and "'unsafe-inline'" not in scripts[2],
                "Cross-Origin-Opener-Policy": answer.header("Cross-Origin-Opener-Policy") == "same-origin",
                "nosniff": "nosniff" in answer.header("X-Content-Type-Options"),
            }
            missing += [f"{page} without {name}" for name, there in protections.items() if not there]
    if missing:
        return False, missing[0] + (f" and {len(missing) - 1} more" if missing[1:] else "")
    return True, f"on all of {len(PAGES)} pages"


@attack("A1.answer", "none arrives")
def _answers(scene):
    """A user's server sends headers that count for the whole host"""
    scene.agent(scene.a)
    answer = scene.browser(scene.a).open(_evil(scene), keep=False)
    if "plasma.prove" not in answer.text:
        return False, f"not played: the throwaway server does not answer ({answer})"
    arrived = [name for name, value in HOSTILE if value in answer.all(name)]
    return (False, f"{', '.join(arrived)} arrived") if arrived else (True, f"none of {len(HOSTILE)} arrived")


@attack("A1.cookie", "the hub takes neither")
def _cookies(scene):
    """A user's page plants a cookie of the hub's beside the visitor's own"""
    visitor, taken, said = scene.browser(scene.a), [], "no other name can plant one"
    own = visitor.cookie_header(f"{visitor.base}hub/home")
    names = sorted({name for _, _, name in visitor.cookies if "jupyterhub-" in name})
    for name in names:
        if name.startswith("__Host-"):
            continue  # browsers take these from the hub's own name alone, where no page of a user's server is
        for cookies in (f"{name}=planted; {own}", f"{own}; {name}=planted"):
            answer = visitor.open("hub/home", headers={"Cookie": cookies}, keep=False)
            said = str(answer)
            if scene.a["name"] in answer.text and answer.status == 200:
                taken.append(f"{name}: one of two was taken")
    return refused_unless(taken, f"{', '.join(names)}: {said}", most=1)


@attack("A1.silent", "refused")
def _silent(scene):
    """A script reads the hub's pages with a browser that does not say what requests are for"""
    if not scene.where["secure"]:
        # Those of today say it over HTTPS alone.
        return None, "NOT DEFENDED without HTTPS: a page of anybody's server acts as whoever opens it (plasma.https)"
    visitor = scene.browser(scene.a)
    answers = [visitor.request("GET", page, headers={"Accept": "*/*"}, keep=False) for page in PAGES[:3]]
    read = [answer for answer in answers if answer.status == 200]
    return not read, str((read or answers)[0])


@contextlib.contextmanager
def _sudo(scene):
    """The first person may use sudo, and the second one is administrator, for a moment."""
    groups = {group.gr_name for group in grp.getgrall()}
    group = next((name for name in SUDO_GROUPS if name in groups), None)
    if group is None:
        raise CommandExecutionError(f"there is no group {', '.join(SUDO_GROUPS)}")
    plasma_run.run(["gpasswd", "--add", scene.a["name"], group]).check()
    try:
        with scene.administrator() as admin:
            yield admin
    finally:
        plasma_run.run(["gpasswd", "--delete", scene.a["name"], group]).check()


@attack("A4.start", "status 403", last=True)
def _start(scene):
    """An administrator of the hub starts the server of an account that may use sudo"""
    image = scene.make_image()
    scene.stop(scene.a)
    with _sudo(scene) as admin:
        answer = admin.api("POST", f"users/{scene.a['name']}/server", {"image": image})
    scene.stop(scene.a)
    return answer.status in (403, 404), str(answer)


@attack("A4.enter", "status 403, no code", last=True)
def _enter(scene):
    """The administrator enters that account's running server"""
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
    return not entered, str(answer)


@attack("A4.token", "status 403", last=True)
def _token(scene):
    """The administrator makes a token as that account"""
    with _sudo(scene) as admin:
        answer = admin.api("POST", f"users/{scene.a['name']}/tokens", {"note": "plasma.prove", "expires_in": 60})
    return answer.status in (403, 404), str(answer)


@attack("A4.student", "all refused")
def _student(scene):
    """Somebody who is no administrator makes themselves one, or starts another's server"""
    visitor, a, b = scene.browser(scene.a), scene.a["name"], scene.b["name"]
    requests = [
        ("PATCH", f"users/{a}", {"admin": True}),
        ("PATCH", "plasma/administrators", {"grant": [a]}),
        ("POST", f"users/{b}/server", {"image": scene.make_image()}),
        ("POST", f"users/{b}/tokens", {"expires_in": 60}),
        ("GET", f"users/{b}", None),
        ("GET", "users", None),
    ]
    scene.browser(scene.b)  # the hub knows both
    done = []
    for method, path, body in requests:
        answer = visitor.api(method, path, body)
        if answer.status < 400 and (method != "GET" or answer.status == 200 and b in answer.text):
            done.append(f"{method} {path.partition('/')[2] or path}: {answer}")
    return refused_unless(done, f"{len(requests)} refused", most=1)


@attack("A15.fixation", "another one", last=True)
def _fixation(scene):
    """The id of a session that was planted before the login is that of the login"""
    visitor = scene.login_page("127.0.0.1")
    planted = {key: value for key, value in visitor.cookies.items() if "session" in key[2]}
    answer = visitor.submit(scene.a["name"], scene.a["password"])
    if answer.status != 302:
        return False, f"not played: the login failed ({answer})"
    kept = [key[2] for key, value in planted.items() if visitor.cookies.get(key) == value]
    return not kept, f"{', '.join(kept)} stayed" if kept else "another one"


@attack("A15.logout", "status 403", last=True)
def _logout(scene):
    """A copied cookie works after the logout"""
    visitor = scene.session(scene.a)
    copied = dict(visitor.cookies)
    visitor.open("hub/logout")
    return _use_copy(scene, copied)


@attack("A15.password", f"status 403 within {NOTICED} s", last=True)
def _password(scene):
    """A copied cookie works after a change of the password"""
    copied = dict(scene.session(scene.a).cookies)
    scene.a["password"] = plasma_prove_people.set_password(scene.a["name"])
    # The hub looks at accounts of people who are logged in every 30 seconds.
    since = time.monotonic()
    while True:
        refused, seen = _use_copy(scene, copied)
        passed = time.monotonic() - since
        if refused or passed > NOTICED:
            return refused, f"{seen} after {passed:.0f} s"
        time.sleep(1)


def _use_copy(scene, cookies):
    thief = scene.visitor("127.66.15.1")
    thief.cookies = cookies
    answer = thief.api("GET", "user")
    return answer.status != 200, str(answer)


@attack("A15.hsts", "Strict-Transport-Security")
def _hsts(scene):
    """Browsers may be led back to plain HTTP"""
    if not scene.where["secure"]:
        return None, "does not apply: this hub has no HTTPS"
    value = scene.visitor().open("hub/login").header("Strict-Transport-Security")
    return bool(value), value or "none"
