"""Who is to leave, and who cannot."""

from __future__ import annotations

import pytest

import plasma_users_leave as leave
from tests.unit.modules.accounts_world import World, user

GONE = [{"name": "ben", "absent": True}]


@pytest.fixture
def world():
    world = World()
    world.add("passwd", "ben:x:1001:1001:Ben,,,:/home/ben:/bin/bash")
    world.add("shadow", "ben:$6$own:19000:0:99999:7::20500:")
    world.add("group", "ben:x:1001:")
    world.add("gshadow", "ben:!::")
    world.home("/home/ben", 1001)
    for kind in ("group", "gshadow"):
        world.edit(kind, "video", 3, "ben,ubuntu")
    return world


def test_a_leaver_with_all_that_is_worth_keeping(world):
    planned = world.leave(GONE)
    assert planned["problems"] == []
    assert planned["leavers"] == [
        {
            "name": "ben",
            "uid": 1001,
            "gid": 1001,
            "home": "/home/ben",
            "shell": "/bin/bash",
            "fullname": "Ben",
            "groups": ["video"],
            "expire": "20500",
            "move": True,
            "remove_home": False,
        }
    ]
    assert planned["changes"] == {"ben": {"old": {"uid": 1001, "home": "/home/ben"}, "new": None}}


def test_nobody_is_there_to_leave(world):
    assert world.leave([{"name": "carl", "absent": True}, user("ben")]) == {
        "problems": [],
        "leavers": [],
        "changes": {},
    }


def test_the_own_group_goes_too(world):
    assert leave.edits(world.current(), ["ben"]) == {
        "passwd": {"ben": None},
        "shadow": {"ben": None},
        "group": {"ben": None, "video": ["video", "x", "44", "ubuntu"]},
        "gshadow": {"ben": None, "video": ["video", "*", "", "ubuntu"]},
    }


@pytest.mark.parametrize("how", ["member", "primary"])
def test_a_group_with_somebody_else_in_it_stays(world, how):
    if how == "member":
        world.edit("group", "ben", 3, "ubuntu")
    else:
        world.edit("passwd", "ubuntu", 3, "1001")
    assert "ben" not in leave.edits(world.current(), ["ben"])["group"]


def test_a_group_of_the_same_name_that_is_not_theirs_stays(world):
    world.edit("passwd", "ben", 3, "44")
    assert "ben" not in leave.edits(world.current(), ["ben"])["group"]


def test_administrators_of_a_group(world):
    world.edit("gshadow", "video", 2, "ben,ubuntu")
    assert leave.edits(world.current(), ["ben"])["gshadow"]["video"] == ["video", "*", "ubuntu", "ubuntu"]


@pytest.mark.parametrize("home", [None, ("directory", 0), ("directory", 1000), ("file", 1001)])
def test_a_home_that_is_not_theirs_is_not_moved(world, home):
    if home:
        world.home("/home/ben", home[1], kind=home[0])
    else:
        world.seen["homes"]["/home/ben"] = None
    planned = world.leave(GONE)
    assert (planned["problems"], planned["leavers"][0]["move"]) == ([], False)


def test_a_removal_that_was_begun_keeps_what_was_noted(world):
    world.edit("shadow", "ben", 7, "1")  # locked by the run that was killed
    world.memory["removing"] = {"ben": {"expire": "", "uid": 1001, "home": "/home/ben"}}
    assert world.leave(GONE)["leavers"][0]["expire"] == ""
    world.remove("ben")
    planned = world.leave(GONE)
    assert planned["leavers"] == []
    assert planned["changes"] == {"ben": {"old": {"uid": 1001, "home": "/home/ben"}, "new": None}}


def refused(world, users=GONE, **options):
    planned = world.leave(users, **options)
    assert [problem for problem in planned["problems"] if "\n" in problem] == []
    return " ".join(planned["problems"])


def test_system_accounts_stay(world):
    assert "user games: is a system account on this server (uid 5)" in refused(
        world, [{"name": "games", "absent": True}]
    )
    assert "user root: is a system account" in refused(world, [{"name": "root", "absent": True}])


def test_who_applies_stays(world):
    sentence = refused(world, protected={1001: "is the account this apply comes from"})
    assert sentence.startswith("user ben: is the account this apply comes from: apply as somebody")


def test_a_uid_of_two(world):
    world.add("passwd", "twin:x:1001:1001::/home/twin:/bin/sh")
    assert "user ben: shares the uid 1001 with twin" in refused(world)


