"""A hub's directories with the real backup program, and a systemd that only writes down what it is told."""

from __future__ import annotations

import pathlib
import sqlite3

import _modules.plasma_backup as backup
import _modules.plasma_restore as restore
import plasma_run
from tests.support.paths import REPOSITORY

RUN = plasma_run.run


class BackupWorld:
    """``calls`` are the commands of systemd; ``shown`` is what `systemctl show` says of units."""

    def __init__(self, directory: pathlib.Path):
        self.prefix, self.home = directory / "hub", directory / "home"
        self.place = directory / "backups"
        for folder in (self.prefix / "config", self.prefix / "state", self.prefix / "plasma", self.home):
            folder.mkdir(parents=True)
        (self.prefix / "plasma" / "plugin").symlink_to(REPOSITORY / "plugin")
        (self.prefix / "config" / "config.yaml").write_text("limits: {}\n")
        self.say("before")
        with sqlite3.connect(self.prefix / "state" / "jupyterhub.sqlite") as database:
            database.execute("create table users (name)")
        self.calls, self.shown = [], {}
        self.ready = [{"ready": True, "problem": None, "journal": []}]  # the last one for ever

    def say(self, word):
        (self.prefix / "state" / "word").write_text(word)

    @property
    def word(self):
        return (self.prefix / "state" / "word").read_text()

    def run_all(self, command, **options):
        if command[0] == "journalctl":
            return {"retcode": 0, "stdout": "some line\nThe disk is full.\n{}"}
        if command[:2] == ["systemctl", "show"]:
            shown = self.shown.get(command[-1], {}).items()
            return {"retcode": 0, "stdout": "\n".join(f"{key}={value}" for key, value in shown)}
        if command[0] != "systemctl":
            done = RUN(command, **options)
            return {"retcode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        self.calls.append(command[1:])
        return {"retcode": 0, "stdout": "", "stderr": ""}

    def reload(self, component, prefix, config, timeout):
        self.calls.append(["reload", component])
        return self.ready.pop(0) if len(self.ready) > 1 else self.ready[0]

    def loader_modules(self):
        functions = {
            "cmd.run_all": self.run_all,
            "tljh_settings.show": lambda prefix: {},
            "tljh_service.reload": self.reload,
            "plasma_restore.apply": restore.apply,
        }
        return {module: {"__salt__": functions} for module in (backup, restore)}
