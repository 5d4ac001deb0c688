"""What has to change so that people have their accounts: decisions alone, on tables in memory."""

from __future__ import annotations

import pytest

import plasma_groups_plan
import plasma_users_plan as plan
from tests.unit.modules.accounts_world import World, user
from tests.unit.modules.stand_in_accounts import HASH, OTHER_HASH

BEN = {"passwd": "ben:x:1001:1001:Ben,room 2,,:/home/ben:/bin/bash", "shadow": "ben:{}:19000:0:99999:7:::"}


@pytest.fixture
def world():
    return World()


def with_ben(world, password="$6$own", groups=""):
    world.add("passwd", BEN["passwd"])
    world.add("shadow", BEN["shadow"].format(password))
    world.add("group", "ben:x:1001:")
    world.add("gshadow", "ben:!::")
    world.home("/home/ben", 1001)
    for group in filter(None, groups.split(",")):
        world.edit("group", group, 3, "ben")
        world.edit("gshadow", group, 3, "ben")
    return world


def test_a_new_account_is_complete(world):
    planned = world.plan([user("anna", password_hash=HASH, groups=["video"], fullname="Anna É")])
    assert planned["edits"] == {
        "passwd": {"anna": ["anna", "x", "1001", "1001", "Anna É", "/home/anna", "/bin/bash"]},
        "shadow": {"anna": ["anna", HASH, "20000", "0", "99999", "7", "", "", ""]},
        "group": {"anna": ["anna", "x", "1001", ""], "video": ["video", "x", "44", "anna"]},
        "gshadow": {"anna": ["anna", "!", "", ""], "video": ["video", "*", "", "anna"]},
    }
    assert planned["homes"] == [
        {"name": "anna", "uid": 1001, "gid": 1001, "path": "/home/anna", "mode": 0o700, "archive": None}
    ]
    new = {"uid": 1001, "home": "/home/anna", "groups": ["video"], "password": "set"}
    assert planned["changes"] == {"anna": {"old": None, "new": new}}
    assert planned["given"] == {"anna": ["video"]}


def test_nothing_secret_is_in_changes(world):
    with_ben(world)
    users = [user("anna", password_hash=HASH), user("ben", password_hash=OTHER_HASH, password_policy="enforce")]
    assert "$" not in str(world.plan(users)["changes"])


# Passwords.


@pytest.mark.parametrize("password", ["", "*", "!", "!*", "!!"])
@pytest.mark.parametrize("policy", ["on_create", "enforce"])
def test_a_password_is_set_where_nobody_has_set_one(world, password, policy):
    planned = with_ben(world, password).plan([user("ben", password_hash=HASH)], password_policy=policy)
    assert planned["edits"]["shadow"]["ben"][1:3] == [HASH, "20000"]
    assert planned["changes"] == {"ben": {"old": {}, "new": {"password": "set"}}}


@pytest.mark.parametrize("password", ["$y$own", "!$y$own", "DESabcdefghij"])
def test_a_password_that_somebody_set_or_locked_stays(world, password):
    assert with_ben(world, password).plan([user("ben", password_hash=HASH)])["edits"] == {}


@pytest.mark.parametrize("password", ["$y$own", "!$y$own"])
@pytest.mark.parametrize(("everybody", "own"), [("enforce", None), ("on_create", "enforce")])
def test_an_enforced_password_is_that_of_pillar(world, password, everybody, own):
    entry = user("ben", password_hash=HASH, **({"password_policy": own} if own else {}))
    planned = with_ben(world, password).plan([entry], password_policy=everybody)
    assert planned["edits"] == {"shadow": {"ben": ["ben", HASH, "20000", "0", "99999", "7", "", "", ""]}}
    assert planned["changes"] == {"ben": {"old": {}, "new": {"password": "changed"}}}


def test_one_user_can_be_taken_out_of_enforcing(world):
    entry = user("ben", password_hash=HASH, password_policy="on_create")
    assert with_ben(world).plan([entry], password_policy="enforce")["edits"] == {}


