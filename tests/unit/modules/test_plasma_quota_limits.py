"""Limits: what is set, what is left alone, what is taken back."""

from __future__ import annotations

import types

import pytest
from hypothesis import given
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_accounts
import plasma_quota_limits as limits
import plasma_quota_setup as quota
from tests.unit.modules.stand_in_quota import QuotaServer, text

M = 1024 * 1024
ADA = [{"limits": {"soft": 40 * M, "hard": 60 * M}, "users": ["ada"]}]


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = QuotaServer(tmp_path, monkeypatch)
    server.accounts.update({f"u{n}": (1100 + n, f"/home/u{n}") for n in range(5)})
    server.group_ids["students"] = 1500
    monkeypatch.delenv("SUDO_USER", raising=False)
    return server


@pytest.fixture
def configure_loader_modules(server):
    return server.loader_modules()


@pytest.fixture
def on(server):
    quota.enable("/home")
    return server


def apply(**arguments):
    """Apply, and see that nothing is left to do."""
    done = limits.apply("/home", **arguments)
    again = limits.compare("/home", **arguments)
    assert again["changes"].keys() == set(again["missing"])
    assert again["notes"] is None
    return done


def test_only_differences_are_set_in_one_batch(on):
    on.tables["user"][1001] = [8, 40960, 61440, 3, 0, 0]
    wanted = [*ADA, {"limits": {"hard": 5 * M}, "users": ["u1", "u2"]}]
    done = apply(assigned=wanted, groups=[{"name": "maths", "limits": {"hard": 9 * M}}])
    assert done["changes"] == {
        "user u1": {"old": {"hard": 0}, "new": {"hard": 5 * M}},
        "user u2": {"old": {"hard": 0}, "new": {"hard": 5 * M}},
        "group maths": {"old": {"hard": 0}, "new": {"hard": 9 * M}},
    }
    assert on.ran("setquota") == [["--user", "--batch", "/"], ["--group", "--batch", "/"]]
    assert on.tables["user"][1101][1:3] == [0, 5120]
    assert on.tables["group"][2001][2] == 9216


def test_keys_that_nobody_asks_for_stay(on):
    on.tables["user"][1001] = [8, 1, 2, 3, 70, 80]
    apply(assigned=[{"limits": {"hard": 10 * M}, "users": ["ada"]}])
    assert on.tables["user"][1001] == [8, 1, 10240, 3, 70, 80]


def test_who_is_no_longer_named_has_no_limit_but_others_keep_theirs(on):
    on.tables["user"][1103] = [0, 0, 7, 0, 0, 0]  # by hand
    apply(assigned=[{"limits": {"hard": 5 * M, "inodes_hard": 9}, "users": ["ada", "u1", "u2"]}])
    # Somebody gives u2 more by hand, and u1 leaves the server.
    on.tables["user"][1102][2] = 9999
    del on.accounts["u1"]
    done = apply(assigned=[{"limits": {"hard": 5 * M}, "users": ["ada"]}])
    assert set(done["changes"]) == {"user ada", "user u1", "user u2"}
    assert on.tables["user"][1001] == [0, 0, 5120, 0, 0, 0]
    assert on.tables["user"][1101] == [0, 0, 0, 0, 0, 0]
    assert on.tables["user"][1102] == [0, 0, 9999, 0, 0, 0]
    assert on.tables["user"][1103] == [0, 0, 7, 0, 0, 0]


def test_an_interrupted_run_is_taken_up(on):
    on.fails["setquota"] = "Killed"
    with pytest.raises(CommandExecutionError, match=r"setquota failed: Killed\. .*apply again"):
        limits.apply("/home", assigned=ADA)
    del on.fails["setquota"]
    apply(assigned=ADA)
    # Interrupted again, when the soft limit is taken back.
    on.fails["setquota"] = "Killed"
    hard = [{"limits": {"hard": 60 * M}, "users": ["ada"]}]
    with pytest.raises(CommandExecutionError):
        limits.apply("/home", assigned=hard)
    del on.fails["setquota"]
    apply(assigned=hard)
    assert on.tables["user"][1001] == [0, 0, 61440, 0, 0, 0]
    apply(assigned=[])
    assert on.tables["user"][1001] == [0, 0, 0, 0, 0, 0]


