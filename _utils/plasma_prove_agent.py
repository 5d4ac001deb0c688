"""
What runs in the throwaway environment of ``plasma.prove`` in place of a Jupyter server: a program that a student could
write. It serves pages with hostile headers, and does from within the container what it is told to by whoever has the
key of the run. It is copied into the image and needs nothing but Python.

With the name of a function as its argument, it calls that one alone, with arguments from stdin.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import http.server
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

KEY_FILE = "/opt/plasma-prove/key"
# What a page could do to more than its own path; see plasma_prove_pages, which looks for them.
HOSTILE = (
    ("Service-Worker-Allowed", "/"),
    ("Cross-Origin-Opener-Policy", "unsafe-none"),
    ("Clear-Site-Data", '"cookies"'),
    ("Alt-Svc", 'h2="plasma-prove.invalid:443"'),
    ("Speculation-Rules", '"/rules.json"'),
    ("NEL", '{"report_to": "x", "max_age": 1}'),
    ("Strict-Transport-Security", "max-age=1"),
)
BLOCK = 1024 * 1024
DISKS = ("overlay", "ext4", "xfs", "btrfs", "zfs", "fuse-overlayfs")
_held: list[socket.socket] = []


def connect(addresses: list, timeout: float = 3) -> dict[str, str]:
    """Try to connect to all of ``[[host, port], ...]`` at once: ``{"host port": "open" or the error's name}``."""

    def attempt(address):
        with socket.create_connection(address, timeout):
            return "open"

    with concurrent.futures.ThreadPoolExecutor(len(addresses) or 1) as pool:
        outcomes = pool.map(lambda address: _outcome(attempt, tuple(address)), addresses)
        return {f"{host} {port}": outcome for (host, port), outcome in zip(addresses, outcomes, strict=True)}


def bind(addresses: list) -> dict[str, str]:
    """Try to take all of ``[[host, port], ...]``: ``{"host port": "taken" or the error's name}``."""

    def attempt(host, port):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as made:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                made.setsockopt(socket.SOL_SOCKET, option, 1)
            made.bind((host, port))
            return "taken"

    return {f"{host} {port}": _outcome(attempt, host, port) for host, port in addresses}


def hold(host: str, port: int, number: int, seconds: float) -> int:
    """Open connections that say nothing, for so many seconds or until ``release``; how many were opened."""
    failed = 0
    while len(_held) < number and failed < 10:
        try:
            _held.append(socket.create_connection((host, port), 1))
        except OSError:
            failed += 1
    later = threading.Timer(seconds, release)
    later.daemon = True
    later.start()
    return len(_held)


def release() -> bool:
    """Close the connections that are held."""
    while _held:
        _held.pop().close()
    return True


def write_key(text: str) -> str:
    """Let an SSH key in, as a line in a notebook does; the path of the file."""
    directory = os.path.expanduser("~/.ssh")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, "authorized_keys")
    with open(path, "a", encoding="ascii") as file:
        file.write(text + "\n")
    os.chmod(path, 0o600)
    return path


def fill(most: int) -> dict[str, tuple[int, str]]:
    """
    Write to every directory that is not the home and not in memory, until it is refused or ``most`` bytes are written:
    ``{directory: [bytes, error]}``. What was written is removed.
    """
    written = {}
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        skipped = {mount[1] for mount in map(str.split, file) if mount[2] not in DISKS}
    skipped.add(os.path.realpath(os.path.expanduser("~")))
    for directory, names, _ in os.walk("/"):
        if directory in skipped:
            names.clear()
        elif os.access(directory, os.W_OK | os.X_OK) and len(written) < 20:
            written[directory] = write(os.path.join(directory, ".plasma-prove"), most)
    return written


def write(path: str, most: int) -> tuple[int, str]:
    """Write to a file until it is refused, and remove it: bytes, and the error's name."""
    written, error = 0, ""
    try:
        with open(path, "wb", buffering=0) as file:
            block = os.urandom(BLOCK)
            while written < most:
                written += file.write(block)
            os.fsync(file.fileno())
    except OSError as exc:
        error = _name(exc)
    with contextlib.suppress(OSError):
        os.unlink(path)
    return written, error


def fork(most: int) -> int:
    """Start processes until it is refused; how many there were, -1 when they were ended for want of memory."""
    command = [sys.executable, "-I", __file__, "count_forks"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
    ) as child:
        assert child.stdin and child.stdout
        child.stdin.write(json.dumps({"most": most}))
        child.stdin.close()
        count = child.stdout.readline()
        os.killpg(child.pid, signal.SIGKILL)
    return int(count or -1)


def count_forks(most: int) -> int:
    """Start processes that wait to be killed, until it is refused; how many there are."""
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")  # these first, and not the server
    for number in range(most):
        try:
            if not os.fork():
                # Whoever reads the number learns at once when the first of them is ended for want of memory.
                os.close(1)
                time.sleep(600)
                os._exit(0)
        except OSError:
            return number
    return most


def hub_api() -> tuple[str | None, int | None]:
    """Where the hub's API is, host and port."""
    address = urllib.parse.urlsplit(os.environ.get("JUPYTERHUB_API_URL", ""))
    return address.hostname, address.port


def _outcome(attempt, *arguments):
    """What an attempt returns, or the name of the error that it ends with."""
    try:
        return attempt(*arguments)
    except OSError as exc:
        return "timeout" if isinstance(exc, TimeoutError) else _name(exc)


def _name(exc):
    return errno.errorcode.get(exc.errno) or type(exc).__name__


_OFFERED = (connect, bind, hold, release, write_key, fill, fork, count_forks, hub_api)
FUNCTIONS = {function.__name__: function for function in _OFFERED}


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self):
        """A hostile page, whatever is asked for."""
        self._answer(b"<!doctype html><title>plasma.prove</title>", "text/html", HOSTILE)

    def do_POST(self):
        """``{"do": name, "with": {arguments}}`` from whoever has the key."""
        with open(KEY_FILE, encoding="ascii") as file:
            key = file.read()
        if self.headers.get("X-Plasma-Prove") != key:
            self.send_error(403)
            return
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        value = FUNCTIONS[call["do"]](**call.get("with", {}))
        self._answer(json.dumps(value).encode(), "application/json", ())

    def _answer(self, content, kind, headers):
        self.send_response(200)
        for name, value in (*headers, ("Content-Type", kind), ("Content-Length", str(len(content)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in FUNCTIONS:
        print(json.dumps(FUNCTIONS[sys.argv[1]](**json.load(sys.stdin))), flush=True)
    else:
        hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))  # for connections that it holds
        port = urllib.parse.urlsplit(os.environ.get("JUPYTERHUB_SERVICE_URL", "")).port or 8888
        http.server.ThreadingHTTPServer(("", port), _Handler).serve_forever()
