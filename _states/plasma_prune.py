"""When leftovers of Docker builds are removed."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_prune"


def __virtual__():
    return __virtualname__


def scheduled(name, schedule, min_age=72):
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
    return _managed(name, schedule, min_age, "Leftovers of builds are removed: {}.")


def unscheduled(name):
    """
    There is no such timer, and its program is gone.

    name
        Any description.

    .. code-block:: yaml

        docker-prune-timer:
          plasma_prune.unscheduled: []
    """
    return _managed(name, None, 72, "Leftovers of builds are not removed by a timer.")


def _managed(name, schedule, min_age, sentence):
    ret = {"name": name, "changes": {}, "result": True, "comment": sentence.format(schedule)}
    try:
        changes = __salt__["plasma_prune.compare"](schedule, min_age)
        if changes and __opts__["test"]:
            ret.update(result=None, changes=changes, comment="The timer would be changed.")
        elif changes:
            ret["changes"] = __salt__["plasma_prune.schedule"](schedule, min_age)
    except CommandExecutionError as exc:
        ret.update(result=False, comment=str(exc))
    return ret
