"""
Attacks of ``plasma.prove`` with what people send: connections that say nothing or never end (A5), options, notes and
tokens that the hub keeps (A6), wrong passwords (A7), large bodies (A8), and names and bodies that make no sense (A11).

Floods come from addresses of the loopback network, as from many clients, and last for seconds; while each goes on, the
second person logs in from another address.
"""

from __future__ import annotations

import contextlib
import json
import resource
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

from salt.exceptions import CommandExecutionError

import plasma_systemd
from plasma_prove_scene import attack

CONNECTIONS = 1100
SLOWED = 5  # seconds that a login may take meanwhile
QUEUE, GUESSES = 96, 25  # wrong passwords at once, and from one address for one account
LATER = 2  # seconds by which wrong passwords of others may delay a right one: their limit is one, and a moment
LONG = 2_000_000  # characters of a password
BODY = 20  # MB of a body that nobody needs
OPTIONS = 600  # kB
NOTE = 10  # thousands of characters: within what a body may have
KEPT = 64  # kB that the hub may keep of one person
TOKENS = 250
ODD = ("?", "#", ";", "%", "a/b", "%2e%2e", "a\\b", "a b", "\u00e9", "x" * 300)
ODD_BODIES = ("[]", "1", "null", '"x"', "{", "[" * 2000)


def _login(scene, source):
    """A right login from another address: ``(seconds, answer)``."""
    begun = time.monotonic()
    answer = scene.visitor(source).sign_in(scene.b["name"], scene.b["password"])
    return time.monotonic() - begun, answer


def _login_during(scene, source, what):
    seconds, answer = _login(scene, source)
    if answer.status != 302:
        return False, f"{what}: a right login failed, {answer} after {seconds:.1f} s"
    return seconds < SLOWED, f"{what}: a login took {seconds:.1f} s"


@attack("A5.bodies", f"another one goes on, within {SLOWED} s")
def _unfinished(scene):
    """{CONNECTIONS:,} logins whose bodies never come, from nobody"""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 400
    if limits[0] < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(limits[1], wanted)))
    opened = 0
    try:
        with contextlib.ExitStack() as held:
            for number in range(CONNECTIONS):
                # Half of them from one address.
                visitor = scene.visitor(f"127.66.5.{1 if number % 2 else 2 + number % 200}")
                head = _head(visitor, "hub/login", "application/x-www-form-urlencoded", "Content-Length: 10000")
                with contextlib.suppress(OSError):
                    connection = held.enter_context(contextlib.closing(visitor.connect()))
                    connection.sendall(head + b"username=")
                    opened += 1
            time.sleep(1)  # for the proxy to hand them on
            return _login_during(scene, "127.66.6.1", f"{opened:,} open")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@attack("A5.idle", f"logins go on, within {SLOWED} s")
def _idle(scene):
    """{CONNECTIONS:,} connections from a server to the hub's API that say nothing"""
    agent = scene.agent(scene.a)
    host, port = agent("hub_api")
    opened = agent("hold", host=host, port=port, number=CONNECTIONS, seconds=30, timeout=90)
    try:
        return _login_during(scene, "127.66.6.2", f"{opened:,} opened")
    finally:
        agent("release")


@attack("A6.options", f"refused, less than {KEPT} kB kept")
def _options(scene):
    """The hub keeps {OPTIONS} kB of options of a start"""
    visitor, user = scene.browser(scene.a), f"users/{scene.a['name']}"
    answer = visitor.api("POST", f"{user}/server", {"image": "none:such", "x": "y" * OPTIONS * 1024})
    size = len(visitor.api("GET", f"{user}?include_stopped_servers").content) // 1024
    return answer.status not in (201, 202) and size < KEPT, f"{answer}; {size} kB kept"


@attack("A6.note", "refused")
def _note(scene):
    """The hub keeps the note of a token of {NOTE} kB"""
    visitor, path = scene.browser(scene.a), f"users/{scene.a['name']}/tokens"
    answer = visitor.api("POST", path, {"note": "x" * NOTE * 1000, "expires_in": 600})
    size = len(visitor.api("GET", path).content)
    refused = answer.status not in (200, 201) or size < NOTE * 1000
    return refused, f"{answer}; {size / 1024:.0f} kB of tokens kept"


@attack("A6.tokens", f"refused before {TOKENS}")
def _tokens(scene):
    """Somebody makes tokens without end"""
    visitor, path = scene.browser(scene.a), f"users/{scene.a['name']}/tokens"
    for number in range(TOKENS):
        answer = visitor.api("POST", path, {"note": "plasma.prove", "expires_in": 600})
        if answer.status not in (200, 201):
            return True, f"{answer} after {number}"
    return False, f"{TOKENS} made"


@attack("A7.queue", f"a right one is at most {LATER} s later")
def _queue(scene):
    """{QUEUE} wrong passwords at once from 12 addresses"""
    usual, answer = _login(scene, "127.66.6.3")
    if answer.status != 302:
        raise CommandExecutionError(f"a throwaway person cannot log in ({answer})")
    visitors = [scene.login_page(f"127.66.7.{number + 1}") for number in range(12)]
    with ThreadPoolExecutor(QUEUE) as pool:
        for number in range(QUEUE):
            nobody = f"plasma-prove-nobody-{number // len(visitors)}"
            pool.submit(visitors[number % len(visitors)].submit, nobody, "wrong")
        time.sleep(0.5)
        seconds, answer = _login(scene, "127.66.6.3")
    if answer.status != 302:
        return False, f"a right login failed, {answer} after {seconds:.1f} s"
    return seconds - usual < LATER, f"{seconds:.1f} s, {usual:.1f} s without"


