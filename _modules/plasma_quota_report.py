"""What people and groups use of the disk, beside their limits: worst first, as a table or as data."""

from __future__ import annotations

import grp
import pwd
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_quota_report"

_BLOCK = 1024
_HEADER = ("", "Name", "Used", "Soft", "Hard", "%", "Grace", "Files", "Soft", "Hard", "Grace")


def __virtual__():
    return __virtualname__


def rows(home_path="/home", device=None, everybody=False):
    """
    Return what everybody uses, worst first, as a list.

    home_path, device
        See ``plasma_quota.discover``.
    everybody
        Also the system's accounts, groups without a limit, and people who neither have one nor use anything.

    Each is ``{"kind": user|group, "id", "name" (None for an id without an account), "used", "soft", "hard": bytes,
    "files", "files_soft", "files_hard", "percent": of the hard limit, or the soft one, in use (None without a limit),
    "over_soft", "over_hard": bool, "grace", "files_grace": seconds left, 0 when they have passed, None when no
    soft limit is exceeded}``. Limits that are 0 are none. Raises CommandExecutionError where quotas are not on.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_report.rows --out=json
    """
    found = __salt__["plasma_quota.discover"](home_path, device)
    if not found["supported"]:
        raise CommandExecutionError(found["reason"])
    if "off" in found["state"].values():
        raise CommandExecutionError(f"Quotas of {found['mount_point']} are not on: apply the state quotas.")
    names = {
        "user": {entry.pw_uid: entry.pw_name for entry in reversed(pwd.getpwall())},
        "group": {entry.gr_gid: entry.gr_name for entry in reversed(grp.getgrall())},
    }
    now, every = time.time(), []
    for kind in ("user", "group"):
        for number, entry in __salt__["plasma_quota_limits.read"](found["mount_point"], kind).items():
            row = _row(kind, number, names[kind].get(number), entry, now)
            limited = row["percent"] is not None
            # Groups without a limit are left out: most people have one of their own.
            person = kind == "user" and 1000 <= number < 60001
            if everybody or limited or (person and (entry["used"] or entry["inodes_used"])):
                every.append(row)
    return sorted(
        every,
        key=lambda row: (
            not row["over_hard"],
            not row["over_soft"],
            -(row["percent"] or 0),
            -row["used"],
            row["kind"],
            row["id"],
        ),
    )


def report(home_path="/home", output="table", device=None, everybody=False):
    """
    Return ``rows`` as a table (str) or as data.

    home_path, device, everybody
        See ``rows``.
    output
        ``table`` or ``json``.

    In the table ``!`` marks who is over a soft limit and ``X`` who has reached a hard one or whose grace is over.
    Raises CommandExecutionError where quotas are not on, SaltInvocationError for another output.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_report.report
    """
    if output not in ("table", "json"):
        raise SaltInvocationError(f"output must be table or json, not {output!r}.")
    every = rows(home_path, device, everybody)
    if output == "json":
        return every
    found = __salt__["plasma_quota.discover"](home_path, device)
    title = f"{found['mount_point']} ({found['device']}): {_counted(every)}"
    lines = [_HEADER, *(_cells(row) for row in every)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    table = [
        "  ".join(
            cell.ljust(width) if column in (0, 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([title, *table])


def _row(kind, number, name, entry, now):
    space, files = entry["hard"] or entry["soft"], entry["inodes_hard"] or entry["inodes_soft"]
    shares = [100 * used / limit for used, limit in ((entry["used"], space), (entry["inodes_used"], files)) if limit]
    grace = {key: max(0, round(entry[key] - now)) if entry[key] else None for key in ("grace", "inodes_grace")}
    over_soft = bool(0 < entry["soft"] < entry["used"] or 0 < entry["inodes_soft"] < entry["inodes_used"])
    over_hard = bool(
        0 < entry["hard"] <= entry["used"] or 0 < entry["inodes_hard"] <= entry["inodes_used"] or 0 in grace.values()
    )
    return {
        "kind": kind,
        "id": number,
        "name": name,
        "used": entry["used"] * _BLOCK,
        "soft": entry["soft"] * _BLOCK,
        "hard": entry["hard"] * _BLOCK,
        "files": entry["inodes_used"],
        "files_soft": entry["inodes_soft"],
        "files_hard": entry["inodes_hard"],
        "percent": round(max(shares), 1) if shares else None,
        "over_soft": over_soft or over_hard,
        "over_hard": over_hard,
        "grace": grace["grace"],
        "files_grace": grace["inodes_grace"],
    }


def _counted(every):
    users, groups = (sum(row["kind"] == kind for row in every) for kind in ("user", "group"))
    over = sum(row["over_soft"] for row in every)
    return f"{users} users and {groups} groups, {over or 'none'} over a limit"


def _cells(row):
    name = row["name"] or f"#{row['id']}"
    return (
        "X" if row["over_hard"] else "!" if row["over_soft"] else "",
        name if row["kind"] == "user" else f"@{name}",
        _size(row["used"]),
        _size(row["soft"]) if row["soft"] else "-",
        _size(row["hard"]) if row["hard"] else "-",
        "-" if row["percent"] is None else f"{row['percent']:.0f}",
        _left(row["grace"]),
        str(row["files"]),
        str(row["files_soft"] or "-"),
        str(row["files_hard"] or "-"),
        _left(row["files_grace"]),
    )


def _size(number):
    for suffix in ("B", "K", "M", "G"):
        if number < 1024:
            return f"{number:.1f}{suffix}".replace(".0", "")
        number /= 1024
    return f"{number:.1f}T".replace(".0", "")


def _left(seconds):
    if seconds is None:
        return "-"
    if seconds == 0:
        return "over"
    if seconds >= 2 * 86400:
        return f"{seconds // 86400} days"
    if seconds >= 3600:
        return f"{seconds // 3600} h"
    return f"{-(-seconds // 60)} min"