def test_who_has_no_account_is_named_and_the_others_get_their_limits(on):
    wanted = [{"limits": {"hard": 5 * M}, "users": ["ada", "nobody-here"]}]
    assert limits.compare("/home", wanted)["changes"].keys() == {"user ada", "user nobody-here"}
    done = apply(assigned=wanted, groups=[])
    assert (done["missing"], set(done["changes"])) == (["nobody-here"], {"user ada"})


@pytest.mark.parametrize("name", ["root", "games"])
def test_the_systems_accounts_get_no_limits(on, name):
    with pytest.raises(SaltInvocationError, match=f"quota of the user {name}: .* one of the system's accounts"):
        limits.apply("/home", assigned=[{"limits": {"hard": M}, "users": ["ada", name]}])
    with pytest.raises(SaltInvocationError, match="quota of the group root"):
        limits.apply("/home", groups=[{"name": "root", "limits": {"hard": M}}])
    assert on.ran("setquota") == []


def test_people_whom_pillar_does_not_name_get_the_default_when_asked(on, monkeypatch):
    on.accounts.update({"ubuntu": (1000, "/home/ubuntu"), "far": (1200, "/srv/far"), "nobody": (65534, "/nonexistent")})
    monkeypatch.setenv("SUDO_USER", "ubuntu")
    mounts = on.mounts()
    on.functions["plasma_mounts.mounts"] = lambda: [*mounts, {**mounts[0], "target": "/srv", "device": "8:9"}]
    default = {"hard": 3 * M}
    assert apply(assigned=ADA, default=default)["changes"].keys() == {"user ada"}
    done = apply(assigned=ADA, default=default, unmanaged=True)
    assert done["changes"].keys() == {f"user u{n}" for n in range(5)}
    assert apply(assigned=ADA, default=default)["changes"].keys() == done["changes"].keys()


def test_grace_times_are_set_and_others_stay(on):
    on.graces["group"] = {"block": 5, "inode": 6}
    done = apply(grace={"block": 86400, "inode": None})
    assert on.graces == {"user": {"block": 86400, "inode": 604800}, "group": {"block": 86400, "inode": 6}}
    assert done["changes"]["grace user block"] == {"old": 604800, "new": 86400}
    assert set(done["changes"]) == {"grace user block", "grace group block"}


@pytest.mark.parametrize("grace", [{"block": 0}, {"block": -5}, {"inode": 2**31}, {"block": "7d"}, {"weeks": 1}])
def test_a_grace_time_that_is_none_is_refused(on, grace):
    with pytest.raises(SaltInvocationError, match="The grace time"):
        limits.apply("/home", assigned=ADA, grace=grace)
    assert on.ran("setquota") == []


@pytest.mark.parametrize(
    "wrong", [{"hard": "10G"}, {"hard": -1}, {"hard": True}, {"hard": 1.5}, {"project": 5}, {"hard": 2**63}]
)
def test_a_limit_that_is_none_is_refused(on, wrong):
    with pytest.raises(SaltInvocationError, match="The limit"):
        limits.apply("/home", assigned=[*ADA, {"limits": wrong, "users": ["u1"]}])
    assert on.ran("setquota") == []


def test_before_quotas_are_on_limits_are_predicted_and_not_set(server):
    server.installed = set()
    assert limits.compare("/home", ADA)["changes"] == {
        "user ada": {"old": {"soft": 0, "hard": 0}, "new": {"soft": 40 * M, "hard": 60 * M}}
    }
    assert server.ran("repquota") == []
    with pytest.raises(CommandExecutionError, match="Quotas of / are not on: apply the state quotas"):
        limits.apply("/home", ADA)


def test_notes_are_roots_alone_and_hold_several_file_systems(on):
    apply(assigned=ADA)
    assert limits.NOTES.stat().st_mode & 0o077 == 0
    on.functions["plasma_quota_fs.identity"] = lambda path: {"uuid": "other", "label": None}
    apply(assigned=[])
    assert '"ada"' in text(limits.NOTES)


