"""
Who may come through the host's own doors (SSH, sessions, cron, at): root, system accounts, whoever could become root
anyway, and those to whom pillar opens them. Every other account is one of the hub's, and has its containers.

The keeper of the doors (``salt/ssh/files/doors.py``) imports this file on the server, without Salt: nothing but the
standard library, and failures are RuntimeError, with one sentence.
"""

from __future__ import annotations

import fcntl
import grp
import json
import os
import pathlib
import pwd
import re
import shutil
import subprocess

__virtualname__ = "plasma_doors"

CONFIG = "/var/lib/plasma/doors.json"
LOCK = "/run/plasma-doors.lock"
LOGIN_DEFS, SUDOERS, SUBUID = "/etc/login.defs", "/etc/sudoers", "/etc/subuid"
# Whoever is in one of these can become root without sudo. Pillar puts nobody there (ROOT_GROUPS of the schema's
# names.py), and the hub's plugin knows them as well (GROUPS of privileged.py).
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


def __virtual__():
    return __virtualname__


def read(path=CONFIG):
    """
    Return what the doors are set to, ``{"users": [...], "groups": [...], "came_as": [...], "limits": {"memory" (bytes),
    "cpu" (CPUs), "tasks"}}``, or None where they are not looked after.

    path
        The keeper's configuration.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors.read
    """
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise RuntimeError(f"{path} cannot be read ({exc}): apply the state ssh.") from exc
    return found


def lock(path=LOCK):
    """
    Return an open file that holds the lock of the doors until it is closed: the keeper and an apply take turns.

    path
        The lock, in a directory of root's.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors.lock
    """
    file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w", encoding="ascii")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def people_range(path=LOGIN_DEFS):
    """
    Return the first and the last number of people's accounts, as login.defs says.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors.people_range
    """
    found = {"UID_MIN": 1000, "UID_MAX": 60000}
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] in found:
            try:
                found[words[0]] = int(words[1], 0)
            except ValueError:
                continue
    return found["UID_MIN"], found["UID_MAX"]


def sudoers(path=SUDOERS):
    """
    Return who has a rule of sudo, ``{"users": [name], "groups": [name]}``. Rules for everybody are not counted.

    path
        The file of sudo; those that it includes count.

    Raises RuntimeError when sudo's own tool cannot say.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors.sudoers
    """
    found = {"users": set(), "groups": set()}
    for subject in _subjects(path) if os.path.exists(path) else ():
        if subject.get("negated"):
            continue
        for key, kind, look_up in (("userid", "users", pwd.getpwuid), ("usergid", "groups", grp.getgrgid)):
            if key in subject:
                try:
                    found[kind].add(look_up(int(subject[key]))[0])
                except (KeyError, ValueError):
                    continue
        if subject.get("username", "ALL") != "ALL":
            found["users"].add(subject["username"])
        if "usergroup" in subject:
            found["groups"].add(subject["usergroup"])
    return {kind: sorted(names) for kind, names in found.items()}


def _subjects(path):
    """Who rules of sudo are about, as cvtsudoers tells it."""
    if not shutil.which("cvtsudoers", path=PATH):
        # sudo-rs, Ubuntu's since 26.04, comes without that tool.
        aliases, subjects = {}, []
        _read_sudoers(path, aliases, subjects)
        return [_subject(one) for word in subjects for one in aliases.get(word, [word])]
    done = run("cvtsudoers", "-e", "-f", "json", path)
    try:
        rules = json.loads(done.stdout or "{}").get("User_Specs", []) if done.returncode == 0 else None
    except ValueError:
        rules = None
    if rules is None:
        said = " ".join(done.stderr.split()) or "no JSON"
        raise RuntimeError(f"It cannot be told who may use sudo (cvtsudoers: {said}): see `visudo -c`.")
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
            place = pathlib.Path(path).parent / include[2].strip('"')
            names = sorted(place.iterdir()) if include[1] and place.is_dir() else [] if include[1] else [place]
            for name in names:
                if not include[1] or not ("." in name.name or name.name.endswith("~")):
                    _read_sudoers(name, aliases, subjects, depth + 1)
            continue
        if line.startswith("User_Alias"):
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


def standing(config):
    """
    Return how everybody stands to the doors.

    config
        As of ``read``; None: nobody is let in but those who need no leave.

    Returns ``{"first", "last": numbers of people's accounts, "privileged": {name: why}, "came_as": [name], "open":
    [name], "shut": [name], "users", "groups": [names that sshd lets in], "free_uids": [numbers without limits],
    "bound": [[first, last] numbers with limits]}``; lists are of accounts with such numbers and a shell.

    Raises RuntimeError.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors.standing '{users: [anna]}'
    """
    config = config or {}
    first, last = people_range()
    rules = sudoers()
    root_groups = sorted({*ROOT_GROUPS, *rules["groups"]})
    everybody = pwd.getpwall()
    here = [one for one in everybody if first <= one.pw_uid <= last]
    elsewhere = [one for one in everybody if not first <= one.pw_uid <= last and _logs_in(one)]
    privileged = {name: "sudo" for name in rules["users"]}
    for name, members in _members(root_groups, here).items():
        for member in members:
            privileged.setdefault(member, f"group {name}")
    for name in config.get("came_as") or ():
        privileged.setdefault(name, "Salt comes as this user")
    privileged = {one.pw_name: privileged[one.pw_name] for one in here if one.pw_name in privileged}
    let_in = set(config.get("users") or ())
    for members in _members(config.get("groups") or (), here).values():
        let_in |= members
    logging_in = [one.pw_name for one in here if _logs_in(one)]
    free = {one.pw_uid for one in here if one.pw_name in privileged}
    users = {*rules["users"], *(config.get("came_as") or ()), *(config.get("users") or ())}
    users |= {one.pw_name for one in elsewhere}
    return {
        "first": first,
        "last": last,
        "privileged": privileged,
        "came_as": list(config.get("came_as") or ()),
        "open": sorted(name for name in logging_in if name in let_in and name not in privileged),
        "shut": sorted(name for name in logging_in if name not in let_in and name not in privileged),
        "users": sorted(name for name in users if _NAME.match(name)),
        "groups": sorted(name for name in {*root_groups, *(config.get("groups") or ())} if _NAME.match(name)),
        "free_uids": sorted({0, *free, *(one.pw_uid for one in elsewhere)}),
        "bound": _bound(first, last, free, _own_uids({one.pw_name: one.pw_uid for one in here})),
    }


def allows(who, door, config):
    """
    Return whether an account may come through a door now.

    who
        Login name, or number.
    door
        ``session`` (what runs under the limits of its slice), or ``job`` (of cron and at, which does not).
    config
        As of ``read``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors.allows anna job '{}'
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


def run(*command, text=None):
    """
    Run one of the system's programs to its end; returns what subprocess.run does. Raises RuntimeError when it cannot be
    run, or takes more than 30 seconds.

    command
        Its name and arguments.
    text
        Its standard input.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors.run sshd -t
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


def _members(names, accounts):
    """Who is in these groups, the primary ones counted: ``{group: {name}}``."""
    found = {}
    for name in names:
        try:
            group = grp.getgrnam(name)
        except KeyError:
            continue
        found[name] = {*group.gr_mem, *(one.pw_name for one in accounts if one.pw_gid == group.gr_gid)}
    return found


def _own_uids(uids, path=SUBUID):
    """The further numbers that accounts may take in a user namespace, ``[(uid, first, last)]``."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
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
