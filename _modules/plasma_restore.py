"""
Bring an archive of ``plasma_backup`` back, onto the same server or a fresh one.

The hub's data is unpacked beside what is there, and trades places with it while the hub is stopped; what was there is
kept, and comes back when the hub does not answer with the other. Accounts, homes and images are only added: those that
exist stay as they are.
"""

from __future__ import annotations

import ctypes
import datetime
import errno
import json
import os
import pathlib
import shutil
import stat

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_restore"

KEPT = "/var/backups/plasma"
_FOLDERS = ("config", "state")
_HUB = "jupyterhub.service"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # fcntl.h, linux/fs.h


def __virtual__():
    return __virtualname__


def plan(
    archive,
    other_machine=False,
    prefix="/opt/tljh",
    home_path="/home",
    hub=True,
    people=True,
    images=True,
    without=(),
    root="/",
):
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

    Returns ``{"changes": {what: {"old", "new"}}, "about": what the archive says of itself, "people": {...}}``. The
    hub's data is restored as often as that is asked for. Raises CommandExecutionError with one sentence for an archive
    that is not to be used.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_restore.plan /var/opt/plasma/backups/plasma-hub-20261125T033000Z-scheduled.tar.gz
    """
    about = __salt__["plasma_backup.verify"](archive, prefix=prefix)
    if not about["ok"]:
        raise CommandExecutionError(f"Nothing was changed. {about['problem']}")
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
    changes = {}
    if hub:
        _not_newer(archive, about, prefix)
        changes["hub"] = {"old": "as it is", "new": f"as of {about['created']}"}
    found = {}
    if people:
        found = __salt__["plasma_restore_people.missing"](archive, about, prefix, home_path, list(without), root)
    for kind in ("groups", "users", "homes"):
        if found.get(kind):
            changes[kind] = {"old": None, "new": sorted(found[kind])}
    for name, number in found.get("renumbered", {}).items():
        changes[f"group {name}"] = {"old": "another number", "new": number}
    if images and "images" in about["parts"]:
        changes["images"] = {"old": None, "new": "those that the engine does not have"}
    return {"changes": changes, "about": about, "people": found}


def _not_newer(archive, about, prefix):
    """Databases of a newer JupyterHub are none for an older one."""
    then = (about.get("versions") or {}).get("jupyterhub")
    lib = pathlib.Path(prefix, "hub", "lib")
    found = lib.glob("python3*/site-packages/jupyterhub-*.dist-info")
    now = next((path.name.removeprefix("jupyterhub-").removesuffix(".dist-info") for path in found), None)
    if then and now and _release(then) > _release(now):
        raise CommandExecutionError(
            f"Nothing was changed. {archive} is of JupyterHub {then}, and {now} is installed here: apply "
            "the release of this project that the archive is of, or a newer one, first."
        )


def _release(version):
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split(".")[:2])


def apply(
    archive,
    other_machine=False,
    prefix="/opt/tljh",
    home_path="/home",
    hub=True,
    people=True,
    images=True,
    without=(),
    directory="/var/opt/plasma/backups",
    timeout=120,
    root="/",
):
    """
    Restore an archive.

    archive, other_machine, prefix, home_path, hub, people, images, without
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
    planned = plan(archive, other_machine, prefix, home_path, hub, people, images, without, root)
    changes, about, said, kept = planned["changes"], planned["about"], [], None
    if not changes:
        return {"changes": {}, "comment": f"Nothing in {archive} is missing here.", "kept": None}
    if people and changes.keys() - {"hub", "images"}:
        done = __salt__["plasma_restore_people.add"](archive, about, planned["people"], prefix, home_path, root)
        said.append(f"{len(done['users'])} accounts and {len(done['homes'])} homes were added.")
    if "images" in changes:
        loaded = __salt__["plasma_backup.load"](archive, prefix=prefix, seen=about["seen"])
        said.append(f"{len(loaded)} images were added.")
    if "hub" in changes:
        try:
            before = __salt__["plasma_backup.create"]("restore", prefix=prefix, directory=directory)["path"] + " and "
        except CommandExecutionError as exc:
            # A hub that is damaged is what a restore is for. Its files are kept all the same.
            before = ""
            said.append(f"No backup of what was there could be made ({str(exc).removesuffix('.')}).")
        kept = hub_data(archive, prefix=prefix, timeout=timeout, seen=about["seen"])
        said.append(f"The hub has the data of {about['created']}. What was there before is in {before}{kept}.")
    return {"changes": changes, "comment": " ".join(said), "kept": kept}


