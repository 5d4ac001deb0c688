"""
Bring an archive of ``plasma_backup`` back, onto the same server or a fresh one.

The hub's data is unpacked beside what is there, and trades places with it while the hub is stopped; what was there is
kept, and comes back when the hub does not answer with the other. Accounts, homes and images are only added: those that
exist stay as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Collection
from typing import Any

from packaging.version import Version
from salt.exceptions import CommandExecutionError

import plasma_backup_program
import plasma_cockpit_socket
import plasma_files
import plasma_hub_accounts
import plasma_hub_installed
import plasma_restore_people
import plasma_systemd
import plasma_users_rename
import plasma_users_tables
import plasma_words
import tljh_service
import tljh_settings

KEPT = "/var/backups/plasma"
_FOLDERS = ("config", "state")
_HUB = "jupyterhub.service"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # fcntl.h, linux/fs.h


def plan(
    archive: str,
    other_machine: bool = False,
    prefix: str = "/opt/tljh",
    home_path: str = "/home",
    hub: bool = True,
    people: bool = True,
    images: bool = True,
    without: Collection[str] = (),
    root: str = "/",
    plugin: str | None = None,
) -> dict[str, Any]:
    """
    Look at an archive, at all of it, and say what ``apply`` would do. Nothing changes.

    archive
        Path on this server.
    other_machine
        Whether an archive of another machine is welcome.
    prefix
        Where the hub is installed.
    home_path
        Where homes are.
    hub, people, images
        Whether the hub's data, people's accounts and homes, and images are to be restored.
    without
        Names of people who are left out.
    plugin
        Directory with the plugin that a hub is going to be installed with: its program looks at the archive.

    Returns ``{"changes": {what: {"old", "new"}}, "about": what the archive says of itself, "people": {...}}``. The
    hub's data is restored as often as that is asked for. Raises CommandExecutionError with one sentence for an archive
    that is not to be used.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_restore.plan /var/opt/plasma/backups/plasma-hub-20261125T033000Z-scheduled.tar.gz
    """
    if plugin:
        with plasma_backup_program.borrowed(plugin):
            return _plan(archive, other_machine, prefix, home_path, hub, people, images, without, root, plugin)
    return _plan(archive, other_machine, prefix, home_path, hub, people, images, without, root, None)


def _plan(archive, other_machine, prefix, home_path, hub, people, images, without, root, plugin):
    about = _verified(archive, prefix)
    if not about["this_machine"] and not other_machine:
        raise CommandExecutionError(
            f"Nothing was changed. {archive} is of another machine ({about['host']}, {about['created'][:10]}). If it "
            "is to be restored here, say so: pillar='{restore: {archive: ..., other_machine: true}}'"
        )
    if about["prefix"] != str(prefix):
        raise CommandExecutionError(
            f"Nothing was changed. {archive} is of a hub in {about['prefix']}, and this one is in {prefix}: set "
            "plasma.hub.prefix to it first."
        )
    if hub:
        _check_release(archive, about, prefix, plugin)
    missing = plasma_restore_people.missing(archive, about, prefix, home_path, without, root) if people else {}
    new = {
        "hub": f"as of {about['created']}" if hub else None,
        **{kind: sorted(missing.get(kind, ())) for kind in ("groups", "users", "homes")},
        **{f"group {name}": number for name, number in missing.get("renumbered", {}).items()},
        "images": "those that the engine does not have" if images and "images" in about["parts"] else None,
    }
    old = {"hub": "as it is", **{f"group {name}": "another number" for name in missing.get("renumbered", {})}}
    changes = {what: {"old": old.get(what), "new": value} for what, value in new.items() if value}
    return {"changes": changes, "about": about, "people": missing}


def _check_release(archive: str, about: dict[str, Any], prefix: str, plugin: str | None) -> None:
    """Raise when the databases are of a newer JupyterHub: they are none for an older one."""
    then = (about.get("versions") or {}).get("jupyterhub")
    if plugin:
        now = max(plasma_hub_installed.locked(f"{plugin}/requirements.txt")["jupyterhub"], key=Version)
    else:
        paths = pathlib.Path(prefix, "hub", "lib").glob("python3*/site-packages/jupyterhub-*.dist-info")
        now = next((path.name.removeprefix("jupyterhub-").removesuffix(".dist-info") for path in paths), None)
    if then and now and Version(then).release[:2] > Version(now).release[:2]:
        raise CommandExecutionError(
            f"Nothing was changed. {archive} is of JupyterHub {then}, and {now} is installed here: apply "
            "the release of this project that the archive is of, or a newer one, first."
        )


def apply(
    archive: str,
    prefix: str = "/opt/tljh",
    directory: str = plasma_backup_program.DIRECTORY,
    timeout: float = 120,
    **options: Any,
) -> dict[str, Any]:
    """
    Restore an archive.

    archive, prefix, options
        As for ``plan``, and the same errors are raised.
    directory
        Where the backup goes that is made first, of what is there.
    timeout
        Seconds that the hub may take to answer with the restored data.

    Returns ``{"changes", "comment", "kept": where the former data is, or None}``. Raises CommandExecutionError when
    the hub does not answer with the data of the archive: then it has its former data again.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_restore.apply /var/opt/plasma/backups/plasma-hub-20261125T033000Z-scheduled.tar.gz
    """
    options = {key: value for key, value in options.items() if not key.startswith("__")}
    planned = plan(archive, prefix=prefix, **options)
    changes, about, sentences, kept = planned["changes"], planned["about"], [], None
    if not changes:
        return {"changes": {}, "comment": f"Nothing in {archive} is missing here.", "kept": None}
    if changes.keys() - {"hub", "images"}:
        where = {key: options[key] for key in ("home_path", "root") if key in options}
        done = plasma_restore_people.add(archive, about, planned["people"], prefix, **where)
        accounts, homes = (
            plasma_words.count(len(done[key]), word) for key, word in (("users", "account"), ("homes", "home"))
        )
        sentences.append(f"Added: {accounts} and {homes}.")
    if "images" in changes:
        loaded = plasma_backup_program.load(archive, prefix=prefix, seen=about["seen"])
        sentences.append(f"Added: {plasma_words.count(len(loaded), 'image')}.")
    if "hub" in changes:
        try:
            before = plasma_backup_program.create("restore", prefix=prefix, directory=directory)["path"] + " and "
        except CommandExecutionError as exc:
            # A hub that is damaged is what a restore is for. Its files are kept all the same.
            before = ""
            sentences.append(f"No backup of what was there could be made ({str(exc).removesuffix('.')}).")
        kept = hub_data(archive, prefix=prefix, timeout=timeout, seen=about["seen"], said=sentences)
        _follow_names(prefix, options.get("root", "/"))
        sentences.append(f"The hub has the data of {about['created']}. What was there before is in {before}{kept}.")
    return {"changes": changes, "comment": " ".join(sentences), "kept": kept}


def _follow_names(prefix: str, root: str) -> None:
    """Let a hub that was restored know people by the names that they have got since then."""
    former = plasma_users_rename.former(plasma_users_tables.read(root=root), root)
    if former:
        moves = [{"old": old, "new": note["new"], "group": True, "hub": True} for old, note in former.items()]
        plasma_hub_accounts.rename(moves, prefix=prefix)


def hub_data(
    archive: str,
    prefix: str = "/opt/tljh",
    timeout: float = 120,
    start: bool = True,
    seen: str = "",
    said: list[str] | None = None,
) -> str:
    """
    Put the hub's configuration and state of an archive in the place of what is there; for roll-backs, too.

    archive
        Path on this server; it is verified.
    prefix
        Where the hub is installed.
    timeout
        Seconds that the hub may take to answer afterwards.
    start
        Whether to start the hub and see it answer; without that, it is left stopped.
    seen
        As for ``plasma_backup.extract``.
    said
        Gets a sentence for each setting of the archive that is left out, as this server has not what it needs.

    Returns the directory with what was there before. Raises CommandExecutionError when the hub does not answer: what
    was there before is back then.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_restore.hub_data /var/opt/plasma/backups/plasma-hub-20261125T033000Z-upgrade.tar.gz
    """
    root = pathlib.Path(prefix)
    fresh = root / "plasma" / "restoring"
    if os.path.lexists(fresh):
        # Of a restore that was cut off: some of it may be what the hub had before.
        shutil.move(fresh, _kept("interrupted-restore"))
    seen = seen or _verified(archive, prefix)["seen"]
    wanted = [*_FOLDERS, "tls", "about.json"]
    plasma_backup_program.extract(archive, str(fresh), wanted, prefix=prefix, seen=seen)
    for name in _FOLDERS:
        # Out of the archive they are root's and closed, as the hub's own are.
        os.chown(fresh / name, 0, 0)
        (fresh / name).chmod(0o700)
    (fresh / "state" / "rules").mkdir(mode=0o700)
    if not os.path.lexists(fresh / "state" / "acme.json"):
        (fresh / "state" / "acme.json").touch(mode=0o600)
    plasma_systemd.run("stop", _HUB)
    done = []
    try:
        for name in _FOLDERS:
            _exchange(fresh / name, root / name)
            done.append(name)
        _tls(fresh)
    except OSError as exc:
        for name in done:
            _exchange(fresh / name, root / name)
        plasma_systemd.run("start", _HUB)
        shutil.rmtree(fresh)
        raise CommandExecutionError(
            f"The data could not be put in place ({exc.strerror}, {exc.filename}): all is as it was."
        ) from exc
    _leave_out(prefix, said if said is not None else [])
    outcome = _started(prefix, timeout) if start else {"ready": True}
    if outcome["ready"]:
        kept = _kept("before-restore")
        shutil.rmtree(fresh / "tls")
        (fresh / "about.json").unlink()
        shutil.move(fresh, kept)
        return str(kept)
    plasma_systemd.run("stop", _HUB)
    for name in _FOLDERS:
        _exchange(fresh / name, root / name)
    shutil.rmtree(fresh)
    again = _started(prefix, timeout)
    back = "the hub is back" if again["ready"] else f"the hub is still not back ({again['problem']})"
    raise CommandExecutionError(
        "\n".join(
            [
                f"The hub did not come up with the data of {archive} ({outcome['problem']}); what was there before was "
                f"put back, {back}.",
                *outcome["journal"],
            ]
        )
    )


def _leave_out(prefix: str, said: list[str]) -> None:
    """Take out what the archive's server had beside its hub, and this one has not: the hub would offer it."""
    if plasma_cockpit_socket.DROP_IN.exists():
        return
    # The hub itself says what is wrong with a file that cannot be read, and has its former one again then.
    with contextlib.suppress(CommandExecutionError):
        if tljh_settings.get("plasma.cockpit.enabled", prefix=prefix):
            tljh_settings.update({}, prefix=prefix, unset=["plasma.cockpit"])
            said.append("Cockpit is not offered, as this server has none: that is the state cockpit.")


