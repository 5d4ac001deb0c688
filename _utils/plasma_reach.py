"""
Whether places of the network can be reached from this server. Nothing is fetched beyond the first lines of an answer,
and nothing is changed.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import http.client
import ipaddress
import json
import os
import re
import selectors
import socket
import ssl
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence

from salt.exceptions import CommandExecutionError

import plasma_engine
import plasma_run
import plasma_trust

# Seconds for one place, and for all of them, which are asked at the same time.
PATIENCE, TOGETHER = 6, 9
_APT_HELPER = "/usr/lib/apt/apt-helper"
_APT = [f"-oAcquire::{what}" for what in (f"http::Timeout={PATIENCE}", f"https::Timeout={PATIENCE}", "Retries=0")]

_APT_SAYS = {
    "Could not resolve|Temporary failure resolving": "its name is not known",
    "Connection refused": "connection refused",
    "timed out|did not finish within": f"no answer within {PATIENCE} seconds",
}


def all_of(probes: Sequence[Callable[[], str | None]], together: float = TOGETHER) -> list[str | None]:
    """
    Ask all at once; return their answers in order: why a place cannot be reached, or None.

    probes
        Each takes nothing, and some seconds at most. A name server that does not answer may hold one up for longer: it
        is left to itself then.
    together
        Seconds.
    """
    answers: list[str | None] = [f"no answer within {together:.0f} seconds"] * len(probes)

    def ask(number: int) -> None:
        answers[number] = probes[number]()

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(probes))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + together
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    return list(answers)


def url(
    address: str,
    proxies: Mapping[str, str] | None = None,
    authorities: str | None = None,
    whole: bool = False,
    also: Sequence[str] = (),
) -> str | None:
    """
    Return why a URL cannot be fetched, or None. Redirections are not followed.

    address
        It may hold a login.
    proxies
        ``{"http", "https", "no": address}`` of proxies, and what is reached without: names, addresses and networks.
    authorities
        File with the authorities that are trusted, in place of the system's.
    whole
        Whether the thing itself has to be there: a page that is not, or is not for this login, still shows that the
        place can be reached.
    also
        Further authorities, as of ``plasma_trust.context``.
    """
    parts = urllib.parse.urlsplit(address)
    try:
        answer = _answer(parts, _proxy(parts, proxies or {}), plasma_trust.context(authorities, also))
    except ssl.SSLCertVerificationError as exc:
        return f"its certificate is not trusted: {exc.verify_message}"
    except (OSError, http.client.HTTPException, ValueError) as exc:
        return reason(exc)
    # Programs may have a login that is not in the address.
    absent = (403, 404, 410, 401) if parts.username else (403, 404, 410)
    wrong = answer >= 500 or answer == 407 or (whole and answer in absent)
    return f"HTTP status {answer}" if wrong else None


def port(host: str, number: int, also: Sequence[str] = ()) -> str | None:
    """Return why nobody listens there, or None. No certificates are looked at, and so no authorities (``also``)."""
    try:
        _dial((host, number), PATIENCE).close()
    except OSError as exc:
        return reason(exc)
    return None


def image(name: str, also: Sequence[str] = ()) -> str | None:
    """
    Return why an image cannot be had from its registry, or None: the engine asks, with settings of its own.

    name
        As Docker has it.
    also
        Authorities that this server is going to trust: the engine cannot judge certificates yet.
    """
    if plasma_engine.engine():
        quoted = urllib.parse.quote(name, safe="/:@")
        try:
            status, content = plasma_engine.ask("GET", f"/distribution/{quoted}/json", timeout=PATIENCE + 1)
        except CommandExecutionError:
            return _engine_waits()
        try:
            said = str(json.loads(content)["message"]) if status >= 400 else ""
        except (ValueError, KeyError, TypeError):
            said = f"HTTP status {status}"
        # Of a registry with logins nobody can tell: it answers.
        answers = not said or re.search("unauthorized|denied|authenticat", said, re.IGNORECASE)
        answers = answers or (also and "x509:" in said)
        return None if answers else re.sub(r"\s+", " ", said)[:200]
    if _engine_has_settings():
        return None
    first = name.partition("/")[0]
    host = first if "/" in name and re.search(r"[.:]|^localhost$", first) else "registry-1.docker.io"
    return url(f"https://{host}/v2/", also=also)


def _engine_waits() -> str | None:
    """Why there was no answer: the registry's, where the engine itself has one for others. If not, it says so later."""
    try:
        plasma_engine.ask("GET", "/_ping", timeout=1)
    except CommandExecutionError:
        return None
    return f"no answer within {PATIENCE + 1} seconds"


def _engine_has_settings() -> bool:
    """Whether there are proxies, mirrors or registries without TLS in the settings of an engine that is to come."""
    text = ""
    folder = "/etc/systemd/system/docker.service.d"
    names = [os.path.join(folder, name) for name in os.listdir(folder)] if os.path.isdir(folder) else []
    for path in ("/etc/docker/daemon.json", *names):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            text += file.read()
    return re.search(r"prox|mirrors|insecure-registries", text, re.IGNORECASE) is not None