def hub_data(archive, prefix="/opt/tljh", timeout=120, start=True, seen=""):
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
    about = __salt__["plasma_backup.verify"](archive, prefix=prefix) if not seen else {"ok": True, "seen": seen}
    if not about["ok"]:
        raise CommandExecutionError(f"Nothing was changed. {about['problem']}")
    wanted = [*_FOLDERS, "tls", "about.json"]
    __salt__["plasma_backup.extract"](archive, str(fresh), wanted, prefix=prefix, seen=about["seen"])
    for name in _FOLDERS:
        # Out of the archive they are root's and closed, as the hub's own are.
        os.chown(fresh / name, 0, 0)
        (fresh / name).chmod(0o700)
    (fresh / "state" / "rules").mkdir(mode=0o700)
    if not os.path.lexists(fresh / "state" / "acme.json"):
        (fresh / "state" / "acme.json").touch(mode=0o600)
    _systemctl("stop", _HUB)
    done = []
    try:
        for name in _FOLDERS:
            _exchange(fresh / name, root / name)
            done.append(name)
        _tls(fresh)
    except OSError as exc:
        for name in done:
            _exchange(fresh / name, root / name)
        _systemctl("start", _HUB)
        shutil.rmtree(fresh)
        raise CommandExecutionError(
            f"The data could not be put in place ({exc.strerror}, {exc.filename}): all is as it was."
        ) from exc
    outcome = _started(prefix, timeout) if start else {"ready": True}
    if outcome["ready"]:
        kept = _kept("before-restore")
        shutil.rmtree(fresh / "tls")
        (fresh / "about.json").unlink()
        shutil.move(fresh, kept)
        return str(kept)
    _systemctl("stop", _HUB)
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


def _tls(fresh):
    """The pair of files of HTTPS, where config.yaml names one that is not here, in a place that is root's alone."""
    said = json.loads((fresh / "about.json").read_text(encoding="utf-8"))
    for name, wanted in (said.get("tls") or {}).items():
        source, path = fresh / "tls" / f"{name}.pem", pathlib.Path(wanted)
        if not source.is_file() or os.path.lexists(path) or not path.is_absolute() or ".." in path.parts:
            continue
        above = [parent.lstat() for parent in path.parents if os.path.lexists(parent)]
        if any(not stat.S_ISDIR(entry.st_mode) or entry.st_uid or entry.st_mode & 0o022 for entry in above):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(source.read_bytes())


def _kept(what):
    """A name below the backups of the project for something that is moved there; nothing has it yet."""
    parent = pathlib.Path(KEPT)
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    parent.chmod(0o700)
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")
    return parent / f"{what}-{stamp}"


def _exchange(one, other):
    """Let two directories trade names, in one step where the file system can; one of them may be missing."""
    for here, there in ((one, other), (other, one)):
        if not os.path.lexists(there):
            os.rename(here, there)
            return
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        names = os.fsencode(one), os.fsencode(other)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(one))
    aside = f"{one}.aside"
    os.rename(other, aside)
    try:
        os.rename(one, other)
    except OSError:
        os.rename(aside, other)
        raise
    os.rename(aside, one)


def _started(prefix, timeout):
    """Start proxy and hub. What the proxy reads is made anew of config.yaml: no archive has it."""
    try:
        config = __salt__["tljh_config.show"](prefix)
        return __salt__["tljh_service.reload"]("proxy", prefix=prefix, config=config, timeout=timeout)
    except CommandExecutionError as exc:
        return {"ready": False, "problem": str(exc).removesuffix("."), "journal": []}


def _systemctl(*words):
    __salt__["cmd.run_all"](["systemctl", *words], python_shell=False, ignore_retcode=True)
