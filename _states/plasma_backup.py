"""Backups of the hub: made by a timer, made now, and brought back."""

from __future__ import annotations

import os

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_backup"


def __virtual__():
    return __virtualname__


def scheduled(name, schedule=None, **options):
    """
    A timer of the server makes backups; without a schedule, none does. Archives are never touched.

    name
        Any description.
    schedule
        As systemd's OnCalendar.
    prefix, directory, keep, homes, images, home_path
        See the execution function ``plasma_backup.arguments``.

    .. code-block:: yaml

        backup-scheduled:
          plasma_backup.scheduled:
            - schedule: '*-*-* 03:30:00'
            - keep: 7
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    options = {key: value for key, value in options.items() if not key.startswith("__")}
    what = f"Backups are made: {schedule}." if schedule else "No timer makes backups."
    try:
        changes = __salt__["plasma_backup_timer.compare"](schedule, **options)
        if not changes:
            ret["comment"] = what
        elif __opts__["test"]:
            ret.update(result=None, changes=changes, comment=f"The timer of backups would be {_done(schedule)}.")
        else:
            ret["changes"] = __salt__["plasma_backup_timer.schedule"](schedule, **options)
            ret["comment"] = what
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def _done(schedule):
    return "set" if schedule else "removed"


def created(name, **options):
    """
    A backup is made now, each time this is applied.

    name
        Any description.
    prefix, directory, homes, images, home_path
        See the execution function ``plasma_backup.create``.

    .. code-block:: yaml

        backup-created:
          plasma_backup.created:
            - homes: true
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    options = {key: value for key, value in options.items() if not key.startswith("__")}
    try:
        if __opts__["test"]:
            place = options.get("directory", "/var/opt/plasma/backups")
            ret.update(result=None, comment=f"A backup would be made in {place}.")
            ret["changes"] = {"backup": {"old": None, "new": "made"}}
            return ret
        done = __salt__["plasma_backup.create"](**options)
        ret["changes"] = {"backup": {"old": None, "new": done["path"]}}
        ret["comment"] = (
            f"{done['path']} was made in {done['seconds']:.1f} seconds ({done['bytes'] / 2**20:.1f} MB, "
            f"{', '.join(done['parts'])}, SHA-256 {done['sha256']})."
        )
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def restored(name, archive=None, prefix="/opt/tljh", **options):
    """
    The hub has the data of an archive. Everything is looked at before anything changes; what is there is backed up.

    name
        Any description.
    archive
        Path of the archive on the server.
    prefix
        Where the hub is installed.
    people, home_path, directory, timeout
        See the execution function ``plasma_restore.apply``.

    .. code-block:: yaml

        restore-hub:
          plasma_backup.restored:
            - archive: /var/opt/plasma/backups/plasma-hub-20261125T033000Z-scheduled.tar.gz
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    options = {key: value for key, value in options.items() if not key.startswith("__")}
    try:
        if not archive:
            raise SaltInvocationError(
                "Nothing was restored: name the archive, pillar='{restore: {archive: /var/opt/plasma/backups/...}}' "
                "(salt-ssh ID plasma_backup.list shows them)."
            )
        for_plan = ("other_machine", "home_path", "hub", "people", "images", "without")
        looked_at = {key: options[key] for key in for_plan if key in options}
        program = __salt__["plasma_backup.program"](prefix)
        if __opts__["test"] and not os.path.exists(program[-1]):
            ret.update(result=None, comment=f"{archive} would be restored once the hub is installed.")
            ret["changes"] = {"hub": {"old": None, "new": f"as in {archive}"}}
            return ret
        plan = __salt__["plasma_restore.plan"](archive, prefix=prefix, **looked_at)
        if not plan["changes"]:
            ret["comment"] = f"Nothing in {archive} is missing here."
        elif __opts__["test"]:
            ret.update(result=None, changes=plan["changes"], comment=f"{archive} would be restored.")
        else:
            done = __salt__["plasma_restore.apply"](archive, prefix=prefix, **options)
            ret.update(changes=done["changes"], comment=done["comment"])
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret
