"""
Disk quotas of the file system that holds the homes: what it is, how they are switched on and off.

ext4 keeps its tables in files (journaled, so that they survive a crash) or inside (``mkfs.ext4 -O quota``); XFS keeps
them inside. At boot, systemd switches them on when fstab has the options (its generator pulls quotaon.service in).
See quotactl(2), quotaon(8), quotacheck(8), mount(8), ext4(5), xfs(5).
"""

from __future__ import annotations

import os

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_quota"

_KINDS = {
    "feature": "inside ext4 (the feature quota)",
    "journaled": "in the files aquota.user and aquota.group, journaled",
    "files": "in the files aquota.user and aquota.group",
    "xfs": "inside XFS",
}
_ENV = {"LC_ALL": "C"}


def __virtual__():
    return __virtualname__


def discover(home_path="/home", device=None):
    """
    Return which file system holds the homes, and what quotas need there. Changes nothing.

    home_path
        Where the homes are, or will be: a directory that is not there yet is on the file system of its parent.
    device
        The block device that is expected to hold them: /dev/..., UUID=, LABEL=, PARTUUID= or PARTLABEL=.

    Returns ``{"supported": bool, "reason": str (in words what was found, or why not and what to do), "mount_point",
    "source", "device", "numbers", "type", "options": [str], "uuid", "label", "kind": feature|journaled|files|xfs|None,
    "state": {"user", "group": off|counting|on}, "on": bool, "fstab": its line or None, "missing": [str in words]}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota.discover
        salt-ssh '*' plasma_quota.discover /srv/homes device=LABEL=homes
    """
    mount = __salt__["plasma_quota_fs.holder"](home_path)
    path = __salt__["plasma_quota_fs.node"](mount)
    found = {
        "supported": False,
        "reason": "",
        "mount_point": mount["target"],
        "source": mount["source"],
        "device": path,
        "numbers": mount["device"],
        "type": mount["type"],
        "options": mount["options"],
        "uuid": None,
        "label": None,
        "kind": None,
        "state": {"user": "off", "group": "off"},
        "on": False,
        "fstab": None,
        "missing": [],
    }
    if path:
        names = __salt__["plasma_quota_fs.identity"](path)
        found.update(uuid=names.get("UUID"), label=names.get("LABEL"), state=__salt__["plasma_quota_fs.state"](path))
    found["on"] = set(found["state"].values()) == {"on"}
    problem = __salt__["plasma_quota_fs.refusal"](mount, home_path) or _device_problem(found, home_path, device)
    if not problem:
        try:
            _complete(found)
        except CommandExecutionError as exc:
            problem = str(exc)
    if problem:
        found["reason"] = problem
        return found
    found["supported"] = True
    names = "".join(f", {tag}={found[tag.lower()]}" for tag in ("LABEL", "UUID") if found[tag.lower()])
    found["reason"] = (
        f"{home_path} is on {found['mount_point']}: {found['type']} on {path}{names}. "
        f"Quotas are kept {_KINDS[found['kind']]}, and are {'on' if found['on'] else 'not on'}."
    )
    found["missing"] = [_in_words(key, change) for key, change in _changes(found).items()]
    return found


def compare(home_path="/home", device=None):
    """
    Return what ``enable`` would do, as ``{what: {"old", "new"}}``, and change nothing.

    home_path, device
        See ``discover``.

    Raises CommandExecutionError, in one sentence with what to do, where there can be no quotas.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota.compare /home
    """
    return _changes(_found(home_path, device))


def enable(home_path="/home", device=None):
    """
    Switch on disk quotas of users and groups, with all that this needs. Limits are not touched.

    home_path, device
        See ``discover``.

    Returns ``{"changes": {what: {"old", "new"}}, "reboot": one sentence when a reboot is needed, else None}``. Raises
    CommandExecutionError as ``compare`` does, and when a step fails; fstab then is as it was, unless the sentence says
    otherwise.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota.enable
    """
    with __salt__["plasma_quota_edit.locked"]():
        found = _found(home_path, device)
        changes = _changes(found)
        if "packages" in changes:
            __salt__["plasma_quota_kernel.install"](changes["packages"]["new"])
        if found["kind"] != "xfs" and not found["on"]:
            __salt__["plasma_quota_kernel.load"]()
        if "boot" in changes:
            __salt__["plasma_quota_boot.write"](found["kind"], found["source"])
        reboot = _xfs(found, changes) if found["kind"] == "xfs" else _ext(found, changes)
        state = __salt__["plasma_quota_fs.state"](found["device"])
        if not reboot and set(state.values()) != {"on"}:
            raise CommandExecutionError(
                f"Quotas of {found['mount_point']} are not on after everything was done (users: {state['user']}, "
                f"groups: {state['group']}): see `dmesg | tail` and `quotaon -pug {found['mount_point']}` there."
            )
        if reboot:
            changes = {key: change for key, change in changes.items() if key not in ("mount", "user", "group")}
        return {"changes": changes, "reboot": reboot}


