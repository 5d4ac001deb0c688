"""
Disk quotas of the file system that holds the homes: what it is, how they are switched on and off.

ext4 keeps its tables in files (journaled, so that they survive a crash) or inside (``mkfs.ext4 -O quota``); XFS keeps
them inside. At boot, systemd switches them on when fstab has the options (its generator pulls quotaon.service in).
See quotactl(2), quotaon(8), quotacheck(8), mount(8), ext4(5), xfs(5).
"""

from __future__ import annotations

import os
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_mounts
import plasma_quota_fs
import plasma_quota_fstab
import plasma_quota_kernel
import plasma_run

_KINDS = {
    "feature": "inside ext4 (the feature quota)",
    "journaled": "in the files aquota.user and aquota.group, journaled",
    "files": "in the files aquota.user and aquota.group",
    "xfs": "inside XFS",
}


def discover(home_path: str = "/home", device: str | None = None) -> dict[str, Any]:
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
    mount = plasma_quota_fs.holder(home_path)
    path = plasma_quota_fs.node(mount)
    volume: dict[str, Any] = {
        "supported": False,
        "reason": "",
        "mount_point": mount["target"],
        "source": mount["source"],
        "device": path,
        "numbers": mount["device"],
        "type": mount["type"],
        "options": mount["options"],
        **(plasma_quota_fs.identity(path) if path else {"uuid": None, "label": None}),
        "kind": None,
        "state": plasma_quota_fs.state(path) if path else {"user": "off", "group": "off"},
        "on": False,
        "fstab": None,
        "missing": [],
    }
    volume["on"] = set(volume["state"].values()) == {"on"}
    problem = plasma_quota_fs.refusal(mount, home_path) or _device_problem(volume, home_path, device)
    if not problem:
        try:
            _complete(volume)
        except CommandExecutionError as exc:
            problem = str(exc)
    if problem:
        volume["reason"] = problem
        return volume
    names = "".join(f", {tag}={volume[tag.lower()]}" for tag in ("LABEL", "UUID") if volume[tag.lower()])
    volume["supported"] = True
    volume["reason"] = (
        f"{home_path} is on {volume['mount_point']}: {volume['type']} on {path}{names}. "
        f"Quotas are kept {_KINDS[str(volume['kind'])]}, and are {'on' if volume['on'] else 'not on'}."
    )
    volume["missing"] = [_in_words(key, change) for key, change in _changes(volume).items()]
    return volume


def supported(home_path: str = "/home", device: str | None = None) -> dict[str, Any]:
    """Return what ``discover`` does. Raises CommandExecutionError, with its reason, where there can be no quotas."""
    volume = discover(home_path, device)
    if not volume["supported"]:
        raise CommandExecutionError(volume["reason"])
    return volume


def compare(home_path: str = "/home", device: str | None = None) -> dict[str, dict[str, Any]]:
    """
    Return what ``enable`` would do, as ``{what: {"old", "new"}}``, and change nothing.

    home_path, device
        See ``discover``.

    Raises CommandExecutionError, in one sentence with what to do, where there can be no quotas.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota.compare /home
    """
    return _changes(supported(home_path, device))


def enable(home_path: str = "/home", device: str | None = None) -> dict[str, Any]:
    """
    Switch on disk quotas of users and groups, with all that this needs. Limits are not touched.

    home_path, device
        See ``discover``.

    Returns ``{"changes": {what: {"old", "new"}}, "reboot": one sentence when a reboot is needed, else None}``. Raises
    CommandExecutionError as ``compare`` does, and when a step fails; fstab then is as it was, unless the sentence says
    otherwise.
    """
    with plasma_quota_fstab.lock():
        volume = supported(home_path, device)
        changes, point = _changes(volume), volume["mount_point"]
        if "packages" in changes:
            plasma_quota_kernel.install(changes["packages"]["new"])
        if "boot" in changes:
            plasma_quota_kernel.write_units(volume["kind"], volume["source"])
        if volume["kind"] == "xfs":
            reboot = _enable_xfs(volume, changes)
        else:
            reboot = None
            _enable_ext(volume, changes)
        if reboot:
            changes = {key: change for key, change in changes.items() if key not in ("mount", "user", "group")}
            return {"changes": changes, "reboot": reboot}
        state = plasma_quota_fs.state(volume["device"])
        if set(state.values()) != {"on"}:
            raise CommandExecutionError(
                f"Quotas of {point} are not on after everything was done (users: {state['user']}, groups: "
                f"{state['group']}): see `dmesg | tail` and `quotaon -pug {point}` there."
            )
        return {"changes": changes, "reboot": None}