def test_an_enforced_password_that_is_there_changes_nothing(world):
    assert with_ben(world, HASH).plan([user("ben", password_hash=HASH)], password_policy="enforce")["edits"] == {}


@pytest.mark.parametrize("password", ["", "!", "$y$own"])
@pytest.mark.parametrize("policy", ["on_create", "enforce"])
def test_without_a_hash_the_password_is_not_touched(world, password, policy):
    assert with_ben(world, password).plan([user("ben")], password_policy=policy)["edits"] == {}


def test_a_password_in_passwd_itself_moves_to_shadow(world):
    with_ben(world)
    world.edit("passwd", "ben", 1, "$1$old")
    assert world.plan([user("ben", password_hash=HASH)])["edits"] == {}
    planned = world.plan([user("ben", password_hash=HASH)], password_policy="enforce")
    assert planned["edits"]["passwd"]["ben"][1] == "x"
    assert planned["edits"]["shadow"]["ben"][1] == HASH


# Other properties.


def test_changes_of_an_account_keep_what_pillar_does_not_say(world):
    planned = with_ben(world).plan([{**user("ben"), "fullname": "Benjamin", "shell": "/bin/zsh"}])
    assert planned["edits"] == {
        "passwd": {"ben": ["ben", "x", "1001", "1001", "Benjamin,room 2,,", "/home/ben", "/bin/zsh"]}
    }
    old, new = planned["changes"]["ben"]["old"], planned["changes"]["ben"]["new"]
    assert old == {"fullname": "Ben", "shell": "/bin/bash"}
    assert new == {"fullname": "Benjamin", "shell": "/bin/zsh"}


def test_a_missing_home_is_made_again(world):
    with_ben(world).seen["homes"]["/home/ben"] = None
    planned = world.plan([user("ben")])
    assert (planned["edits"], [home["path"] for home in planned["homes"]]) == ({}, ["/home/ben"])
    assert planned["changes"] == {"ben": {"old": {"home": None}, "new": {"home": "/home/ben"}}}


def test_another_home_path_moves_nobody(world):
    assert with_ben(world).plan([user("ben")], home_path="/srv/homes")["edits"] == {}


def test_an_account_follows_a_home_that_somebody_moved(world):
    with_ben(world).seen["homes"]["/home/ben"] = None
    world.home("/srv/ben", 1001)
    planned = world.plan([user("ben", home="/srv/ben")])
    assert planned["edits"]["passwd"]["ben"][5] == "/srv/ben"
    assert planned["homes"] == []


# Memberships.


def test_membership_in_groups_of_pillar_is_exact(world):
    for group, gid in (("maths", 2000), ("physics", 2001)):
        world.add("group", f"{group}:x:{gid}:ubuntu")
        world.add("gshadow", f"{group}:!::ubuntu")
    with_ben(world)
    world.edit("group", "maths", 3, "ubuntu,ben")
    world.edit("gshadow", "maths", 3, "ubuntu,ben")
    planned = world.plan([user("ben", groups=["physics"])], groups=[{"name": "maths"}, {"name": "physics"}])
    assert planned["edits"]["group"] == {
        "maths": ["maths", "x", "2000", "ubuntu"],
        "physics": ["physics", "x", "2001", "ubuntu,ben"],
    }
    assert planned["edits"]["gshadow"]["maths"] == ["maths", "!", "", "ubuntu"]
    assert planned["changes"] == {"ben": {"old": {"groups": ["maths"]}, "new": {"groups": ["physics"]}}}


def test_a_membership_somebody_else_gave_is_not_taken_away(world):
    planned = with_ben(world, groups="video").plan([user("ben")])
    assert planned["edits"] == {}


def test_what_pillar_names_is_taken_away_when_it_stops_to(world):
    """Whoever gave it: an administrator's right that pillar named does not outlive that."""
    world = with_ben(world, groups="video")
    world.apply(world.plan([user("ben", groups=["video"])]))
    assert world.memory["given"] == {"ben": ["video"]}
    assert world.plan([user("ben")])["edits"]["group"]["video"][3] == ""


