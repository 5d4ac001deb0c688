"""
The file fstab on the server: which line is the homes' one, what it needs for quotas, and how it changes and comes back.

What was done is noted in /var/lib/plasma/quota.json, with the bytes from before in a file of their own beside it; both
are root's alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_quota_edit"

FSTAB = pathlib.Path("/etc/fstab")
NOTES = pathlib.Path("/var/lib/plasma")
LOCK = pathlib.Path("/run/plasma-quota.lock")
_REFUSED = {"noquota", "nouquota", "nogquota", "uqnoenforce", "gqnoenforce", "qnoenforce", "usrjquota=", "grpjquota="}
_JOURNALED = {"usrjquota": "aquota.user", "grpjquota": "aquota.group", "jqfmt": "vfsv1"}
# The first is what is written, the others mean the same (ext4(5), xfs(5)).
_PLAIN = {"xfs": (("uquota", "usrquota", "quota"), ("gquota", "grpquota"))}
_PLAIN_EXT = (("usrquota", "quota"), ("grpquota",))


def __virtual__():
    return __virtualname__


@contextlib.contextmanager
def locked(timeout=300):
    """
    Hold the lock under which everything about quotas is changed; a context manager for the other modules.

    timeout
        Seconds to wait for another run. Raises CommandExecutionError when they have passed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_edit.locked
    """
    handle = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise CommandExecutionError(
                        f"Another run has been changing quotas for {timeout} s (`fuser -v {LOCK}` names it): let it "
                        "finish, then apply again."
                    ) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(handle)


def missing_options(kind, options):
    """
    Return the mount options that quotas need besides ``options``, as a list.

    kind
        ``feature``, ``journaled``, ``files`` or ``xfs``, as ``plasma_quota.discover`` says.
    options
        List of mount options, of fstab or of the mount. Those that others set up are kept, and not rewritten.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_edit.missing_options files '[rw, usrquota]'
    """
    if kind == "journaled":
        names = {option.partition("=")[0] for option in options if "=" in option}
        return [f"{name}={value}" for name, value in _JOURNALED.items() if name not in names]
    return [names[0] for names in _PLAIN.get(kind, _PLAIN_EXT) if not set(names) & set(options)]


def entry(found):
    """
    Return the line of fstab for a mount, as an entry of ``plasma_quota_fstab.entries``, or None where there is none.

    found
        ``{"mount_point", "numbers": "major:minor"}`` of ``plasma_quota.discover``.

    Raises CommandExecutionError when it is not clear which line that is, or when it mounts something else.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_edit.entry "$found"
    """
    point = found["mount_point"]
    lines = [
        line for line in __salt__["plasma_quota_fstab.entries"](_read()) if line["target"] == point and not line["bind"]
    ]
    # Of several, the one that is mounted at boot.
    lines = [line for line in lines if "noauto" not in line["options"]] or lines
    if not lines:
        return None
    numbers = " and ".join(str(line["number"]) for line in lines)
    if len(lines) > 1:
        raise CommandExecutionError(
            f"{FSTAB} has several lines for {point} (lines {numbers}): leave one, and apply again."
        )
    if lines[0]["source"] != found["source"] and not _same_device(lines[0]["source"], found["numbers"]):
        raise CommandExecutionError(
            f"{FSTAB}, line {numbers}, mounts {lines[0]['source']} on {point}, where {found['source']} is mounted now: "
            "mend that line or mount what it says, and apply again."
        )
    refused = sorted(_REFUSED & set(lines[0]["options"]))
    if refused:
        raise CommandExecutionError(
            f"{FSTAB}, line {numbers}, switches quotas of {point} off ({', '.join(refused)}): take that out, and apply "
            "again."
        )
    return lines[0]


def plan(found):
    """
    Return what fstab needs for the quotas of a mount: ``{"old": line or None, "new": line}``, or None for nothing.

    found
        What ``plasma_quota.discover`` returned.

    Raises CommandExecutionError as ``entry`` does, and when something else than fstab mounts it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_edit.plan "$found"
    """
    record = _planned(found)[1]
    return {"old": record["old"], "new": record["new"]} if record else None


def write(found):
    """
    Give fstab what the quotas of a mount need, keeping every other byte, and note how to undo it.

    found
        What ``plasma_quota.discover`` returned.

    Returns what ``plan`` returned before. The new file is checked with ``findmnt --verify`` before it takes the place
    of the old one; raises CommandExecutionError when that finds fault with it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_edit.write "$found"
    """
    before = _read()
    after, record = _planned(found)
    if record is None:
        return None
    notes = _notes()
    # Of a line that was changed here before, and by others since, the options count: its bytes from before are theirs.
    earlier = notes.get(found["mount_point"])
    if earlier:
        record["options"] = list(dict.fromkeys(earlier["edit"]["options"] + record["options"]))
    note = {
        "edit": record,
        "kind": found["kind"],
        "before": None if earlier else _backup(before),
        "after": _digest(after),
    }
    # The note first: what is in fstab can always be undone.
    _note({**notes, found["mount_point"]: note})
    try:
        _replace(after)
    except BaseException:
        _note(notes)
        raise
    return {"old": record["old"], "new": record["new"]}


def noted():
    """
    Return what was done to fstab here and not undone: ``{mount point: {"kind": ..., "edit": {"old", "new", ...}}}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_edit.noted
    """
    return _notes()


def restore(point):
    """
    Undo ``write`` for a mount point.

    While fstab is as it was left, it gets its bytes from before; otherwise only the added options are taken out.
    Returns ``{"old": line, "new": line or None, "whole": whether the bytes from before are back}``, or None.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_edit.restore /
    """
    notes = _notes()
    note = notes.get(point)
    if note is None:
        return None
    now = _read()
    backup = NOTES / note["before"] if note["before"] else None
    whole = bool(backup) and _digest(now) == note["after"] and backup.exists()
    text = backup.read_bytes().decode("latin-1") if whole else __salt__["plasma_quota_fstab.undo"](now, note["edit"])
    if text != now:
        _replace(text)
    _note({key: value for key, value in notes.items() if key != point})
    return {"old": note["edit"]["new"], "new": note["edit"]["old"], "whole": whole}


def _planned(found):
    """The text that fstab should have, and the record of the editor (None when it has it)."""
    text, line = _read(), entry(found)
    if line:
        missing = missing_options(found["kind"], line["options"])
        return __salt__["plasma_quota_fstab.add_options"](text, line["number"], missing) if missing else (text, None)
    point = found["mount_point"]
    unit = _unit_of(point)
    if unit:
        raise CommandExecutionError(
            f"{point} is mounted by {unit}, not by {FSTAB}: add {','.join(missing_options(found['kind'], []))} to its "
            "Options= there, reboot, then apply again."
        )
    source = f"UUID={found['uuid']}" if found["uuid"] else found["source"]
    # Of a disk that is not there the server must boot all the same: it did before.
    options = ["defaults", *(["nofail"] if point != "/" else []), *missing_options(found["kind"], [])]
    return __salt__["plasma_quota_fstab.add_line"](text, source, point, found["type"], options)


def _unit_of(point):
    """The file of the systemd unit that mounts this, unless that was made from fstab or from the mount itself."""
    name = __salt__["cmd.run_all"](
        ["systemd-escape", "--path", "--suffix=mount", point], python_shell=False, ignore_retcode=True
    )["stdout"].strip()
    if not name:
        return None
    asked = __salt__["cmd.run_all"](
        ["systemctl", "show", "--property=FragmentPath", "--value", "--", name],
        python_shell=False,
        ignore_retcode=True,
    )
    path = asked["stdout"].strip()
    return path if path and not path.startswith("/run/systemd/generator") else None


def _same_device(source, numbers):
    try:
        return __salt__["plasma_quota_fs.resolve"](source)["device"] == numbers
    except (CommandExecutionError, SaltInvocationError):
        return False


def _read():
    try:
        return FSTAB.read_bytes().decode("latin-1")
    except FileNotFoundError:
        return ""


def _digest(text):
    return hashlib.sha256(text.encode("latin-1")).hexdigest()


def _replace(text):
    """Put this text in the place of fstab: all or nothing, also when the power goes; owner and mode stay."""
    path = pathlib.Path(os.path.realpath(FSTAB))
    new = path.with_name(f".{path.name}.plasma-new")
    new.unlink(missing_ok=True)
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(text.encode("latin-1"))
            file.flush()
            if path.exists():
                status = path.stat()
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.fchmod(file.fileno(), status.st_mode & 0o7777)
            else:
                os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        faults, known = _faults(new), _faults(path)
        if len(faults) > len(known):
            raise CommandExecutionError(
                f"{path} was left as it is: with the options for quotas, `findmnt --verify` says: {'; '.join(faults)}."
            )
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    _sync(path.parent)
    # systemd makes its mount units from the file.
    __salt__["cmd.run_all"](["systemctl", "daemon-reload"], python_shell=False, ignore_retcode=True)


def _faults(path):
    """The errors, not the warnings, that findmnt sees in an fstab."""
    if not path.exists():
        return []
    asked = __salt__["cmd.run_all"](
        ["findmnt", "--verify", "--tab-file", str(path)],
        python_shell=False,
        ignore_retcode=True,
        env={"LC_ALL": "C"},
    )
    said = asked["stdout"] + "\n" + asked["stderr"]
    return [line.strip() for line in said.splitlines() if line.strip().startswith("[E]") or "parse error at" in line]


def _backup(text):
    """Keep these bytes, root's alone; the name of the file in the directory of notes. One that is there is the same."""
    name = f"fstab-{_digest(text)[:16]}"
    if not (NOTES / name).exists():
        _put(NOTES / name, text.encode("latin-1"))
    return name


def _notes():
    try:
        return json.loads((NOTES / "quota.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise CommandExecutionError(
            f"{NOTES / 'quota.json'} cannot be read: it says what was done to {FSTAB}; move it away when you know."
        ) from None


def _note(notes):
    path = NOTES / "quota.json"
    if notes:
        _put(path, json.dumps(notes, indent=1, sort_keys=True).encode())
    else:
        path.unlink(missing_ok=True)


def _put(path, data):
    path.parent.mkdir(mode=0o755, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync(path.parent)


def _sync(directory):
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