def repositories() -> dict[str, str]:
    """Return apt's repositories in the network, ``{address that their files begin with: address of the list}``."""
    done = plasma_run.run(["apt-get", "update", "--print-uris"], timeout=30)
    found = {}
    for address in re.findall(r"^'((?:https?|mirror|tor)[^']*/(?:In)?Release)'", done.stdout, re.MULTILINE):
        found[address.partition("/dists/")[0] + "/"] = address
    return found


def packages_from(names: Sequence[str]) -> list[str] | None:
    """Return where apt would get packages from, none for what it has; None where it does not know the packages yet."""
    words = ["apt-get", "install", "--print-uris", "-qq", "-y", "--no-install-recommends", "--", *names]
    done = plasma_run.run(words, timeout=60)
    return None if done.returncode else re.findall(r"^'([^']+)'", done.stdout, re.MULTILINE)


def apt(address: str, also: Sequence[str] = ()) -> str | None:
    """
    Return why apt, with its own proxies and authorities, cannot fetch a file, or None.

    address
        As apt has it.
    also
        Authorities that this server is going to trust: apt cannot judge certificates yet.
    """
    with tempfile.TemporaryDirectory(prefix="plasma-reach-") as folder:
        os.chmod(folder, 0o755)  # apt's own account looks in
        command = [_APT_HELPER, *_APT, "download-file", address, f"{folder}/file"]
        done = plasma_run.run(command, timeout=TOGETHER)
    if not done.returncode or re.search(r"\b404 ", done.stdout + done.stderr):
        return None
    said = re.search(r"^E: Failed to fetch \S+\s+(.+)$", done.stderr, re.MULTILINE)
    text = said[1].rstrip(".") if said else done.last_line
    # Without a list of authorities, or before it is complete, nobody can judge.
    if "No system certificates" in done.stderr or (also and "ertificate verif" in done.stderr):
        return None
    # In the words that others get of the same.
    return next((words for pattern, words in _APT_SAYS.items() if re.search(pattern, text)), text)


def reason(error: BaseException) -> str:
    """Why it failed, in a few words that hold no login."""
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE} seconds"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _proxy(parts: urllib.parse.SplitResult, proxies: Mapping[str, str]) -> urllib.parse.SplitResult | None:
    host, address = parts.hostname or "", proxies.get(parts.scheme)
    bypass = urllib.request.proxy_bypass_environment  # ty: ignore[missing-attribute] # not in its stubs
    without = proxies.get("no") or ""
    if not address or bypass(host, {"no": without}) or _in_networks(host, without.split(",")):
        return None
    return urllib.parse.urlsplit(address if "://" in address else f"http://{address}")


def _in_networks(host: str, networks: Sequence[str]) -> bool:
    """Whether an address is in one of these, such as 10.0.0.0/8; pip and uv know them, too."""
    for network in networks:
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(network.strip(), strict=False):
                return True
    return False


def _answer(parts: urllib.parse.SplitResult, proxy: urllib.parse.SplitResult | None, context: ssl.SSLContext) -> int:
    """The HTTP status of a GET. Raises OSError, HTTPException or ValueError."""
    host, secure = parts.hostname or "", parts.scheme == "https"
    number = parts.port or (443 if secure else 80)
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    headers = {"User-Agent": "Plasma", **_login(parts, "Authorization")}
    place = (proxy.hostname or "", proxy.port or 80) if proxy else (host, number)
    connection: http.client.HTTPConnection
    if secure:
        connection = http.client.HTTPSConnection(*place, timeout=PATIENCE, context=context)
        if proxy:
            connection.set_tunnel(host, number, _login(proxy, "Proxy-Authorization"))
    else:
        connection = http.client.HTTPConnection(*place, timeout=PATIENCE)
        if proxy:
            target = f"http://{host}:{number}{target}"
            headers.update(_login(proxy, "Proxy-Authorization"))
    connection._create_connection = _dial  # ty: ignore[missing-attribute] # http.client's own
    with contextlib.closing(connection):
        connection.request("GET", target, headers=headers)
        return connection.getresponse().status


def _login(parts: urllib.parse.SplitResult, header: str) -> dict[str, str]:
    if not parts.username:
        return {}
    words = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return {header: f"Basic {base64.b64encode(words.encode()).decode('ascii')}"}


def _dial(place: tuple[str, int], timeout: float | None = None, *_: object) -> socket.socket:
    """Connect to all addresses of a host at once, and take the first: one family of addresses may lead nowhere."""
    error: OSError = TimeoutError()
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as others:
        for family, kind, protocol, _name, address in socket.getaddrinfo(*place, type=socket.SOCK_STREAM)[:16]:
            try:
                attempt = others.enter_context(socket.socket(family, kind, protocol))
            except OSError as exc:
                error = exc
                continue
            attempt.setblocking(False)
            number = attempt.connect_ex(address)
            if number in (0, errno.EINPROGRESS):
                selector.register(attempt, selectors.EVENT_WRITE)
            else:
                error = OSError(number, os.strerror(number))
        end = time.monotonic() + (timeout or PATIENCE)
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _events in selector.select(left):
                attempt = key.fileobj
                assert isinstance(attempt, socket.socket)
                selector.unregister(attempt)
                if number := attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    error = OSError(number, os.strerror(number))
                    continue
                good = socket.socket(fileno=attempt.detach())
                good.settimeout(timeout)
                return good
        if selector.get_map():
            error = TimeoutError()
    raise error