def test_a_membership_of_ours_is_taken_away(world):
    with_ben(world, groups="video").memory["given"] = {"ben": ["video"]}
    assert world.plan([user("ben", groups=["video"])])["given"] == {"ben": ["video"]}
    planned = world.plan([user("ben")])
    assert planned["edits"]["group"] == {"video": ["video", "x", "44", ""]}
    assert planned["given"] == {}


def test_the_primary_group_is_no_membership_to_add(world):
    with_ben(world)
    assert world.plan([user("ben", groups=["ben"])], groups=[{"name": "ben"}])["edits"] == {}


# Ids.


def test_ids_go_on_above_the_highest(world):
    with_ben(world)
    world.add("passwd", "old:x:1500:1500::/home/old:/bin/sh")
    planned = world.plan([user("anna"), user("zoe", uid=1501), user("cleo")])
    assert planned["making"] == {
        "anna": {"uid": 1502, "gid": 1502},
        "zoe": {"uid": 1501, "gid": 1501},
        "cleo": {"uid": 1503, "gid": 1503},
    }


def test_ids_of_others_are_never_given(world):
    world.add("group", "course:x:1001:")
    world.add("passwd", "odd:x:70000:1002::/:/bin/sh")
    world.seen["reserved"] = {1003: "carl", 1004: "/home/left"}
    world.memory["uids"] = {"1005": "dora"}
    assert world.plan([user("anna")])["making"] == {"anna": {"uid": 1006, "gid": 1006}}


def test_numbers_of_images_are_given_to_nobody(world):
    """Files of an image belong to 1000 or 1100: whoever has such a number could change them in their server."""
    world.defs.update(UID_FIRST=20000, GID_FIRST=20000)
    made = with_ben(world).plan([user("ben"), user("anna"), user("zoe"), user("old", uid=1500)])["making"]
    assert made == {
        "anna": {"uid": 20000, "gid": 20000},
        "zoe": {"uid": 20001, "gid": 20001},
        "old": {"uid": 1500, "gid": 1500},
    }
    assert plasma_groups_plan.plan(world.current(), [{"name": "course"}])["changes"]["course"]["new"] == {"gid": 20000}


def test_at_the_end_of_the_range_gaps_are_used(world):
    world.defs["UID_MAX"] = 1002
    with_ben(world)
    world.add("passwd", "last:x:1002:1002::/home/last:/bin/sh")
    world.remove("ubuntu")
    assert world.plan([user("anna")])["making"] == {"anna": {"uid": 1000, "gid": 1000}}
    problems = world.plan([user("anna"), user("zoe")])["problems"]
    assert problems == ["user zoe: no uid is free between 1000 and 1002"]


def test_a_given_uid_whose_number_is_taken_as_gid(world):
    world.add("group", "course:x:1500:")
    assert world.plan([user("anna", uid=1500)])["making"] == {"anna": {"uid": 1500, "gid": 1501}}


def test_a_home_that_is_there_says_the_uid(world):
    world.home("/home/anna", 1700)
    planned = world.plan([user("anna"), user("zoe")])
    assert planned["making"]["anna"] == {"uid": 1700, "gid": 1700}
    assert [home["name"] for home in planned["homes"]] == ["zoe"]


def test_an_archive_of_the_same_name_is_not_taken_over(world):
    """Another Anna must not get the uid, and with it the files, of the one who left; with her home back it is her."""
    world.seen["reserved"] = {1001: "anna"}
    world.memory["uids"] = {"1001": "anna"}
    assert world.plan([user("anna")])["making"]["anna"]["uid"] == 1002
    world.home("/home/anna", 1001)
    assert world.plan([user("anna")])["making"]["anna"]["uid"] == 1001


# What a killed run left.


def test_a_killed_run_goes_on_with_the_same_ids(world):
    world.memory["making"] = {"anna": {"uid": 1007, "gid": 1007}}
    world.add("group", "anna:x:1007:")
    world.add("shadow", "anna:$6$half:20000:0:99999:7:::")
    planned = world.plan([user("anna", password_hash=HASH)])
    assert planned["problems"] == []
    assert planned["making"] == {"anna": {"uid": 1007, "gid": 1007}}
    assert planned["edits"]["shadow"]["anna"][1] == HASH


