"""
Who may come through the host's own doors (SSH, sessions, cron, at): root, system accounts, whoever could become root
anyway, and those to whom pillar opens them. Every other account is one of the hub's, and has its containers.

The keeper of the doors (``salt/ssh/files/doors.py``) imports this file on the server, without Salt: nothing but the
standard library, and failures are RuntimeError, with one sentence.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import pathlib
import pwd
import re
import shutil
import subprocess
from typing import Any, TextIO

# As of read, and of standing.
Config = dict[str, Any]
Standing = dict[str, Any]

CONFIG = "/var/lib/plasma/doors.json"
LOCK = "/run/plasma-doors.lock"
LOGIN_DEFS, SUDOERS, SUBUID = "/etc/login.defs", "/etc/sudoers", "/etc/subuid"
# Whoever is in one of these can become root without sudo. Pillar puts nobody there (ROOT_GROUPS of the schema's
# names.py), and nobody opens the server of such an account (GROUPS of the plugin's privileged.py, which has more). The
# keeper works without both, so they are here again; a test compares the three.
ROOT_GROUPS = (
    *("root", "docker", "podman", "lxd", "lxc", "incus", "incus-admin", "libvirt", "libvirt-qemu", "microk8s"),
    *("disk", "shadow", "kmem", "staff", "salt", "jupyterhub-admins"),
)
_NO_LOGIN = {"nologin", "false", "sync"}
PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_INCLUDE = re.compile(r"[@#]include(dir)?\s+(\S+)")
_NO_RULE = re.compile(r"Defaults|(?:Host|Cmnd|Cmd|Runas)_Alias\b|#(?!\d)|$")
_RULE = re.compile(r"((?:[^\s,]+\s*,\s*)*[^\s,=]+)\s+[^=]+=")
_NAME = re.compile(r"[A-Za-z0-9_.@$+-]+\Z", re.ASCII)  # what a pattern of sshd and an argument of PAM take as it is


def read(path: str = CONFIG) -> Config | None:
    """
    Return what the doors are set to, ``{"users": [...], "groups": [...], "came_as": [...], "limits": {"memory" (bytes),
    "cpu" (CPUs), "tasks"}}``, or None where they are not looked after.

    path
        The keeper's configuration.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise RuntimeError(f"{path} cannot be read ({exc}): apply the state ssh.") from exc


def lock(path: str = LOCK) -> TextIO:
    """
    Return an open file that holds the lock of the doors until it is closed: the keeper and an apply take turns.

    path
        The lock, in a directory of root's.
    """
    file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w", encoding="ascii")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def people_range(path: str = LOGIN_DEFS) -> tuple[int, int]:
    """
    Return the first and the last number of people's accounts, as login.defs says.
    """
    found = {"UID_MIN": 1000, "UID_MAX": 60000}
    for line in lines(path):
        words = line.split()
        if len(words) >= 2 and words[0] in found:
            with contextlib.suppress(ValueError):
                found[words[0]] = int(words[1], 0)
    return found["UID_MIN"], found["UID_MAX"]


