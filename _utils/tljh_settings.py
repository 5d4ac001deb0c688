"""
Read, compare and change the hub's ``config.yaml``, and make the hub take the change over.

Files and services are the same with both providers. The file is read and written by the plugin's helper
``tljh_plasma.config_file`` in the hub's environment, which has the libraries for that (comments survive, the lock is
the one of ``tljh-config``, the whole file is validated, the write is atomic); values reach it on stdin, never in
arguments. Services are the business of ``tljh_service``.

Keys are dotted (``limits.memory``). Settings are nested or dotted: ``{"limits": {"memory": "2G"}}`` and
``{"limits.memory": "2G"}`` mean the same, and leave ``limits.cpu`` alone. Keys inside a nested mapping are taken as
they are, dots included. Lists and empty mappings are values. Changes and diffs hide values whose keys look secret.
"""

from __future__ import annotations

import json
import pathlib
import re
import time
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_files
import plasma_hub_installed
import plasma_hub_secrets
import plasma_run
import tljh_service

HIDDEN = "********"
LOCK_TIMEOUT = 30  # seconds to wait for another writer of the file
RELOADS = ("auto", "hub", "proxy", "none")
_SECRET = re.compile(r"secret|passw|token", re.IGNORECASE)
# What Traefik's own configuration is rendered from; reloading the proxy restarts the hub as well.
_PROXY_KEYS = re.compile(r"(http|https|traefik_api|plasma\.behind)(\.|$)")


def show(prefix="/opt/tljh"):
    """
    Return the content of config.yaml as a dict, without defaults; ``{}`` when the file or the hub is not there.

    prefix
        Where the hub is installed.

    Raises CommandExecutionError when the file cannot be read.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_config.show
    """
    answer = _helper(prefix, {"action": "show"})
    return answer["config"] if answer else {}


def get(key=None, prefix="/opt/tljh", default=None):
    """
    Return the value of one dotted key of config.yaml, or ``default`` when it is not set; without a key, everything.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_config.get limits.memory
    """
    value = show(prefix)
    for part in str(key).split(".") if key else ():
        if not isinstance(value, dict) or part not in value:
            return default
        value = value[part]
    return value


def compare(settings, prefix="/opt/tljh", unset=()):
    """
    Return what ``update`` would change, ``{key: {"old": ..., "new": ...}}``, and write nothing.

    Where no hub is installed yet, all of the settings are new.

    settings, prefix, unset
        As for ``update``, and the same errors are raised.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_config.compare '{limits: {memory: 2G}}'
    """
    pairs, unset = _pairs(settings), _listed(unset)
    answer = _helper(prefix, {"action": "update", "set": pairs, "unset": unset, "dry_run": True})
    if answer is None:
        return _masked({".".join(keys): {"old": None, "new": value} for keys, value in pairs})
    return _masked(answer["changes"])


def differing(settings, prefix="/opt/tljh", unset=()):
    """
    Return what ``compare`` does, without asking the installed plugin whether the settings are valid: for the dry run of
    an upgrade, where they are meant for the plugin to come.

    settings, prefix, unset
        As for ``update``.
    """
    config = show(prefix)
    changes = {}
    for keys, new in [*_pairs(settings), *((key.split("."), None) for key in _listed(unset))]:
        old = config
        for key in keys:
            old = old.get(key) if isinstance(old, dict) else None
        if old != new:
            changes[".".join(keys)] = {"old": old, "new": new}
    return _masked(changes)


def update(settings, prefix="/opt/tljh", unset=(), dry_run=False):
    """
    Set and unset any number of keys in one locked, validated and atomic write. The hub is not reloaded.

    settings
        Nested or dotted mapping of keys to values, see above. Types are kept: "007" stays a string.

    prefix
        Where the hub is installed.

    unset
        Dotted key, or list of them, to remove. Missing ones are no error.

    dry_run
        Write nothing.

    Returns ``{"changed": bool, "changes": {key: {"old", "new"}}, "diff": str, "previous": str | None}``; previous is
    the text that ``restore`` takes, secrets included. Raises CommandExecutionError when the hub is not installed, the
    file or the result is invalid, or the lock stays taken; SaltInvocationError for settings that are no mapping.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_config.update '{limits: {memory: 2G}}' unset='[limits.cpu]'
    """
    request = {"action": "update", "set": _pairs(settings), "unset": _listed(unset), "dry_run": bool(dry_run)}
    answer = _needed(prefix, request)
    return {**answer, "changes": _masked(answer["changes"])}


