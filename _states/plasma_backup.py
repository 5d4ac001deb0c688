"""Backups of the hub: made by a timer, made now, and brought back."""

from __future__ import annotations

import os
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_backup_program
import plasma_hub_installed
import plasma_timer
import plasma_upgrade_plan
import plasma_words

_NAME_IT = (
    "Nothing was restored: name the archive, pillar='{restore: {archive: /var/opt/plasma/backups/...}}' (salt-ssh ID "
    "plasma_backup.list shows them)."
)


def scheduled(name: str, schedule: str | None = None, **options: Any) -> dict[str, Any]:
    """
    A timer of the server makes backups; without a schedule, none does. Archives are never touched.

    name
        Any description.
    schedule
        As systemd's OnCalendar.
    prefix, directory, keep, homes, images, home_path
        See the execution function ``plasma_backup.create``.

    .. code-block:: yaml

        backup-scheduled:
          plasma_backup.scheduled:
            - schedule: '*-*-* 03:30:00'
            - keep: 7
    """
    comment = f"Backups are made: {schedule}." if schedule else "No timer makes backups."
    ret = {"name": name, "changes": {}, "result": True, "comment": comment}
    timer = plasma_backup_program.timer(schedule, **_own(options))
    try:
        # Of an empty place nothing can be backed up, and that would only be seen at night.
        if schedule and (misplaced := plasma_hub_installed.misplaced(options.get("prefix", "/opt/tljh"))):
            raise CommandExecutionError(misplaced)
        changes = plasma_timer.compare(timer)
        if changes and __opts__["test"]:
            comment = f"The timer of backups would be {'set' if schedule else 'removed'}."
            ret.update(result=None, changes=changes, comment=comment)
        elif changes:
            ret["changes"] = plasma_timer.apply(timer)
    except CommandExecutionError as exc:
        ret.update(result=False, comment=str(exc))
    return ret


def created(name: str, **options: Any) -> dict[str, Any]:
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
    ret = {"name": name, "changes": {"backup": {"old": None, "new": "made"}}, "result": None}
    options = _own(options)
    if __opts__["test"]:
        directory = options.get("directory", plasma_backup_program.DIRECTORY)
        return {**ret, "comment": f"A backup would be made in {directory}."}
    try:
        done = plasma_backup_program.create(**options)
    except (CommandExecutionError, SaltInvocationError) as exc:
        return {**ret, "result": False, "changes": {}, "comment": str(exc)}
    comment = (
        f"{done['path']} was made in {done['seconds']:.1f} seconds ({plasma_words.size(done['bytes'])}, "
        f"{', '.join(done['parts'])}, SHA-256 {done['sha256']})."
    )
    return {**ret, "result": True, "changes": {"backup": {"old": None, "new": done["path"]}}, "comment": comment}


def acceptable(
    name: str, archive: str | None = None, tree: str = "salt://tljh/plugin", prefix: str = "/opt/tljh", **options: Any
) -> dict[str, Any]:
    """
    The archive can be restored here: what is wrong with it is said before the hub is installed. Changes nothing.

    name
        Any description.
    archive
        Path of the archive on the server.
    tree
        The tree's folder whose program looks at it. It has to be named in the SLS: that is what makes salt-ssh send it.
    prefix, other_machine, people, without, images, hub, home_path
        See the execution function ``plasma_restore.plan``.

    .. code-block:: yaml

        restore-archive:
          plasma_backup.acceptable:
            - archive: /var/opt/plasma/backups/plasma-hub-20261125T033000Z-scheduled.tar.gz
            - tree: salt://tljh/plugin
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{archive} can be restored here."}
    if not archive:
        return {**ret, "result": False, "comment": _NAME_IT}
    try:
        with plasma_upgrade_plan.staged(__salt__["cp.cache_dir"], __opts__.get("saltenv") or "base") as plugin:
            __salt__["plasma_restore.plan"](archive, prefix=prefix, plugin=plugin, **_own(options))
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, comment=str(exc))
    return ret


def restored(name: str, archive: str | None = None, prefix: str = "/opt/tljh", **options: Any) -> dict[str, Any]:
    """
    The hub has the data of an archive. Everything is looked at before anything changes; what is there is backed up.

    name
        Any description.
    archive
        Path of the archive on the server.
    prefix
        Where the hub is installed.
    other_machine, people, without, images, hub, home_path, directory, timeout
        See the execution function ``plasma_restore.apply``.

    .. code-block:: yaml

        restore-hub:
          plasma_backup.restored:
            - archive: /var/opt/plasma/backups/plasma-hub-20261125T033000Z-scheduled.tar.gz
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    if not archive:
        return {**ret, "result": False, "comment": _NAME_IT}
    options = _own(options)
    for_plan = {key: value for key, value in options.items() if key not in ("directory", "timeout")}
    if __opts__["test"] and not os.path.exists(plasma_backup_program.program(prefix)[-1]):
        changes = {"hub": {"old": None, "new": f"as in {archive}"}}
        comment = f"{archive} would be restored once the hub is installed."
        return {**ret, "result": None, "changes": changes, "comment": comment}
    try:
        plan = __salt__["plasma_restore.plan"](archive, prefix=prefix, **for_plan)
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


def _own(options: dict[str, Any]) -> dict[str, Any]:
    """The options without what Salt adds, such as __env__."""
    return {key: value for key, value in options.items() if not key.startswith("__")}
