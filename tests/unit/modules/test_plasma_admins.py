"""Administrators in config.yaml and in the hub's database: compared, brought there, and seen to be there."""

from __future__ import annotations

import itertools
import pwd
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _modules.plasma_admins as plasma_admins
import plasma_hub_accounts as api
import tljh_settings as tljh_config


class Killed(BaseException):
    """kill -9, between two steps."""


class StandInServer:
    """config.yaml, the hub's database and its starts. ``steps`` is how many more are taken before it is killed."""

    def __init__(self):
        self.file, self.read, self.role, self.due, self.reloads = None, None, set(), None, 0
        self.steps = None
        self.asked = []

    def step(self, what):
        if self.steps is not None:
            if not self.steps:
                raise Killed
            self.steps -= 1
        self.asked.append(what)

    def start(self):
        """The hub reads its file: it only ever adds to the role."""
        self.read = self.file
        self.role |= {name.lower() for name in self.file or ()}

    # What is called.

    def administrators(self, prefix):
        return sorted(self.role) if self.role is not None else None

    def set_admin(self, names, admin, prefix):
        self.step(("grant" if admin else "revoke", tuple(names)))
        self.role = self.role | set(names) if admin else self.role - set(names)
        return sorted(self.role)

    def compare(self, settings, prefix):
        (new,) = settings.values()
        return {} if self.file == new else {"users.admin": {"old": self.file, "new": new}}

    def pending(self, prefix):
        return self.due

    def apply(self, settings, prefix, timeout):
        changes = self.compare(settings, prefix)
        if not changes and not self.due:
            return {"changes": {}, "diff": "", "reloaded": None, "seconds": 0.0}
        self.due = "hub"
        self.step("write")
        (self.file,) = settings.values()
        self.step("reload")
        self.reloads += 1
        self.start()
        self.due = None
        return {"changes": changes, "diff": "", "reloaded": "hub", "seconds": 1.0}


@pytest.fixture
def server():
    return StandInServer()


@pytest.fixture
def configure_loader_modules(server):
    return {
        plasma_admins: {
            "__salt__": {
                "plasma_hub_accounts.administrators": create_autospec(
                    api.administrators, side_effect=server.administrators
                ),
                "plasma_hub_accounts.set_admin": create_autospec(api.set_admin, side_effect=server.set_admin),
                "tljh_settings.compare": create_autospec(tljh_config.compare, side_effect=server.compare),
                "tljh_settings.pending": create_autospec(tljh_config.pending, side_effect=server.pending),
                "tljh_settings.apply": create_autospec(tljh_config.apply, side_effect=server.apply),
            }
        }
    }


def test_revoking_in_file_and_database_takes_one_reload(server):
    server.file = ["ada", "eve"]
    server.start()
    changes = plasma_admins.compare(["ada", "20231234"])
    assert changes == {
        "users.admin": {"old": ["ada", "eve"], "new": ["ada", "20231234"]},
        "administrators": {"old": ["ada", "eve"], "new": ["20231234", "ada"]},
    }
    done = plasma_admins.apply(["ada", "20231234"])
    assert done == {"changes": changes, "reloaded": True, "seconds": 1.0}
    assert (server.file, server.role, server.reloads) == (["ada", "20231234"], {"ada", "20231234"}, 1)
    assert plasma_admins.compare(["ada", "20231234"]) == {}
    assert plasma_admins.apply(["ada", "20231234"]) == {"changes": {}, "reloaded": False, "seconds": 0.0}
    assert server.reloads == 1


def test_the_database_alone_takes_no_reload(server):
    """Somebody was named on the hub's own page, or was left over by an earlier release."""
    server.file, server.role = ["ada"], {"eve", "zoe"}
    assert plasma_admins.compare(["ada"]) == {"administrators": {"old": ["eve", "zoe"], "new": ["ada"]}}
    assert plasma_admins.apply(["ada"])["reloaded"] is False
    assert (server.role, server.reloads) == ({"ada"}, 0)
    # There is no moment without an administrator.
    assert server.asked == [("grant", ("ada",)), ("revoke", ("eve", "zoe"))]