def disable() -> dict[str, Any]:
    """
    Switch off the quotas that ``enable`` switched on, and put fstab back. Limits stay in the tables.

    Returns ``{"changes": {what: {"old", "new"}}, "notes": [sentences about what is kept, or needs a reboot]}``. Quotas
    that others set up are left alone. Raises CommandExecutionError when a step fails.
    """
    with plasma_quota_fstab.lock():
        changes, notes = {}, []
        for point, note in plasma_quota_fstab.noted().items():
            mounted = [mount for mount in plasma_mounts.mounts() if mount["target"] == point]
            path = plasma_quota_fs.node(mounted[-1]) if mounted else None
            if path and "on" in plasma_quota_fs.state(path).values():
                _run("quotaoff", "-ug", point)
                changes[point] = {"old": "on", "new": "off"}
            changes[f"fstab {point}"] = plasma_quota_fstab.restore(point)
            notes.append(_take_options_out(point, note["kind"], bool(path)))
        removed = plasma_quota_kernel.remove_units()
        if removed:
            changes["boot"] = {"old": removed, "new": None}
        return {"changes": changes, "notes": notes}


def _device_problem(volume: dict[str, Any], home_path: str, device: str | None) -> str | None:
    if not volume["device"]:
        return f"{home_path} is on {volume['mount_point']}, and its device {volume['source']} cannot be found in /dev."
    if device in (None, "", volume["source"]):
        return None
    try:
        named = plasma_quota_fs.resolve(device)
    except SaltInvocationError as exc:
        return str(exc)
    if named["device"] == volume["numbers"]:
        return None
    return (
        f"plasma.quotas.device is {device} ({named['path']}), and {home_path} is on {volume['device']}, mounted on "
        f"{volume['mount_point']}: name that one, or leave the key out."
    )


def _complete(volume: dict[str, Any]) -> None:
    """Fill in the kind of quotas and the line of fstab; raise when there can be none."""
    line = plasma_quota_fstab.entry(volume)
    volume["fstab"] = line["line"]
    if volume["type"] == "xfs":
        volume["kind"] = "xfs"
        problem = None if volume["on"] else plasma_quota_kernel.xfs_problem()
        if not problem and volume["mount_point"] == "/" and "off" in volume["state"].values():
            problem = (
                "XFS takes quotas of the root file system from the kernel's command line only: put "
                "rootflags=uquota,gquota there, reboot, then apply again."
            )
        if problem:
            raise CommandExecutionError(problem)
        return
    # Quotas that somebody set up the plain way stay so.
    plain = {"usrquota", "grpquota", "quota"} & {*volume["options"], *line["options"]}
    inside = plasma_quota_fs.built_in(volume["device"])
    volume["kind"] = "feature" if inside else "files" if plain else "journaled"
    if not volume["on"] and not plasma_quota_kernel.supported():
        volume["kernel_packages"] = plasma_quota_kernel.module_packages()


def _changes(volume: dict[str, Any]) -> dict[str, dict[str, Any]]:
    kind, state = volume["kind"], volume["state"]
    # Inside the file system they can be on without the options, which only matter at its next mount.
    inside = volume["on"] if kind == "feature" else kind == "xfs" and "off" not in state.values()
    missing: dict[str, Any] = {
        "packages": [*([] if plasma_quota_kernel.tools() else ["quota"]), *volume.get("kernel_packages", [])],
        "boot": plasma_quota_kernel.missing_units(kind, volume["source"]),
        "fstab": plasma_quota_fstab.plan(volume),
        "mount": "" if inside else ",".join(plasma_quota_fstab.missing_options(kind, volume["options"])),
        "tables": [] if volume["on"] else [path for path in _tables(volume).values() if _empty(path)],
    }
    return {
        **{key: new if key == "fstab" else {"old": None, "new": new} for key, new in missing.items() if new},
        **{who: {"old": old, "new": "on"} for who, old in state.items() if old != "on"},
    }


