"""
What quotas need around the file system: programs, the kernel's module, options of the kernel's command line for the
root file system.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_quota_kernel"

MODULE = "quota_v2"  # the format vfsv1 of the tables; CONFIG_QFMT_V2
GRUB = pathlib.Path("/etc/default/grub.d/99-plasma-quota.cfg")
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_MODULES = pathlib.Path("/lib/modules")
_LISTS = pathlib.Path("/var/lib/apt/lists")
_BOOT = pathlib.Path("/boot")
_CMDLINE = pathlib.Path("/proc/cmdline")
_QUOTA = pathlib.Path("/proc/sys/fs/quota")  # is there with CONFIG_QUOTA
_ENV = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
_XFS_FLAGS = ("uquota", "gquota")


def __virtual__():
    return __virtualname__


def packages(fstype):
    """
    Return the Debian packages that are missing for quotas on this type of file system, as a list.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_kernel.packages xfs
    """
    needed = {"quota": ("setquota", "repquota", "quotacheck", "quotaon")}
    if fstype == "xfs":
        needed["xfsprogs"] = ("xfs_quota",)
    return [
        package
        for package, programs in needed.items()
        if not all(shutil.which(program, path=_PATH) for program in programs)
    ]


def install(names):
    """
    Install Debian packages, after an update of the package lists when that is needed. Returns the names.

    Raises CommandExecutionError with the last lines of apt.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_kernel.install '[quota]'
    """
    apt = ["apt-get", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600"]
    done = _run([*apt, "install", *names], ignore_retcode=True)
    if done["retcode"]:
        _run([*apt, "update"])
        done = _run([*apt, "install", *names])
    if done["retcode"]:
        tail = "\n".join((done["stdout"] + done["stderr"]).splitlines()[-8:])
        raise CommandExecutionError(f"apt cannot install {' and '.join(names)}: mend that and apply again.\n{tail}")
    return list(names)


def supported():
    """
    Return True when the running kernel can do quotas on ext4, with what is installed now.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_kernel.supported
    """
    if not _QUOTA.is_dir():
        return False
    if pathlib.Path("/sys/module", MODULE).is_dir():
        return True
    return _run(["modprobe", "--dry-run", "--quiet", MODULE], ignore_retcode=True)["retcode"] == 0


def remedy(os_id=None):
    """
    Return what would make the running kernel able to do quotas, when it is not.

    ``{"packages": [Debian packages that bring the module for it], "problem": one sentence, when nothing does or only a
    reboot}``.

    os_id
        ``ubuntu`` or ``debian``; default is that of the server.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_kernel.remedy
    """
    release = os.uname().release
    others = sorted(
        path.name
        for path in (_MODULES.iterdir() if _MODULES.is_dir() else ())
        if path.name != release and any((path / "kernel/fs/quota").glob(f"{MODULE}.ko*"))
    )
    reboot = None
    if others:
        reboot = (
            f"The running kernel {release} cannot do quotas on ext4, and the installed kernel {others[-1]} can: "
            "reboot into that one, then apply again."
        )
    if not _QUOTA.is_dir():
        problem = reboot or (
            f"The running kernel {release} was built without quotas: install Debian's or Ubuntu's own kernel "
            "(linux-image-amd64, linux-generic), reboot, then apply again."
        )
        return {"packages": [], "problem": problem}
    system = os_id or __salt__["plasma_preflight.os_release"]().get("ID", "")
    if system == "ubuntu":
        # The cloud images leave this package out (the module is in it since the kernels are split).
        needed = f"linux-modules-extra-{release}"
        # A fresh cloud server knows no package at all; `install` updates the lists.
        if not any(_LISTS.glob("*_Packages*")) or _known(needed):
            return {"packages": [needed, *(name for name in _following() if _known(name))], "problem": None}
    return {
        "packages": [],
        "problem": reboot
        or (
            f"The running kernel {release} has no module {MODULE} and no package brings it: install Debian's or "
            "Ubuntu's own kernel (linux-image-amd64, linux-generic), reboot, then apply again."
        ),
    }


def load():
    """
    Load the module for quotas on ext4. Returns True.

    Raises CommandExecutionError when the kernel refuses it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_kernel.load
    """
    done = _run(["modprobe", MODULE], ignore_retcode=True)
    if done["retcode"]:
        raise CommandExecutionError(
            f"The running kernel {os.uname().release} does not load {MODULE}: {_last(done)}. When the kernel was "
            "updated, reboot, then apply again."
        )
    return True


def xfs_problem():
    """
    Return in one sentence why this kernel cannot do quotas on XFS, or None.

    With the option in fstab such a kernel would not mount the file system at the next boot.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_kernel.xfs_problem
    """
    release = os.uname().release
    try:
        config = (_BOOT / f"config-{release}").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    if re.search(r"^CONFIG_XFS_QUOTA=y$", config, re.MULTILINE):
        return None
    return f"The kernel {release} was built without quotas for XFS: boot Debian's or Ubuntu's own, then apply again."


def rootflags():
    """
    Return what is missing for quotas on a root file system of type XFS, or None: it takes them from the kernel's
    command line only.

    ``{"old": rootflags of the running kernel or None, "new": those with quotas}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_kernel.rootflags
    """
    found = [word for word in _CMDLINE.read_text(encoding="ascii", errors="replace").split() if "rootflags=" in word]
    old = found[-1].partition("=")[2] if found else None
    flags = [flag for flag in (old or "").split(",") if flag]
    aliases = {"uquota": {"uquota", "usrquota", "quota"}, "gquota": {"gquota", "grpquota"}}
    missing = [flag for flag in _XFS_FLAGS if not aliases[flag] & set(flags)]
    return {"old": old, "new": ",".join([*flags, *missing])} if missing else None


def set_rootflags(flags):
    """
    Have GRUB start the kernel with these ``rootflags`` from the next boot on. Returns whether the file changed.

    Raises CommandExecutionError where there is no GRUB.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_kernel.set_rootflags uquota,gquota
    """
    if not shutil.which("update-grub", path=_PATH):
        raise CommandExecutionError(
            f"There is no update-grub here: put rootflags={flags} on the kernel's command line yourself, reboot, then "
            "apply again."
        )
    text = (
        "# Disk quotas of the root file system (XFS), by Plasma; `state.apply quotas.disabled` removes this file.\n"
        f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX rootflags={flags}"\n'
    )
    if GRUB.exists() and GRUB.read_text(encoding="utf-8") == text:
        return False
    GRUB.parent.mkdir(exist_ok=True)
    GRUB.write_text(text, encoding="utf-8")
    _grub()
    return True


def unset_rootflags():
    """
    Undo ``set_rootflags``. Returns whether there was something to undo.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_kernel.unset_rootflags
    """
    if not GRUB.exists():
        return False
    GRUB.unlink()
    _grub()
    return True


def _following():
    """Packages that bring the module for the kernels after this one, by the ones that bring those kernels."""
    asked = _run(
        ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}${Package}\n", "linux-image-*"],
        ignore_retcode=True,
    )
    found = []
    for line in asked["stdout"].splitlines():
        state, _, name = line.partition(" ")
        kind = name.strip().removeprefix("linux-image-")
        if not state.startswith("ii") or re.match(r"(unsigned-)?\d", kind):
            continue  # not a package that follows
        found.append(f"linux-image-extra-{kind}" if kind.startswith("virtual") else f"linux-modules-extra-{kind}")
    return found


def _known(package):
    return _run(["apt-cache", "show", "--quiet", package], ignore_retcode=True)["retcode"] == 0


def _grub():
    done = _run(["update-grub"])
    if done["retcode"]:
        raise CommandExecutionError(f"update-grub failed: {_last(done)}.")


def _last(done):
    lines = (done["stderr"].strip() or done["stdout"].strip() or f"code {done['retcode']}").splitlines()
    return lines[-1].rstrip(".")


def _run(command, **options):
    return __salt__["cmd.run_all"](command, python_shell=False, env=_ENV, timeout=1800, **options)
