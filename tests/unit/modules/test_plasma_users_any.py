"""Whatever a server has and pillar wants: the plan leads there, the next is empty, and nothing else is touched."""

from __future__ import annotations

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

import plasma_groups_plan
import plasma_users_leave as leave
import plasma_users_tables as tables
from tests.unit.modules.accounts_world import World
from tests.unit.modules.stand_in_accounts import HASH, OTHER_HASH

NAMES = ["anna", "ben", "cleo", "dora"]
GROUPS = ["maths", "physics"]
PASSWORDS = ["", "!", "*", "!!", "$6$own", "!$6$own", HASH]


@st.composite
def worlds(draw):
    """A server with some of these people, some strangers, and lines that nobody understands."""
    world = World()
    for number, name in enumerate(draw(st.permutations([*NAMES, "stranger"]))):
        if draw(st.booleans()):
            uid = 1001 + number
            gid = draw(st.sampled_from([uid, 100, 2000]))
            gecos = draw(st.sampled_from(["", "A", "A,room,,", "\udcff"]))
            world.add(
                "passwd",
                f"{name}:x:{uid}:{gid}:{gecos}:/home/{name}:{draw(st.sampled_from(['/bin/bash', '/bin/old']))}",
            )
            if draw(st.booleans()) or name == "stranger":
                world.add("shadow", f"{name}:{draw(st.sampled_from(PASSWORDS))}:19000:0:99999:7:::")
            if draw(st.booleans()):
                world.add("group", f"{name}:x:{uid}:")
                world.add("gshadow", f"{name}:!::")
            if draw(st.booleans()):
                world.home(f"/home/{name}", uid)
    for number, group in enumerate(GROUPS):
        if draw(st.booleans()):
            members = ",".join(draw(st.lists(st.sampled_from([*NAMES, "stranger"]), unique=True)))
            world.add("group", f"{group}:x:{2000 + number}:{members}")
            if draw(st.booleans()):
                world.add("gshadow", f"{group}:!:stranger:{members}")
    members = ",".join(draw(st.lists(st.sampled_from([*NAMES, "stranger"]), unique=True)))
    world.edit("group", "video", 3, members)
    world.edit("gshadow", "video", 3, members)
    for kind in ("passwd", "shadow", "group", "gshadow"):
        world.texts[kind] = (
            draw(st.sampled_from(["", "# by hand\n"])) + world.texts[kind] + draw(st.sampled_from(["", "+\n"]))
        )
    given_before = draw(st.lists(st.sampled_from(NAMES), unique=True))
    world.memory["given"] = {name: ["video"] for name in given_before}
    world.memory["uids"] = draw(st.sampled_from([{}, {"1006": "gone"}]))
    return world


@st.composite
def people(draw, absent=False):
    """What pillar wants of some of these people."""
    wanted = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        if absent and draw(st.booleans()):
            wanted.append({"name": name, "absent": True})
            continue
        entry = {"name": name, "shell": draw(st.sampled_from(["/bin/bash", "/bin/zsh"]))}
        entry["groups"] = draw(st.lists(st.sampled_from([*GROUPS, "video"]), unique=True))
        for key, values in (
            ("password_hash", [HASH, OTHER_HASH]),
            ("password_policy", ["enforce", "on_create"]),
            ("fullname", ["Ä", "B C"]),
        ):
            if draw(st.booleans()):
                entry[key] = draw(st.sampled_from(values))
        wanted.append(entry)
    return wanted


def with_groups(world):
    """What ``plasma_groups.managed`` has done before."""
    planned = plasma_groups_plan.plan(world.current(), [{"name": group} for group in GROUPS])
    assert planned["problems"] == []
    for kind, edits in planned["edits"].items():
        world.texts[kind] = tables.text(tables.edited(tables.parse(kind, world.texts[kind]), edits))
    assert plasma_groups_plan.plan(world.current(), [{"name": group} for group in GROUPS])["edits"] == {}
    return world


def plan(world, users, policy):
    return world.plan(users, groups=[{"name": group} for group in GROUPS], password_policy=policy)