def restore(text, prefix="/opt/tljh"):
    """
    Write the text that ``update`` returned as ``previous`` back; None removes the file. The hub is not reloaded.

    Returns True. Raises CommandExecutionError when the hub is not installed or the lock stays taken.
    """
    return _needed(prefix, {"action": "restore", "text": text})["restored"]


def ready(prefix="/opt/tljh", timeout=60):
    """
    Wait until the hub answers through the proxy, where config.yaml says it does; see ``tljh_service.ready``.

    prefix
        Where the hub is installed.

    timeout
        Seconds; 0 looks once.

    Returns ``{"ready": bool, "seconds": float, "version": str | None, "problem": str | None, "journal": [str]}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_config.ready timeout=120
    """
    return tljh_service.ready(show(prefix), timeout=timeout)


def reload(component="hub", prefix="/opt/tljh", timeout=60):
    """
    Make the hub or the proxy take config.yaml over, and wait until the hub answers; see ``tljh_service.reload``.

    component
        ``hub``, or ``proxy`` for changes of http, https and traefik_api, which restarts the hub as well.

    prefix
        Where the hub is installed.

    timeout
        Seconds for the whole.

    Returns what ``ready`` returns. Raises CommandExecutionError, with the last lines of the journal, when the hub
    does not come back in time.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_config.reload proxy
    """
    outcome = tljh_service.reload(component, prefix=prefix, config=show(prefix), timeout=timeout)
    if not outcome["ready"]:
        raise CommandExecutionError(_with_journal(f"The hub is not back: {outcome['problem']}.", outcome))
    return outcome


