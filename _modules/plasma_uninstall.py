"""
Remove a hub from a server, and say exactly what went and what stayed.

First a backup; then units, servers of people, rules and network; the prefix last, with its own directory ``plasma`` at
the very end, as that is what tells a hub of this tree from somebody else's. What was begun is noted, so that a run that
was interrupted is finished by the next one. What people made (homes, accounts, images, limits) stays unless it is asked
for by name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import pwd
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_uninstall"

NOTE = "/var/lib/plasma/uninstall.json"
PLACE = "/var/backups/plasma"
OPTIONS = ("data", "users", "homes", "environments", "docker", "quotas", "backups")
# In this order. The last one tells whose hub it is.
_PROGRAMS = ("hub", "user", "plasma")
_DATA = ("config", "state", "installer.log")
_NO_HUB = "/nonexistent"  # people and Cockpit go when there is no hub any more that would have to be told


def __virtual__():
    return __virtualname__


def compare(
    prefix="/opt/tljh",
    options=None,
    users=(),
    home_path="/home",
    source="docker-ce",
    directory="/var/opt/plasma/backups",
    root="/",
):
    """
    Return what ``apply`` would remove, and what would stay; nothing is changed.

    prefix
        Where the hub is installed.
    options
        ``{name: bool}`` with the names of ``plasma.uninstall``: ``data``, ``users``, ``homes``, ``environments``,
        ``docker``, ``quotas``, ``backups``. What is not named stays.
    users
        Login names of the people in pillar.
    home_path
        Where their homes are made.
    source
        Where the state docker gets the engine from, ``docker-ce`` or ``distro``; another engine is never removed.
    directory
        Where the archives of backups are.
    root
        Another directory than ``/`` holds the server: for tests.

    Returns ``{"removed": {what: [name]}, "aside": {path: place}, "left": [sentence]}``. Raises CommandExecutionError
    with one sentence where nothing may be removed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall.compare
    """
    options = _options(options)
    note = _note(root)
    aside = note.get("place") or f"{PLACE}/uninstalled-TIME"
    _check_prefix(prefix, root)
    here = _contents(prefix, root)
    known = [name for name in (*_PROGRAMS, *_DATA) if name in here]
    files = __salt__["plasma_uninstall_host.files"](prefix, root=root)
    began = bool(note) and note.get("prefix") == prefix
    if (known or files["units"]) and not began:
        _check_ours(prefix, here)
    engine = __salt__["plasma_uninstall_engine.found"]()
    found = {"removed": {}, "aside": {}, "left": []}
    removed, left = found["removed"], found["left"]
    for kind in ("units", "timers", "command", "sudoers"):
        if files[kind]:
            removed[kind] = files[kind]
    if engine["servers"]:
        removed["servers"] = engine["servers"]
    if engine["builds"]:
        removed["builds"] = [each[:12] for each in engine["builds"]]
    chains = __salt__["plasma_uninstall_host.chains"]()
    if chains:
        removed["firewall"] = sorted({chain for found_ in chains.values() for chain in found_})
    if engine["networks"]:
        removed["networks"] = engine["networks"]
    for name in known:
        path = f"{prefix}/{name}"
        if name in _DATA and not options["data"]:
            found["aside"][path] = f"{aside}/{name}"
        else:
            removed.setdefault("prefix", []).append(path)
    others = sorted(set(here) - set(known))
    if others:
        left.append(f"what is not of the hub in {prefix}: {', '.join(others)}")
    groups = __salt__["plasma_uninstall_host.empty_groups"]()
    if groups["empty"]:
        removed["groups"] = groups["empty"]
    if groups["used"]:
        left.append(f"the groups {', '.join(groups['used'])}, which have members")
    _compare_extras(found, options, users, home_path, source, directory, engine, began)
    return found


def _compare_extras(found, options, users, home_path, source, directory, engine, began):
    """What is removed only by name; what of it stays is told with its key."""
    removed, left = found["removed"], found["left"]
    if engine["images"]:
        if options["environments"]:
            removed["environments"] = engine["images"]
        else:
            left.append(f"{len(engine['images'])} environments (images of Docker); plasma.uninstall.environments")
    packages = __salt__["plasma_uninstall_engine.packages"](source)
    if packages and options["docker"]:
        removed["docker"] = packages
    elif __salt__["plasma_docker.engine"]():
        reason = "plasma.uninstall.docker" if packages else "it did not come from plasma.docker.source"
        left.append(f"the Docker engine; {reason}")
    quotas = sorted(__salt__["plasma_quota_edit.noted"]())
    if quotas and options["quotas"]:
        removed["quotas"] = quotas
    elif quotas:
        left.append(f"disk quotas of {', '.join(quotas)}; plasma.uninstall.quotas")
    people = _people(users, home_path, options)
    if people["gone"]:
        removed["users"] = people["gone"]
        if not options["homes"]:
            left.append("the homes of those people, archived in .plasma-removed beside them; plasma.uninstall.homes")
    if people["kept"]:
        what = f"{len(people['kept'])} accounts with their homes"
        left.append(f"{what}; plasma.uninstall.users" if not options["users"] else f"{what}: {people['why']}")
    archives = _archives(directory)
    if options["backups"]:
        # Where one is going to be made before this, it is the last one.
        spare = archives if _needs_backup(found) and not began else archives[1:]
        if spare:
            removed["backups"] = spare
        archives = archives[: len(archives) - len(spare)]
    if archives:
        left.append(f"{len(archives)} backups in {directory}; plasma.uninstall.backups keeps the last one alone")
    doors = __salt__["plasma_ssh.compare_removed"]()
    if doors:
        removed["ssh"] = sorted(doors)
    cockpit = __salt__["plasma_cockpit.compare_disabled"](_NO_HUB)
    if cockpit:
        removed["cockpit"] = sorted(cockpit)
    elif __salt__["plasma_cockpit.health"]().get("installed"):
        left.append("Cockpit, which the state cockpit did not install")


def apply(
    prefix="/opt/tljh",
    options=None,
    users=(),
    home_path="/home",
    source="docker-ce",
    directory="/var/opt/plasma/backups",
    root="/",
):
    """
    Remove the hub. The arguments are those of ``compare``.

    Returns what ``compare`` returns, of what was done, and ``"backup"``: the path of the archive that was made, or
    None where there was nothing to back up. Raises CommandExecutionError when a step fails; the next run goes on.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall.apply
    """
    options = _options(options)
    arguments = (prefix, options, users, home_path, source, directory, root)
    planned = compare(*arguments)
    if not planned["removed"] and not planned["aside"]:
        _forget(root)
        return {**planned, "backup": None}
    with _guard(prefix, root):
        note = _begin(prefix, options, home_path, directory, planned, root)
        planned = compare(*arguments)
        removed = planned["removed"]
        host, engine = "plasma_uninstall_host", "plasma_uninstall_engine"
        __salt__[f"{host}.stop"]([*removed.get("units", ()), *removed.get("timers", ())])
        if removed.keys() & {"servers", "builds"}:
            __salt__[f"{engine}.remove_containers"]()
        if "firewall" in removed:
            __salt__[f"{host}.remove_chains"]()
        if "networks" in removed:
            stay = __salt__[f"{engine}.remove_networks"]()
            _stays(planned, "networks", stay, "the network {}, which containers of others use")
        __salt__[f"{host}.remove_files"](
            [path for kind in ("units", "timers", "command", "sudoers") for path in removed.get(kind, ())]
        )
        __salt__[f"{host}.remove_groups"](removed.get("groups", []))
        for path, target in planned["aside"].items():
            planned["aside"][path] = __salt__[f"{host}.put_aside"](_at(path, root), os.path.dirname(_at(target, root)))
        # Its own directory of the prefix goes after everything that may fail.
        paths = removed.get("prefix", [])
        for path in [path for path in paths if not path.endswith("/plasma")]:
            __salt__[f"{host}.delete"](_at(path, root))
        _apply_extras(planned, options, users, home_path, source, directory, note["place"])
        for path in [path for path in paths if path.endswith("/plasma")]:
            __salt__[f"{host}.delete"](_at(path, root))
        with contextlib.suppress(OSError):
            os.rmdir(_at(prefix, root))
        _forget(root)
    return {**planned, "backup": note["backup"]}


def _apply_extras(planned, options, users, home_path, source, directory, place):
    removed = planned["removed"]
    if "ssh" in removed:
        __salt__["plasma_ssh.remove"]()
    if "cockpit" in removed:
        __salt__["plasma_cockpit.disable"](_NO_HUB)
    if "users" in removed:
        leaving = _leaving(removed["users"], options)
        done = __salt__["plasma_users.apply"](leaving, home_path=home_path, prefix=_NO_HUB)
        if done["error"]:
            raise CommandExecutionError(done["error"])
    if "environments" in removed:
        stay = __salt__["plasma_uninstall_engine.remove_images"]()
        _stays(planned, "environments", stay, "the environments {}, which containers of others use")
    if "quotas" in removed:
        done = __salt__["plasma_quota.disable"]()
        planned["left"] += [note.rstrip(".") for note in done["notes"]]
    if "docker" in removed:
        __salt__["plasma_uninstall_engine.purge"](source, place)
    for path in removed.get("backups", ()):
        # With what lies beside an archive and has its name.
        for file in pathlib.Path(directory).glob(f"{os.path.basename(path)}*"):
            if file.is_file() and not file.is_symlink():
                file.unlink()


def _stays(planned, key, stay, sentence):
    if stay:
        planned["removed"][key] = [name for name in planned["removed"][key] if name not in stay]
        planned["left"].append(sentence.format(", ".join(stay)))
        if not planned["removed"][key]:
            del planned["removed"][key]


def _options(options):
    options = {name: bool((options or {}).get(name)) for name in OPTIONS}
    for name, needed in (("homes", "users"), ("docker", "environments")):
        if options[name] and not options[needed]:
            raise CommandExecutionError(f"plasma.uninstall.{name} needs plasma.uninstall.{needed}: set both, or none.")
    return options


def _at(path, root):
    return path if root == "/" else os.path.join(root, str(path).lstrip("/"))


def _check_prefix(prefix, root):
    """Refuse a prefix of which nothing may be removed: too short, not where it seems to be, or with mounts in it."""
    parts = pathlib.PurePosixPath(prefix).parts
    if not prefix.startswith("/") or len(parts) < 3 or ".." in parts or str(pathlib.PurePosixPath(prefix)) != prefix:
        raise CommandExecutionError(
            f"plasma.hub.prefix is {prefix!r}: nothing is removed below that; name /opt/tljh or such."
        )
    real = os.path.realpath(_at(prefix, root))
    if real != os.path.realpath(root).rstrip("/") + prefix:
        raise CommandExecutionError(f"{prefix} leads to {real} by a link: set plasma.hub.prefix to where the hub is.")
    mounted = [
        mount["target"] for mount in __salt__["plasma_quota_fs.mounts"]() if mount["target"].startswith(f"{prefix}/")
    ]
    if mounted:
        raise CommandExecutionError(f"{mounted[0]} is mounted: unmount it (umount {mounted[0]}), then apply again.")


def _contents(prefix, root):
    try:
        return os.listdir(_at(prefix, root))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _check_ours(prefix, here):
    if "plasma" not in here and __salt__["plasma_hub.provider"](prefix) is not None:
        raise CommandExecutionError(
            f"The hub in {prefix} was not installed from this tree, which removes only its own: remove it as it was "
            "installed, or apply the state tljh, which takes it over, first."
        )
    health = __salt__["plasma_upgrade.health"](prefix) if "plasma_upgrade.health" in __salt__ else {}
    if health.get("open"):
        raise CommandExecutionError(
            f"An upgrade of the hub in {prefix} was begun and is not finished: apply the state upgrade first."
        )


def _needs_backup(found):
    return bool(found["aside"]) or any(
        path.rpartition("/")[2] in _DATA[:2] for path in found["removed"].get("prefix", ())
    )


def _archives(directory):
    """Paths of the archives of ``plasma_backup``, the newest first. Its program is gone with the hub."""
    found = [
        path for path in pathlib.Path(directory).glob("plasma-*.tar.gz") if path.is_file() and not path.is_symlink()
    ]
    return [str(path) for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def _people(users, home_path, options):
    """Who of pillar has an account: to be removed, or kept and why."""
    found = {"gone": [], "kept": [], "why": "this apply comes from them"}
    protected = __salt__["plasma_users_removal.protected"]() if options["users"] else {}
    for name in users:
        try:
            uid = pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
        found["gone" if options["users"] and uid not in protected else "kept"].append(name)
    if found["gone"]:
        problems = __salt__["plasma_users.problems"](
            _leaving(found["gone"], options), home_path=home_path, prefix=_NO_HUB
        )
        if problems:
            raise CommandExecutionError("\n".join(problems))
    return found


def _leaving(names, options):
    return [{"name": name, "absent": True, "remove_home": options["homes"]} for name in names]


def _note(root):
    try:
        note = json.loads(pathlib.Path(_at(NOTE, root)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _begin(prefix, options, home_path, directory, planned, root):
    """Note what is begun, and make the backup; what an interrupted run has noted holds."""
    note = _note(root)
    if note.get("prefix") == prefix:
        return note
    backup = None
    if _needs_backup(planned):
        try:
            backup = __salt__["plasma_backup.create"](
                reason="uninstall", prefix=prefix, directory=directory, home_path=home_path
            )["path"]
        except CommandExecutionError:
            # A hub that was never complete has nothing to lose, and its files are put aside.
            if options["data"] or os.path.exists(_at(f"{prefix}/state/jupyterhub.sqlite", root)):
                raise
    place = f"{PLACE}/uninstalled-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    note = {"prefix": prefix, "place": place, "backup": backup}
    path = pathlib.Path(_at(NOTE, root))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    __salt__["plasma_files.write"](path, json.dumps(note))
    return note


def _forget(root):
    pathlib.Path(_at(NOTE, root)).unlink(missing_ok=True)


@contextlib.contextmanager
def _guard(prefix, root):
    """Hold the installer's lock: it and this must not work in one prefix at a time."""
    path = pathlib.Path(_at(prefix, root), "plasma", "install.lock")
    if not path.parent.is_dir():
        yield
        return
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise CommandExecutionError(
                f"An installation of the hub is running (`fuser -v {path}` names it): let it finish, then apply again."
            ) from exc
        yield
