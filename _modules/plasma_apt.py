"""
The package manager's unfinished business: locks held by others, and packages left half-configured.

A fresh cloud server runs unattended upgrades while it is first used, and a run that lost its connection
leaves dpkg in the middle; both made The Littlest JupyterHub's installer hang or fail (its issue 383).
"""

from __future__ import annotations

import fcntl
import pathlib
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_apt"

# In the order apt itself takes them (apt-pkg/deb/debsystem.cc).
_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")
_ENV = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def __virtual__():
    return __virtualname__


def locked(locks=_LOCKS):
    """
    Return the apt and dpkg lock files that another process holds, as a list of paths.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_apt.locked
    """
    held = []
    for path in locks:
        if not pathlib.Path(path).exists():
            continue
        with open(path, "r+b") as handle:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                held.append(path)
            else:
                fcntl.lockf(handle, fcntl.LOCK_UN)
    return held


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
    while True:
        held = locked()
        if not held:
            return time.monotonic() - started
        if time.monotonic() - started > timeout:
            raise CommandExecutionError(
                f"Another program has held {held[0]} for {timeout} s: see who with `fuser -v {held[0]}`, "
                "let it finish, and apply again."
            )
        time.sleep(interval)


def unsettled(updates="/var/lib/dpkg/updates", status="/var/lib/dpkg/status"):
    """
    Return the names of packages that dpkg has not finished, as a sorted list.

    A journal of an interrupted dpkg (files in ``/var/lib/dpkg/updates``) counts as ``dpkg-journal``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_apt.unsettled
    """
    found = set()
    package = ""
    with open(status, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("Package: "):
                package = line.split()[1]
            elif line.startswith("Status: "):
                # "install ok half-configured": want, error flag, state (dpkg(1), package states).
                _, flag, state = line.split()[1:4]
                if flag != "ok" or state in ("half-installed", "unpacked", "half-configured", "triggers-awaited"):
                    found.add(package)
    journal = pathlib.Path(updates)
    if journal.is_dir() and any(entry.name.isdigit() for entry in journal.iterdir()):
        found.add("dpkg-journal")
    return sorted(found)


def _need_reinstalling(status="/var/lib/dpkg/status"):
    """Packages whose files dpkg was killed in the middle of: it can neither configure nor mend those by itself."""
    text = pathlib.Path(status).read_text(encoding="utf-8", errors="replace")
    stanzas = (stanza.splitlines() for stanza in text.split("\n\n"))
    return sorted(
        lines[0].split()[1]
        for lines in stanzas
        if lines and any(line.startswith("Status: ") and " reinstreq " in line for line in lines)
    )


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
    failed, output = _finish()
    if failed and locked():
        wait()
        _, output = _finish()
    left = unsettled()
    if left:
        tail = "\n".join(output.splitlines()[-15:])
        raise CommandExecutionError(
            f"These packages cannot be configured: {', '.join(left)}. Mend them on the server with "
            f"`apt-get install --fix-broken`, then apply again.\n{tail}"
        )
    return before


def _finish():
    """Let dpkg and apt finish what is begun; whether one of them failed, and what they wrote."""
    # dpkg itself does not wait for its lock.
    apt = ["apt-get", "--yes", "-o", "DPkg::Lock::Timeout=600"]
    configure = ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"]
    # First: it takes the journal of the killed dpkg into the status file, which says only then what is broken.
    failed, output = _run(configure)
    broken = _need_reinstalling()
    commands = [[*apt, "update"], [*apt, "--reinstall", "install", *broken], configure] if broken else []
    for command in [*commands, [*apt, "--fix-broken", "install"]]:
        failure, text = _run(command)
        failed, output = failed or failure, output + "\n" + text
    return failed, output


def _run(command):
    result = __salt__["cmd.run_all"](command, python_shell=False, env=_ENV, timeout=1800)
    return bool(result["retcode"]), result["stdout"] + result["stderr"]
