"""System accounts: who may have a server, and with which identity it runs.

Everything here is read from the host's account database at the moment it is needed. Nothing is taken from what the
hub remembers, since accounts change underneath it.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOGIN_DEFS = Path("/etc/login.defs")
PASSWD = Path("/etc/passwd")
GROUP = Path("/etc/group")
SHADOW = Path("/etc/shadow")
# Defaults of shadow's login.defs(5).
ID_DEFAULTS = {"UID_MIN": 1000, "UID_MAX": 60000, "GID_MIN": 1000, "GID_MAX": 60000}
# Nobody's, whatever a directory says: systemd's for services, and "nobody" and "none" in 16 and 32 bits.
RESERVED_IDS = (range(61184, 65536), range(2**32 - 2, 2**32))
# The one group of the system that people have always had as their own (base-passwd).
USERS = 100
NO_LOGIN_SHELLS = frozenset({"nologin", "false"})
PLAIN = re.compile(r"[^-:,/\x00-\x1f\x7f][^:,/\x00-\x1f\x7f]*")
GROUP_NAME = re.compile(r"[^:,\x00-\x1f\x7f]+")
PLAIN_PATH = re.compile(r"/[^:\x00-\x1f\x7f]*")
MAX_LINKS = 40
DAY = 24 * 60 * 60


class AccountError(Exception):
    """An account may not use the hub.

    Attributes:
        message: one sentence for the person.
        reason: one sentence for the hub's log.
    """

    def __init__(self, reason: str, message: str = ""):
        super().__init__(reason)
        self.reason = reason
        self.message = message or (
            "Your account on this server is not allowed to use JupyterHub. Please ask the administrator of the server."
        )


@dataclass(frozen=True)
class Group:
    """A group of the host."""

    name: str
    gid: int


@dataclass(frozen=True)
class Account:
    """A person's account on the host, checked.

    Attributes:
        name: login name.
        uid: user id.
        group: primary group, from the passwd entry.
        groups: supplementary groups that are not the system's own (gid from GID_MIN on).
        home: home directory as the account database names it.
        real_home: the same without symbolic links; every directory above it belongs to root.
    """

    name: str
    uid: int
    group: Group
    groups: tuple[Group, ...]
    home: str
    real_home: str


def id_ranges(path: Path | None = None) -> dict[str, int]:
    """Return UID_MIN, UID_MAX, GID_MIN and GID_MAX of login.defs, or the defaults of shadow."""
    ranges = dict(ID_DEFAULTS)
    try:
        lines = (path or LOGIN_DEFS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ranges
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] in ranges:
            try:
                ranges[words[0]] = int(words[1], 0)
            except ValueError:
                continue
    return ranges


def check_directory(path: str, status: os.stat_result) -> None:
    """Check that only root can change what is in a directory; raises AccountError."""
    if not stat.S_ISDIR(status.st_mode):
        raise AccountError(f"{path} is not a directory.")
    if status.st_uid != 0:
        raise AccountError(f"{path} belongs to uid {status.st_uid}, not to root.")
    if status.st_mode & 0o022:
        raise AccountError(f"{path} is writable by others than root (mode {stat.S_IMODE(status.st_mode):04o}).")


def resolve_trusted(path: str) -> str:
    """Resolve a directory's path, making sure that nobody but root can change where it leads.

    Every directory on the way, including those that symbolic links pass through, must belong to root and be
    writable by nobody else. The last component itself may belong to anybody, but must be a directory.

    Args:
        path: absolute path of a directory.

    Returns:
        The path without symbolic links.

    Raises:
        AccountError: the path is relative, missing, not a directory, or could be redirected by somebody else.
    """
    if not path.startswith("/") or "\0" in path:
        raise AccountError(f"{path!r} is not an absolute path.")
    todo = [part for part in path.split("/") if part and part != "."][::-1]
    current = "/"
    links = 0
    try:
        while todo:
            # Only directories that are passed through are checked here: the last one is the person's own.
            check_directory(current, os.lstat(current))
            part = todo.pop()
            if part == "..":
                current = os.path.dirname(current)
                continue
            step = os.path.join(current, part)
            status = os.lstat(step)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > MAX_LINKS:
                    raise AccountError(f"{path} has too many symbolic links.")
                target = os.readlink(step)
                if target.startswith("/"):
                    current = "/"
                todo.extend([part for part in target.split("/") if part and part != "."][::-1])
            else:
                current = step
        if not stat.S_ISDIR(os.lstat(current).st_mode):
            raise AccountError(f"{path} is not a directory.")
    except OSError as error:
        raise AccountError(f"{path} cannot be used: {error.strerror}.") from error
    return current


def check_home(entry: pwd.struct_passwd) -> str:
    """Check a home directory and return it without symbolic links.

    Raises:
        AccountError: it is missing, not the person's own, or reached through a directory that others can change.
    """
    try:
        home = resolve_trusted(entry.pw_dir)
    except AccountError as error:
        # Whoever looks after the server is told by this what to mend.
        raise AccountError(
            error.reason,
            f"Your home directory on this server cannot be used: {error.reason} "
            "Please ask the administrator of the server.",
        ) from error
    owner = os.lstat(home).st_uid
    if owner != entry.pw_uid:
        raise AccountError(
            f"home {entry.pw_dir} of {entry.pw_name!r} belongs to uid {owner}, not to uid {entry.pw_uid}.",
            "Your home directory on this server does not belong to your account. "
            "Please ask the administrator of the server.",
        )
    return home


def _name_of(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def _own_name(gid: int) -> str | None:
    """Return a group's name where that means this group and no other one."""
    name = _name_of(gid)
    try:
        return name if name and GROUP_NAME.fullmatch(name) and grp.getgrnam(name).gr_gid == gid else None
    except (KeyError, ValueError, UnicodeError):
        return None


