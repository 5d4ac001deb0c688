"""
The far end of plasma-follow: runs on the server, with nothing but its Python, and prints what it sees as JSON lines.

It only reads: the log that salt-ssh's minion writes into its thin directory, the number of states of the run (from the
package salt-ssh sent), and the log of the hub's installer. Of Salt's log only the lines that say which state starts and
ends, and how far the builds of environments are, are passed on: other lines can hold values.
"""

import glob
import json
import os
import re
import stat
import sys
import tarfile
import time
import zlib

INSTALLER_LOG = "/var/log/plasma/hub-install.log"
# 2026-11-22 21:26:46,922 [salt.state       :2353][INFO    ][281] Running state [NAME] at time 21:26:46.922835
STATE_LINE = re.compile(
    r"[\d-]+ [\d:,]+ \[salt\.state\s*:\d+\s*\]\[\w+\s*\]\[\s*(?P<pid>\d+)\s*\]"
    r" (?P<what>Running|Completed) state \[(?P<name>.*?)\] at time"
)
# What plasma_environment_run writes while it waits for builds.
BUILD_LINE = re.compile(
    r"[\d-]+ [\d:,]+ \[[\w.]*plasma_environment_run\s*:\d+\s*\]\[\w+\s*\]\[\s*(?P<pid>\d+)\s*\]"
    r" (?P<line>Environment [a-zA-Z0-9._:-]+: (?:queued|building|built|failed|gone) after \d+ seconds)$"
)
ROOT = 0
# Larger than any site's states.
LARGEST_PACKAGE = 50_000_000
DURATION = re.compile(r"duration_in_ms=([\d.]+)")


def say(**event):
    print(json.dumps(event), flush=True)


def owned(process):
    """
    Whether the process of this directory of /proc is root's own.

    All of its user ids count: a set-user-id program that a user started has the user's as its first. The owner of
    the files in the directory says less: they are root's for every such program (proc(5)).
    """
    with open(os.path.join(process, "status"), "rb") as handle:
        uids = next((line.split()[1:] for line in handle if line.startswith(b"Uid:")), [])
    return bool(uids) and all(int(uid) == ROOT for uid in uids)


def regular(path):
    """Open a regular file: neither through a link nor into a pipe or a device, which would keep this waiting."""
    handle = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
        handle.close()
        raise OSError(f"{path} is not a regular file")
    return handle


def running():
    """
    The thin directory, process and package of an apply that runs now, or None.

    Only root's processes count: any user can start one with this command line, and this program, which runs as root,
    would read the files it names.
    """
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as handle:
                words = handle.read().decode("utf-8", "replace").split("\0")
            if "state.pkg" not in words[:-1] or not owned(os.path.dirname(path)):
                continue
        except OSError:
            continue
        if any(word.endswith("salt-call") for word in words):
            package = words[words.index("state.pkg") + 1]
            return os.path.dirname(package), int(path.split("/")[2]), package
    return None


def count(package):
    """How many states the package holds; 0 when it cannot be told."""
    try:
        with regular(package) as handle:
            if os.fstat(handle.fileno()).st_size > LARGEST_PACKAGE:
                return 0
            with tarfile.open(fileobj=handle) as archive:
                member = archive.getmember("lowstate.json")
                # What is packed may be much smaller than what comes out.
                lowstate = archive.extractfile(member) if member.isreg() and member.size <= LARGEST_PACKAGE else None
                return len(json.load(lowstate)) if lowstate else 0
    except (OSError, EOFError, KeyError, TypeError, ValueError, tarfile.TarError, zlib.error):
        return 0


class Tail:
    """New lines of a growing file, from where it stood when we came, or from its start when it is newer."""

    def __init__(self, path, offset=None):
        self.path = path
        self.rest = b""
        self.offset = offset if offset is not None else (os.path.getsize(path) if os.path.exists(path) else 0)

    def lines(self):
        try:
            with regular(self.path) as handle:
                if os.fstat(handle.fileno()).st_size < self.offset:
                    self.offset, self.rest = 0, b""
                handle.seek(self.offset)
                data = handle.read()
        except OSError:
            return []
        self.offset += len(data)
        *whole, self.rest = (self.rest + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]


def follow(wait):
    deadline = time.monotonic() + wait
    installer = Tail(INSTALLER_LOG)
    while not (process := running()):
        if time.monotonic() > deadline:
            say(event="idle")
            return 3
        time.sleep(0.2)
    thin, pid, package = process
    say(event="start", total=count(package), thin=thin)
    # All of the log: the lines of this process are told apart by their number.
    log = Tail(os.path.join(thin, "running_data", "salt-call.log"), 0)
    while True:
        alive = os.path.exists(f"/proc/{pid}")
        for line in log.lines():
            match = STATE_LINE.match(line) or BUILD_LINE.match(line)
            if not match or int(match["pid"]) != pid:
                continue
            if match.re is BUILD_LINE:
                say(event="installer", line=match["line"])
            else:
                duration = DURATION.search(line)
                say(event=match["what"].lower(), name=match["name"], ms=float(duration[1]) if duration else None)
        for line in installer.lines():
            say(event="installer", line=line[:300])
        if not alive:
            say(event="end")
            return 0
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(follow(float(sys.argv[1]) if len(sys.argv) > 1 else 120))