def pending(prefix="/opt/tljh"):
    """
    Return ``hub`` or ``proxy`` when ``apply`` was interrupted between its write and the reload of that component,
    so that the hub runs with older settings than its file holds; None otherwise.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_config.pending
    """
    try:
        note = json.loads(_note(prefix).read_text(encoding="ascii"))
        component, boot, written = note["component"], note["boot"], note["monotonic"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    started = tljh_service.started(component) if boot == _boot() else None
    return component if started is not None and started < written else None


def due(prefix="/opt/tljh"):
    """
    Return ``hub`` or ``proxy`` when that component must be reloaded though config.yaml need not change: see ``pending``
    and ``plasma_hub_secrets.lost``. None otherwise, and where the hub does not run.
    """
    left_over = pending(prefix)
    if left_over or not tljh_service.running():
        return left_over
    components = {loss["component"] for loss in plasma_hub_secrets.lost(prefix)}
    return max(components, default=None)  # a reload of the proxy restarts the hub as well


def apply(settings, prefix="/opt/tljh", unset=(), reload="auto", timeout=120):
    """
    Change keys as ``update`` does, and reload what is needed. When the reload fails, the previous file is restored
    and reloaded.

    settings, prefix, unset
        As for ``update``.

    reload
        ``auto`` (the proxy for http, https and traefik_api, the hub for the rest), ``hub``, ``proxy`` or ``none``.
        When nothing changes, or the hub is stopped as before its first start, nothing is reloaded.

    timeout
        Seconds for each reload.

    Returns ``{"changes": {key: {"old", "new"}}, "diff": str, "reloaded": str | None, "seconds": float}``. Raises
    CommandExecutionError when the change is invalid, or with the last lines of the journal when the hub did not come
    back with it; SaltInvocationError for wrong arguments.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_config.apply '{http: {port: 8080}}' timeout=60
    """
    if reload not in RELOADS:
        raise SaltInvocationError(f"reload must be one of {', '.join(RELOADS)}, not {reload!r}.")
    planned = compare(settings, prefix=prefix, unset=unset)
    left_over = due(prefix) if reload != "none" else None
    if not planned and not left_over:
        return {"changes": {}, "diff": "", "reloaded": None, "seconds": 0.0}
    component = reload
    if reload == "auto":
        # An empty list that was not there changes nothing: releases before this one had no such key.
        proxy = left_over == "proxy" or any(
            _PROXY_KEYS.match(key) and change != {"old": None, "new": []} for key, change in planned.items()
        )
        component = "proxy" if proxy else "hub"
    if component == "none" or not tljh_service.running():
        component = None
    if component:
        _remember(prefix, component)
    try:
        change = update(settings, prefix=prefix, unset=unset)
    except CommandExecutionError:
        if not left_over:
            _note(prefix).unlink(missing_ok=True)
        raise
    done = {"changes": change["changes"], "diff": change["diff"], "reloaded": component, "seconds": 0.0}
    if component:
        outcome = _reloaded(component, prefix, timeout)
        if not outcome["ready"]:
            _roll_back(change, component, outcome, prefix, timeout)
        done["seconds"] = outcome["seconds"]
        _note(prefix).unlink(missing_ok=True)
    return done


def _reloaded(component, prefix, timeout):
    try:
        return tljh_service.reload(component, prefix=prefix, config=show(prefix), timeout=timeout)
    except CommandExecutionError as exc:  # systemd itself does not answer: no less a reason to restore the file
        return {"ready": False, "seconds": 0.0, "version": None, "problem": str(exc).rstrip("."), "journal": []}


def _roll_back(change, component, outcome, prefix, timeout):
    """Restore the previous file, reload it, and raise the error that tells what happened."""
    if not change["changed"]:
        raise CommandExecutionError(_with_journal(f"The hub is not back: {outcome['problem']}.", outcome))
    keys = ", ".join(change["changes"])
    sentence = f"The hub did not come up with the new {keys} ({outcome['problem']})"
    try:
        restore(change["previous"], prefix=prefix)
    except CommandExecutionError as exc:
        raise CommandExecutionError(
            _with_journal(f"{sentence}, and the previous configuration could not be restored: {exc}", outcome)
        ) from exc
    again = _reloaded(component, prefix, timeout)
    _note(prefix).unlink(missing_ok=True)
    back = "the hub is back" if again["ready"] else f"the hub is still not back ({again['problem']})"
    raise CommandExecutionError(_with_journal(f"{sentence}; the previous configuration was restored, {back}.", outcome))


def _with_journal(sentence, outcome):
    return "\n".join([sentence, *outcome["journal"]])


def _note(prefix):
    """The file that says that a reload is due, with the time of the write. Its directory is root's alone."""
    return pathlib.Path(prefix) / "config" / ".reload-pending"


def _remember(prefix: str, component: str) -> None:
    note = {"component": component, "boot": _boot(), "monotonic": time.monotonic()}
    plasma_files.write_note(_note(prefix), note)


def _boot():
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _pairs(settings):
    """Nested or dotted mapping -> list of [list of names, value]."""
    pairs = []

    def walk(names, value):
        if not all(isinstance(name, str) and name for name in names):
            raise SaltInvocationError(f"The key {'.'.join(map(str, names))} must be a string: put it in quotes.")
        if isinstance(value, dict) and value:
            for name, item in value.items():
                walk([*names, name], item)
        else:
            pairs.append([names, value])

    if not isinstance(settings, dict):
        raise SaltInvocationError("settings must be a mapping of keys to values, such as {limits: {memory: 2G}}.")
    for key, value in settings.items():
        walk(key.split(".") if isinstance(key, str) else [key], value)
    return pairs


def _listed(keys):
    keys = [keys] if isinstance(keys, str) else list(keys or ())
    if not all(isinstance(key, str) for key in keys):
        raise SaltInvocationError("unset must be a dotted key or a list of them.")
    return keys


def _masked(changes):
    def hide(name, value):
        if value is not None and _SECRET.search(name):
            return HIDDEN
        if isinstance(value, dict):
            return {key: hide(key, item) for key, item in value.items()}
        return [hide("", item) for item in value] if isinstance(value, list) else value

    return {key: {side: hide(key, value) for side, value in change.items()} for key, change in changes.items()}


def _helper(prefix, request):
    """Send one request to the plugin's helper; its answer, or None where the hub or its plugin is not installed."""
    prefix = pathlib.Path(prefix)
    python = prefix / "hub" / "bin" / "python3"
    if not python.exists():
        return None
    request = {"path": str(prefix / "config" / "config.yaml"), **request}
    if request["action"] != "show":
        request["lock_timeout"] = LOCK_TIMEOUT
    try:
        stdin = json.dumps(request, allow_nan=False)
    except (TypeError, ValueError):
        raise SaltInvocationError("settings take strings, numbers, true, false, null, lists and mappings.") from None
    done = plasma_run.run([str(python), "-I", "-m", "tljh_plasma.config_file"], stdin=stdin, timeout=LOCK_TIMEOUT + 30)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        if re.search(r"No module named '?tljh_plasma", done.stderr):
            return None
        raise CommandExecutionError(f"The hub's configuration helper failed: {done.last_line}") from None
    if "error" in answer:
        raise CommandExecutionError(answer["error"])
    return answer


def _needed(prefix: str, request: dict[str, Any]) -> dict[str, Any]:
    """As ``_helper``, where there has to be a hub."""
    answer = _helper(prefix, request)
    if answer is None:
        raise CommandExecutionError(plasma_hub_installed.absent(prefix))
    return answer