def _group(gid: int) -> Group:
    return Group(_own_name(gid) or f"group{gid}", gid)


def shadow_entry(name: str, path: Path | None = None) -> list[bytes]:
    """Return the fields of an account's line of shadow(5); an empty list when it has none there.

    Args:
        name: login name.
        path: the file.

    Raises:
        OSError: the file cannot be read.
    """
    start = os.fsencode(name) + b":"
    lines = (path or SHADOW).read_bytes().split(b"\n")
    # As with getspnam, the first line of a name counts. The spwd module is gone from Python 3.13.
    return next((line.split(b":") for line in lines if line.startswith(start)), [])


def expired(name: str, path: Path | None = None) -> bool:
    """Whether the account's expiry date has come: the eighth field of shadow(5), in days since 1970-01-01.

    That is how accounts are locked, whatever the way in; a locked password (``!``) is another thing, which leaves keys
    and directories alone. The date counts as in Linux-PAM's pam_unix (``check_shadow_expiry``): expired from that
    day on, 0 included, -1 and nothing being no date. An account of another source has no line here, and PAM alone
    knows when it ends. Where only root can read the file and we are not root, nothing is known.

    Args:
        name: login name.
        path: the file.
    """
    try:
        day = int(shadow_entry(name, path)[7])
    except (OSError, IndexError, ValueError):
        return False
    return day != -1 and time.time() // DAY >= day


def password_over(name: str, path: Path | None = None) -> bool:
    """Whether a password has expired so long ago that its owner cannot change it any more (shadow(5), inactivity).

    Args:
        name: login name.
        path: the file.
    """
    try:
        fields = shadow_entry(name, path)
        changed, most, inactive = (int(fields[number]) for number in (2, 4, 6))
    except (OSError, IndexError, ValueError):
        return False
    return min(changed, most, inactive) >= 0 and time.time() // DAY > changed + most + inactive


def _named(path: Path, number: int) -> list[str]:
    """Return the names that this server's own file of accounts or groups has for an id."""
    found = re.findall(rb"^([^:\n]+):[^:\n]*:%d(?::|$)" % number, path.read_bytes(), re.MULTILINE)
    return [os.fsdecode(name) for name in found]


def is_local(name: str) -> bool:
    """Whether an account is one of this server's own files, and of no directory."""
    return bool(re.search(b"^%s:" % re.escape(os.fsencode(name)), PASSWD.read_bytes(), re.MULTILINE))


def _reserved(number: int) -> bool:
    return any(number in numbers for numbers in RESERVED_IDS)


def _check_id(entry: pwd.struct_passwd) -> None:
    """Check that an account's ids are a person's, and nobody's of this server when it comes from elsewhere.

    What login.defs allows is for accounts of this server: directories have ids of any size. Whoever writes those gives
    them any id and any home, so they must not become somebody of this server.
    """
    name, uid, ranges = entry.pw_name, entry.pw_uid, id_ranges()
    local = is_local(name)
    if uid == 0 or uid < ranges["UID_MIN"] or (uid > ranges["UID_MAX"] if local else _reserved(uid)):
        limits = f"is not between UID_MIN {ranges['UID_MIN']} and UID_MAX {ranges['UID_MAX']} of {LOGIN_DEFS}"
        raise AccountError(
            f"{name!r} is a system account: uid {uid} {limits if local else 'is no person in a directory'}."
        )
    if entry.pw_gid == 0:
        raise AccountError(f"the primary group of {name!r} is root's.")
    if local:
        return
    for other in _named(PASSWD, uid):
        raise AccountError(f"{name!r} of another source has the uid {uid} of this server's own account {other!r}.")
    if entry.pw_gid < ranges["GID_MIN"] and entry.pw_gid != USERS:
        for group in _named(GROUP, entry.pw_gid):
            raise AccountError(f"the primary group of {name!r}, {entry.pw_gid}, is this server's own {group!r}.")