@attack("A7.guess", f"told to stop before {GUESSES}")
def _guess(scene):
    """Somebody guesses a password"""
    visitor, statuses = scene.login_page("127.66.9.1"), []
    with ThreadPoolExecutor(5) as pool:
        while len(statuses) < GUESSES:
            statuses += pool.map(lambda _: visitor.submit(scene.a["name"], "wrong").status, range(5))
            if 429 in statuses:
                return True, f"status 429 after {statuses.count(403)}"
    return False, f"{len(statuses)} were tried, status {', '.join(map(str, sorted(set(statuses))))}"


@attack("A7.long", "refused unread")
def _long(scene):
    """A password of {LONG:,} characters"""
    answer = scene.login_page("127.66.9.2").submit(scene.a["name"], "x" * LONG)
    return answer.status in (0, 400, 413), f"{answer} after {answer.seconds:.1f} s"


@attack("A8.login", "not read to its end")
def _large_login(scene):
    """A login of {BODY} MB"""
    visitor = scene.login_page("127.66.8.1")
    begin = f"username=x&_xsrf={urllib.parse.quote(visitor.xsrf)}&password=".encode()
    return _large(visitor, "hub/login", begin, "application/x-www-form-urlencoded")


@attack("A8.api", "not read to its end")
def _large_request(scene):
    """A request to the API of {BODY} MB, and one in pieces of no stated length"""
    visitor, path = scene.browser(scene.a), f"hub/api/users/{scene.a['name']}/tokens"
    for chunked in (False, True):
        refused, seen = _large(visitor, path, b'{"note": "', "application/json", chunked)
        if not refused:
            return refused, f"{'in pieces: ' if chunked else ''}{seen}"
    return refused, seen


def _head(visitor, path, kind, *more):
    """The head of a POST as it goes over the line, without cookies and tokens of the visitor."""
    lines = [
        f"POST {visitor.base}{path} HTTP/1.1",
        f"Host: {visitor.origin_host}",
        f"Content-Type: {kind}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _large(visitor, path, begin, kind, chunked=False):
    """Send a large body; whether it was cut short, and what happened."""
    size, sent, status = BODY * 1024**2, 0, ""
    head = _head(
        visitor,
        path,
        kind,
        f"Cookie: {visitor.cookie_header(visitor.base + path)}",
        f"X-XSRFToken: {visitor.xsrf}",
        "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}",
        "Sec-Fetch-Site: same-origin",
    )
    with contextlib.closing(visitor.connect()) as connection, contextlib.suppress(OSError):  # closed while it is sent
        connection.settimeout(30)
        connection.sendall(head)
        end = time.monotonic() + 30
        while sent < size and time.monotonic() < end:
            block = (b"" if sent else begin).ljust(65536, b"x")
            connection.sendall(b"10000\r\n" + block + b"\r\n" if chunked else block)
            sent += len(block)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        status = connection.recv(64).decode(errors="replace").partition("\r\n")[0][9:12]
    if sent < size or status in ("408", "413"):
        return True, f"status {status}" if status else f"closed after {sent / 1024**2:.1f} MB"
    return False, f"all of it was read, status {status}"


@attack("A8.memory", "a limit of its unit")
def _memory(scene):
    """The hub takes all of the server's memory"""
    most = plasma_systemd.show("jupyterhub.service", "MemoryMax").get("MemoryMax", "")
    return most.isdigit(), f"{int(most) // 1024**2} MB" if most.isdigit() else "none"


@attack("A11.names", "refused, none is kept")
def _names(scene):
    """Names of servers that no address can have"""
    visitor, user = scene.browser(scene.a), f"users/{scene.a['name']}"
    odd = []
    for name in ODD:
        answer = visitor.api("POST", f"{user}/servers/{urllib.parse.quote(name, safe='')}", {"image": "none:such"})
        if answer.status >= 500 or answer.status in (201, 202):
            odd.append(f"{name[:10]!r}: {answer}")
    visitor.open(f"hub/spawn/{scene.a['name']}/plasma-prove-looked-at")
    kept = {
        name[:10]
        for path in (user, f"{user}?include_stopped_servers")
        for name in json.loads(visitor.api("GET", path).content)["servers"]
        if name
    }
    stayed = [f"kept: {', '.join(sorted(kept)[:4])}"] if kept else []
    return not odd and not kept, "; ".join([*odd[:2], *stayed]) or f"{len(ODD)} refused"


@attack("A11.bodies", "status 400, never 500")
def _bodies(scene):
    """Bodies that are no JSON objects"""
    visitor, user = scene.browser(scene.a), f"users/{scene.a['name']}"
    requests = [
        (method, path, body)
        for method, path in (
            ("POST", f"{user}/server"),
            ("POST", f"{user}/tokens"),
            ("POST", f"{user}/activity"),
            ("PATCH", "plasma/administrators"),
        )
        for body in ODD_BODIES
    ]
    wrong = []
    for method, path, body in requests:
        answer = visitor.api(method, path, raw=body)
        if answer.status >= 500 or not answer.status:
            wrong.append(f"{body[:4]} to {path.rpartition('/')[2]}: {answer}")
    return (False, f"{wrong[0]}, {len(wrong)} in all") if wrong else (True, f"{len(requests)} refused")
