"""
Files of systemd that some servers need, so that quotas are also on after a boot.

Everywhere else the options in fstab are enough: systemd's fstab-generator pulls quotaon.service in.
"""

from __future__ import annotations

import os
import pathlib

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_quota_boot"

SYSTEMD = pathlib.Path("/etc/systemd/system")
_ROOT = "plasma-quota-root.service"
# quota-tools skip a file system whose source they cannot stat (quotasys.c), and kernels that boot without an initial
# RAM disk call theirs /dev/root, which is not there.
_ROOT_UNIT = """\
[Unit]
Description=Device node for the root file system, which quota tools look for
DefaultDependencies=no
After=systemd-remount-fs.service
Before=systemd-quotacheck.service systemd-quotacheck-root.service quotaon.service quotaon-root.service sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'test -e /dev/root || mknod -m 0600 /dev/root b $(mountpoint -d / | tr : " ")'

[Install]
WantedBy=sysinit.target
"""
# The kernel has switched these on when it mounted the file system; quotaon(8) then fails with "File exists".
_DROP_IN = """\
# By Plasma: quotas inside ext4 are on already, which quotaon takes for an error. What counts is whether one is off.
[Service]
ExecStart=
ExecStart=/bin/sh -c 'quotaon -ug {where} || ! LC_ALL=C quotaon -pug {where} | grep -q "is off"'
"""
_DROP_INS = {
    "quotaon.service.d/plasma.conf": _DROP_IN.format(where="-a"),
    # Since systemd 254 each file system has a unit of its own.
    "quotaon@.service.d/plasma.conf": _DROP_IN.format(where='"%f"'),
    "quotaon-root.service.d/plasma.conf": _DROP_IN.format(where="/"),
}


def __virtual__():
    return __virtualname__


def plan(kind, source):
    """
    Return the files that are missing for quotas after a boot, as a list of paths.

    kind
        The kind of quotas, as ``plasma_quota.discover`` says.
    source
        The source of the mount as the kernel calls it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_boot.plan feature /dev/sda1
    """
    missing = [str(path) for path, text in _wanted(kind, source).items() if _text(path) != text]
    if source == "/dev/root" and not os.path.exists(source) and not missing:
        missing = [str(SYSTEMD / _ROOT)]
    return missing


def write(kind, source):
    """
    Write what ``plan`` names, and have it work at once. Returns the paths.

    Raises CommandExecutionError when systemd refuses a unit.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_boot.write feature /dev/sda1
    """
    missing = plan(kind, source)
    for path, text in _wanted(kind, source).items():
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_text(text, encoding="ascii")
    if missing:
        _systemctl("daemon-reload")
    if str(SYSTEMD / _ROOT) in missing:
        _systemctl("enable", _ROOT)
        _systemctl("restart", _ROOT)
    return missing


def remove():
    """
    Remove every file that ``write`` writes. Returns the paths of those that were there.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_boot.remove
    """
    there = [path for path in (SYSTEMD / _ROOT, *(SYSTEMD / name for name in _DROP_INS)) if path.exists()]
    if SYSTEMD / _ROOT in there:
        _systemctl("disable", _ROOT)
    for path in there:
        path.unlink()
        if path.parent != SYSTEMD and not any(path.parent.iterdir()):
            path.parent.rmdir()
    if there:
        _systemctl("daemon-reload")
    return [str(path) for path in there]


def _wanted(kind, source):
    wanted = {SYSTEMD / name: text for name, text in _DROP_INS.items()} if kind == "feature" else {}
    if source == "/dev/root":
        wanted[SYSTEMD / _ROOT] = _ROOT_UNIT
    return wanted


def _text(path):
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _systemctl(*words):
    done = __salt__["cmd.run_all"](["systemctl", *words], python_shell=False, timeout=120)
    if done["retcode"]:
        last = (done["stderr"].strip() or "it says nothing").splitlines()[-1].rstrip(".")
        raise CommandExecutionError(f"`systemctl {' '.join(words)}` failed: {last}.")
