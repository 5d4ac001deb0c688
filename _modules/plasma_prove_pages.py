"""
Attacks of ``plasma.prove`` from a page of somebody's own server on whoever opens it (A1). A script on one origin can
ask for whatever the browser's rules let it, with the visitor's cookies; what it says of itself here is what a browser
would say.
"""

from __future__ import annotations

import json
import re

__virtualname__ = "plasma_prove_pages"

# Pages of the hub and its service, which all hold a token or act for the visitor.
PAGES = (
    "hub/home",
    "hub/token",
    "hub/spawn",
    "hub/admin",
    "services/plasma/environments",
    "services/plasma/permissions",
)
# What a page of the same origin can have a browser ask for, other than opening it.
DESTINATIONS = ("empty", "iframe", "embed", "object", "script", "style", "image", "worker", "serviceworker")
TOKEN = re.compile(r'xsrf_token"?\s*[:=]\s*"([^"]+)"')


def __virtual__():
    return __virtualname__


def attacks():
    """
    Return the attacks of this module, see ``plasma_prove_run``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_pages.attacks
    """
    return [
        {
            "name": "A1.read",
            "what": "A script of a user's page reads the hub's pages, with their tokens, as the visitor",
            "expected": "no page for anything but a visit",
            "play": _read,
        },
        {
            "name": "A1.act",
            "what": "It makes an administrator's API token with what it read",
            "expected": "status 403",
            "play": _act,
        },
        {
            "name": "A1.frame",
            "what": "It frames a page of the hub, keeps hold of its window, or brings a script into it",
            "expected": "frame-ancestors, script-src, Cross-Origin-Opener-Policy on each",
            "play": _headers,
        },
        {
            "name": "A1.answer",
            "what": "A user's server sends headers that count for the whole host",
            "expected": "none arrives",
            "play": _answers,
        },
        {
            "name": "A1.cookie",
            "what": "A user's page plants a cookie of the hub's beside the visitor's own",
            "expected": "the hub takes neither",
            "play": _cookies,
        },
        {
            "name": "A1.silent",
            "what": "A script reads the hub's pages with a browser that does not say what requests are for",
            "expected": "refused",
            "play": _silent,
        },
    ]


def _visiting(scene):
    """The administrator who looks at pages of students; with a session at the service, too."""
    visitor = scene.admin()
    if "visited" not in scene.notes:
        for page in PAGES:
            visitor.open(page)
        scene.notes["visited"] = True
    return visitor


def _asked(scene):
    """``(page, destination, answer)`` of all requests that a script can have the administrator's browser make."""
    visitor = _visiting(scene)
    evil = f"user/{scene.a['name']}/evil"
    for page in PAGES:
        for destination in DESTINATIONS:
            mode = {"empty": "cors", "iframe": "navigate"}.get(destination, "no-cors")
            headers = {"Sec-Fetch-Dest": destination, "Sec-Fetch-Mode": mode}
            # A page may name any page of its own origin as the one it comes from.
            yield page, destination, visitor.script("GET", page, headers=headers, page=evil, keep=False)
            if destination == "empty":
                yield page, "empty, forged referrer", visitor.script("GET", page, headers=headers, keep=False)


def _read(scene):
    read = [(page, how) for page, how, answer in _asked(scene) if answer.status == 200]
    if read:
        scene.admin(False)
        return (
            False,
            f"{len(read)} of {len(PAGES) * (len(DESTINATIONS) + 1)} were answered: {read[0][0]} for {read[0][1]}",
        )
    # That nobody gets a page would be no protection.
    visited = [page for page in PAGES[:2] if scene.browser(scene.b).open(page).status != 200]
    scene.admin(False)
    if visited:
        return False, f"not played: a visit to {visited[0]} is refused, too"
    return True, "every one refused, visits go on"


def _act(scene):
    visitor = _visiting(scene)
    evil = f"user/{scene.a['name']}/evil"
    page = visitor.script("GET", "hub/token", page=evil, keep=False)
    found = TOKEN.search(page.text)
    tokens = {"what it read": found[1] if found else "", "no token": "", "a made-up token": "x" * 40}
    done = []
    for how, token in tokens.items():
        headers = {"X-XSRFToken": token, "Content-Type": "application/json"} if token else {}
        body = json.dumps({"note": "plasma.prove", "expires_in": 60})
        answer = visitor.script("POST", f"hub/api/users/{scene.b['name']}/tokens", body, headers, page=evil, keep=False)
        if answer.status in (200, 201):
            done.append(how)
        last = answer
    scene.admin(False)
    return (False, f"a token with {done[0]}") if done else (True, scene.said(last))


def _headers(scene):
    visitor = _visiting(scene)
    missing = []
    for page in PAGES:
        answer = visitor.open(page)
        policy = answer.header("Content-Security-Policy")
        framing = (
            "frame-ancestors 'none'" in policy
            or "frame-ancestors 'self'" not in policy
            and "DENY" in answer.header("X-Frame-Options")
        )
        scripts = re.search(r"(script-src|default-src)([^;]*)", policy)
        wanted = {
            "frame-ancestors": framing,
            "script-src": bool(scripts)
            and "'unsafe-inline'" not in scripts[2].replace("'nonce-", "")
            or "'nonce-" in policy,
            "Cross-Origin-Opener-Policy": answer.header("Cross-Origin-Opener-Policy") == "same-origin",
            "nosniff": "nosniff" in answer.header("X-Content-Type-Options"),
        }
        missing += [f"{page} without {name}" for name, there in wanted.items() if not there]
    scene.admin(False)
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        return False, missing[0] + more
    return True, f"on all of {len(PAGES)} pages"


def _hostile(scene):
    """The answer of a throwaway server to its owner, through the proxy."""
    scene.agent(scene.a)
    visitor = scene.browser(scene.a)
    return visitor.open(f"user/{scene.a['name']}/evil", keep=False)


def _answers(scene):
    answer = _hostile(scene)
    if "plasma.prove" not in answer.text:
        return False, f"not played: the throwaway server does not answer ({scene.said(answer)})"
    kept = [name for name, value in scene.hostile if value in answer.all(name)]
    return (False, f"{', '.join(kept)} arrived") if kept else (True, f"none of {len(scene.hostile)} arrived")


def _cookies(scene):
    visitor, taken, said = scene.browser(scene.a), [], "no other name can plant one"
    path = f"{visitor.base}hub/home"
    own = visitor._cookies(visitor.where["host"], path)
    names = sorted({key[2] for key in visitor.cookies if "jupyterhub-" in key[2]})
    for name in names:
        if name.startswith("__Host-"):
            continue  # browsers take these from the hub's own name alone, where no page of a user's server is
        for cookies in (f"{name}=planted; {own}", f"{own}; {name}=planted"):
            answer = visitor.open("hub/home", headers={"Cookie": cookies}, keep=False)
            said = scene.said(answer)
            if scene.a["name"] in answer.text and answer.status == 200:
                taken.append(name)
    if taken:
        return False, f"{taken[0]}: one of two was taken"
    return True, f"{', '.join(names)}: {said}"


def _silent(scene):
    if not scene.where["secure"]:
        # Those of today say it over HTTPS alone.
        return None, "NOT DEFENDED without HTTPS: a page of anybody's server acts as whoever opens it (plasma.https)"
    visitor = scene.browser(scene.a)
    answers = [visitor.request("GET", page, headers={"Accept": "*/*"}, keep=False) for page in PAGES[:3]]
    read = [answer for answer in answers if answer.status == 200]
    return not read, scene.said((read or answers)[0])