def _verified(archive: str, prefix: str) -> dict[str, Any]:
    about = plasma_backup_program.verify(archive, prefix=prefix)
    if not about["ok"]:
        raise CommandExecutionError(f"Nothing was changed. {about['problem']}")
    return about


def _tls(fresh: pathlib.Path) -> None:
    """The pair of files of HTTPS, where config.yaml names one that is not here, in a directory that is root's alone."""
    about = json.loads((fresh / "about.json").read_text(encoding="utf-8"))
    for name, wanted in (about.get("tls") or {}).items():
        source, path = fresh / "tls" / f"{name}.pem", pathlib.Path(wanted)
        if not source.is_file() or os.path.lexists(path) or not path.is_absolute() or ".." in path.parts:
            continue
        if not plasma_files.trouble(str(path.parent)):
            plasma_files.directory(path.parent)
            plasma_files.write(path, source.read_bytes())


def _kept(what: str) -> pathlib.Path:
    """A name below the backups of the project for something that is moved there; nothing has it yet."""
    parent = plasma_files.directory(KEPT, 0o700)
    parent.chmod(0o700)
    return parent / f"{what}-{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%S%fZ}"


def _exchange(one: pathlib.Path, other: pathlib.Path) -> None:
    """Let two directories trade names, in one step where the file system can; one of them may be missing."""
    for here, there in ((one, other), (other, one)):
        if not os.path.lexists(there):
            os.rename(here, there)
            return
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(one))
    # ZFS before 2.2 cannot.
    aside = f"{one}.aside"
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def _started(prefix: str, timeout: float) -> dict[str, Any]:
    """Start proxy and hub. What the proxy reads is made anew of config.yaml: no archive has it."""
    try:
        config = tljh_settings.show(prefix)
        return tljh_service.reload("proxy", prefix=prefix, config=config, timeout=timeout)
    except CommandExecutionError as exc:
        return {"ready": False, "problem": str(exc).removesuffix("."), "journal": []}