def lines(path: str) -> list[str]:
    """Return the lines of a file, none where it cannot be read."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def sudoers(path: str = SUDOERS) -> dict[str, list[str]]:
    """
    Return who has a rule of sudo, ``{"users": [name], "groups": [name]}``. Rules for everybody are not counted.

    path
        The file of sudo; those that it includes count.

    Raises RuntimeError when sudo's own tool cannot say.
    """
    names = {"users": set(), "groups": set()}
    subjects = _subjects(path) if os.path.exists(path) else []
    for subject in (subject for subject in subjects if not subject.get("negated")):
        with contextlib.suppress(KeyError, ValueError):
            if "userid" in subject:
                names["users"].add(pwd.getpwuid(int(subject["userid"])).pw_name)
            elif "usergid" in subject:
                names["groups"].add(grp.getgrgid(int(subject["usergid"])).gr_name)
            elif "usergroup" in subject:
                names["groups"].add(subject["usergroup"])
            elif subject["username"] != "ALL":
                names["users"].add(subject["username"])
    return {kind: sorted(found) for kind, found in names.items()}


def _subjects(path):
    """Who rules of sudo are about, as cvtsudoers tells it."""
    if not shutil.which("cvtsudoers", path=PATH):
        # sudo-rs, Ubuntu's since 26.04, comes without that tool.
        aliases, words = {}, []
        _read_sudoers(path, aliases, words)
        return [_subject(name) for word in words for name in aliases.get(word, [word])]
    done = run("cvtsudoers", "-e", "-f", "json", path)
    try:
        if done.returncode:
            raise ValueError(" ".join(done.stderr.split()))
        rules = json.loads(done.stdout or "{}").get("User_Specs", [])
    except ValueError as exc:
        raise RuntimeError(f"It cannot be told who may use sudo (cvtsudoers: {exc}): see `visudo -c`.") from None
    return [subject for rule in rules for subject in rule.get("User_List", [])]


def _read_sudoers(path, aliases, subjects, depth=0):
    """Add the user aliases, and the words that stand for users before a rule, of a file and those that it includes."""
    if depth > 20:
        raise RuntimeError(f"It cannot be told who may use sudo ({path} is included too deep): see `visudo -c`.")
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        raise RuntimeError(f"It cannot be told who may use sudo ({path}: {exc.strerror}): see `visudo -c`.") from exc
    for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
        include = _INCLUDE.match(line)
        if include:
            files = [pathlib.Path(path).parent / include[2].strip('"')]
            if include[1]:
                files = sorted(file for file in files[0].glob("*") if not ("." in file.name or file.name.endswith("~")))
            for file in files:
                _read_sudoers(file, aliases, subjects, depth + 1)
        elif line.startswith("User_Alias"):
            for name, _, words in (one.partition("=") for one in line[len("User_Alias") :].split(":")):
                aliases[name.strip()] = [word.strip() for word in words.split(",")]
        elif not _NO_RULE.match(line):
            rule = _RULE.match(line)
            subjects += [word.strip() for word in rule[1].split(",")] if rule else []


def _subject(word):
    if word.startswith(("!", "+", "%:")):
        return {"negated": True}
    word = word.strip('"').replace("\\", "")
    for sign, key in (("%#", "usergid"), ("%", "usergroup"), ("#", "userid")):
        if word.startswith(sign):
            return {key: word[len(sign) :]}
    return {"username": word}


def standing(config: Config | None) -> Standing:
    """
    Return how everybody stands to the doors.

    config
        As of ``read``; None: nobody is let in but those who need no leave.

    Returns ``{"first", "last": numbers of people's accounts, "privileged": {name: why}, "came_as": [name], "open":
    [name], "shut": [name], "users", "groups": [names that sshd lets in], "session_uids": [numbers of people that may
    have programs which outlive a login], "free_uids": [numbers without limits], "bound": [[first, last] numbers with
    limits]}``; lists are of accounts with such numbers and a shell.

    Raises RuntimeError.
    """
    came_as, named, groups = ((config or {}).get(key) or [] for key in ("came_as", "users", "groups"))
    first, last = people_range()
    rules = sudoers()
    root_groups = {*ROOT_GROUPS, *rules["groups"]}
    accounts = pwd.getpwall()
    people = {account.pw_name: account for account in accounts if first <= account.pw_uid <= last}
    others = [account for account in accounts if account.pw_name not in people and _logs_in(account)]
    reasons = dict.fromkeys(came_as, "Salt comes as this user")
    for group in sorted(root_groups, reverse=True):
        reasons.update(dict.fromkeys(_members(group, people), f"group {group}"))
    reasons.update(dict.fromkeys(rules["users"], "sudo"))
    privileged = {name: reasons[name] for name in people if name in reasons}
    let_in = set(named).union(*(_members(group, people) for group in groups))
    logging_in = {name for name, account in people.items() if _logs_in(account)}
    free = {people[name].pw_uid for name in privileged}
    users = {*rules["users"], *came_as, *named, *(account.pw_name for account in others)}
    return {
        "first": first,
        "last": last,
        "privileged": privileged,
        "came_as": list(came_as),
        "open": sorted((logging_in & let_in) - set(privileged)),
        "shut": sorted(logging_in - let_in - set(privileged)),
        "users": sorted(filter(_NAME.match, users)),
        "groups": sorted(filter(_NAME.match, root_groups.union(groups))),
        "session_uids": sorted(free | {people[name].pw_uid for name in logging_in & let_in}),
        "free_uids": sorted({0, *free, *(account.pw_uid for account in others)}),
        "bound": _bound(first, last, free, _own_uids({name: account.pw_uid for name, account in people.items()})),
    }


def allows(who: str, door: str, config: Config | None) -> bool:
    """
    Return whether an account may come through a door now.

    who
        Login name, or number.
    door
        ``session`` (what runs under the limits of its slice), or ``job`` (of cron and at, which does not).
    config
        As of ``read``.
    """
    try:
        account = pwd.getpwuid(int(who)) if str(who).isdigit() else pwd.getpwnam(who)
    except KeyError:
        return False
    first, last = people_range()
    if not first <= account.pw_uid <= last:
        return True
    found = standing(config)
    return account.pw_name in found["privileged"] or (door == "session" and account.pw_name in found["open"])


def run(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """
    Run one of the system's programs to its end; returns what subprocess.run does. Raises RuntimeError when it cannot be
    run, or takes more than 30 seconds.

    command
        Its name and arguments.
    text
        Its standard input.
    """
    try:
        return subprocess.run(
            command,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            env={"PATH": PATH, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise RuntimeError(f"{command[0]} cannot be run: {getattr(exc, 'strerror', None) or exc}.") from exc


def _logs_in(entry):
    return os.path.basename(entry.pw_shell) not in _NO_LOGIN


def _members(group, people):
    """Who is in a group, those whose primary one it is counted."""
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        return set()
    return {*entry.gr_mem, *(name for name, account in people.items() if account.pw_gid == entry.gr_gid)}


def _own_uids(uids, path=SUBUID):
    """The further numbers that accounts may take in a user namespace, ``[(uid, first, last)]``."""
    found = []
    for line in lines(path):
        who, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if start.isdigit() and count.isdigit() and int(count):
            uid = int(who) if who.isdigit() else uids.get(who)
            if uid is not None:
                found.append((uid, int(start), int(start) + int(count) - 1))
    return found


def _bound(first, last, free, further):
    """
    Ranges of numbers under which people may appear: that of their accounts, and the further ones without those of the
    free. What lies between two further ones belongs to nobody and goes with them: each range is a rule of the firewall.
    """
    found = [[first, last]]
    for uid, low, high in sorted(further, key=lambda one: one[1:]):
        if uid in free or not first <= uid <= last:
            found.append(None)
        elif found[-1] is None or len(found) == 1:
            found.append([low, high])
        else:
            found[-1][1] = max(found[-1][1], high)
    return [span for span in found if span]
