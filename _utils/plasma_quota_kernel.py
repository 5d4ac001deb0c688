"""
What quotas need around the file system: programs, the kernel's module, and files of systemd.
"""

from __future__ import annotations

import os
import pathlib
import platform
import re
import shutil

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_run
import plasma_systemd

MODULE = "quota_v2"  # the format vfsv1 of the tables; CONFIG_QFMT_V2
SYSTEMD = pathlib.Path("/etc/systemd/system")
_PROGRAMS = ("setquota", "repquota", "quotacheck", "quotaon")
_BOOT = pathlib.Path("/boot")
_QUOTA = pathlib.Path("/proc/sys/fs/quota")  # is there with CONFIG_QUOTA
_ROOT = "plasma-quota-root.service"
# quota-tools skip a file system whose source they cannot stat (quotasys.c), and kernels that boot without an initial
# RAM disk, as those of clouds do, call theirs /dev/root, which is not there.
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


def tools() -> bool:
    """Return whether the programs of the package quota are there."""
    return all(shutil.which(program, path=plasma_run.PATH) for program in _PROGRAMS)


def install(names: list[str]) -> None:
    """
    Install Debian packages, after an update of the package lists when that is needed. Raises CommandExecutionError with
    the last lines of apt.
    """
    apt = ["apt-get", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600"]
    for command in (["install", *names], ["update"], ["install", *names]):
        done = plasma_run.run([*apt, *command], timeout=1800, env={"DEBIAN_FRONTEND": "noninteractive"})
        if command[0] == "install" and not done.returncode:
            return
    tail = "\n".join(f"{done.stdout}\n{done.stderr}".splitlines()[-8:])
    raise CommandExecutionError(f"apt cannot install {' and '.join(names)}: mend that and apply again.\n{tail}")


def supported() -> bool:
    """Return whether the running kernel can do quotas on ext4, with what is installed now."""
    if not _QUOTA.is_dir():
        return False
    if pathlib.Path("/sys/module", MODULE).is_dir():
        return True
    return plasma_run.run(["modprobe", "--dry-run", "--quiet", MODULE]).returncode == 0


def module_packages() -> list[str]:
    """
    Return the packages that give a kernel that is not ``supported`` the module, as Ubuntu's cloud images leave it out.
    Raises CommandExecutionError, in one sentence, where no package does.
    """
    release = os.uname().release
    if _QUOTA.is_dir() and platform.freedesktop_os_release().get("ID") == "ubuntu":
        # Those of the kernels to come too: otherwise the next update would switch quotas off.
        return [f"linux-modules-extra-{release}", *_following_packages()]
    raise CommandExecutionError(
        f"The running kernel {release} cannot do quotas on ext4 and no package adds them: install Debian's or Ubuntu's "
        "own kernel (linux-image-amd64, linux-generic), reboot, then apply again."
    )


def load() -> None:
    """Load the module for quotas on ext4. Raises CommandExecutionError when the kernel refuses it."""
    done = plasma_run.run(["modprobe", MODULE])
    if done.returncode:
        raise CommandExecutionError(
            f"The running kernel {os.uname().release} does not load {MODULE}: {done.last_line}. When the kernel was "
            "updated, reboot, then apply again."
        )


def xfs_problem() -> str | None:
    """
    Return in one sentence why this kernel cannot do quotas on XFS, or None.

    With the option in fstab such a kernel would not mount the file system at the next boot.
    """
    release = os.uname().release
    config = _BOOT / f"config-{release}"
    if not config.exists() or "\nCONFIG_XFS_QUOTA=y\n" in "\n" + config.read_text(encoding="ascii", errors="replace"):
        return None
    return f"The kernel {release} was built without quotas for XFS: boot Debian's or Ubuntu's own, then apply again."


def missing_units(kind: str, source: str) -> list[str]:
    """
    Return the paths of files of systemd that are missing for quotas after a boot. Mostly none are: the options in fstab
    pull quotaon.service in (systemd-fstab-generator(8)).

    kind
        The kind of quotas, as ``plasma_quota.discover`` says.
    source
        The source of the mount as the kernel calls it.
    """
    missing = [
        str(path) for path, text in _units(kind, source).items() if not path.exists() or path.read_text() != text
    ]
    if source == "/dev/root" and not os.path.exists(source) and not missing:
        missing = [str(SYSTEMD / _ROOT)]
    return missing


def write_units(kind: str, source: str) -> None:
    """
    Write what ``missing_units`` names, and start it. Raises CommandExecutionError when systemd refuses a unit.
    """
    units = _units(kind, source)
    for path, text in units.items():
        plasma_files.directory(path.parent)
        plasma_files.write(path, text, 0o644)
    plasma_systemd.check("daemon-reload")
    if SYSTEMD / _ROOT in units:
        plasma_systemd.check("enable", _ROOT)
        plasma_systemd.check("restart", _ROOT)


def remove_units() -> list[str]:
    """Remove every file that ``write_units`` writes. Returns the paths of those that were there."""
    paths = [path for path in (SYSTEMD / _ROOT, *(SYSTEMD / name for name in _DROP_INS)) if path.exists()]
    for path in paths:
        if path.name == _ROOT:
            plasma_systemd.check("disable", _ROOT)
        path.unlink()
        if path.parent != SYSTEMD and not any(path.parent.iterdir()):
            path.parent.rmdir()
    if paths:
        plasma_systemd.check("daemon-reload")
    return [str(path) for path in paths]


def _units(kind: str, source: str) -> dict[pathlib.Path, str]:
    units: dict[pathlib.Path, str] = {}
    if kind == "feature":
        units.update((SYSTEMD / name, text) for name, text in _DROP_INS.items())
    if source == "/dev/root":
        units[SYSTEMD / _ROOT] = _ROOT_UNIT
    return units


def _following_packages() -> list[str]:
    """Packages that bring the module for the kernels after this one, by the ones that bring those kernels."""
    query = ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}${Package}\n", "linux-image-*"]
    kernels = re.findall(r"^ii +linux-image-(?!unsigned-)(\D.*)$", plasma_run.run(query).stdout, re.MULTILINE)
    names = [f"linux-{'image' if name.startswith('virtual') else 'modules'}-extra-{name}" for name in kernels]
    return [name for name in names if plasma_run.run(["apt-cache", "show", "--quiet", name]).returncode == 0]