@pytest.mark.parametrize("home", ["/home/ben", "/home/ben/", "/home/ben/deep/home"])
def test_a_home_with_the_home_of_another(world, home):
    world.add("passwd", f"guest:x:1002:1002::{home}:/bin/sh")
    assert "user ben: home /home/ben holds the home of guest too" in refused(world)


def test_a_home_above_all_others(world):
    world.edit("passwd", "ben", 5, "/home")
    world.home("/home", 1001)
    assert "user ben: home /home holds the home of ubuntu too" in refused(world)


@pytest.mark.parametrize("there", [True, False])
def test_a_mounted_home(world, there):
    world.seen["mounts"] = {"/home/ben": [{"point": "/home/ben/data", "owner": None}]}
    if not there:
        world.seen["homes"]["/home/ben"] = None
    assert "user ben: /home/ben/data is mounted in the home: unmount it first" in refused(world)


@pytest.mark.parametrize("owner", [1001, 1002])
@pytest.mark.parametrize("found", [("unreadable", -1), ("directory", 0), ("directory", 1002)])
def test_what_people_mount_over_a_home_keeps_nobody(world, owner, found):
    """It is detached when the person runs nothing any more, and looked at then."""
    world.home("/home/ben", found[1], kind=found[0])
    world.seen["mounts"] = {"/home/ben": [{"point": "/home/ben", "owner": owner}]}
    planned = world.leave(GONE)
    assert (planned["problems"], planned["leavers"][0]["move"]) == ([], True)
    # What is to be safe about a home has to be so with one that is hidden.
    world.seen["parents"] = {"/home": "/home can be written by others than root (mode 1777)"}
    assert "cannot be moved safely" in refused(world)


def test_a_home_that_cannot_be_looked_at(world):
    world.home("/home/ben", -1, kind="unreadable")
    assert "user ben: home /home/ben cannot be looked at" in refused(world)


@pytest.mark.parametrize("home", ["/home/ben/", "/home//ben", "//home/ben//"])
def test_slashes_too_many_in_a_home(world, home):
    """Root made the directory for archives in the home itself."""
    world.edit("passwd", "ben", 5, home)
    planned = world.leave(GONE)
    assert planned["problems"] == []
    assert (planned["leavers"][0]["home"], planned["leavers"][0]["move"]) == ("/home/ben", True)
    world.add("passwd", "guest:x:1002:1002::/home/ben//deep/:/bin/sh")
    assert "user ben: home /home/ben holds the home of guest too" in refused(world)


@pytest.mark.parametrize("home", ["", "ben", "home/ben", "/home/../etc", "/home/./ben"])
def test_a_home_that_is_no_absolute_path(world, home):
    world.edit("passwd", "ben", 5, home)
    assert f"user ben: has no absolute path as home in /etc/passwd ({home!r}): mend that" in refused(world)


def test_administrators_are_known_in_lower_case(world):
    world.add("passwd", "Zoe:x:1003:1003::/home/Zoe:/bin/sh")
    assert "user Zoe: no administrator" in refused(world, [{"name": "Zoe", "absent": True}], admins_now=["zoe"])
    assert refused(world, admins_now=["ben", "zoe"]) == ""


def test_a_home_that_is_a_link(world):
    world.home("/home/ben", 0, kind="symbolic link")
    assert "user ben: home /home/ben is a symbolic link" in refused(world)


def test_a_home_where_others_may_write(world):
    world.seen["parents"] = {"/home": "/home can be written by others than root (mode 1777)"}
    assert "user ben: home /home/ben cannot be moved safely: /home can be written" in refused(world)


def test_the_last_administrator_stays(world):
    sentence = "user ben: no administrator of the hub would be left with an account"
    assert sentence in refused(world, admins=["ben"])
    # Somebody without an account is none.
    assert sentence in refused(world, admins=["ben", "carl"])
    assert sentence in refused(world, [*GONE, {"name": "carl", "absent": True}], admins=["carl", "ben"])
    # One who has an account, or gets one in the same run, is.
    assert refused(world, admins=["ben", "ubuntu"]) == ""
    assert refused(world, [*GONE, user("carl")], admins=["ben", "carl"]) == ""
    assert refused(world, admins=["ubuntu"]) == ""
    assert refused(world, admins=[]) == ""
    # Those of now count where pillar names none, and where it names nobody with an account.
    assert sentence in refused(world, admins_now=["ben"])
    assert sentence in refused(world, admins=["carl"], admins_now=["ben"])
    assert refused(world, admins=["ubuntu"], admins_now=["ben"]) == ""
    assert refused(world, admins=["carl"], admins_now=["dora"]) == ""
