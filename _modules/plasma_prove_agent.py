"""
What runs in the throwaway environment of ``plasma.prove`` in place of a Jupyter server: a program that a student could
write. It serves pages with hostile headers, and does from within the container what it is told to by whoever has the
key of the run. It is copied into the image and needs nothing but Python.
"""

from __future__ import annotations

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
_held = []


def __virtual__():
    return False, "runs in the throwaway environment of plasma.prove"


def _connect(places, timeout=3):
    """Try to connect to all of ``[[host, port], ...]`` at once; ``{"host port": "open" or the error's name}``."""
    found = {}

    def one(host, port):
        try:
            with socket.create_connection((host, port), timeout):
                found[f"{host} {port}"] = "open"
        except OSError as exc:
            found[f"{host} {port}"] = "timeout" if isinstance(exc, TimeoutError) else _name(exc)

    _at_once([threading.Thread(target=one, args=(host, port)) for host, port in places])
    return found


def _hold(host, port, number, seconds):
    """Open connections that say nothing, for so many seconds or until ``release``; how many were opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))
    failed = 0
    while len(_held) < number and failed < 10:
        try:
            _held.append(socket.create_connection((host, port), 1))
        except OSError:
            failed += 1
    later = threading.Timer(seconds, _release)
    later.daemon = True
    later.start()
    return len(_held)


def _release():
    """Close what is held."""
    while _held:
        _held.pop().close()
    return True


def _write_key(text):
    """Let a key in: what a line in a notebook does."""
    directory = os.path.expanduser("~/.ssh")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, "authorized_keys")
    with open(path, "a", encoding="ascii") as file:
        file.write(text + "\n")
    os.chmod(path, 0o600)
    return path


def _fill(most):
    """
    Write to every directory that is not the home and not in memory, until it is refused or ``most`` bytes are written:
    ``{directory: [bytes, error]}``. What was written is removed.
    """
    found, home, in_memory = {}, os.path.realpath(os.path.expanduser("~")), _in_memory()
    for directory, names, _ in os.walk("/"):
        if directory in in_memory or directory == home:
            names[:] = []
            continue
        if os.access(directory, os.W_OK | os.X_OK) and len(found) < 20:
            found[directory] = _write(os.path.join(directory, ".plasma-prove"), most)
    return found


def _write(path, most):
    written, error = 0, ""
    try:
        with open(path, "wb", buffering=0) as file:
            block = os.urandom(BLOCK)
            while written < most:
                written += file.write(block)
            os.fsync(file.fileno())
    except OSError as exc:
        error = _name(exc)
    try:
        os.unlink(path)
    except OSError:
        pass
    return written, error


def _in_memory():
    """Where something else is mounted that is no disk."""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        mounts = [line.split() for line in file]
    return {
        mount[1] for mount in mounts if mount[2] not in ("overlay", "ext4", "xfs", "btrfs", "zfs", "fuse-overlayfs")
    }


def _fork(most):
    """Start processes until it is refused; how many there were, -1 when they were ended for want of memory."""
    code = (
        "import os, sys, time\n"
        "open('/proc/self/oom_score_adj', 'w').write('1000')\n"  # these first, and not the server
        "number = 0\n"
        f"while number < {most}:\n"
        "    try:\n"
        "        if not os.fork():\n"
        "            time.sleep(60)\n"
        "            os._exit(0)\n"
        "    except OSError:\n"
        "        break\n"
        "    number += 1\n"
        "print(number, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    said = child.stdout.readline()
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    return int(said or -1)


def _identity():
    """Who this runs as, and where the hub's API is."""
    hub = urllib.parse.urlsplit(os.environ.get("JUPYTERHUB_API_URL", ""))
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {
        "uid": os.getuid(),
        "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
        "no_new_privileges": status.get("NoNewPrivs") == "1",
        "hub": [hub.hostname, hub.port],
    }


def _name(exc):
    return errno.errorcode.get(exc.errno, type(exc).__name__) if exc.errno else type(exc).__name__


def _at_once(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


DO = {
    "connect": _connect,
    "hold": _hold,
    "release": _release,
    "write_key": _write_key,
    "fill": _fill,
    "fork": _fork,
    "identity": _identity,
}


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
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
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(json.dumps(DO[asked["do"]](**asked.get("with", {}))).encode(), "application/json", ())

    def _answer(self, content, kind, headers):
        self.send_response(200)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    port = urllib.parse.urlsplit(os.environ.get("JUPYTERHUB_SERVICE_URL", "")).port or 8888
    http.server.ThreadingHTTPServer(("", port), _Handler).serve_forever()
