"""
Remove a hub from a server, and say exactly what went and what stayed.

First a backup; then units, servers of people, rules and network; the prefix last, with its own directory ``plasma`` at
the very end, as that is what tells a hub of this tree from somebody else's. What was begun is noted, so that a run that
was interrupted is finished by the next one. What people made (homes, accounts, images, limits) stays unless it is asked
for by name. What capabilities brought beside the hub is taken back by their ``disabled.sls``, which the state uninstall
finds by itself.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_backup_program
import plasma_engine
import plasma_files
import plasma_hub_installed
import plasma_lock
import plasma_mounts
import plasma_quota_fstab
import plasma_quota_setup
import plasma_uninstall_engine
import plasma_uninstall_host
import plasma_users_leave
import plasma_words

NOTE = "/var/lib/plasma/uninstall.json"
PLACE = "/var/backups/plasma"
OPTIONS = ("data", "users", "homes", "environments", "docker", "quotas", "backups")
# In this order. The last one tells whose hub it is.
_PROGRAMS = ("hub", "user", "plasma")
_DATA = ("config", "state", "installer.log")
_FILES = ("units", "timers", "command", "sudoers")
_NO_HUB = "/nonexistent"  # people go when there is no hub any more that would have to be told


def compare(
    prefix: str = "/opt/tljh",
    options: Mapping[str, bool] | None = None,
    users: Sequence[str] = (),
    home_path: str = "/home",
    source: str = "docker-ce",
    directory: str = "/var/opt/plasma/backups",
    root: str = "/",
) -> dict[str, Any]:
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
    return _Removal(prefix, options, users, home_path, source, directory, root).plan()


def apply(
    prefix: str = "/opt/tljh",
    options: Mapping[str, bool] | None = None,
    users: Sequence[str] = (),
    home_path: str = "/home",
    source: str = "docker-ce",
    directory: str = "/var/opt/plasma/backups",
    root: str = "/",
) -> dict[str, Any]:
    """
    Remove the hub. The arguments are those of ``compare``.

    Returns what ``compare`` returns, of what was done, and ``"backup"``: the path of the archive that was made, or
    None where there was nothing to back up. Raises CommandExecutionError when a step fails; the next run goes on.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall.apply
    """
    return _Removal(prefix, options, users, home_path, source, directory, root).apply()


class _Removal:
    """One removal, with what pillar says of it."""

    def __init__(self, prefix, options, users, home_path, source, directory, root):
        self.prefix, self.users, self.home_path = prefix, users, home_path
        self.source, self.directory, self.root = source, directory, root
        self.options = {name: bool((options or {}).get(name)) for name in OPTIONS}
        for name, needed in (("homes", "users"), ("docker", "environments")):
            if self.options[name] and not self.options[needed]:
                raise CommandExecutionError(
                    f"plasma.uninstall.{name} needs plasma.uninstall.{needed}: set both, or none."
                )

    def at(self, path: str) -> str:
        return plasma_files.at(path, self.root)

    def note(self) -> dict[str, Any]:
        """What an interrupted run has begun; a damaged note counts as none."""
        try:
            return plasma_files.read_note(self.at(NOTE), "remove it") or {}
        except CommandExecutionError:
            return {}

    def plan(self) -> dict[str, Any]:
        """See ``compare``."""
        self._check_prefix()
        note = self.note()
        begun = bool(note) and note.get("prefix") == self.prefix
        here = os.listdir(self.at(self.prefix)) if os.path.isdir(self.at(self.prefix)) else []
        known = [name for name in (*_PROGRAMS, *_DATA) if name in here]
        files = plasma_uninstall_host.files(self.prefix, root=self.root)
        if (known or files["units"]) and not begun:
            self._check_ours(here)
        engine = plasma_uninstall_engine.found()
        groups = plasma_uninstall_host.empty_groups()
        place = note.get("place") or f"{PLACE}/uninstalled-TIME"
        aside = [name for name in known if name in _DATA and not self.options["data"]]
        removed = {
            **files,
            "servers": engine["servers"],
            "builds": [each[:12] for each in engine["builds"]],
            "firewall": sorted(plasma_uninstall_host.chains()),
            "networks": engine["networks"],
            "prefix": [f"{self.prefix}/{name}" for name in known if name not in aside],
            "groups": groups["empty"],
        }
        plan = {
            "removed": removed,
            "aside": {f"{self.prefix}/{name}": f"{place}/{name}" for name in aside},
            "left": [],
        }
        if others := sorted(set(here) - set(known)):
            plan["left"].append(f"what is not of the hub in {self.prefix}: {', '.join(others)}")
        if groups["used"]:
            plan["left"].append(f"the groups {', '.join(groups['used'])}, which have members")
        self._plan_by_name(plan, engine["images"], begun)
        plan["removed"] = {what: names for what, names in removed.items() if names}
        return plan

    def _plan_by_name(self, plan: dict[str, Any], images: list[str], begun: bool) -> None:
        """What is removed only by name; what of it stays is told with its key."""
        removed, left = plan["removed"], plan["left"]
        packages = plasma_uninstall_engine.packages(__salt__, self.source)
        quotas = sorted(plasma_quota_fstab.noted())
        engine = packages or plasma_engine.engine()
        reason = "plasma.uninstall.docker" if packages else "it did not come from plasma.docker.source"
        for option, names, sentence in (
            (
                "environments",
                images,
                f"{plasma_words.count(len(images), 'environment')} (images of Docker); plasma.uninstall.environments",
            ),
            ("docker", packages, f"the Docker engine; {reason}" if engine else ""),
            ("quotas", quotas, f"disk quotas of {', '.join(quotas)}; plasma.uninstall.quotas" if quotas else ""),
        ):
            if self.options[option] and names:
                removed[option] = names
            elif sentence and (names or option == "docker"):
                left.append(sentence)
        self._plan_people(removed, left)
        archives = self._archives()
        # Where one is going to be made before this, it is the last one.
        spare = archives if self._needs_backup(plan) and not begun else archives[1:]
        if self.options["backups"]:
            removed["backups"] = spare
            archives = archives[: len(archives) - len(spare)]
        if archives:
            left.append(
                f"{plasma_words.count(len(archives), 'backup')} in {self.directory}; "
                "plasma.uninstall.backups keeps the last one alone"
            )

    def _plan_people(self, removed: dict[str, list[str]], left: list[str]) -> None:
        """People of pillar who have an account: to be removed, or kept and why."""
        protected = plasma_users_leave.protected() if self.options["users"] else {}
        uids = {person.pw_name: person.pw_uid for person in pwd.getpwall()}
        present = [name for name in self.users if name in uids]
        gone = [name for name in present if self.options["users"] and uids[name] not in protected]
        if gone:
            problems = __salt__["plasma_users.problems"](self._leaving(gone), home_path=self.home_path, prefix=_NO_HUB)
            if problems:
                raise CommandExecutionError("\n".join(problems))
            removed["users"] = gone
            if not self.options["homes"]:
                left.append(
                    "the homes of those people, archived in .plasma-removed beside them; plasma.uninstall.homes"
                )
        if len(gone) < len(present):
            why = ": this apply comes from them" if self.options["users"] else "; plasma.uninstall.users"
            kept = len(present) - len(gone)
            left.append(f"{plasma_words.count(kept, 'account')} with {'its home' if kept == 1 else 'their homes'}{why}")

    def apply(self) -> dict[str, Any]:
        """See ``compare``."""
        plan = self.plan()
        if not plan["removed"] and not plan["aside"]:
            pathlib.Path(self.at(NOTE)).unlink(missing_ok=True)
            return {**plan, "backup": None}
        with self._lock():
            note = self._begin(plan)
            plan = self.plan()
            removed = plan["removed"]
            files = [path for kind in _FILES for path in removed.get(kind, ())]
            plasma_uninstall_host.stop(files)
            if removed.keys() & {"servers", "builds"}:
                plasma_uninstall_engine.remove_containers()
            if "firewall" in removed:
                plasma_uninstall_host.remove_chains()
            if "networks" in removed:
                stay = plasma_uninstall_engine.remove_networks()
                _keep(plan, "networks", stay, "the network {}, which containers of others use")
            plasma_uninstall_host.remove_files(files)
            plasma_uninstall_host.remove_groups(removed.get("groups", ()))
            for path, target in plan["aside"].items():
                plan["aside"][path] = plasma_uninstall_host.put_aside(self.at(path), os.path.dirname(self.at(target)))
            # Its own directory of the prefix goes after everything that may fail.
            own = f"{self.prefix}/plasma"
            for path in removed.get("prefix", ()):
                if path != own:
                    plasma_uninstall_host.delete(self.at(path))
            self._remove_by_name(plan, note["place"])
            plasma_uninstall_host.delete(self.at(own))
            with contextlib.suppress(OSError):
                os.rmdir(self.at(self.prefix))
            pathlib.Path(self.at(NOTE)).unlink(missing_ok=True)
        return {**plan, "backup": note["backup"]}

    def _remove_by_name(self, plan: dict[str, Any], place: str) -> None:
        removed = plan["removed"]
        if "users" in removed:
            leaving = self._leaving(removed["users"])
            done = __salt__["plasma_users.apply"](leaving, home_path=self.home_path, prefix=_NO_HUB)
            if done["error"]:
                raise CommandExecutionError(done["error"])
        if "environments" in removed:
            stay = plasma_uninstall_engine.remove_images()
            _keep(plan, "environments", stay, "the environments {}, which containers of others use")
        if "quotas" in removed:
            plan["left"] += [note.rstrip(".") for note in plasma_quota_setup.disable()["notes"]]
        if "docker" in removed:
            plasma_uninstall_engine.purge(__salt__, self.source, place)
        for path in removed.get("backups", ()):
            # With what lies beside an archive and has its name.
            for file in pathlib.Path(self.directory).glob(f"{os.path.basename(path)}*"):
                if file.is_file() and not file.is_symlink():
                    file.unlink()

    def _leaving(self, names: list[str]) -> list[dict[str, Any]]:
        return [{"name": name, "absent": True, "remove_home": self.options["homes"]} for name in names]

    def _check_prefix(self) -> None:
        """Refuse a prefix of which nothing may be removed: too short, reached by a link, or with mounts in it."""
        prefix, pure = self.prefix, pathlib.PurePosixPath(self.prefix)
        if not pure.is_absolute() or len(pure.parts) < 3 or ".." in pure.parts or str(pure) != prefix:
            raise CommandExecutionError(
                f"plasma.hub.prefix is {prefix!r}: nothing is removed below that; name /opt/tljh or such."
            )
        real = os.path.realpath(self.at(prefix))
        if real != os.path.realpath(self.root).rstrip("/") + prefix:
            raise CommandExecutionError(
                f"{prefix} leads to {real} by a link: set plasma.hub.prefix to where the hub is."
            )
        if misplaced := plasma_hub_installed.misplaced(prefix):
            raise CommandExecutionError(misplaced)
        for mount in plasma_mounts.mounts():
            if mount["target"].startswith(f"{prefix}/"):
                raise CommandExecutionError(
                    f"{mount['target']} is mounted: unmount it (umount {mount['target']}), then apply again."
                )

    def _check_ours(self, here: list[str]) -> None:
        if "plasma" not in here and plasma_hub_installed.provider(self.prefix) is not None:
            raise CommandExecutionError(
                f"The hub in {self.prefix} was not installed from this tree, which removes only its own: remove it as "
                "it was installed, or apply the state tljh, which takes it over, first."
            )
        if __salt__["plasma_upgrade.health"](self.prefix).get("open"):
            raise CommandExecutionError(
                f"An upgrade of the hub in {self.prefix} was begun and is not finished: apply the state upgrade first."
            )

    def _needs_backup(self, plan: dict[str, Any]) -> bool:
        deleted = map(os.path.basename, plan["removed"].get("prefix", ()))
        return bool(plan["aside"]) or any(name in _DATA[:2] for name in deleted)

    def _archives(self) -> list[str]:
        """Paths of the archives of ``plasma_backup``, the newest first. Its program is gone with the hub."""
        paths = pathlib.Path(self.directory).glob("plasma-*.tar.gz")
        archives = [path for path in paths if path.is_file() and not path.is_symlink()]
        return [str(path) for path in sorted(archives, key=lambda path: path.stat().st_mtime, reverse=True)]

    def _begin(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Note what is begun, and make the backup; what an interrupted run has noted holds."""
        note = self.note()
        if note.get("prefix") == self.prefix:
            return note
        backup = None
        if self._needs_backup(plan):
            try:
                backup = plasma_backup_program.create(
                    reason="uninstall", prefix=self.prefix, directory=self.directory, home_path=self.home_path
                )["path"]
            except CommandExecutionError:
                # A hub that was never complete has nothing to lose, and its files are put aside.
                if self.options["data"] or os.path.exists(self.at(f"{self.prefix}/state/jupyterhub.sqlite")):
                    raise
        place = f"{PLACE}/uninstalled-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        note = {"prefix": self.prefix, "place": place, "backup": backup}
        plasma_files.write_note(self.at(NOTE), note)
        return note

    @contextlib.contextmanager
    def _lock(self) -> Generator[None]:
        """Hold the installer's lock: it and this must not work in one prefix at a time."""
        own = pathlib.Path(self.at(self.prefix), "plasma")
        if not own.is_dir():
            yield
            return
        with plasma_lock.hold(own / "install.lock", "An installation of the hub is running", timeout=0):
            yield


def _keep(plan: dict[str, Any], key: str, stay: list[str], sentence: str) -> None:
    """Move names from what is removed to what is left."""
    if stay:
        plan["removed"][key] = [name for name in plan["removed"][key] if name not in stay]
        plan["left"].append(sentence.format(", ".join(stay)))
        if not plan["removed"][key]:
            del plan["removed"][key]
