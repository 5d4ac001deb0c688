"""
One apply of a server at a time from this machine.

salt-ssh puts what it applies into one file on the server, whose name follows from the controller's host name. Of two
applies that begin within a second of each other, one finds the other's file there, and Salt takes that for nothing to
do: no state runs, and the exit code is 0 (``state.pkg`` in salt/modules/state.py). Later, Salt refuses the second.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import time
from typing import Any

POLL = 0.5
# Of this process, until it ends: salt-ssh has a process for each server.
_held: dict[str, socket.socket] = {}


def wait(minion_id: str, opts: dict[str, Any] | None) -> None:
    """
    Return once no other salt-ssh of this machine applies states to this server; until this process ends, others wait.

    minion_id
        Name of the server in the roster.
    opts
        Salt's options; under anything but salt-ssh applying states nothing is waited for.
    """
    called = (opts or {}).get("argv") or []
    if not called or not str(called[0]).startswith("state.") or minion_id in _held:
        return
    # An abstract socket: no file that another user could put in the way, and the kernel frees it with the process.
    name = "\0plasma-apply-" + hashlib.sha256(minion_id.encode()).hexdigest()[:32]
    mine = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told = False
    while True:
        try:
            mine.bind(name)
            break
        except OSError:
            if not told:
                print(f"{minion_id}: waiting for another apply that runs from this machine", file=sys.stderr)
                told = True
            time.sleep(POLL)
    _held[minion_id] = mine