def test_the_hub_writes_names_in_lower_case(server):
    server.file, server.role = ["Ada"], {"ada"}
    assert plasma_admins.compare(["Ada"]) == {}


def test_a_reload_that_is_owed_is_a_change(server):
    server.file, server.role, server.due = ["ada"], {"ada"}, "hub"
    assert plasma_admins.compare(["ada"]) == {"reload": {"old": None, "new": "hub"}}
    assert plasma_admins.apply(["ada"])["reloaded"] is True


@pytest.mark.parametrize("steps", range(5))
@pytest.mark.parametrize(
    ("file", "role", "wanted"),
    [
        (["ada", "eve"], {"ada", "eve"}, ["ada"]),
        (["eve"], {"eve", "old"}, ["ada"]),
        (None, set(), ["ada"]),
        (["ada"], {"ada", "page"}, ["ada"]),
        (["ada"], {"page"}, ["ada"]),
    ],
)
def test_whatever_is_interrupted_the_next_run_ends_right(server, file, role, wanted, steps):
    server.file, server.read, server.role, server.steps = file, file, role, steps
    try:
        plasma_admins.apply(wanted)
    except Killed:
        server.steps = None
        assert plasma_admins.compare(wanted) != {}
        plasma_admins.apply(wanted)
    assert (server.file, server.read, server.role) == (wanted, wanted, set(wanted))
    assert plasma_admins.compare(wanted) == {}
    # And the next start of the hub brings nobody back.
    server.start()
    assert server.role == set(wanted)


def test_any_state_becomes_the_wanted_one(server):
    people = ["a", "b"]
    subsets = [list(some) for size in range(3) for some in itertools.combinations(people, size)]
    for file, role, wanted in itertools.product(subsets, subsets, subsets[1:]):
        server.file, server.read, server.role, server.reloads = file, file, set(role), 0
        plasma_admins.apply(wanted)
        assert (server.file, server.role) == (wanted, set(wanted))
        assert server.reloads == (file != wanted)


def test_somebody_who_stays_administrator_is_an_error(server, configure_loader_modules):
    functions = configure_loader_modules[plasma_admins]["__salt__"]
    functions["plasma_hub_accounts.set_admin"].side_effect = lambda names, admin, prefix: ["ada", "eve"]
    server.file, server.role = ["ada"], {"ada", "eve"}
    with pytest.raises(CommandExecutionError, match="administrators are ada, eve and not ada: see journalctl"):
        plasma_admins.apply(["ada"])


def test_when_the_hub_does_not_take_the_file_the_database_stays(server, configure_loader_modules):
    functions = configure_loader_modules[plasma_admins]["__salt__"]
    functions["tljh_settings.apply"].side_effect = CommandExecutionError("the previous configuration was restored.")
    server.file, server.role = ["eve"], {"eve"}
    with pytest.raises(CommandExecutionError, match="restored"):
        plasma_admins.apply(["ada"])
    assert server.role == {"eve"}


def test_without_a_hub(server):
    server.role = None
    assert plasma_admins.compare(["ada"]) is None
    with pytest.raises(CommandExecutionError, match="No hub with the Plasma plugin runs in /opt/tljh"):
        plasma_admins.apply(["ada"])
    assert server.asked == []


@pytest.mark.parametrize("names", [[], "ada", [20231234], [""], None, {"ada": True}])
def test_names_that_are_none_are_refused(server, names):
    for function in (plasma_admins.compare, plasma_admins.apply):
        with pytest.raises(SaltInvocationError):
            function(names)
    assert server.asked == []


def test_who_has_no_account_is_told():
    known = pwd.getpwall()[0].pw_name
    assert plasma_admins.without_account(["plasma-nobody", known]) == ["plasma-nobody"]