def _in_words(key: str, change: dict[str, Any]) -> str:
    new = ", ".join(change["new"]) if isinstance(change["new"], list) else change["new"]
    return {
        "packages": f"the packages {new}",
        "boot": f"for the next boot: {new}",
        "fstab": f"in /etc/fstab: {new}",
        "mount": f"the mount options {new}",
        "tables": f"the tables {new}",
    }.get(key, f"quotas of {key}s: {change['old']}, not on")


def _tables(volume: dict[str, Any]) -> dict[str, str]:
    """The files with the tables: ``{"user": path, "group": path}``; none where they are inside the file system."""
    if volume["kind"] not in ("files", "journaled"):
        return {}
    names = dict(option.split("=", 1) for option in volume["options"] if "=" in option)
    return {
        who: os.path.join(volume["mount_point"], names.get(f"{short}jquota") or f"aquota.{who}")
        for who, short in (("user", "usr"), ("group", "grp"))
    }


def _empty(path: str) -> bool:
    return not os.path.lexists(path) or os.lstat(path).st_size == 0


def _enable_ext(volume: dict[str, Any], changes: dict[str, Any]) -> None:
    point, off = volume["mount_point"], _off(volume)
    if not volume["on"]:
        plasma_quota_kernel.load()
    if "mount" in changes:
        _remount(point, changes["mount"]["new"]).check()
    # Tables that are there keep their limits; what is used is counted again.
    new = [who for who, path in _tables(volume).items() if who in off and _empty(path)]
    old = [who for who in _tables(volume) if who in off and who not in new]
    for options, tables in ((["-c", "-F", "vfsv1"], new), ([], old)):
        if tables:
            _run("quotacheck", *options, "-m", *(f"-{who[0]}" for who in tables), point)
    _quotaon(point, off)
    plasma_quota_fstab.write(volume)


def _enable_xfs(volume: dict[str, Any], changes: dict[str, Any]) -> str | None:
    """Returns the sentence about a reboot when one is needed."""
    point = volume["mount_point"]
    plasma_quota_fstab.write(volume)
    if "mount" not in changes:
        _quotaon(point, _off(volume))
        return None
    if not plasma_run.run(["umount", point]).returncode:
        mounted = plasma_run.run(["mount", point])
        if mounted.returncode:
            if point in plasma_quota_fstab.noted():
                plasma_quota_fstab.restore(point)
            again = plasma_run.run(["mount", point])
            now = f"is unmounted: `mount {point}`" if again.returncode else "is mounted without, as before"
            raise CommandExecutionError(f"{point} cannot be mounted with quotas ({mounted.last_line}); it {now}.")
        if set(plasma_quota_fs.state(volume["device"]).values()) == {"on"}:
            return None
    return (
        f"XFS takes quotas up when it is mounted, and {point} is in use: /etc/fstab is ready, so reboot, then apply "
        "again."
    )


def _off(volume: dict[str, Any]) -> list[str]:
    return [who for who, state in volume["state"].items() if state != "on"]


def _quotaon(point: str, off: list[str]) -> None:
    if off:
        _run("quotaon", *(f"-{who[0]}" for who in off), point)


def _take_options_out(point: str, kind: str, mounted: bool) -> str:
    """Take the options of quotas out of a mount; a sentence about what is left."""
    if kind == "xfs":
        return f"{point} goes on counting what people use until it is mounted again, as at the next boot."
    if mounted and _remount(point, "usrjquota=,grpjquota=" if kind == "journaled" else "noquota").returncode:
        return f"{point} has the mount options of quotas until the next boot."
    where = f"inside {point}" if kind == "feature" else f"in {os.path.join(point, 'aquota.*')}"
    return f"The limits are kept {where}, and count again when quotas are switched on."


def _remount(point: str, options: str) -> plasma_run.Result:
    """Change options of what is mounted; what fstab says of other options is somebody else's business."""
    prepend = ["--options-mode=prepend", "--options-source=mtab"]
    return plasma_run.run(["mount", "-o", f"remount,{options}", *prepend, point])


def _run(*command: str) -> None:
    plasma_run.run(list(command), timeout=7200).check()
