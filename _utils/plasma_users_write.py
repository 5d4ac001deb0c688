"""
Change the account files in one go, through ``vipw`` and ``vigr``: the system's own editors, with its own locks.

They lock the file (``/etc/.pwd.lock``, ``/etc/passwd.lock``), hand a copy to an editor, put the copy into place by
renaming, keep the previous content as ``/etc/passwd-`` and tell the caches of nscd and sssd. The editor here compares
the copy with what the change was planned for, and replaces it only when nobody has changed it: a compare-and-swap.
Thousands of accounts cost one such step a file, where useradd takes 12 to 60 ms for each.

Content goes to the editor in memory (memfd_create(2)), not in files or arguments: there are hashes in it. A run that is
killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_lock
import plasma_run
import plasma_users_tables

Edits = Mapping[str, Mapping[str, "list[str] | None"]]

_TOOLS = {
    "passwd": ("vipw", "-q"),
    "shadow": ("vipw", "-q", "-s"),
    "group": ("vigr", "-q"),
    "gshadow": ("vigr", "-q", "-s"),
}
# vipw runs `sh -c "$VISUAL COPY"`. It compares the times of last change by whole seconds and drops an edit made in the
# same second as the one before, without a word: so the copy gets the time of the new content, later than the file's.
_EDITOR = 'edit() {{ cmp -s -- "$1" {old} && cat {new} > "$1" && touch -r {new} -- "$1"; }}; edit'
# An account counts from its line in passwd on, so that one comes last, and goes first. Plans look at group to see what
# is done, so gshadow comes before it.
ADDING = ("gshadow", "group", "shadow", "passwd")
REMOVING = ("passwd", "shadow", "gshadow", "group")
_ATTEMPTS = 30
_NOTES = ("given", "making", "removing", "uids", "gids", "forgotten", "marks", "renaming", "renamed")


def lock(timeout: float = 300, root: str = "/") -> contextlib.AbstractContextManager:
    """
    Hold the lock of this program, a context manager: two applies at once come one after the other.

    timeout
        Seconds to wait for another one.

    Raises CommandExecutionError when it is still held after that.
    """
    return plasma_lock.hold(os.path.join(root, "run/plasma-users.lock"), "Another apply changes accounts", timeout)


def describe(exc: CommandExecutionError | OSError) -> str:
    """Return what went wrong, such as a disk that is full or read-only, as a sentence without a full stop."""
    if isinstance(exc, OSError):
        where = f" ({exc.filename})" if isinstance(exc.filename, str) else ""
        return f"{exc.strerror or type(exc).__name__}{where}: see to that, and apply again"
    return str(exc).removesuffix(".")


@contextlib.contextmanager
def described() -> Generator[None]:
    """Raise CommandExecutionError, with one sentence, for an OSError: a disk that is full or read-only."""
    try:
        yield
    except OSError as exc:
        raise CommandExecutionError(f"{describe(exc)}.") from exc


def change(plan: Callable[[dict[str, Any]], Edits], order: tuple[str, ...] = ADDING, root: str = "/") -> None:
    """
    Change the account files until nothing is left to change; the caller holds the lock.

    plan
        Function that gets the tables of ``plasma_users_tables.read`` and returns ``{kind: {name: [field] | None}}``.
        It is called again after each attempt, for others may change the files meanwhile.
    order
        The kinds, in the order of writing.

    Raises CommandExecutionError when that does not come to an end.
    """
    failed = None
    for _ in range(_ATTEMPTS):
        tables = plasma_users_tables.read(root)
        planned = plan(tables)
        edits = {kind: planned[kind] for kind in order if planned.get(kind) and tables[kind]["text"] is not None}
        if not edits:
            return
        for kind, entries in edits.items():
            new = plasma_users_tables.text(plasma_users_tables.edited(tables[kind], entries))
            # The old one as it was read, byte for byte: the last line may have no end.
            failed = tables[kind]["text"] != new and _swap(kind, tables[kind]["text"], new, root)
            if failed:
                # Whoever changes the files may do so for a while; never the two of us in step.
                time.sleep(random.uniform(0, 0.2))
                break
    raise CommandExecutionError(f"The account files could not be changed ({failed or 'others do'}): apply again.")


def _swap(kind: str, old: str, new: str, root: str) -> str | None:
    """Replace the content of one file if it is still the old one; why it is not the new one afterwards, or None."""
    path = pathlib.Path(root, "etc", kind)
    with contextlib.ExitStack() as stack:
        memory = [stack.enter_context(open(os.memfd_create("accounts"), "wb")) for _ in range(2)]
        for file, content in zip(memory, (old, new), strict=True):
            file.write(content.encode("utf-8", "surrogateescape"))
            file.flush()
        later = max(int(time.time()), int(path.stat().st_mtime) + 1)
        os.utime(memory[1].fileno(), (later, later))
        before, after = (f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in memory)
        command = [*_TOOLS[kind], *(["-R", root] if root != "/" else [])]
        done = plasma_run.run(command, timeout=120, env={"VISUAL": _EDITOR.format(old=before, new=after)})
    if path.read_bytes() == new.encode("utf-8", "surrogateescape"):
        return None
    # What it writes when the comparison fails repeats the editor's command line.
    lines = [line for line in done.stderr.splitlines() if "returned with status" not in line]
    tool = _TOOLS[kind][0]
    return f"{tool}: {lines[-1].removeprefix(f'{tool}: ')}" if lines else f"{path} was changed by somebody else"


def recall(root: str = "/") -> dict[str, dict[str, Any]]:
    """
    Return what earlier runs noted: ``{"given", "making", "removing", "uids", "gids", "forgotten",
    "marks", "renaming", "renamed"}``.

    given
        ``{user: [group]}``: memberships that pillar named, which are ours to take away again.
    making
        ``{user: {"uid", "gid"}}``: accounts that a run is about to make, or was when it was killed.
    removing
        ``{user: {...}}``: accounts that a run is removing, with what is needed to go on.
    uids
        ``{uid: user}`` of removed people: not given to anybody else by itself, for there may be files left anywhere.
    gids
        ``{gid: user}`` of their own groups, likewise.
    forgotten
        ``{user: True}`` of people who are to be absent and whom the hub does not know any more: it is asked once.
    marks
        ``{user: {controller: mark}}`` of passwords, see ``plasma_users_marks``.

    renaming
        ``{new name: {...}}``: people who are getting another name, with what ``plasma_users_rename`` needs to go on.

    renamed
        ``{former name: {"new", "uid"}}``: what people are called whom archives have by another name.

    Raises CommandExecutionError when the notes are damaged.
    """
    notes = plasma_files.read_note(_path(root), "move it away, and apply again") or {}
    return {key: notes.get(key, {}) for key in _NOTES}


def remember(memory: dict[str, dict[str, Any]], root: str = "/") -> None:
    """Write what ``recall`` returns, readable for root alone."""
    plasma_files.write_note(_path(root), {key: memory[key] for key in _NOTES})


def _path(root: str) -> str:
    return os.path.join(root, "var/lib/plasma/users.json")