def test_a_killed_run_goes_on_when_somebody_else_got_the_uid_meanwhile(world):
    world.memory["making"] = {"anna": {"uid": 1001, "gid": 1001}}
    world.add("group", "anna:x:1001:")
    world.add("passwd", "eve:x:1001:1002::/home/eve:/bin/sh")
    world.add("group", "eve:x:1002:")
    planned = world.plan([user("anna")])
    assert planned["making"] == {"anna": {"uid": 1003, "gid": 1001}}
    assert "anna" not in planned["edits"]["group"] or planned["edits"]["group"]["anna"][2] == "1001"


def test_what_a_killed_run_left_is_cleared_when_nobody_wants_it_any_more(world):
    world.memory["making"] = {"anna": {"uid": 1007, "gid": 1007}}
    world.add("group", "anna:x:1007:")
    world.add("gshadow", "anna:!::")
    world.add("shadow", "anna:!:20000:0:99999:7:::")
    gone = {"anna": None}
    assert world.plan([])["edits"] == {"shadow": gone, "group": gone, "gshadow": gone}


def test_a_removal_that_was_taken_back_unlocks_the_account(world):
    with_ben(world).edit("shadow", "ben", 7, "1")
    world.memory["removing"] = {"ben": {"uid": 1001, "expire": "", "archive": "/home/.plasma-removed/ben"}}
    world.seen["homes"]["/home/ben"] = None
    planned = world.plan([user("ben")])
    assert planned["edits"]["shadow"]["ben"][7] == ""
    assert planned["homes"][0]["archive"] == "/home/.plasma-removed/ben"


# What is refused.

REFUSED = {
    "system account": (user("games"), "user games: is a system account on this server (uid 5): take another name"),
    "other source": (user("ldap"), "user ldap: is an account of another source (LDAP or the like)"),
    "shell": ({**user("anna"), "shell": "/bin/fish"}, "user anna: shell /bin/fish is no program on this server"),
    "group": (user("anna", groups=["wheel"]), "user anna: group wheel does not exist on this server"),
    "group of that name": (user("video"), "user video: a group video (gid 44) exists and would become the user's own"),
    "uid taken": (user("anna", uid=1000), "user anna: uid 1000 is that of ubuntu"),
    "uid of an archive": (
        user("anna", uid=1900),
        "user anna: uid 1900 is still that of carl, whose files it would get",
    ),
    "uid out of range": (user("anna", uid=999), "user anna: uid 999 is not between 1000 and 60000"),
    "other uid": (user("ubuntu", uid=1500), "user ubuntu: has the uid 1000, which cannot become 1500"),
    "other home": (
        user("ubuntu", home="/srv/ubuntu"),
        "user ubuntu: home is /home/ubuntu, and its files are not moved",
    ),
    "home of another": (user("anna", home="/home/ubuntu"), "user anna: home /home/ubuntu is that of ubuntu"),
    "home of root": (user("rooty"), "user rooty: home /home/rooty exists and its owner, uid 0, is not between"),
    "home of a stranger": (user("anna", uid=1500, home="/home/left"), "belongs to uid 1800, not 1500: move it away"),
    "home is a link": (user("linked"), "user linked: home /home/linked is a symbolic link: move it away"),
    "unsafe parent": (user("anna", home="/tmp/x/anna"), "home /tmp/x/anna cannot be made safely: /tmp can be written"),
    "relative home": (user("anna", home="../anna"), "user anna: home ../anna must be an absolute path"),
    "dots": (user("anna", home="/home/../etc/anna"), "user anna: home /home/../etc/anna must be an absolute path"),
    "colon": (user("anna", fullname="a:0:0"), "user anna: fullname has a colon or a control character"),
    "line": (
        {**user("anna"), "shell": "/bin/sh\nroot2::0:0::/:"},
        "user anna: shell has a colon or a control character",
    ),
    "comma": (user("anna", fullname="A, B"), "user anna: fullname has a comma"),
    "name": (user("an:na"), "user 'an:na': is no name for an account"),
    "twice": (user("twice"), "user twice: stands twice or in a damaged line in /etc/passwd: mend it with vipw or vigr"),
}