def disable():
    """
    Switch off the quotas that ``enable`` switched on, and put fstab back. Limits stay in the tables.

    Returns ``{"changes": {what: {"old", "new"}}, "notes": [sentences about what is kept, or needs a reboot]}``. Quotas
    that others set up are left alone. Raises CommandExecutionError when a step fails.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota.disable
    """
    with __salt__["plasma_quota_edit.locked"]():
        changes, notes = {}, []
        for point, note in __salt__["plasma_quota_edit.noted"]().items():
            mounted = [mount for mount in __salt__["plasma_quota_fs.mounts"]() if mount["target"] == point]
            path = __salt__["plasma_quota_fs.node"](mounted[-1]) if mounted else None
            if path:
                before = __salt__["plasma_quota_fs.state"](path)
                if "on" in before.values():
                    _run(["quotaoff", "-ug", point])
                    changes[point] = {"old": "on", "new": "off"}
            line = __salt__["plasma_quota_edit.restore"](point)
            changes[f"fstab {point}"] = {"old": line["old"], "new": line["new"]}
            notes += _unmounted(point, note["kind"], bool(path))
        if __salt__["plasma_quota_kernel.unset_rootflags"]():
            changes["rootflags"] = {"old": "uquota,gquota", "new": None}
        removed = __salt__["plasma_quota_boot.remove"]()
        if removed:
            changes["boot"] = {"old": removed, "new": None}
        return {"changes": changes, "notes": notes}


def report(home_path="/home", output="table", device=None, everybody=False):
    """
    Return what people and groups use, beside their limits, worst first; see ``plasma_quota_report.report``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota.report
        salt-ssh '*' plasma_quota.report output=json --out=json
    """
    return __salt__["plasma_quota_report.report"](home_path, output=output, device=device, everybody=everybody)


def _found(home_path, device):
    found = discover(home_path, device)
    if not found["supported"]:
        raise CommandExecutionError(found["reason"])
    return found


def _device_problem(found, home_path, device):
    if not found["device"]:
        return f"{home_path} is on {found['mount_point']}, and its device {found['source']} cannot be found in /dev."
    if device in (None, "", found["source"]):
        return None
    try:
        named = __salt__["plasma_quota_fs.resolve"](device)
    except (CommandExecutionError, SaltInvocationError) as exc:
        return str(exc)
    if named["device"] == found["numbers"]:
        return None
    return (
        f"plasma.quotas.device is {device} ({named['path']}), and {home_path} is on {found['device']}, mounted on "
        f"{found['mount_point']}: name that one, or leave the key out."
    )


def _complete(found):
    """Fill in the kind of quotas and the line of fstab; raise when there can be none."""
    if found["type"] == "xfs":
        found["kind"] = "xfs"
        problem = None if found["on"] else __salt__["plasma_quota_kernel.xfs_problem"]()
    else:
        block = __salt__["plasma_quota_fs.superblock"](found["device"])
        if block is None:
            raise CommandExecutionError(f"The superblock of {found['device']} cannot be read.")
        line = __salt__["plasma_quota_edit.entry"](found)
        options = {*found["options"], *(line["options"] if line else ())}
        # Quotas that somebody set up the plain way stay so.
        plain = {"usrquota", "grpquota", "quota"} & options
        journal = block["journal"] and found["type"] != "ext2"
        found["kind"] = "feature" if block["quota"] else "journaled" if journal and not plain else "files"
        problem = None
        if not found["on"] and not __salt__["plasma_quota_kernel.supported"]():
            remedy = __salt__["plasma_quota_kernel.remedy"]()
            problem = remedy["problem"]
            found["kernel_packages"] = remedy["packages"]
    if problem:
        raise CommandExecutionError(problem)
    line = __salt__["plasma_quota_edit.entry"](found)
    found["fstab"] = line["line"] if line else None


def _changes(found):
    changes = {}
    packages = __salt__["plasma_quota_kernel.packages"](found["type"]) + found.get("kernel_packages", [])
    if packages:
        changes["packages"] = {"old": None, "new": packages}
    files = __salt__["plasma_quota_boot.plan"](found["kind"], found["source"])
    if files:
        changes["boot"] = {"old": None, "new": files}
    line = __salt__["plasma_quota_edit.plan"](found)
    if line:
        changes["fstab"] = line
    if found["kind"] == "xfs" and found["mount_point"] == "/" and not found["on"]:
        flags = __salt__["plasma_quota_kernel.rootflags"]()
        if flags:
            changes["rootflags"] = flags
    missing = __salt__["plasma_quota_edit.missing_options"](found["kind"], found["options"])
    # Inside the file system they can be on without the options, which only matter at its next mount.
    inside = (
        found["on"] if found["kind"] == "feature" else found["kind"] == "xfs" and "off" not in found["state"].values()
    )
    if missing and not inside:
        changes["mount"] = {"old": None, "new": ",".join(missing)}
    tables = [path for path in _tables(found).values() if _empty(path)]
    if tables and not found["on"]:
        changes["tables"] = {"old": None, "new": tables}
    for sort, state in found["state"].items():
        if state != "on":
            changes[sort] = {"old": state, "new": "on"}
    return changes


