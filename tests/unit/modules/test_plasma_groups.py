"""Groups of people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError

import _modules.plasma_groups as groups
import plasma_groups_plan
import plasma_users_tables as tables
import plasma_users_write as write
from tests.unit.modules.accounts_world import World
from tests.unit.modules.stand_in_accounts import GROUP, GSHADOW, StandInServer


@pytest.fixture
def server(tmp_path, monkeypatch):
    return StandInServer(tmp_path, monkeypatch)


@pytest.fixture
def configure_loader_modules(server):
    return server.loader_modules()


def apply(server, *wanted):
    predicted = groups.compare(list(wanted), root=server.root)
    changes = groups.apply(list(wanted), root=server.root)
    assert (changes, []) == (predicted["changes"], predicted["problems"])
    server.written()
    assert groups.apply(list(wanted), root=server.root) == {}
    assert server.written() == []
    return changes


def test_groups_are_made_in_one_go(server):
    wanted = [{"name": "biology", "gid": 2000}, {"name": "physics"}, {"name": "maths", "absent": False}]
    changes = groups.apply(wanted, root=server.root)
    assert server.written() == ["gshadow", "group"]
    assert changes == {
        "biology": {"old": None, "new": {"gid": 2000}},
        "physics": {"old": None, "new": {"gid": 1001}},
        "maths": {"old": None, "new": {"gid": 1002}},
    }
    assert server.text("group").startswith(GROUP)
    assert server.text("gshadow") == GSHADOW + "biology:!::\nphysics:!::\nmaths:!::\n"
    assert apply(server, *wanted) == {}


def test_a_group_goes_with_its_members_left_alone(server):
    apply(server, {"name": "biology"})
    server.write("etc/group", server.text("group").replace("biology:x:1001:", "biology:x:1001:ubuntu"))
    changes = apply(server, {"name": "biology", "absent": True}, {"name": "never", "absent": True})
    assert changes == {"biology": {"old": {"gid": 1001, "members": ["ubuntu"]}, "new": None}}
    assert server.text("group") == GROUP
    assert "ubuntu" in server.rows("passwd")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("absent", [False, True])
def test_a_killed_run_is_finished_by_the_next(server, monkeypatch, number, absent):
    if absent:
        groups.apply([{"name": "biology"}], root=server.root)
    real, calls = write._swap, []

    def killed(*args):
        calls.append(args)
        if len(calls) == number:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(write, "_swap", killed)
        with pytest.raises(KeyboardInterrupt):
            groups.apply([{"name": "biology", "absent": absent}], root=server.root)
    apply(server, {"name": "biology", "absent": absent})
    assert ["biology" in server.rows(kind) for kind in ("group", "gshadow")] == [not absent, not absent]


def test_a_gid_is_nobodys(server):
    server.write(
        "etc/passwd", server.text("passwd") + "a:x:1001:1003::/home/a:/bin/sh\nb:x:1002:1003::/home/b:/bin/sh\n"
    )
    server.write("var/lib/plasma/users.json", '{"uids": {"1004": "gone"}, "making": {"c": {"uid": 1005, "gid": 1005}}}')
    assert apply(server, {"name": "biology"}) == {"biology": {"old": None, "new": {"gid": 1006}}}


REFUSED = {
    "system group": ({"name": "video"}, "group video: is a group of the system (gid 44): take another name"),
    "removed system group": ({"name": "sudo", "absent": True}, "group sudo: is a group of the system (gid 27)"),
    "nogroup": ({"name": "nogroup"}, "group nogroup: is a group of the system (gid 65534)"),
    "other gid": ({"name": "ubuntu", "gid": 1500}, "group ubuntu: has the gid 1000, which cannot become 1500"),
    "gid taken": ({"name": "biology", "gid": 1000}, "group biology: gid 1000 is that of ubuntu"),
    "gid out of range": ({"name": "biology", "gid": 100}, "group biology: gid 100 is not between 1000 and 30000"),
    "primary": ({"name": "ubuntu", "absent": True}, "group ubuntu: is the primary group of ubuntu: remove or change"),
    "name": ({"name": "a:b"}, "group 'a:b': is no name for a group"),
    "twice": ({"name": "twice"}, "group twice: stands twice or in a damaged line"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(server, case):
    server.write("etc/group", server.text("group") + "twice:x:1100:\ntwice:x:1101:\n")
    entry, sentence = REFUSED[case]
    before = server.snapshot()
    with pytest.raises(CommandExecutionError) as caught:
        groups.apply([{"name": "maths"}, entry], root=server.root)
    assert str(caught.value).startswith(sentence)
    assert groups.compare([entry], root=server.root) == {"problems": [str(caught.value)], "changes": {}}
    assert server.snapshot() == before


def test_everything_is_said_at_once(server):
    with pytest.raises(CommandExecutionError) as caught:
        groups.apply([{"name": "video"}, {"name": "a", "gid": 1500}, {"name": "b", "gid": 1500}], root=server.root)
    assert len(str(caught.value).splitlines()) == 2
    assert "group b: gid 1500 is wanted for a too" in str(caught.value)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["a", "b", "c"])},
            optional={"gid": st.integers(1000, 1004), "absent": st.booleans()},
        ),
        unique_by=lambda group: group["name"],
    ),
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", "other"]), st.integers(1001, 1003)),
        unique_by=(lambda x: x[0], lambda x: x[1]),
    ),
)
def test_the_plan_leads_to_what_is_wanted(wanted, there):
    world = World()
    for name, gid in there:
        world.add("group", f"{name}:x:{gid}:ubuntu")
        world.add("gshadow", f"{name}:!::ubuntu")
    current = world.current()
    planned = plasma_groups_plan.plan(current, wanted)
    if planned["problems"]:
        return
    for kind, edits in planned["edits"].items():
        current[kind] = tables.edited(current[kind], edits)
    again = plasma_groups_plan.plan(current, wanted)
    assert (again["problems"], again["edits"], again["changes"]) == ([], {}, {})
    rows = current["group"]["rows"]
    for group in wanted:
        assert (group["name"] in rows) is not group.get("absent", False)
        assert group.get("absent") or group.get("gid") in (None, int(rows[group["name"]][2]))
    gids = [row[2] for row in rows.values()]
    assert len(set(gids)) == len(gids)
    named = {group["name"] for group in wanted}
    assert [line for line in current["group"]["lines"] if line.split(":")[0] not in named] == [
        line for line in world.texts["group"].splitlines() if line.split(":")[0] not in named
    ]


def test_a_group_of_people_who_leave_waits_for_them(server):
    """It is nobody's reason to stop: the run that removes them would never come to them."""
    server.write("etc/passwd", server.text("passwd") + "ben:x:1002:2000::/home/ben:/bin/sh\n")
    for kind, line in (("group", "maths:x:2000:"), ("gshadow", "maths:!::")):
        server.write(f"etc/{kind}", f"{server.text(kind)}{line}\n")
    absent = [{"name": "maths", "absent": True}]
    assert "is the primary group of ben" in groups.compare(absent, root=server.root)["problems"][0]
    assert groups.compare(absent, leaving=["ben"], root=server.root) == {"problems": [], "changes": {}}
    assert groups.apply(absent, leaving=["ben"], root=server.root) == {}
    server.write("etc/passwd", server.text("passwd").replace("ben:x:1002:2000", "ben:x:1002:1000"))
    assert set(groups.apply(absent, leaving=["ben"], root=server.root)) == {"maths"}


