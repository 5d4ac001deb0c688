"""
Upgrade the hub with a safety net: what an upgrade would change, the preparations, and how it ends.

An upgrade is open from ``prepare`` until ``settle`` or ``roll_back``. Its record, ``<prefix>/plasma/upgrade.json``,
outlives a lost connection, a killed run and a reboot: the first snapshot stays the one to go back to until a version
has been seen to work.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_upgrade"

TREE = "salt://tljh/plugin"
_OPEN = ("preparing", "open", "rolling-back")
_UNITS = ("traefik.service", "jupyterhub.service")


def __virtual__():
    return __virtualname__


def _record_path(prefix):
    return pathlib.Path(prefix) / "plasma" / "upgrade.json"


def _read(prefix):
    try:
        found = json.loads(_record_path(prefix).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(prefix, record):
    __salt__["plasma_files.write"](_record_path(prefix), json.dumps(record, indent=2))
    return record


def _now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def open_upgrade(prefix="/opt/tljh"):
    """
    Return the record of the upgrade that has begun and not ended, or an empty dict.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade.open_upgrade
    """
    record = _read(prefix)
    return record if record.get("status") in _OPEN else {}


def prepare(
    prefix="/opt/tljh", planned=None, directory="/var/opt/plasma/backups", message=None, wait=0, install_timeout=1800
):
    """
    Make everything ready to go back: an archive of the data, and a snapshot of the hub. An upgrade that is open
    already keeps its snapshot.

    prefix
        Where the hub is installed.
    planned
        What ``plasma_upgrade_plan.plan`` returned.
    directory
        Where archives are kept.
    message
        What people are told meanwhile; None tells nothing.
    wait
        Seconds between the announcement and everything else.
    install_timeout
        Seconds that the upgrade itself may take; the announcement ends by itself some time after.

    Returns ``{"resumed": bool, "backup": path of the data or None, "snapshot": bool}``. Raises CommandExecutionError
    with one sentence when something is missing for a way back; nothing of the hub has changed then.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade.prepare wait=60
    """
    planned = planned or {}
    record = open_upgrade(prefix)
    if record.get("status") == "rolling-back":
        roll_back(prefix)
        record = {}
    if record.get("status") == "open":
        _announce(prefix, message, install_timeout)
        _write(prefix, {**record, "packages": planned.get("packages", {}), "jumps": planned.get("jumps", [])})
        return {"resumed": True, "backup": record.get("backup"), "snapshot": True}
    if planned.get("kind") == "broken":
        return {"resumed": False, "backup": _data_alone(prefix, directory), "snapshot": False}
    __salt__["plasma_upgrade_snapshot.check_room"](prefix)
    record = {
        "status": "preparing",
        "begun": _now(),
        "packages": planned.get("packages", {}),
        "jumps": planned.get("jumps", []),
        "installed": __salt__["plasma_hub.packages"](prefix),
        "databases": __salt__["plasma_upgrade_snapshot.revisions"](prefix),
    }
    _write(prefix, record)
    try:
        _announce(prefix, message, wait + install_timeout)
        if message:
            time.sleep(wait)
        record["backup"] = _archive(prefix, directory)
        __salt__["plasma_upgrade_snapshot.take"](prefix)
    except BaseException as exc:
        _close(prefix, record, "abandoned", str(exc))
        raise
    _write(prefix, {**record, "status": "open"})
    return {"resumed": False, "backup": record["backup"], "snapshot": True}


def _announce(prefix, message, seconds):
    if message:
        __salt__["plasma_announce.set"](message, seconds=seconds + 600, prefix=prefix)


def _archive(prefix, directory):
    """Path of an archive; None where the installed version is older than backups are."""
    if "plasma_backup.create" not in __salt__:
        return None
    if not pathlib.Path(__salt__["plasma_backup.program"](prefix)[-1]).exists():
        return None
    return __salt__["plasma_backup.create"](reason="upgrade", prefix=prefix, directory=directory)["path"]


def _data_alone(prefix, directory):
    """Path of an archive, or of a copy where the hub is too broken for one."""
    try:
        made = _archive(prefix, directory)
    except CommandExecutionError:
        made = None
    if not made:
        __salt__["plasma_upgrade_snapshot.take"](prefix, data_alone=True)
        made = __salt__["plasma_upgrade_snapshot.keep_data"](prefix)
        __salt__["plasma_upgrade_snapshot.drop"](prefix)
    return made


def _close(prefix, record, status, problem=None):
    __salt__["plasma_announce.clear"](prefix)
    __salt__["plasma_upgrade_snapshot.drop"](prefix)
    return _write(prefix, {**record, "status": status, "ended": _now(), "problem": problem})


def settle(provider, prefix="/opt/tljh", version="", source=None, tree=TREE, saltenv="base", timeout=120, failures=()):
    """
    End the upgrade that is open: it is done when everything is installed and the hub works, and undone otherwise.

    provider, prefix, version, source, tree, saltenv
        See ``plasma_upgrade_plan.plan``.
    timeout
        Seconds that the hub may take to answer.
    failures
        Comments of states that failed in this run, to explain what is wrong.

    Returns ``{}`` when none is open, or ``{"outcome": "done" | "abandoned" | "rolled-back", "changes", "comment"}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade.settle pypi  # part of: state.apply upgrade
    """
    record = open_upgrade(prefix)
    if not record:
        return {}
    if record["status"] == "preparing":
        _close(prefix, record, "abandoned", "interrupted before anything of the hub was changed")
        return {"outcome": "abandoned", "changes": {}, "comment": "An upgrade that had not begun yet is forgotten."}
    problem = "its undoing was interrupted" if record["status"] == "rolling-back" else None
    problem = problem or _problem(provider, prefix, version, source, tree, saltenv, timeout, failures)
    if problem:
        return roll_back(prefix, problem, timeout)
    changes = _changes(prefix, record)
    kept = None if record.get("backup") else __salt__["plasma_upgrade_snapshot.keep_data"](prefix)
    _close(prefix, {**record, "changes": changes}, "done")
    where = record.get("backup") or kept
    comment = f"The hub was upgraded and answers{_named(record)}. Its data of before is in {where}."
    return {"outcome": "done", "changes": changes, "comment": comment}


def _named(record):
    return f" ({', '.join(record['jumps'])})" if record.get("jumps") else ""


def _changes(prefix, record):
    """What is different now: packages, and revisions of databases."""
    before = {**record.get("installed", {}), **record.get("databases", {})}
    after = {
        **__salt__["plasma_hub.packages"](prefix),
        **__salt__["plasma_upgrade_snapshot.revisions"](prefix),
    }
    return {
        name: {"old": before.get(name), "new": after.get(name)}
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }


def _problem(provider, prefix, version, source, tree, saltenv, timeout, failures):
    """Why the version that is there now is not one to go on with, or None."""
    found = __salt__["plasma_upgrade_plan.plan"](
        provider, prefix=prefix, version=version, source=source, tree=tree, saltenv=saltenv
    )
    if found["kind"] != "nothing":
        why = failures[0] if failures else "the run ended before that"
        return f"it was not installed completely: {why}"
    return __salt__["plasma_upgrade_plan.fault"](prefix, timeout)


def roll_back(prefix="/opt/tljh", problem="by hand", timeout=120):
    """
    Undo the upgrade that is open: the former hub, its units and its data come back, and are seen to answer. Servers of
    people go on. May be called again when it was interrupted.

    prefix
        Where the hub is installed.
    problem
        Why; it is noted, and told.
    timeout
        Seconds that the hub may take to answer.

    Returns ``{"outcome": "rolled-back", "changes": {}, "comment": sentences}``. Raises CommandExecutionError when no
    upgrade is open, or when the former hub does not answer either.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade.roll_back
    """
    record = open_upgrade(prefix)
    if not record:
        raise CommandExecutionError("No upgrade is open, so there is nothing to go back to.")
    if record["status"] == "preparing":
        _close(prefix, record, "abandoned", problem)
        return {"outcome": "abandoned", "changes": {}, "comment": "The upgrade had not begun: nothing was changed."}
    problem = record.get("problem") or problem
    _write(prefix, {**record, "status": "rolling-back", "problem": problem})
    # The proxy too: its program may be another one.
    _systemctl("stop", *reversed(_UNITS))
    restored = __salt__["plasma_upgrade_snapshot.restore"](prefix)
    _forget_ports()
    _systemctl("daemon-reload")
    _systemctl("reset-failed", *_UNITS)
    _systemctl("start", *_UNITS)
    outcome = __salt__["tljh_service.ready"](__salt__["plasma_upgrade_plan.config"](prefix), timeout=timeout)
    kept = None
    if not outcome["ready"] and not record.get("backup"):
        kept = __salt__["plasma_upgrade_snapshot.keep_data"](prefix)
    running = _spelled(__salt__["plasma_hub.packages"](prefix))
    said = f"The upgrade{_named(record)} failed and was undone; {running} runs again. What was wrong: {problem}"
    if restored["data"]:
        said += (
            f"\nPut back: {', '.join(restored['data'])}. What the new version made of them is in {restored['kept']}."
        )
    if not outcome["ready"]:
        data = record.get("backup") or kept
        said = "\n".join(
            [
                f"The upgrade{_named(record)} failed, and {running} was put back but does not come up either "
                f"({outcome['problem']}). Its data is in {data}. What was wrong with the new version: {problem}",
                *outcome["journal"][-12:],
            ]
        )
    _close(prefix, {**record, "down": not outcome["ready"]}, "rolled-back", problem.splitlines()[0])
    if not outcome["ready"]:
        raise CommandExecutionError(said)
    return {"outcome": "rolled-back", "changes": {}, "comment": said}


def _spelled(packages):
    return f"JupyterHub {packages.get('jupyterhub')} with the Plasma plugin {packages.get('tljh-plasma')}"


def _forget_ports():
    """Lead nobody to the ports of the version that failed (the plugin's ``old_ports``): the former has its own."""
    tools = "for tool in iptables iptables-legacy iptables-nft; do $tool -w 10 -t nat -F PLASMA-OLD-PORTS; done"
    __salt__["cmd.run_all"](["sh", "-c", tools], python_shell=False, ignore_retcode=True)


def _systemctl(*words):
    __salt__["cmd.run_all"](["systemctl", *words], python_shell=False, ignore_retcode=True)


def health(prefix="/opt/tljh"):
    """
    Return how upgrades are: ``{"open": record or None, "last": {"status", "begun", "ended", "problem"} or None,
    "problem": sentence with its mend or None}``.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade.health
    """
    record = _read(prefix)
    if not record:
        return {"open": None, "last": None, "problem": None}
    about = {key: record.get(key) for key in ("status", "begun", "ended", "problem", "backup")}
    if record.get("status") in _OPEN:
        return {
            "open": about,
            "last": None,
            "problem": f"The upgrade of {record.get('begun')} has not ended: salt-ssh ID state.apply upgrade finishes "
            "it, salt-ssh ID plasma_upgrade.roll_back undoes it.",
        }
    problem = None
    if record.get("down"):
        problem = (
            f"The upgrade of {record.get('begun')} was undone, and the hub did not answer: salt-ssh ID state.apply tljh"
        )
    return {"open": None, "last": about, "problem": problem}
