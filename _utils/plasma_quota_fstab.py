"""
The line of fstab that mounts the homes: it gets the mount options that quotas need, and loses them again.

Every other byte stays. What was added is noted in /var/lib/plasma/quota.json, with a copy of the file from before
beside it; both are root's alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
from typing import Any, TextIO

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_files
import plasma_lock
import plasma_mounts
import plasma_quota_fs
import plasma_run
import plasma_systemd

FSTAB = pathlib.Path("/etc/fstab")
NOTES = pathlib.Path("/var/lib/plasma")
LOCK = pathlib.Path("/run/plasma-quota.lock")
_FIELD = re.compile(r"[^ \t\r]+")
_REFUSED = {"noquota", "nouquota", "nogquota", "uqnoenforce", "gqnoenforce", "qnoenforce", "usrjquota=", "grpjquota="}
_JOURNALED = {"usrjquota": "aquota.user", "grpjquota": "aquota.group", "jqfmt": "vfsv1"}
# The first is what is written, the others mean the same (ext4(5), xfs(5)).
_XFS = (("uquota", "usrquota", "quota"), ("gquota", "grpquota"))
_EXT = (("usrquota", "quota"), ("grpquota",))


def lock(timeout: float = 300) -> contextlib.AbstractContextManager[TextIO]:
    """
    Return a context manager that holds the lock under which everything about quotas is changed.

    timeout
        Seconds to wait for another run. CommandExecutionError is raised when they have passed.
    """
    return plasma_lock.hold(LOCK, "Another run has been changing quotas", timeout)


def missing_options(kind: str, options: list[str]) -> list[str]:
    """
    Return the mount options that quotas need besides ``options``.

    kind
        ``feature``, ``journaled``, ``files`` or ``xfs``, as ``plasma_quota.discover`` says.
    options
        Mount options, of fstab or of the mount. Those that others set up are kept, and not rewritten.
    """
    if kind == "journaled":
        names = {option.partition("=")[0] for option in options if "=" in option}
        return [f"{name}={value}" for name, value in _JOURNALED.items() if name not in names]
    return [names[0] for names in (_XFS if kind == "xfs" else _EXT) if not set(names) & set(options)]


def entries(text: str) -> list[dict[str, Any]]:
    """
    Return the mounts of an fstab (fstab(5)), in order; those without options are left out.

    Each is ``{"number": line from 0, "line": str, "source", "target", "options": [str], "span": (start, end) of the
    options in the line}``.
    """
    mounts = []
    for number, line in enumerate(text.split("\n")):
        fields = list(_FIELD.finditer(line))
        if len(fields) < 4 or fields[0][0].startswith("#") or fields[2][0] == "swap":
            continue
        options = fields[3][0].split(",")
        if {"bind", "rbind"} & set(options):
            continue
        source, target = (plasma_mounts.unescape(field[0]) for field in fields[:2])
        mounts.append(
            {
                "number": number,
                "line": line,
                "source": source,
                "target": os.path.normpath(target),
                "options": options,
                "span": fields[3].span(),
            }
        )
    return mounts


def entry(volume: dict[str, Any]) -> dict[str, Any]:
    """
    Return the line of fstab for a mount, as ``entries`` does.

    volume
        ``{"mount_point", "source", "numbers": "major:minor"}`` of ``plasma_quota.discover``.

    Raises CommandExecutionError when there is none, when it is not clear which it is, and when it mounts something else
    or switches quotas off.
    """
    point, source = volume["mount_point"], volume["source"]
    lines = [line for line in entries(_read()) if line["target"] == point]
    if not lines:
        raise CommandExecutionError(
            f"{FSTAB} has no line that mounts {point}: add one for {source}, with the option defaults, and apply again."
        )
    line, numbers = lines[0], " and ".join(str(line["number"] + 1) for line in lines)
    refused = sorted(_REFUSED & set(line["options"]))
    if len(lines) > 1:
        problem = f" has several lines for {point} (lines {numbers}): leave one"
    elif line["source"] != source and not _same_device(line["source"], volume["numbers"]):
        problem = (
            f", line {numbers}, mounts {line['source']} on {point}, where {source} is mounted now: mend that line or "
            "mount what it says"
        )
    elif refused:
        problem = f", line {numbers}, switches quotas of {point} off ({', '.join(refused)}): take that out"
    else:
        return line
    raise CommandExecutionError(f"{FSTAB}{problem}, and apply again.")


def plan(volume: dict[str, Any]) -> dict[str, str] | None:
    """
    Return what fstab needs for the quotas of a mount: ``{"old": line, "new": line}``, or None for nothing.

    volume
        What ``plasma_quota.discover`` returned. CommandExecutionError is raised as by ``entry``.
    """
    line = entry(volume)
    missing = missing_options(volume["kind"], line["options"])
    return {"old": line["line"], "new": _with_options(line, [*line["options"], *missing])} if missing else None


def write(volume: dict[str, Any]) -> None:
    """
    Give fstab what the quotas of a mount need, and note how to undo it.

    volume
        What ``plasma_quota.discover`` returned.

    The new file is checked with ``findmnt --verify`` before it takes the place of the old one. Raises
    CommandExecutionError when that finds fault with it.
    """
    change = plan(volume)
    if change is None:
        return
    point, line, text, notes = volume["mount_point"], entry(volume), _read(), noted()
    added = missing_options(volume["kind"], line["options"])
    if point in notes:
        # Others have changed the line since: only the options are ours.
        added = list(dict.fromkeys([*notes[point]["edit"]["options"], *added]))
    note = {
        "edit": {"target": point, "options": added, **change},
        "kind": volume["kind"],
        "before": None if point in notes else _backup(text),
    }
    # The note first: what is in fstab can always be undone.
    _note({**notes, point: note})
    try:
        _replace(_with_line(text, line, change["new"]))
    except BaseException:
        _note(notes)
        raise


def noted() -> dict[str, Any]:
    """
    Return what was done to fstab here and not undone: ``{mount point: {"kind": ..., "edit": {"old", "new", ...}}}``.
    """
    return plasma_files.read_note(NOTES / "quota.json", f"it says what was done to {FSTAB}, so move it away") or {}


def restore(point: str) -> dict[str, str | None]:
    """
    Undo ``write`` for a mount point, which has to be in ``noted``. Returns ``{"old": line, "new": line}``.

    The line gets its old bytes back. Where somebody has changed it since, only the added options are taken out.
    """
    notes = noted()
    edit = notes.pop(point)["edit"]
    text = undo(_read(), edit)
    if text != _read():
        _replace(text)
    _note(notes)
    return {"old": edit["new"], "new": edit["old"]}


def undo(text: str, edit: dict[str, Any]) -> str:
    """Return the text of an fstab without an edit that was noted."""
    for line in entries(text):
        if line["target"] != edit["target"]:
            continue
        left = [option for option in line["options"] if option == "defaults" or option not in edit["options"]]
        # Earlier releases added a line where there was none (old is None): it stays, without the options.
        whole = line["line"] == edit["new"] and edit["old"] is not None
        text = _with_line(text, line, edit["old"] if whole else _with_options(line, left or ["defaults"]))
    return text


def _with_options(line: dict[str, Any], options: list[str]) -> str:
    start, end = line["span"]
    return line["line"][:start] + ",".join(options) + line["line"][end:]


def _with_line(text: str, line: dict[str, Any], new: str) -> str:
    lines = text.split("\n")
    lines[line["number"]] = new
    return "\n".join(lines)


def _same_device(source: str, numbers: str) -> bool:
    try:
        return plasma_quota_fs.resolve(source)["device"] == numbers
    except SaltInvocationError:
        return False


def _read() -> str:
    return FSTAB.read_bytes().decode("utf-8", "surrogateescape") if FSTAB.exists() else ""


def _replace(text: str) -> None:
    """Put this text in the place of fstab, all or nothing, when findmnt finds no more fault with it than before."""
    new = FSTAB.with_name(f".{FSTAB.name}.plasma-new")
    try:
        plasma_files.write(new, text, FSTAB.stat().st_mode & 0o7777)
        faults = _faults(new)
        if len(faults) > len(_faults(FSTAB)):
            raise CommandExecutionError(
                f"{FSTAB} was left as it is: with the options for quotas, `findmnt --verify` says: {'; '.join(faults)}."
            )
        os.replace(new, FSTAB)
    finally:
        new.unlink(missing_ok=True)
    # systemd makes its mount units from the file.
    plasma_systemd.run("daemon-reload")


def _faults(path: pathlib.Path) -> list[str]:
    """The errors, not the warnings, that findmnt sees in an fstab."""
    done = plasma_run.run(["findmnt", "--verify", "--tab-file", str(path)])
    lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines()]
    return [line for line in lines if line.startswith("[E]") or "parse error at" in line]


def _backup(text: str) -> str:
    """Keep a copy, root's alone; the name of its file. One that is there is the same."""
    content = text.encode("utf-8", "surrogateescape")
    name = f"fstab-{hashlib.sha256(content).hexdigest()[:16]}"
    plasma_files.directory(NOTES)
    plasma_files.write(NOTES / name, content)
    return name


def _note(notes: dict[str, Any]) -> None:
    if notes:
        plasma_files.write_note(NOTES / "quota.json", notes)
    else:
        (NOTES / "quota.json").unlink(missing_ok=True)
