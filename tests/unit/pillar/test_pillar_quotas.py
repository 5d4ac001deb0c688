"""Everybody's limits: what stands where, laid over each other, in bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.pillar.conftest import load_external_pillar

G = 2**30


def by_user(quotas):
    assert len({tuple(sorted(entry["limits"].items())) for entry in quotas["assigned"]}) == len(quotas["assigned"])
    found = {}
    for entry in quotas["assigned"]:
        assert entry["limits"] and entry["users"]
        for name in entry["users"]:
            assert name not in found
            found[name] = entry["limits"]
    return found


def test_nothing_set_is_nothing_done(complete):
    assert complete({"users": [{"name": "anna"}], "groups": ["biology"]})["quotas"] == {
        "enabled": False,
        "device": None,
        "unmanaged": False,
        "grace": {"block": None, "inode": None},
        "default": {},
        "assigned": [],
        "groups": [],
        "members": [],
    }


def test_user_over_group_over_default_key_by_key(complete):
    quotas = complete(
        """
        quota: {soft: 10G, hard: 12G, grace: 3600, inodes: {soft: 100, hard: 200, grace: 7200}}
        groups: [{name: biology, quota: {hard: 20G}}, other]
        users:
          - {name: anna, groups: [biology, video]}
          - {name: bob, groups: [other], quota: {soft: 1.5G, inodes: {hard: 0}}}
          - {name: carl, absent: true, quota: {hard: 1T}}
          - {name: dora}
          - {name: emil, groups: [biology]}
        """
    )["quotas"]
    assert quotas["default"] == {"soft": 10 * G, "hard": 12 * G, "inodes_soft": 100, "inodes_hard": 200}
    assert quotas["grace"] == {"block": 3600, "inode": 7200}
    assert by_user(quotas) == {
        "anna": {**quotas["default"], "hard": 20 * G},
        "bob": {"soft": 3 * G // 2, "hard": 12 * G, "inodes_soft": 100, "inodes_hard": 0},
        "dora": quotas["default"],
        "emil": {**quotas["default"], "hard": 20 * G},
    }
    assert len(quotas["assigned"]) == 3
    assert quotas["enabled"]


def test_the_largest_of_several_groups_counts_and_none_is_the_largest(complete):
    quotas = complete(
        """
        groups:
          - {name: a, quota: {soft: 1G, hard: 2G}}
          - {name: b, quota: {hard: 5G}}
          - {name: c, quota: {soft: 0K, hard: 1G}}
          - {name: gone, absent: true, quota: {hard: 99G}}
        users: [{name: anna, groups: [a, b]}, {name: bob, groups: [c, a]}, {name: carl, groups: [a]}, {name: dora}]
        """
    )["quotas"]
    assert by_user(quotas) == {
        "anna": {"soft": G, "hard": 5 * G},
        "bob": {"soft": 0, "hard": 2 * G},
        "carl": {"soft": G, "hard": 2 * G},
    }


def test_limits_of_a_group_as_a_whole(complete):
    quotas = complete(
        "groups: [{name: a, total: {soft: 1G, inodes: {hard: 9}}}, {name: b, absent: true, total: {hard: 1G}}, "
        "{name: c, total: {}}]"
    )["quotas"]
    assert quotas["groups"] == [{"name": "a", "limits": {"soft": G, "inodes_hard": 9}}]
    assert quotas["enabled"] and not quotas["assigned"]


@pytest.mark.parametrize(
    ("plasma", "enabled"),
    [
        ("quota: {hard: 1G}", True),
        ("quota: {inodes: {hard: 9}}", True),
        ("groups: [{name: a, quota: {soft: 1G}}]", True),
        ("users: [{name: a, quota: {soft: 0K}}]", True),
        ("users: [{name: a, absent: true, quota: {soft: 1G}}]", False),
        ("quota: {grace: 60}", False),
        ("quotas: {device: LABEL=x}", False),
        ("quotas: {enabled: true}", True),
        ("{quotas: {enabled: false}, quota: {hard: 1G}}", False),
        ("{quotas: {enabled: null}, quota: {hard: 1G}}", True),
    ],
)
def test_switched_on_when_a_quota_is_set_anywhere(complete, plasma, enabled):
    assert complete(plasma)["quotas"]["enabled"] is enabled


@pytest.mark.parametrize("default", ["", "inodes: {grace: 60}"])
def test_nothing_to_limit_other_people_with(problem, complete, default):
    assert problem(f"{{quota: {{{default}}}, quotas: {{unmanaged: true}}}}").startswith(
        "plasma.quotas.unmanaged: true needs plasma.quota"
    )
    assert complete("{quota: {soft: 1G}, quotas: {unmanaged: true}}")["quotas"]["unmanaged"] is True


@pytest.mark.parametrize("size", ["0.5K", "0.0001K", "0.000001M", "0.0009M"])
def test_a_size_that_would_be_rounded_to_no_limit(problem, complete, size):
    assert "is less than 1K" in problem({"quota": {"hard": size}})
    complete({"quota": {"hard": "0.0K"}})


@pytest.mark.parametrize(
    ("plasma", "line"),
    [
        (
            "{quota: {hard: 5G}, users: [{name: a, quota: {soft: 10G}}]}",
            'plasma.users[0].quota.soft: "10G" is more than the hard limit 5G of plasma.quota.hard.',
        ),
        (
            "{quota: {soft: 10G}, users: [{name: x}, {name: a, quota: {hard: 5G}}]}",
            'plasma.users[1].quota.hard: "5G" is less than the soft limit 10G of plasma.quota.soft.',
        ),
        (
            "{quota: {inodes: {soft: 10}}, users: [{name: a, quota: {inodes: {hard: 5}}}]}",
            "plasma.users[0].quota.inodes.hard: 5 is less than the soft limit 10 of plasma.quota.inodes.soft.",
        ),
        (
            "{groups: [b, {name: g, quota: {hard: 2G}}], users: [{name: a, groups: [g], quota: {soft: 3G}}]}",
            'plasma.users[0].quota.soft: "3G" is more than the hard limit 2G of plasma.groups[1].quota.hard.',
        ),
        (
            "{quota: {soft: 3G}, groups: [{name: g, quota: {hard: 2G}}], "
            "users: [{name: a, groups: [g]}, {name: b, groups: [g]}, {name: c, groups: [x, g]}]}",
            'plasma.groups[0].quota.hard: "2G" is less than the soft limit 3G of plasma.quota.soft, '
            "and both count for plasma.users[0].name.",
        ),
        (
            "{groups: [{name: g, quota: {hard: 2G}}, {name: h, quota: {soft: 3G}}], "
            "users: [{name: a, groups: [g, h]}]}",
            'plasma.groups[1].quota.soft: "3G" is more than the hard limit 2G of plasma.groups[0].quota.hard, '
            "and both count for plasma.users[0].name.",
        ),
    ],
)
def test_a_soft_limit_above_a_hard_one_from_somewhere_else(problem, plasma, line):
    assert problem(plasma) == line


@pytest.mark.parametrize(
    "plasma",
    [
        "{quota: {soft: 3G}, groups: [{name: g, quota: {hard: 2G}}]}",
        "{quota: {soft: 3G}, users: [{name: a, absent: true, quota: {hard: 2G}}]}",
        "{quota: {soft: 3G}, users: [{name: a, quota: {hard: 0K}}]}",
        "{quota: {hard: 3G}, users: [{name: a, quota: {soft: 0K}}]}",
        "{quota: {hard: 1G}, users: [{name: a, quota: {soft: 1024M}}]}",
    ],
)
def test_what_hits_nobody_is_no_problem(complete, plasma):
    complete(plasma)


sizes = st.one_of(st.none(), st.integers(0, 5).map(lambda number: f"{number}G"))
files = st.one_of(st.none(), st.integers(0, 5))
quota = st.fixed_dictionaries(
    {"soft": sizes, "hard": sizes, "inodes": st.fixed_dictionaries({"soft": files, "hard": files})}
)
KEYS = {"soft": ("soft",), "hard": ("hard",), "inodes_soft": ("inodes", "soft"), "inodes_hard": ("inodes", "hard")}


def number(given, key):
    for part in KEYS[key]:
        given = given[part]
    return None if given is None else given if isinstance(given, int) else int(given[:-1]) * G


@settings(max_examples=300, deadline=None, database=None)
@given(
    default=quota, groups=st.lists(quota, max_size=3), own=quota, member=st.lists(st.booleans(), min_size=3, max_size=3)
)
def test_any_quotas(default, groups, own, member):
    """By the words of the contract, computed in another way: contradictions are refused, everything else is right."""
    names = [f"g{index}" for index in range(len(groups))]
    mine = [name for name, is_in in zip(names, member, strict=False) if is_in]
    answer = load_external_pillar().ext_pillar(
        "server",
        {
            "plasma": {
                "quota": default,
                "groups": [{"name": name, "quota": one} for name, one in zip(names, groups, strict=True)],
                "users": [{"name": "anna", "groups": mine, "quota": own}],
            }
        },
    )
    wanted = {}
    for key in KEYS:
        of_groups = [number(groups[names.index(name)], key) for name in mine]
        of_groups = [value for value in of_groups if value is not None]
        chosen = number(own, key)
        if chosen is None and of_groups:
            chosen = 0 if 0 in of_groups else max(of_groups)
        if chosen is None:
            chosen = number(default, key)
        if chosen is not None:
            wanted[key] = chosen

    def wrong(values):
        return any(
            values.get(hard) and (values.get(soft) or 0) > values[hard]
            for soft, hard in (("soft", "hard"), ("inodes_soft", "inodes_hard"))
        )

    each = [{key: number(one, key) for key in KEYS} for one in (default, own, *groups)]
    if "_errors" in answer:
        assert wrong(wanted) or any(map(wrong, each)), answer
    else:
        assert not wrong(wanted) and not any(map(wrong, each))
        assert by_user(answer["plasma"]["quotas"]) == ({"anna": wanted} if wanted else {})
