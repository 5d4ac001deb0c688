"""Homes of people of a directory, made when they first come: nobody else makes them, as adduser does for accounts here.

A home is made in a directory of root's beside its place and renamed into it, and only where nobody but root can change
what a path means. Whoever writes a directory also writes where homes are: none is made but in the places for homes.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import threading
from collections.abc import Iterable
from pathlib import Path

from .accounts import AccountError, check_directory, find_entry, is_local, resolve_trusted

SKELETON = Path("/etc/skel")
FSTAB = Path("/etc/fstab")
# Beside the one of pillar.
ALWAYS = ("/home",)
NEW = ".plasma-new."

_lock = threading.Lock()


def ensure(name: str, places: Iterable[str]) -> bool:
    """Make the home of somebody whose account is not of this server, where there is none yet.

    Args:
        name: login name, exactly as the account database has it.
        places: directories below which homes are made, beside /home.

    Returns:
        Whether one was made.

    Raises:
        AccountError: the account is no person's, or the home cannot be made.
    """
    entry = find_entry(name)
    # With the slash at its end, so that an automounter brings what it has.
    if is_local(name) or os.path.lexists(os.path.join(entry.pw_dir, "")) or os.path.lexists(entry.pw_dir):
        return False
    with _lock:
        if os.path.lexists(entry.pw_dir):
            return False
        try:
            _make(entry, [*places, *ALWAYS])
        except OSError as error:
            raise _refusal(entry, f"{error.filename or entry.pw_dir}: {error.strerror}") from error
        except AccountError as error:
            raise _refusal(entry, error.reason.rstrip(".")) from error
    return True


def _refusal(entry: pwd.struct_passwd, why: str) -> AccountError:
    reason = f"the home {entry.pw_dir} of {entry.pw_name!r} cannot be made: {why}."
    return AccountError(
        reason, f"Your home directory on this server cannot be made: {why}. Please ask the administrator of the server."
    )


def _make(entry: pwd.struct_passwd, places: list[str]) -> None:
    home = entry.pw_dir.rstrip("/")
    if os.path.normpath(home) != home or not any(home.startswith(f"{place.rstrip('/')}/") for place in places):
        raise AccountError(f"it is in none of the places for homes ({', '.join(dict.fromkeys(places))})")
    waiting = _unmounted(home)
    if waiting:
        raise AccountError(f"{waiting} is in {FSTAB} and not mounted")
    missing, above = [], os.path.dirname(home)
    while not os.path.lexists(above):
        missing.append(os.path.basename(above))
        above = os.path.dirname(above)
    # What is there has to be root's, and so is what is made: nobody else can lead the next step astray.
    above = resolve_trusted(above)
    check_directory(above, os.lstat(above))
    for part in reversed(missing):
        above = os.path.join(above, part)
        os.mkdir(above, 0o700)
        os.chmod(above, 0o755)
    new = os.path.join(above, f"{NEW}{entry.pw_uid}")
    shutil.rmtree(new, ignore_errors=True)
    try:
        os.mkdir(new, 0o700)
        _fill(new, entry)
        os.rename(new, os.path.join(above, os.path.basename(home)))
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _fill(new: str, entry: pwd.struct_passwd) -> None:
    """Copy the skeleton into a home that is root's yet, and then hand all of it over, itself last."""
    for source in sorted(SKELETON.rglob("*")):
        target, mode = os.path.join(new, source.relative_to(SKELETON)), source.lstat().st_mode
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISDIR(mode):
            os.mkdir(target, 0o700)
        elif stat.S_ISREG(mode):
            shutil.copyfile(source, target, follow_symlinks=False)
        else:
            continue
        os.lchown(target, entry.pw_uid, entry.pw_gid)
        if not stat.S_ISLNK(mode):
            # No program that runs as its owner.
            os.chmod(target, mode & 0o777)
    os.chown(new, entry.pw_uid, entry.pw_gid)


def _unmounted(home: str) -> str:
    """Return the file system of fstab that a home belongs on and that is not mounted; empty when all are."""
    try:
        lines = FSTAB.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for fields in map(str.split, lines):
        # Octal escapes of blanks (fstab(5)) are in no place for homes.
        if len(fields) > 3 and not fields[0].startswith("#") and fields[1] != "/" and fields[2] != "swap":
            point = fields[1].rstrip("/")
            if home.startswith(f"{point}/") and point.startswith("/") and not os.path.ismount(point):
                return point
    return ""