def canonical(name: str) -> str | None:
    """Return the name of the account that somebody means who writes a name; None where there is none.

    It is spelled as the account database has it: a directory may not tell capitals apart, or take several names for one
    account. "Hans" means the account "hans" only where there is no account "Hans": those would be two people.

    Args:
        name: as it was typed.
    """
    for written in dict.fromkeys((name, name.lower())):
        try:
            return pwd.getpwnam(written).pw_name
        except (KeyError, ValueError, UnicodeError):
            continue
    return None


def find_entry(name: str) -> pwd.struct_passwd:
    """Look up a person's passwd entry.

    A real person's account has a person's uid (see ``_check_id``), a primary group that is not root's, a shell that
    logs in, and has not expired.

    Args:
        name: login name, exactly as the account database has it.

    Raises:
        AccountError: there is no such account, or it is not a real person's.
    """
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError, UnicodeError) as error:
        raise AccountError(f"no account {name!r} on this system.") from error
    if entry.pw_name != name:
        # Directories such as Active Directory ignore case: two hub users must never share one account.
        raise AccountError(f"account {entry.pw_name!r} was asked for as {name!r}.")
    if not PLAIN.fullmatch(name) or not PLAIN_PATH.fullmatch(entry.pw_dir):
        # They become parts of paths, and of files of lines with colons.
        raise AccountError(f"the name or the home of {name!r} has a character that no account of this server can have.")
    _check_id(entry)
    if os.path.basename(entry.pw_shell) in NO_LOGIN_SHELLS:
        raise AccountError(f"{name!r} has no login shell ({entry.pw_shell}).")
    if expired(name):
        raise AccountError(
            f"the account {name!r} has expired (see: chage --list).",
            "Your account on this server has expired. Please ask the administrator of the server.",
        )
    return entry


def find_account(name: str) -> Account:
    """Look up and check the account of a person, with groups and home.

    The gid is the one of the passwd entry. Groups of the system (below GID_MIN) are left out: in a container they
    would mean something else.

    Args:
        name: login name, exactly as the account database has it.

    Raises:
        AccountError: there is no such account, it is not a real person's, or its home cannot be trusted.
    """
    entry = find_entry(name)
    home = check_home(entry)
    ranges = id_ranges()
    gids = [gid for gid in _gids(entry) if gid != entry.pw_gid and gid >= ranges["GID_MIN"] and not _reserved(gid)]
    return Account(
        name=name,
        uid=entry.pw_uid,
        group=_group(entry.pw_gid),
        groups=tuple(_group(gid) for gid in gids),
        home=os.path.normpath(entry.pw_dir),
        real_home=home,
    )


def _gids(entry: pwd.struct_passwd) -> list[int]:
    """Return the ids of somebody's groups, the primary one first, that the account database stands by.

    A directory may give its people any number, also that of a group of this server. Such a one counts where the group
    itself names them, as the database has it: what is in the server's files, and merged with them if nsswitch.conf says
    so.
    """
    local = is_local(entry.pw_name)
    found = [entry.pw_gid]
    for gid in sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid)) - {entry.pw_gid}):
        if not _named(GROUP, gid) or entry.pw_name in grp.getgrgid(gid).gr_mem:
            found.append(gid)
    own = local or not _named(GROUP, entry.pw_gid) or entry.pw_name in grp.getgrgid(entry.pw_gid).gr_mem
    return found if own else found[1:]


def _meant(name: str) -> str | None:
    """Return the name that the account database has for the group that somebody means who writes a name."""
    try:
        return grp.getgrnam(name).gr_name
    except (KeyError, ValueError, UnicodeError):
        return None


def group_names(name: str, written: Iterable[str] = ()) -> frozenset[str]:
    """Return the names of all groups somebody is in: the primary one counts as well as the others.

    A name means the group that has it on this server: one of a directory that has the name of another group, such as
    ``sudo``, is not that group. Active Directory does not tell capitals apart, and sssd gives the names of its groups
    in lower case; so names that were written as the directory shows them are looked up.

    Args:
        name: login name. Somebody without an account is in no group.
        written: names of groups as somebody wrote them. Those that mean a group of the person are returned as well.
    """
    try:
        gids = _gids(pwd.getpwnam(name))
    except (KeyError, ValueError, UnicodeError):
        return frozenset()
    names = frozenset(filter(None, map(_own_name, gids)))
    return names.union(other for other in set(written) - names if _meant(other) in names)


def alleged_groups(name: str) -> frozenset[str]:
    """Return the names of somebody's groups as programs like sudo see them, who take any group of a name for it.

    Args:
        name: login name.
    """
    gids = os.getgrouplist(name, pwd.getpwnam(name).pw_gid)
    return frozenset(_name_of(gid) or "" for gid in gids)
