"""What planners of accounts get, made in memory."""

from __future__ import annotations

import copy

import plasma_users_leave as leave
import plasma_users_plan as plan
import plasma_users_tables as tables
from tests.unit.modules.stand_in_accounts import GROUP, GSHADOW, PASSWD, SHADOW

TODAY = 20000


def user(name, **keys):
    """An entry of the completed pillar."""
    return {"name": name, "groups": [], "shell": "/bin/bash", **keys}


class World:
    """The tables as text, and what is seen around them."""

    def __init__(self):
        self.texts = {"passwd": PASSWD, "shadow": SHADOW, "group": GROUP, "gshadow": GSHADOW}
        # Small numbers are easier to read.
        self.defs = {**tables.defaults("/nonexistent"), "UID_FIRST": 1000, "GID_FIRST": 1000}
        self.memory = {
            "given": {},
            "making": {},
            "removing": {},
            "uids": {},
            "gids": {},
            "forgotten": {},
            "marks": {},
            "renaming": {},
            "renamed": {},
        }
        self.seen = {
            "homes": {},
            "parents": {},
            "mounts": {},
            "shells": {"/bin/bash": True, "/bin/zsh": True},
            "reserved": {},
            "elsewhere": set(),
        }
        # What other sources of accounts have: names and numbers.
        self.elsewhere = {"user": set(), "uid": set(), "group": set(), "gid": set()}
        self.sources = {key: self.elsewhere[key].__contains__ for key in self.elsewhere}
        self.home("/home/ubuntu", 1000)

    def add(self, kind, line):
        self.texts[kind] += line + "\n"

    def remove(self, name):
        for kind, text in self.texts.items():
            self.texts[kind] = "".join(line for line in text.splitlines(True) if not line.startswith(f"{name}:"))

    def edit(self, kind, name, place, value):
        lines = [line.split(":") for line in self.texts[kind].splitlines()]
        for fields in lines:
            if fields[0] == name:
                fields[place] = value
        self.texts[kind] = "".join(":".join(fields) + "\n" for fields in lines)

    def home(self, path, uid, kind="directory"):
        self.seen["homes"][path] = {"kind": kind, "uid": uid, "gid": uid}

    def current(self):
        parsed = {kind: tables.parse(kind, text) for kind, text in self.texts.items()}
        rows = parsed["passwd"]["rows"]
        seen = {
            **copy.deepcopy(self.seen),
            "paths": {name: tables.home_path(row) for name, row in rows.items()},
        }
        memory = copy.deepcopy(self.memory)
        return {**parsed, "defs": self.defs, "memory": memory, "seen": seen, "sources": self.sources}

    def plan(self, users, groups=(), home_path="/home", password_policy="on_create"):
        return plan.plan(self.current(), users, groups, home_path, password_policy, TODAY)

    def leave(self, users, **options):
        return leave.plan(self.current(), users, **options)

    def apply(self, planned):
        """What happens when a plan is carried out."""
        assert planned["problems"] == []
        for kind, edits in planned["edits"].items():
            self.texts[kind] = tables.text(tables.edited(tables.parse(kind, self.texts[kind]), edits))
        for home in planned["homes"]:
            assert self.seen["homes"].get(home["path"]) is None
            self.home(home["path"], home["uid"])
        self.memory["given"] = planned["given"]
        self.memory["making"] = {}