def _in_words(key, change):
    new = ", ".join(change["new"]) if isinstance(change["new"], list) else change["new"]
    return {
        "packages": f"the packages {new}",
        "boot": f"for the next boot: {new}",
        "fstab": f"in /etc/fstab: {new}",
        "rootflags": f"on the kernel's command line: rootflags={new}, then a reboot",
        "mount": f"the mount options {new}",
        "tables": f"the tables {new}",
    }.get(key, f"quotas of {key}s: {change['old']}, not on")


def _tables(found):
    """The files with the tables: ``{"user": path, "group": path}``; none where they are inside the file system."""
    if found["kind"] not in ("files", "journaled"):
        return {}
    names = dict(option.split("=", 1) for option in found["options"] if "=" in option)
    return {
        sort: os.path.join(found["mount_point"], names.get(f"{short}jquota") or f"aquota.{sort}")
        for sort, short in (("user", "usr"), ("group", "grp"))
    }


def _empty(path):
    try:
        return os.lstat(path).st_size == 0
    except FileNotFoundError:
        return True


def _ext(found, changes):
    point = found["mount_point"]
    if "mount" in changes:
        # What is mounted, and not what fstab says of other options: those are somebody else's business.
        remount = f"remount,{changes['mount']['new']}"
        _run(["mount", "-o", remount, "--options-mode=prepend", "--options-source=mtab", point])
    off = [sort for sort, state in found["state"].items() if state != "on"]
    tables = _tables(found)
    new = [sort for sort in off if tables and _empty(tables[sort])]
    # Tables that are there keep their limits; what is used is counted again.
    for options, sorts in ((["-c", "-F", "vfsv1"], new), ([], [sort for sort in off if tables and sort not in new])):
        if sorts:
            _run(["quotacheck", *options, "-m", *(f"-{sort[0]}" for sort in sorts), point], timeout=7200)
    if off:
        _run(["quotaon", *(f"-{sort[0]}" for sort in off), point])
    __salt__["plasma_quota_edit.write"](found)


def _xfs(found, changes):
    """Returns the sentence about a reboot when one is needed."""
    point = found["mount_point"]
    __salt__["plasma_quota_edit.write"](found)
    if found["on"]:
        return None
    if "mount" not in changes:
        off = [sort for sort, state in found["state"].items() if state != "on"]
        _run(["quotaon", *(f"-{sort[0]}" for sort in off), point])
        return None
    if point == "/":
        if "rootflags" in changes:
            __salt__["plasma_quota_kernel.set_rootflags"](changes["rootflags"]["new"])
        return f"XFS takes quotas up when it is mounted, and {point} is the root file system: reboot, then apply again."
    done = _run(["umount", point], check=False)
    if not done["retcode"]:
        mounted = _run(["mount", point], check=False)
        if mounted["retcode"]:
            line = __salt__["plasma_quota_edit.restore"](point)
            again = _run(["mount", point], check=False) if line else mounted
            if again["retcode"]:
                again = _run(["mount", "-t", "xfs", "-o", ",".join(_own(found)), found["device"], point], check=False)
            now = f"is unmounted: `mount {point}`" if again["retcode"] else "is mounted without, as before"
            raise CommandExecutionError(f"{point} cannot be mounted with quotas ({_last(mounted)}); it {now}.")
        state = __salt__["plasma_quota_fs.state"](found["device"])
        if set(state.values()) == {"on"}:
            return None
    return (
        f"XFS takes quotas up when it is mounted, and {point} is in use: /etc/fstab is ready, so reboot, then apply "
        "again."
    )


def _own(found):
    return [option for option in found["options"] if "quota" not in option]


def _unmounted(point, kind, mounted):
    """Take the options of quotas out of a mount; sentences about what is left."""
    if kind == "xfs":
        return [f"{point} goes on counting what people use until it is mounted again, as at the next boot."]
    off = "usrjquota=,grpjquota=" if kind == "journaled" else "noquota"
    command = ["mount", "-o", f"remount,{off}", "--options-mode=prepend", "--options-source=mtab", point]
    if mounted and _run(command, check=False)["retcode"]:
        return [f"{point} has the mount options of quotas until the next boot."]
    if kind == "feature":
        return [f"The limits are kept inside {point}, and count again when quotas are switched on."]
    return [f"The limits are kept in {os.path.join(point, 'aquota.*')}, and count again when quotas are switched on."]


def _run(command, check=True, timeout=600):
    done = __salt__["cmd.run_all"](command, python_shell=False, env=_ENV, timeout=timeout, ignore_retcode=not check)
    if check and done["retcode"]:
        raise CommandExecutionError(f"`{' '.join(command)}` failed: {_last(done)}.")
    return done


def _last(done):
    lines = (done["stderr"].strip() or done["stdout"].strip() or f"code {done['retcode']}").splitlines()
    return lines[-1].rstrip(".")
