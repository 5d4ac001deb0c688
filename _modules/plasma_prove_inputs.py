"""
Attacks of ``plasma.prove`` with what people send: bodies (A8), options, notes and tokens that the hub keeps (A6), and
names and bodies that make no sense (A11).
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse

__virtualname__ = "plasma_prove_inputs"

BODY = 20 * 1024 * 1024  # bytes of a body that nobody needs
OPTIONS = 600 * 1024
NOTE = 10 * 1000  # characters: within what a body may have
KEPT = 64 * 1024  # bytes that the hub may keep of one person
TOKENS = 250
ODD = ("?", "#", ";", "%", "a/b", "%2e%2e", "a\\b", "a b", "\u00e9", "x" * 300)
ODD_BODIES = ("[]", "1", "null", '"x"', "{", "[" * 2000)


def __virtual__():
    return __virtualname__


def attacks():
    """
    Return the attacks of this module, see ``plasma_prove_run``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_inputs.attacks
    """
    return [
        {
            "name": "A6.options",
            "what": f"The hub keeps {OPTIONS // 1024} kB of options of a start",
            "expected": f"refused, less than {KEPT // 1024} kB kept",
            "play": _options,
        },
        {
            "name": "A6.note",
            "what": f"The hub keeps the note of a token of {NOTE // 1000} kB",
            "expected": "refused",
            "play": _note,
        },
        {
            "name": "A6.tokens",
            "what": "Somebody makes tokens without end",
            "expected": f"refused before {TOKENS}",
            "play": _tokens,
        },
        {
            "name": "A8.login",
            "what": f"A login of {BODY // 1024**2} MB",
            "expected": "not read to its end",
            "play": _login,
        },
        {
            "name": "A8.api",
            "what": f"A request to the API of {BODY // 1024**2} MB, and one in pieces of no stated length",
            "expected": "not read to its end",
            "play": _api,
        },
        {
            "name": "A8.memory",
            "what": "The hub takes all of the server's memory",
            "expected": "a limit of its unit",
            "play": _memory,
        },
        {
            "name": "A11.names",
            "what": "Names of servers that no address can have",
            "expected": "refused, none is kept",
            "play": _names,
        },
        {
            "name": "A11.bodies",
            "what": "Bodies that are no JSON objects",
            "expected": "status 400, never 500",
            "play": _bodies,
        },
    ]


def _model(scene):
    """How many bytes the hub tells of the first person."""
    return len(scene.browser(scene.a).api("GET", f"users/{scene.a['name']}?include_stopped_servers").content)


def _options(scene):
    visitor = scene.browser(scene.a)
    answer = visitor.api("POST", f"users/{scene.a['name']}/server", {"image": "none:such", "x": "y" * OPTIONS})
    size = _model(scene)
    refused = answer.status not in (201, 202) and size < KEPT
    return refused, f"{scene.said(answer)}; {size // 1024} kB kept"


def _note(scene):
    visitor = scene.browser(scene.a)
    path = f"users/{scene.a['name']}/tokens"
    answer = visitor.api("POST", path, {"note": "x" * NOTE, "expires_in": 600})
    size = len(visitor.api("GET", path).content)
    return answer.status not in (200, 201) or size < NOTE, f"{scene.said(answer)}; {size / 1024:.0f} kB of tokens kept"


def _tokens(scene):
    visitor = scene.browser(scene.a)
    path = f"users/{scene.a['name']}/tokens"
    for number in range(TOKENS):
        answer = visitor.api("POST", path, {"note": "plasma.prove", "expires_in": 600})
        if answer.status not in (200, 201):
            return True, f"{scene.said(answer)} after {number}"
    return False, f"{TOKENS} made"


def _login(scene):
    visitor = scene.visitor("127.66.8.1")
    visitor.open("hub/login")
    begun = f"username=x&_xsrf={urllib.parse.quote(visitor.xsrf)}&password=".encode()
    return _large(visitor, "hub/login", begun, "application/x-www-form-urlencoded")


def _api(scene):
    visitor, path = scene.browser(scene.a), f"hub/api/users/{scene.a['name']}/tokens"
    for chunked in (False, True):
        refused, seen = _large(visitor, path, b'{"note": "', "application/json", chunked)
        if not refused:
            return refused, f"{'in pieces: ' if chunked else ''}{seen}"
    return refused, seen


def _large(visitor, path, begun, kind, chunked=False):
    """Send a large body; whether it was cut short, and what happened."""
    connection = visitor.socket()
    connection.settimeout(30)
    sent, status = 0, ""
    name = visitor.where["host"]
    head = [
        f"POST {visitor.base}{path} HTTP/1.1",
        f"Host: {visitor.origin_host}",
        f"Cookie: {visitor._cookies(name, visitor.base + path)}",
        f"X-XSRFToken: {visitor.xsrf}",
        f"Content-Type: {kind}",
        "Transfer-Encoding: chunked" if chunked else f"Content-Length: {BODY}",
        "Sec-Fetch-Site: same-origin",
    ]
    try:
        connection.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
        block = begun + b"x" * (65536 - len(begun))
        end = time.monotonic() + 30
        while sent < BODY and time.monotonic() < end:
            connection.sendall(b"10000\r\n" + block + b"\r\n" if chunked else block[: BODY - sent])
            sent, block = sent + 65536, b"x" * 65536
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        status = connection.recv(64).decode(errors="replace").partition("\r\n")[0][9:12]
    except OSError:
        pass  # closed while it was sent
    finally:
        connection.close()
    if sent < BODY or status in ("408", "413"):
        return True, f"status {status}" if status else f"closed after {sent / 1024**2:.1f} MB"
    return False, f"all of it was read, status {status}"


def _memory(scene):
    done = subprocess.run(
        ["systemctl", "show", "jupyterhub.service", "--property=MemoryMax,LimitNOFILE"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    most = found.get("MemoryMax", "infinity")
    return most.isdigit(), f"{int(most) // 1024**2} MB" if most.isdigit() else "none"


def _names(scene):
    visitor, user = scene.browser(scene.a), f"users/{scene.a['name']}"
    odd = []
    for name in ODD:
        answer = visitor.api("POST", f"{user}/servers/{urllib.parse.quote(name, safe='')}", {"image": "none:such"})
        if answer.status >= 500 or answer.status in (201, 202):
            odd.append(f"{name[:10]!r}: {scene.said(answer)}")
    visitor.open(f"hub/spawn/{scene.a['name']}/plasma-prove-looked-at")
    servers = json.loads(visitor.api("GET", user).content)["servers"]
    kept = sorted({*servers} - {""})
    named = json.loads(visitor.api("GET", f"{user}?include_stopped_servers").content)["servers"]
    kept += sorted({*named} - {"", *kept})
    if odd or kept:
        return False, "; ".join([*odd[:2], *([f"kept: {', '.join(name[:10] for name in kept[:4])}"] if kept else [])])
    return True, f"{len(ODD)} refused"


def _bodies(scene):
    visitor, name = scene.browser(scene.a), scene.a["name"]
    places = [
        ("POST", f"users/{name}/server"),
        ("POST", f"users/{name}/tokens"),
        ("POST", f"users/{name}/activity"),
        ("PATCH", "plasma/administrators"),
    ]
    wrong = []
    for method, path in places:
        for body in ODD_BODIES:
            answer = visitor.api(method, path, raw=body)
            if answer.status >= 500 or not answer.status:
                wrong.append(f"{body[:4]} to {path.rpartition('/')[2]}: {scene.said(answer)}")
    return (False, f"{wrong[0]}, {len(wrong)} in all") if wrong else (True, f"{len(places) * len(ODD_BODIES)} refused")
