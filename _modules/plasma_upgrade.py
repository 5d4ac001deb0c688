"""
Upgrade the hub with a safety net: what an upgrade would change, the preparations, and how it ends.

An upgrade is open from ``prepare`` until ``settle`` or ``roll_back``. Its record, ``<prefix>/plasma/upgrade.json``,
outlives a lost connection, a killed run and a reboot: the first snapshot stays the one to go back to until a version
has been seen to work.
"""

from __future__ import annotations

import datetime
import pathlib
import time
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_backup_program
import plasma_files
import plasma_hub_installed
import plasma_run
import plasma_systemd
import plasma_upgrade_plan
import plasma_upgrade_snapshot
import tljh_service

_OPEN = ("preparing", "open", "rolling-back")
_UNITS = tljh_service.UNITS
# Lead nobody to the ports of the version that failed (the plugin's ``old_ports``): the former has its own.
_FORGET_PORTS = "for tool in iptables iptables-legacy iptables-nft; do $tool -w 10 -t nat -F PLASMA-OLD-PORTS; done"


def _record_path(prefix: str) -> pathlib.Path:
    return pathlib.Path(prefix) / "plasma" / "upgrade.json"


def _read(prefix: str) -> dict[str, Any]:
    """The record of the last upgrade; a damaged one counts as none."""
    try:
        return plasma_files.read_note(_record_path(prefix), "remove it") or {}
    except CommandExecutionError:
        return {}


def _write(prefix: str, record: dict[str, Any]) -> None:
    plasma_files.write_note(_record_path(prefix), record)


def _now() -> str:
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
    wanted = {"packages": planned.get("packages", {}), "jumps": planned.get("jumps", [])}
    record = open_upgrade(prefix)
    if record.get("status") == "rolling-back":
        roll_back(prefix)
    elif record.get("status") == "open":
        _announce(prefix, message, install_timeout)
        _write(prefix, {**record, **wanted})
        return {"resumed": True, "backup": record.get("backup"), "snapshot": True}
    if planned.get("kind") == "broken":
        return {"resumed": False, "backup": _data_alone(prefix, directory), "snapshot": False}
    plasma_upgrade_snapshot.check_room(prefix)
    record = {"status": "preparing", "begun": _now(), **wanted}
    record |= {
        "installed": plasma_hub_installed.packages(prefix),
        "databases": plasma_upgrade_snapshot.revisions(prefix),
    }
    _write(prefix, record)
    try:
        _announce(prefix, message, wait + install_timeout)
        if message:
            time.sleep(wait)
        record["backup"] = _archive(prefix, directory)
        plasma_upgrade_snapshot.take(prefix)
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
    if not pathlib.Path(plasma_backup_program.program(prefix)[-1]).exists():
        return None
    return plasma_backup_program.create(reason="upgrade", prefix=prefix, directory=directory)["path"]


def _data_alone(prefix, directory):
    """Path of an archive, or of a copy where the hub is too broken for one."""
    try:
        made = _archive(prefix, directory)
    except CommandExecutionError:
        made = None
    if not made:
        plasma_upgrade_snapshot.take(prefix, data_alone=True)
        made = plasma_upgrade_snapshot.keep_data(prefix)
        plasma_upgrade_snapshot.drop(prefix)
    return made


def _close(prefix: str, record: dict[str, Any], status: str, problem: str | None = None) -> None:
    __salt__["plasma_announce.clear"](prefix)
    plasma_upgrade_snapshot.drop(prefix)
    _write(prefix, {**record, "status": status, "ended": _now(), "problem": problem})


def _outcome(outcome: str, comment: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"outcome": outcome, "changes": changes or {}, "comment": comment}


def settle(provider, prefix="/opt/tljh", version="", source=None, saltenv="base", timeout=120, failures=()):
    """
    End the upgrade that is open: it is done when everything is installed and the hub works, and undone otherwise.

    provider, prefix, version, source, saltenv
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
        return _outcome("abandoned", "An upgrade that had not begun yet is forgotten.")
    if record["status"] == "rolling-back":
        return roll_back(prefix, "its undoing was interrupted", timeout)
    planned = plasma_upgrade_plan.plan(
        __salt__["cp.cache_dir"], provider, prefix=prefix, version=version, source=source, saltenv=saltenv
    )
    if planned["kind"] == "nothing":
        problem = plasma_upgrade_plan.fault(prefix, timeout)
    else:
        why = failures[0] if failures else "the run ended before that"
        problem = f"it was not installed completely: {why}"
    if problem:
        return roll_back(prefix, problem, timeout)
    before = {**record.get("installed", {}), **record.get("databases", {})}
    after = {**plasma_hub_installed.packages(prefix), **plasma_upgrade_snapshot.revisions(prefix)}
    changes = {
        name: {"old": before.get(name), "new": after.get(name)}
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    }
    data = record.get("backup") or plasma_upgrade_snapshot.keep_data(prefix)
    _close(prefix, {**record, "changes": changes}, "done")
    return _outcome(
        "done", f"The hub was upgraded and answers{_named(record)}. Its data of before is in {data}.", changes
    )


def _named(record: dict[str, Any]) -> str:
    return f" ({', '.join(record['jumps'])})" if record.get("jumps") else ""


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
        return _outcome("abandoned", "The upgrade had not begun: nothing was changed.")
    problem = record.get("problem") or problem
    _write(prefix, {**record, "status": "rolling-back", "problem": problem})
    # The proxy too: its program may be another one.
    plasma_systemd.run("stop", *reversed(_UNITS))
    restored = plasma_upgrade_snapshot.restore(prefix)
    plasma_run.run(["sh", "-c", _FORGET_PORTS])
    plasma_systemd.run("daemon-reload")
    plasma_systemd.run("reset-failed", *_UNITS)
    plasma_systemd.run("start", *_UNITS)
    outcome = tljh_service.ready(plasma_hub_installed.config(prefix), timeout=timeout)
    installed = plasma_hub_installed.packages(prefix)
    former = f"JupyterHub {installed.get('jupyterhub')} with the Plasma plugin {installed.get('tljh-plasma')}"
    data = record.get("backup") or (None if outcome["ready"] else plasma_upgrade_snapshot.keep_data(prefix))
    _close(prefix, {**record, "down": not outcome["ready"]}, "rolled-back", problem.splitlines()[0])
    if not outcome["ready"]:
        text = (
            f"The upgrade{_named(record)} failed, and {former} was put back but does not come up either "
            f"({outcome['problem']}). Its data is in {data}. What was wrong with the new version: {problem}"
        )
        raise CommandExecutionError("\n".join([text, *outcome["journal"][-12:]]))
    text = f"The upgrade{_named(record)} failed and was undone; {former} runs again. What was wrong: {problem}"
    if restored["data"]:
        files = ", ".join(restored["data"])
        text += f"\nPut back: {files}. What the new version made of them is in {restored['kept']}."
    return _outcome("rolled-back", text)


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
    about = {key: record.get(key) for key in ("status", "begun", "ended", "problem", "backup")} if record else None
    if record.get("status") in _OPEN:
        problem = (
            f"The upgrade of {record.get('begun')} has not ended: salt-ssh ID state.apply upgrade finishes it, "
            "salt-ssh ID plasma_upgrade.roll_back undoes it."
        )
        return {"open": about, "last": None, "problem": problem}
    down = f"The upgrade of {record.get('begun')} was undone, and the hub did not answer: salt-ssh ID state.apply tljh"
    return {"open": None, "last": about, "problem": down if record.get("down") else None}