def rows(world, kind):
    return tables.parse(kind, world.texts[kind])["rows"]


def groups_of(world, name):
    return {group for group, row in rows(world, "group").items() if name in row[3].split(",")}


def strange(world, names):
    """Every line that is not one of these people's, without the members who are."""
    found = {kind: [] for kind in world.texts}
    for kind, text in world.texts.items():
        for line in text.splitlines():
            fields = line.split(":")
            if fields[0] in names:
                continue
            if kind in ("group", "gshadow") and len(fields) == 4:
                fields[3] = ",".join(member for member in fields[3].split(",") if member not in names)
            found[kind].append(":".join(fields))
    return found


@settings(max_examples=150, deadline=None)
@given(worlds(), people(), st.sampled_from(["on_create", "enforce"]))
def test_the_plan_leads_to_what_is_wanted(world, users, policy):
    with_groups(world)
    names = {entry["name"] for entry in users}
    before = copy.deepcopy(world)
    planned = plan(world, users, policy)
    if planned["problems"]:  # such as a group of that name by hand
        assert all(problem.startswith("user ") for problem in planned["problems"])
        return
    world.apply(planned)

    again = plan(world, users, policy)
    assert again["problems"] == []
    assert (again["edits"], again["homes"], again["changes"]) == ({}, [], {})
    assert again["given"] == planned["given"]

    for entry in users:
        name = entry["name"]
        row, shadow = rows(world, "passwd")[name], rows(world, "shadow").get(name)
        old = rows(before, "passwd").get(name)
        assert row[6] == entry["shell"]
        assert row[4].split(",")[0] == entry.get("fullname", old[4].split(",")[0] if old else "")
        assert world.seen["homes"][row[5]]["uid"] == int(row[2])
        if old:
            assert (row[2:4], row[5]) == (old[2:4], old[5])
            assert row[4].split(",")[1:] == old[4].split(",")[1:]
        hashed = entry.get("password_hash")
        had = rows(before, "shadow").get(name, ["", "!"])[1]
        if hashed and (entry.get("password_policy", policy) == "enforce" or had in ("", "!", "*", "!!") or not old):
            assert shadow[1] == hashed
        elif old:
            assert shadow == rows(before, "shadow").get(name)
        else:
            assert shadow[1] == "!"
        primary = {group for group, other in rows(world, "group").items() if other[2] == row[3]}
        assert groups_of(world, name) & set(GROUPS) - primary == set(entry["groups"]) & set(GROUPS) - primary
        if "video" in entry["groups"]:
            assert "video" in groups_of(world, name)
        else:
            by_hand = "video" in groups_of(before, name) and name not in before.memory["given"]
            assert ("video" in groups_of(world, name)) is by_hand
    assert strange(world, names) == strange(before, names)
    ids = [row[2] for row in rows(world, "passwd").values()]
    assert len(set(ids)) == len(ids)
    assert all(
        int(row[2]) != 1006 or "1006" not in world.memory["uids"]
        for name, row in rows(world, "passwd").items()
        if name not in rows(before, "passwd")
    )


@settings(max_examples=150, deadline=None)
@given(worlds(), people(absent=True))
def test_who_leaves_is_gone_and_nobody_else(world, users):
    names = {entry["name"] for entry in users if entry.get("absent")}
    before = copy.deepcopy(world)
    planned = world.leave(users)
    assert planned["problems"] == []
    leaving = {leaver["name"] for leaver in planned["leavers"]}
    assert leaving == set(planned["changes"]) == names & set(rows(before, "passwd"))
    for kind, edits in leave.edits(world.current(), leaving).items():
        world.texts[kind] = tables.text(tables.edited(tables.parse(kind, world.texts[kind]), edits))
    assert leave.edits(world.current(), leaving) == {}
    for name in leaving:
        assert name not in rows(world, "passwd")
        assert name not in rows(world, "shadow")
        assert groups_of(world, name) == set()
    after, old = strange(world, leaving), strange(before, leaving)
    assert after == old
    assert world.leave(users)["leavers"] == []
