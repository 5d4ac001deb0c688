"""
Bring an archive of ``plasma_backup`` back, onto the same server or a fresh one.

The hub's data is unpacked beside what is there, and takes its place by renames while the hub is stopped; what was there
is kept, and comes back when the hub does not answer with the other. Accounts and homes are only added: those that exist
stay as they are.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import shutil

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_restore"

KEPT = "/var/backups/plasma"
_FOLDERS = ("config", "state")
_HUB = "jupyterhub.service"


def __virtual__():
    return __virtualname__


def plan(archive, other_machine=False, prefix="/opt/tljh", home_path="/home", hub=True, people=True, root="/"):
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
    hub, people
        Whether the hub's data, and people's accounts and homes, are to be restored.

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
        changes["hub"] = {"old": "as it is", "new": f"as of {about['created']}"}
    found = __salt__["plasma_restore_people.missing"](archive, about, prefix, home_path, root) if people else {}
    for kind in ("groups", "users", "homes"):
        if found.get(kind):
            changes[kind] = {"old": None, "new": sorted(found[kind])}
    return {"changes": changes, "about": about, "people": found}


def apply(
    archive,
    other_machine=False,
    prefix="/opt/tljh",
    home_path="/home",
    hub=True,
    people=True,
    directory="/var/opt/plasma/backups",
    timeout=120,
    root="/",
):
    """
    Restore an archive.

    archive, other_machine, prefix, home_path, hub, people
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
    planned = plan(archive, other_machine, prefix, home_path, hub, people, root)
    changes, said, kept = planned["changes"], [], None
    if not changes:
        return {"changes": {}, "comment": f"Nobody in {archive} is missing here.", "kept": None}
    if changes.keys() & {"users", "groups", "homes"}:
        done = __salt__["plasma_restore_people.add"](archive, planned["people"], prefix, home_path, root)
        said.append(f"{len(done['users'])} accounts and {len(done['homes'])} homes were added.")
    if "hub" in changes:
        before = __salt__["plasma_backup.create"]("restore", prefix=prefix, directory=directory)
        kept = hub_data(archive, prefix=prefix, timeout=timeout)
        said.append(
            f"The hub has the data of {planned['about']['created']}. What was there before is in {before['path']} and "
            f"{kept}."
        )
    return {"changes": changes, "comment": " ".join(said), "kept": kept}


def hub_data(archive, prefix="/opt/tljh", timeout=120, start=True):
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

    Returns the directory with what was there before. Raises CommandExecutionError when the hub does not answer: what
    was there before is back then.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_restore.hub_data /var/opt/plasma/backups/plasma-hub-20261125T033000Z-upgrade.tar.gz
    """
    root = pathlib.Path(prefix)
    fresh = root / "plasma" / "restoring"
    if fresh.exists():
        shutil.rmtree(fresh)  # of a restore that was cut off; root's alone
    __salt__["plasma_backup.extract"](archive, str(fresh), list(_FOLDERS), prefix=prefix)
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    kept = pathlib.Path(KEPT) / f"before-restore-{stamp}"
    kept.mkdir(mode=0o700, parents=True)
    kept.parent.chmod(0o700)
    _systemctl("stop", _HUB)
    try:
        _exchange(root, fresh, kept)
    except OSError as exc:
        _systemctl("start", _HUB)
        raise CommandExecutionError(f"The data could not be put in place: {exc.strerror} ({exc.filename}).") from exc
    shutil.rmtree(fresh, ignore_errors=True)
    if not start:
        return str(kept)
    outcome = _started(prefix, timeout)
    if outcome["ready"]:
        return str(kept)
    _systemctl("stop", _HUB)
    failed = root / "plasma" / "restoring"
    failed.mkdir(mode=0o700)
    for name in _FOLDERS:
        shutil.move(root / name, failed / name)
        shutil.move(kept / name, root / name)
    shutil.rmtree(failed)
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


def _exchange(root, fresh, kept):
    for name in _FOLDERS:
        # Out of the archive they are root's and closed, as the hub's own are.
        os.chown(fresh / name, 0, 0)
        (fresh / name).chmod(0o700)
        if (root / name).exists():
            # Another file system may hold /var: then it is a copy, and a rename where it is the same one.
            shutil.move(root / name, kept / name)
        os.replace(fresh / name, root / name)
    rules = root / "state" / "rules"
    rules.mkdir(mode=0o700, exist_ok=True)
    (root / "state" / "acme.json").touch(mode=0o600)


def _started(prefix, timeout):
    _systemctl("reset-failed", "traefik.service", _HUB)
    # The proxy renders its configuration from config.yaml, and the hub is required by nothing else.
    _systemctl("restart", "traefik.service")
    _systemctl("start", _HUB)
    return __salt__["tljh_service.ready"](__salt__["tljh_config.show"](prefix), timeout=timeout)


def _systemctl(*words):
    __salt__["cmd.run_all"](["systemctl", *words], python_shell=False, ignore_retcode=True)
