"""A hub's directories with the real backup program, and a systemd that only writes down what it is told."""

from __future__ import annotations

import pathlib
import sqlite3

import salt.modules.cmdmod as cmdmod

import _modules.plasma_backup as backup
import _modules.plasma_backup_timer as timer
import _modules.plasma_files as plasma_files
import _modules.plasma_restore as restore
import _modules.plasma_restore_people as people
import _modules.plasma_users_edit as edit
import _modules.plasma_users_files as files
from tests.support.paths import REPOSITORY

MODULES = (backup, timer, restore, people, edit, files)


class BackupWorld:
    """``calls`` are the commands of systemd; ``shown`` is what `systemctl show` says of units."""

    def __init__(self, directory: pathlib.Path):
        self.prefix, self.home = directory / "hub", directory / "home"
        self.place, self.units = directory / "backups", directory / "units"
        for folder in (self.prefix / "config", self.prefix / "state", self.prefix / "plasma", self.home, self.units):
            folder.mkdir(parents=True)
        (self.prefix / "plasma" / "plugin").symlink_to(REPOSITORY / "plugin")
        (self.prefix / "config" / "config.yaml").write_text("limits: {}\n")
        self.say("before")
        with sqlite3.connect(self.prefix / "state" / "jupyterhub.sqlite") as database:
            database.execute("create table users (name)")
        self.calls, self.shown, self.failing = [], {}, set()
        self.ready = [{"ready": True, "problem": None, "journal": []}]  # the last one for ever

    def say(self, word):
        (self.prefix / "state" / "word").write_text(word)

    @property
    def word(self):
        return (self.prefix / "state" / "word").read_text()

    def run_all(self, command, **options):
        if command[0] not in ("systemctl", "systemd-analyze"):
            return cmdmod.run_all(command, **options)
        self.calls.append(command[1:])
        failed = command[1] in self.failing
        return {"retcode": int(failed), "stdout": "", "stderr": "it says no" if failed else ""}

    def run_stdout(self, command, **_):
        if command[0] == "journalctl":
            return "some line\nThe disk is full.\n{}"
        return "\n".join(f"{key}={value}" for key, value in self.shown.get(command[-1], {}).items())

    def reload(self, component, prefix, config, timeout):
        self.calls.append(["reload", component])
        return self.ready.pop(0) if len(self.ready) > 1 else self.ready[0]

    def loader_modules(self):
        functions = {
            "cmd.run_all": self.run_all,
            "cmd.run_stdout": self.run_stdout,
            "tljh_config.show": lambda prefix: {},
            "plasma_files.write": plasma_files.write,
            "tljh_service.reload": self.reload,
        }
        for module in MODULES:
            for name in vars(module):
                if not name.startswith("_") and callable(getattr(module, name)):
                    found = getattr(module, "__func_alias__", {}).get(name, name)
                    functions[f"{module.__virtualname__}.{found}"] = getattr(module, name)
        return {
            **{module: {"__salt__": functions} for module in MODULES},
            cmdmod: {"__opts__": {}, "__grains__": {}, "__salt__": {}},
        }