@pytest.fixture
def hostile(world):
    world.add("passwd", "twice:x:1100:1100::/home/twice:/bin/sh")
    world.add("passwd", "twice:x:0:0::/:/bin/sh")
    world.seen["elsewhere"] = {"ldap"}
    world.seen["reserved"] = {1900: "carl", 1800: "/home/left"}
    world.seen["parents"] = {"/tmp/x": "/tmp can be written by others than root (mode 1777)"}
    world.home("/home/rooty", 0)
    world.home("/home/left", 1800)
    world.home("/home/linked", 1500, kind="symbolic link")
    return world


@pytest.mark.parametrize("case", REFUSED)
def test_refused(hostile, case):
    entry, sentence = REFUSED[case]
    planned = hostile.plan([entry])
    assert planned["problems"], planned
    assert any(sentence in problem for problem in planned["problems"])


def test_everything_is_said_at_once(hostile):
    said = hostile.plan([entry for entry, _ in REFUSED.values()])["problems"]
    assert [sentence for _, sentence in REFUSED.values() if not any(sentence in one for one in said)] == []
    assert not any("\n" in problem for problem in said)


def test_two_users_cannot_have_one_uid_or_home(world):
    said = world.plan([user("anna", uid=1500), user("ben", uid=1500), user("cleo", home="/home/anna")])["problems"]
    assert said == [
        "user ben: uid 1500 is wanted for anna too",
        "user cleo: home /home/anna is that of anna",
    ]


def test_planning_is_not_for_people_who_leave(world):
    assert world.plan([{"name": "games", "absent": True}])["problems"] == []
    assert plan.plan(world.current(), [])["edits"] == {}


def test_numbers_of_other_sources_are_left_to_them(world):
    world.elsewhere.update(uid={1001, 1500}, gid={1002}, group={"staffroom"})
    world.sources = {key: found.__contains__ for key, found in world.elsewhere.items()}
    assert world.plan([user("ada")])["edits"]["passwd"]["ada"][2:4] == ["1003", "1003"]
    problems = world.plan([user("ada", uid=1500), user("staffroom")])["problems"]
    assert problems == [
        "user ada: uid 1500 is that of an account of another source (LDAP or the like)",
        "user staffroom: is a group of another source (LDAP or the like), which would be mixed up with the own one",
    ]
    # With a number of its own that is free, the group gets another one.
    row = world.plan([user("ada", uid=1002)])["edits"]["passwd"]["ada"]
    assert (row[2], row[3] != "1002") == ("1002", True)


@pytest.mark.parametrize("home", ["", "data", "/home/../etc"])
def test_a_home_that_is_no_absolute_path(world, home):
    world.edit("passwd", "ubuntu", 5, home)
    (problem,) = world.plan([user("ubuntu")])["problems"]
    assert problem.startswith(f"user ubuntu: has no absolute path as home in /etc/passwd ({home!r}): mend that")


def test_slashes_too_many_in_a_home(world):
    world.edit("passwd", "ubuntu", 5, "/home//ubuntu/")
    for entry in (user("ubuntu"), user("ubuntu", home="/home/ubuntu")):
        assert (world.plan([entry])["problems"], world.plan([entry])["edits"]) == ([], {})
    assert "home /home/ubuntu is that of ubuntu" in world.plan([user("ada", home="/home/ubuntu")])["problems"][-1]
    world.seen["homes"]["/home/ubuntu"] = None
    assert [home["path"] for home in world.plan([user("ubuntu")])["homes"]] == ["/home/ubuntu"]


def test_a_home_that_root_cannot_look_at_is_not_made_again(world):
    world.home("/home/ubuntu", -1, kind="unreadable")
    planned = world.plan([user("ubuntu")])
    assert (planned["problems"], planned["homes"], planned["changes"]) == ([], [], {})
    world.home("/home/ada", -1, kind="unreadable")
    assert world.plan([user("ada")])["problems"][0] == "user ada: home /home/ada cannot be looked at"
