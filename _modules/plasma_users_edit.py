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

import fcntl
import json
import os
import pathlib
import random
import subprocess
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_users_edit"

_TOOLS = {
    "passwd": ("vipw", "-q"),
    "shadow": ("vipw", "-q", "-s"),
    "group": ("vigr", "-q"),
    "gshadow": ("vigr", "-q", "-s"),
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# vipw runs `sh -c "$VISUAL COPY"`. It compares the times of last change by whole seconds and drops an edit made in the
# same second as the one before, without a word: so the copy gets the time of the new content, later than the file's.
_EDITOR = 'edit() {{ cmp -s -- "$1" {old} && cat {new} > "$1" && touch -r {new} -- "$1"; }}; edit'
# An account counts from its line in passwd on, so that one comes last, and goes first. Plans look at group to see what
# is done, so gshadow comes before it.
ADDING = ("gshadow", "group", "shadow", "passwd")
REMOVING = ("passwd", "shadow", "gshadow", "group")
_EMPTY = {"given": {}, "making": {}, "removing": {}, "uids": {}, "gids": {}, "forgotten": {}}


def __virtual__():
    return __virtualname__


def lock(timeout=300, root="/"):
    """
    Return the open file that holds the lock of this program: two applies at once come one after the other. Close it.

    timeout
        Seconds to wait for another one.

    Raises CommandExecutionError when it is still held after that.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_edit.lock timeout=1
    """
    path = pathlib.Path(root, "run", "plasma-users.lock")
    until = time.monotonic() + timeout
    handle = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+")
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError:
            if time.monotonic() > until:
                handle.close()
                raise CommandExecutionError(
                    f"Another apply has been changing accounts for {timeout} s (`fuser -v {path}` says who): "
                    "let it finish, and apply again."
                ) from None
        time.sleep(0.05)


def commit(before, after, order=ADDING, root="/"):
    """
    Bring the account files from one state to another.

    before, after
        ``{kind: text}``, texts decoded with ``surrogateescape``. Kinds whose texts are equal are left alone.

    order
        The kinds, in the order of writing.

    Returns None when all of the files have the new content; else a sentence that says what was in the way: read and
    plan again then. Raises CommandExecutionError when a tool is missing.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_edit.commit '{group: ""}' '{group: ""}'
    """
    for kind in order:
        if before.get(kind) == after.get(kind):
            continue
        failed = _swap(kind, _bytes(before[kind]), _bytes(after[kind]), root)
        if failed:
            return failed
    return None


def said(exc):
    """
    Return what went wrong as a sentence without a full stop.

    exc
        A CommandExecutionError, or an OSError: a disk that is full or can only be read.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_edit.said 'Broken.'
    """
    if isinstance(exc, OSError):
        where = f" ({exc.filename})" if isinstance(exc.filename, str) else ""
        return f"{exc.strerror or type(exc).__name__}{where}: see to that, and apply again"
    return str(exc).removesuffix(".")


def _bytes(text):
    return text.encode("utf-8", "surrogateescape")


def _swap(kind, old, new, root):
    """Replace the content of one file if it is still the old one; a sentence when it is not the new one afterwards."""
    path = pathlib.Path(root, "etc", kind)
    tool = [*_TOOLS[kind], *(["-R", root] if root != "/" else [])]
    contents = []
    try:
        for content in (old, new):
            handle = os.memfd_create("accounts", 0)
            contents.append(handle)
            with open(handle, "wb", closefd=False) as memory:
                memory.write(content)
        later = max(int(time.time()), int(path.stat().st_mtime) + 1)
        os.utime(contents[1], (later, later))
        editor = _EDITOR.format(old=f"/dev/fd/{contents[0]}", new=f"/dev/fd/{contents[1]}")
        done = subprocess.run(
            tool,
            env={"PATH": os.environ.get("PATH", "") + ":" + _PATH, "VISUAL": editor, "LC_ALL": "C"},
            pass_fds=contents,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            cwd="/",
            check=False,
        )
    except FileNotFoundError as exc:
        missing = exc.filename if isinstance(exc.filename, str) else tool[0]
        raise CommandExecutionError(f"{missing} is missing on this server: install the package passwd.") from None
    except subprocess.TimeoutExpired:
        return f"{tool[0]} has waited for two minutes"
    finally:
        for handle in contents:
            os.close(handle)
    if path.read_bytes() == new:
        return None
    # What it writes when the comparison fails repeats the editor's command line.
    said = [line for line in done.stderr.splitlines() if "returned with status" not in line]
    return f"{tool[0]}: {said[-1].removeprefix(tool[0] + ': ')}" if said else f"{path} was changed by somebody else"


def change(plan, order=ADDING, root="/", attempts=30):
    """
    Change the account files until nothing is left to change; for modules that hold the lock.

    plan
        A function that takes the tables of ``plasma_users_files.read`` and returns the edits, ``{kind: {name: [field] |
        None}}``. It is asked again whenever somebody else changed a file meanwhile, and at the end, to see that all is
        as planned.

    order
        The kinds, in the order of writing.

    Raises CommandExecutionError when that does not come to an end in so many ``attempts``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_edit.change  # not from the command line: `plan` is a function
    """
    text, edited = __salt__["plasma_users_files.text"], __salt__["plasma_users_files.edited"]
    failed = None
    for _ in range(attempts):
        tables = __salt__["plasma_users_files.read"](root=root)
        edits = {kind: entries for kind, entries in plan(tables).items() if entries and tables[kind]}
        if not edits:
            return
        # As it was read, byte for byte: the last line may have no end.
        before = {kind: tables[kind]["text"] for kind in edits}
        after = {kind: text(edited(tables[kind], entries)) for kind, entries in edits.items()}
        failed = commit(before, after, order=order, root=root)
        if failed:
            # Whoever is at it may be at it for a while; never the two of us in step.
            time.sleep(random.uniform(0, 0.2))
    raise CommandExecutionError(f"The account files could not be changed ({failed or 'others do'}): apply again.")


def recall(root="/"):
    """
    Return what earlier runs noted: ``{"given", "making", "removing", "uids", "gids", "forgotten"}``.

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

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_edit.recall
    """
    path = _notes(root)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        found = {key: said.get(key, {}) for key in _EMPTY}
    except FileNotFoundError:
        return {key: {} for key in _EMPTY}
    except (ValueError, AttributeError):
        found = {"": None}
    if not all(isinstance(value, dict) for value in found.values()):
        raise CommandExecutionError(f"{path} is damaged: move it away, and apply again.")
    return found


def remember(memory, root="/"):
    """
    Write what ``recall`` returns, readable for root alone. Returns True.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_edit.remember '{given: {anna: [video]}}'
    """
    path = _notes(root)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = json.dumps({key: memory.get(key, {}) for key in _EMPTY}, sort_keys=True, indent=1) + "\n"
    new = path.with_name(path.name + ".new")  # left by a killed run, it is replaced: writers hold the lock
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return True


def _notes(root):
    return pathlib.Path(root, "var", "lib", "plasma", "users.json")
