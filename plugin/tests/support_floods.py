"""Floods of a hub: connections that are never used, requests that never end, and bodies that never should."""

from __future__ import annotations

import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

# What somebody in a container runs: as many connections as given, held until the file is gone; writes how many the
# hub has left open, once it has had the time to close the others.
HOLD = """
import pathlib, select, socket, sys, time
address, port, count, said = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4])
def opened():
    try:
        return socket.create_connection((address, port), 10)
    except OSError:
        return None
held = {one.fileno(): one for one in (opened() for _ in range(count)) if one}
poll = select.poll()
for number in held:
    poll.register(number, select.POLLIN)
end = time.monotonic() + 2
while time.monotonic() < end:
    for number, _ in poll.poll(100):
        poll.unregister(number)
        held.pop(number).close()
said.write_text(str(len(held)))
while said.exists():
    time.sleep(0.1)
"""


class Unfinished:
    """Connections that have sent a request without the end of its body."""

    def __init__(self, port: int, count: int, path: str = "/hub/login") -> None:
        self._stack = ExitStack()
        head = f"POST {path} HTTP/1.1\r\nHost: hub\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        self.connections = []
        for _ in range(count):
            one = self._stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            one.sendall(f"{head}Content-Length: 100\r\n\r\nusername=".encode())
            self.connections.append(one)

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.close()


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid: int) -> int:
    """Memory of a process in bytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def post(url: str, size: int, *, chunked: bool = False, **headers: str) -> int:
    """Send a body of zeros; returns the status, or 0 when the connection was closed without one."""

    def body():
        for _ in range(0, size, 64 * 1024):
            yield b"0" * min(size, 64 * 1024)

    sent = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    data = body() if chunked or size > 1024 * 1024 else b"0" * size
    prepared = requests.Request("POST", url, headers=sent, data=data).prepare()
    if not chunked:
        prepared.headers.pop("Transfer-Encoding", None)
        prepared.headers["Content-Length"] = str(size)
    try:
        with requests.Session() as session:
            return session.send(prepared, timeout=60).status_code
    except requests.RequestException:
        return 0


def log_in_wrongly(url: str, names: list[str], at_once: int) -> list[int]:
    """Log in with wrong passwords, many at once; returns the statuses in the order of their answers.

    Each says that it comes from an address of its own.
    """
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=at_once))
    page = session.get(f"{url}/hub/login", timeout=30)
    token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)[1]
    statuses: list[int] = []

    def one(number: int) -> None:
        name = names[number]
        headers = {"X-Real-Ip": f"192.0.2.{number}", "X-Forwarded-For": f"192.0.2.{number}"}
        form = {"username": name, "password": "wrong", "_xsrf": token}
        statuses.append(session.post(f"{url}/hub/login?next=", data=form, headers=headers, timeout=150).status_code)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, range(len(names))))
    return statuses


def seconds(function: Any, *arguments: Any) -> tuple[float, Any]:
    """How long a call took, and what it returned."""
    begun = time.monotonic()
    result = function(*arguments)
    return time.monotonic() - begun, result