@pytest.mark.parametrize("gid", ["", "x", "-1", "²"])
def test_a_group_whose_id_is_no_number(server, gid):
    server.write("etc/group", f"{server.text('group')}maths:x:{gid}:\n")
    for entry in ({"name": "maths"}, {"name": "maths", "absent": True}):
        assert (
            "group maths: stands twice or in a damaged line" in groups.compare([entry], root=server.root)["problems"][0]
        )
    assert groups.compare([{"name": "physics"}], root=server.root)["problems"] == []


def test_groups_of_other_sources():
    world = World()
    world.elsewhere.update(group={"ldap"}, gid={1001, 1002, 1500})
    world.sources = {key: found.__contains__ for key, found in world.elsewhere.items()}
    assert (
        "group ldap: is a group of another source"
        in plasma_groups_plan.plan(world.current(), [{"name": "ldap"}])["problems"][0]
    )
    found = plasma_groups_plan.plan(world.current(), [{"name": "a", "gid": 1500}])["problems"]
    assert found == ["group a: gid 1500 is that of a group of another source (LDAP or the like)"]
    assert plasma_groups_plan.plan(world.current(), [{"name": "a"}])["changes"]["a"]["new"] == {"gid": 1003}


def test_a_full_disk_is_told(server, monkeypatch):
    def change(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "change", change)
    with pytest.raises(CommandExecutionError, match="^No space left on device: see to that, and apply again.$"):
        groups.apply([{"name": "maths"}], root=server.root)


def test_names_are_asked_of_every_source(monkeypatch):
    def getgrnam(name):
        if name != "students of maths":
            raise KeyError(name)

    monkeypatch.setattr(groups.grp, "getgrnam", getgrnam)
    assert groups.unknown(["biolgy", "students of maths", "x"]) == ["biolgy", "x"]