def test_names_of_digits_are_no_numbers(on):
    on.accounts["1001"] = (1300, "/home/1001")
    apply(assigned=[{"limits": {"hard": M}, "users": ["1001"]}])
    assert on.tables["user"][1300][2] == 1024
    assert 1001 not in on.tables["user"]


numbers = st.integers(0, 2**40)
table = st.dictionaries(st.integers(1000, 1020), st.fixed_dictionaries(dict.fromkeys(limits.KEYS, numbers)))
some = st.dictionaries(st.integers(1000, 1020), st.dictionaries(st.sampled_from(limits.KEYS), numbers))


@given(table, some)
def test_the_plan_leads_to_what_is_wanted_and_no_further(current, wanted):
    planned = limits.plan(current, wanted)
    after = {**current, **planned}
    for number, asked in wanted.items():
        now = after.get(number, dict.fromkeys(limits.KEYS, 0))
        before = current.get(number, dict.fromkeys(limits.KEYS, 0))
        assert {key: now[key] for key in asked} == asked
        assert {key: now[key] for key in limits.KEYS if key not in asked} == {
            key: before[key] for key in limits.KEYS if key not in asked
        }
    assert planned.keys() <= wanted.keys()
    assert limits.plan(after, wanted) == {}
    assert limits.plan(current, current) == {}


@given(st.dictionaries(st.sampled_from(limits.KEYS), st.integers(0, 2**60)))
def test_rounding_is_stable(asked):
    once = limits.blocks(asked)
    back = {key: value * (1 if key.startswith("inodes") else 1024) for key, value in once.items()}
    assert limits.blocks(back) == once
    assert all(back[key] >= value for key, value in asked.items())
    assert all(bool(back[key]) == bool(value) for key, value in asked.items())


def test_people_of_a_directory_get_the_largest_limits_of_its_groups(on, monkeypatch):
    fred = types.SimpleNamespace(pw_name="fred@example.org", pw_uid=1234501105, pw_dir="/home/fred")
    groups = {"Students of Maths": {"fred@example.org", "u1"}, "staff@example.org": {"fred@example.org"}, "none": set()}
    monkeypatch.setattr(plasma_accounts, "owners", lambda home_path: [fred])
    monkeypatch.setattr(plasma_accounts, "listed", lambda group: [])
    monkeypatch.setattr(
        plasma_accounts,
        "members_among",
        lambda names, wanted: set(names).intersection(*(groups[one] for one in wanted)),
    )
    members = [
        {"group": "Students of Maths", "limits": {"soft": 4 * M, "hard": 5 * M}},
        {"group": "staff@example.org", "limits": {"soft": 8 * M, "hard": 0}},
        {"group": "none", "limits": {"hard": 9 * M}},
    ]
    # What pillar says of somebody by name counts before groups.
    named = [{"limits": {"hard": 7 * M}, "users": ["u1"]}]
    assert apply(members=members, assigned=named)["changes"] == {
        "user fred@example.org": {"old": {"soft": 0}, "new": {"soft": 8 * M}},
        "user u1": {"old": {"hard": 0}, "new": {"hard": 7 * M}},
    }
    assert on.tables["user"][1234501105] == [0, 8192, 0, 0, 0, 0]
    # Who leaves the group has no limit of it any more.
    groups["staff@example.org"].clear()
    assert apply(members=members)["changes"]["user fred@example.org"]["new"] == {"soft": 4 * M, "hard": 5 * M}


def test_the_default_holds_for_people_of_a_directory_who_have_a_home(on, monkeypatch):
    fred = types.SimpleNamespace(pw_name="fred@example.org", pw_uid=1234501105, pw_dir="/home/fred")
    monkeypatch.setattr(plasma_accounts, "owners", lambda home_path: [fred])
    changes = apply(default={"hard": 5 * M}, unmanaged=True)["changes"]
    assert "user fred@example.org" in changes and "user ada" in changes and "user games" not in changes
