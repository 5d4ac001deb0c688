"""
The package manager's unfinished business: locks held by others, and packages left half-configured.

A fresh cloud server runs unattended upgrades while it is first used, and a run that lost its connection
leaves dpkg in the middle; both made The Littlest JupyterHub's installer hang or fail (its issue 383).
"""

from __future__ import annotations

import fcntl
import pathlib
import re
import time

from salt.exceptions import CommandExecutionError

import plasma_run

# In the order apt itself takes them (apt-pkg/deb/debsystem.cc).
_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")
_UNFINISHED = ("half-installed", "unpacked", "half-configured", "triggers-awaited")
_STATUS = re.compile(r"^Package: (\S+).*(?:\n.+)*?\nStatus: \S+ (\S+) (\S+)", re.MULTILINE)


def locked(locks=_LOCKS):
    """
    Return the apt and dpkg lock files that another process holds, as a list of paths.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_apt.locked
    """
    return [path for path in locks if pathlib.Path(path).exists() and _is_locked(path)]


def _is_locked(path):
    with open(path, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False  # what was locked here was released with the file


def wait(timeout=600, interval=0.5):
    """
    Wait until nobody else holds the package manager's locks; return the seconds waited.

    timeout
        Seconds to wait at most.
    interval
        Seconds between two looks.

    Raises ``CommandExecutionError`` when they are still held after ``timeout``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_apt.wait timeout=60
    """
    started = time.monotonic()
    while held := locked():
        if time.monotonic() - started > timeout:
            raise CommandExecutionError(
                f"Another program has held {held[0]} for {timeout} s: see who with `fuser -v {held[0]}`, "
                "let it finish, and apply again."
            )
        time.sleep(interval)
    return time.monotonic() - started


def unsettled(updates="/var/lib/dpkg/updates", status="/var/lib/dpkg/status"):
    """
    Return the names of packages that dpkg has not finished, as a sorted list.

    A journal of an interrupted dpkg (files in ``/var/lib/dpkg/updates``) counts as ``dpkg-journal``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_apt.unsettled
    """
    names = {name for name, flag, state in _packages(status) if flag != "ok" or state in _UNFINISHED}
    journal = pathlib.Path(updates)
    if journal.is_dir() and any(entry.name.isdigit() for entry in journal.iterdir()):
        names.add("dpkg-journal")
    return sorted(names)


def _need_reinstalling(status="/var/lib/dpkg/status"):
    """Packages whose files dpkg was killed in the middle of: it can neither configure nor mend those by itself."""
    return sorted(name for name, flag, _ in _packages(status) if flag == "reinstreq")


def _packages(status):
    """Name, error flag and state of each package (dpkg(1), package states)."""
    return _STATUS.findall(pathlib.Path(status).read_text(encoding="utf-8", errors="replace"))


def settle():
    """
    Finish what dpkg and apt left half-done; return the packages that were unfinished.

    What fails because another program took the locks in between is tried once more when that one has ended.

    Raises ``CommandExecutionError`` with the tail of the tools' output when they cannot be finished.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_apt.settle
    """
    before = unsettled()
    results = _finish()
    if any(result.returncode for result in results) and locked():
        wait()
        results = _finish()
    left = unsettled()
    if left:
        output = "\n".join(filter(None, (text for result in results for text in (result.stdout, result.stderr))))
        tail = "\n".join(output.splitlines()[-15:])
        raise CommandExecutionError(
            f"These packages cannot be configured: {', '.join(left)}. Mend them on the server with "
            f"`apt-get install --fix-broken`, then apply again.\n{tail}"
        )
    return before


def _finish():
    """Let dpkg and apt finish what is begun; the results of their runs."""
    # dpkg itself does not wait for its lock.
    apt = ["apt-get", "--yes", "-o", "DPkg::Lock::Timeout=600"]
    configure = ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"]
    # First: it takes the journal of the killed dpkg into the status file, which says only then what is broken.
    results = [_run(configure)]
    broken = _need_reinstalling()
    commands = [[*apt, "update"], [*apt, "--reinstall", "install", *broken], configure] if broken else []
    return results + [_run(command) for command in [*commands, [*apt, "--fix-broken", "install"]]]


def _run(command):
    return plasma_run.run(command, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=1800)
