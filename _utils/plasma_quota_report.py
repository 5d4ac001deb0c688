"""What people and groups use of the disk, beside their limits: worst first, as a table or as data."""

from __future__ import annotations

import grp
import pwd
import time
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_accounts
import plasma_quota_limits
import plasma_quota_setup

_HEADER = ("", "Name", "Used", "Soft", "Hard", "%", "Grace", "Files", "Soft", "Hard", "Grace")


def rows(home_path: str = "/home", device: str | None = None, everybody: bool = False) -> list[dict[str, Any]]:
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
    """
    return _rows(_volume(home_path, device), everybody)


def report(
    home_path: str = "/home", output: str = "table", device: str | None = None, everybody: bool = False
) -> str | list[dict[str, Any]]:
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

        salt-ssh '*' plasma_quota.report
        salt-ssh '*' plasma_quota.report output=json --out=json
    """
    if output not in ("table", "json"):
        raise SaltInvocationError(f"output must be table or json, not {output!r}.")
    volume = _volume(home_path, device)
    table = _rows(volume, everybody)
    if output == "json":
        return table
    users, groups = (sum(row["kind"] == kind for row in table) for kind in ("user", "group"))
    over = sum(row["over_soft"] for row in table) or "none"
    lines = [_HEADER, *(_cells(row) for row in table)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        [
            f"{volume['mount_point']} ({volume['device']}): {users} users and {groups} groups, {over} over a limit",
            *("  ".join(map(_aligned, range(len(line)), line, widths)).rstrip() for line in lines),
        ]
    )


def _volume(home_path: str, device: str | None) -> dict[str, Any]:
    volume = plasma_quota_setup.supported(home_path, device)
    if "off" in volume["state"].values():
        raise CommandExecutionError(f"Quotas of {volume['mount_point']} are not on: apply the state quotas.")
    return volume


def _rows(volume: dict[str, Any], everybody: bool) -> list[dict[str, Any]]:
    names = {
        "user": {entry.pw_uid: entry.pw_name for entry in reversed(pwd.getpwall())},
        "group": {entry.gr_gid: entry.gr_name for entry in reversed(grp.getgrall())},
    }
    now, table = time.time(), []
    for kind in ("user", "group"):
        for number, entry in plasma_quota_limits.read(volume["mount_point"], kind).items():
            row = _row(kind, number, names[kind].get(number) or _name(kind, number), entry, now)
            # Groups without a limit are left out: most people have one of their own.
            person = kind == "user" and plasma_accounts.person(number)
            if everybody or row["percent"] is not None or (person and (row["used"] or row["files"])):
                table.append(row)
    worst_first = ("over_hard", "over_soft", "percent", "used")
    table.sort(key=lambda row: (*(-(row[key] or 0) for key in worst_first), row["kind"], row["id"]))
    return table


def _name(kind: str, number: int) -> str | None:
    """The name of an account or a group of a directory, which lists none."""
    try:
        return pwd.getpwuid(number).pw_name if kind == "user" else grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return None


def _row(kind: str, number: int, name: str | None, entry: dict[str, int], now: float) -> dict[str, Any]:
    space, files = ((entry[f"{of}used"], entry[f"{of}soft"], entry[f"{of}hard"]) for of in ("", "inodes_"))
    shares = [100 * used / (hard or soft) for used, soft, hard in (space, files) if hard or soft]
    grace, files_grace = (max(0, round(entry[key] - now)) if entry[key] else None for key in ("grace", "inodes_grace"))
    over_hard = any(0 < hard <= used for used, _, hard in (space, files)) or 0 in (grace, files_grace)
    in_bytes = dict(
        zip(("used", "soft", "hard"), (blocks * plasma_quota_limits.BLOCK for blocks in space), strict=True)
    )
    return {
        "kind": kind,
        "id": number,
        "name": name,
        **in_bytes,
        **dict(zip(("files", "files_soft", "files_hard"), files, strict=True)),
        "percent": round(max(shares), 1) if shares else None,
        "over_soft": over_hard or any(0 < soft < used for used, soft, _ in (space, files)),
        "over_hard": over_hard,
        "grace": grace,
        "files_grace": files_grace,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    name = row["name"] or f"#{row['id']}"
    return (
        "X" if row["over_hard"] else "!" if row["over_soft"] else "",
        name if row["kind"] == "user" else f"@{name}",
        _size(row["used"]),
        *(_size(row[key]) if row[key] else "-" for key in ("soft", "hard")),
        "-" if row["percent"] is None else f"{row['percent']:.0f}",
        _left(row["grace"]),
        str(row["files"]),
        *(str(row[key] or "-") for key in ("files_soft", "files_hard")),
        _left(row["files_grace"]),
    )


def _aligned(column: int, cell: str, width: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def _size(number: float) -> str:
    unit = 0
    while number >= 1024 and unit < 4:
        number, unit = number / 1024, unit + 1
    return f"{number:.1f}{'BKMGT'[unit]}".replace(".0", "")


def _left(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    if seconds == 0:
        return "over"
    if seconds >= 2 * 86400:
        return f"{seconds // 86400} days"
    return f"{seconds // 3600} h" if seconds >= 3600 else f"{-(-seconds // 60)} min"
