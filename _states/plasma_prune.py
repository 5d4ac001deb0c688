"""When leftovers of Docker builds are removed."""

from __future__ import annotations

from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_prune_timer
import plasma_timer


def scheduled(name: str, schedule: str | None, min_age: int = 72) -> dict[str, Any]:
    """
    A timer removes what builds left in the engine. Its program is a file that lies there already.

    name
        Any description.
    schedule
        When, as systemd's OnCalendar.
    min_age
        Hours that leftovers are kept.

    .. code-block:: yaml

        docker-prune-timer:
          plasma_prune.scheduled:
            - schedule: daily
    """
    comment = f"Leftovers of builds are {f'removed: {schedule}' if schedule else 'not removed by a timer'}."
    ret = {"name": name, "changes": {}, "result": True, "comment": comment}
    timer = plasma_prune_timer.timer(schedule, min_age)
    try:
        changes = plasma_timer.compare(timer)
        if changes and __opts__["test"]:
            ret.update(result=None, changes=changes, comment="The timer would be changed.")
        elif changes:
            ret["changes"] = plasma_timer.apply(timer)
    except CommandExecutionError as exc:
        ret.update(result=False, comment=str(exc))
    return ret


def unscheduled(name: str) -> dict[str, Any]:
    """
    There is no such timer, and its program is gone.

    name
        Any description.

    .. code-block:: yaml

        docker-prune-timer:
          plasma_prune.unscheduled: []
    """
    return scheduled(name, None)
