"""Environments, limits, mounts and the files of a container: everything that is decided without an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tljh_plasma import container_files as files
from tljh_plasma import environments as envs
from tljh_plasma import image_look, policy
from tljh_plasma.access import Entry
from tljh_plasma.accounts import Account, Group, group_names

GIB = 1024**3
ALICE = Account(
    name="alice",
    uid=1000,
    group=Group("team", 2000),
    groups=(Group("course", 3000), Group("video", 3001)),
    home="/home/alice",
    real_home="/data/home/alice",
)
ANYBODY = policy.Permissions()
DEFAULTS = policy.Limits(memory=2 * GIB, cpu=2.0, pids=1024)


def image(tag="course:1", name="course", memory="", cpu="", tags=None, **labels):
    values = {
        envs.LABEL_REPO: "https://example.org/course",
        envs.LABEL_REF: "1",
        envs.LABEL_IMAGE: tag,
        envs.LABEL_NAME: name,
        envs.LABEL_MEMORY: memory,
        envs.LABEL_CPU: cpu,
        **labels,
    }
    return {"Id": f"sha256:{tag}", "RepoTags": [tag] if tags is None else tags, "Labels": values}


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("2020-python-course", "2020-python-course"),
        ("R intro", "R-intro"),
        ("a/b:c", "a-b-c"),
        ("..", "environment"),
        (".", "environment"),
        ("", "environment"),
        ("///", "environment"),
        ("../../etc", "etc"),
        (".ssh", "ssh"),
        ("-rf", "rf"),
        ("Été 2026", "Ete-2026"),
        ("日本", "environment"),
        ("$(reboot)\n`id`", "reboot-id"),
        ("x" * 200, "x" * 64),
        ("a" * 63 + " b", "a" * 63),
    ],
)
def test_directory_name_is_one_safe_component(name, directory):
    assert envs.directory_name(name) == directory


@pytest.mark.parametrize("code", range(0x80))
def test_directory_name_is_safe_for_every_character(code):
    for name in (chr(code), f"a{chr(code)}b", chr(code) * 3):
        made = envs.directory_name(name)
        assert 0 < len(made) <= 64
        assert made[0] not in ".-"
        assert set(made) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2G", 2 * GIB),
        ("3.5G", int(3.5 * GIB)),
        ("512M", GIB // 2),
        ("1gb", GIB),
        (2 * GIB, 2 * GIB),
        ("0", None),
        ("0G", None),
        ("1K", None),
        ("-1G", None),
        ("", None),
        (None, None),
        ("inf", None),
        ("1e9G", None),
        (True, None),
        ([], None),
        ("9" * 400, None),
    ],
)
def test_memory_is_a_size_or_nothing(text, size):
    assert envs.parse_memory(text) == size


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("2", 2.0), ("0.5", 0.5), (4, 4.0), ("0", None), ("nan", None), ("inf", None), ("", None), (-1, None)],
)
def test_cpu_is_a_number_or_nothing(text, cpus):
    assert envs.parse_cpu(text) == cpus


def test_only_finished_images_of_repo2docker_are_environments():
    found = envs.from_images(
        [
            image("b:1", "Zoology"),
            image("a:1", "algebra", memory="1.5G", cpu="0.5"),
            image("building:1", tags=["building:1-build"]),
            image("untagged:1", tags=[]),
            {"Id": "x", "RepoTags": None, "Labels": image()["Labels"]},
            {"Id": "y", "RepoTags": ["debian:12"], "Labels": None},
            {"Id": "z", "RepoTags": ["debian:12"], "Labels": {envs.LABEL_IMAGE: "debian:12"}},
            image("unnamed:1", ""),
        ]
    )
    assert [(env.image, env.name) for env in found] == [
        ("a:1", "algebra"),
        ("unnamed:1", "unnamed:1"),
        ("b:1", "Zoology"),
    ]
    assert (found[0].memory, found[0].cpu) == (int(1.5 * GIB), 0.5)
    assert (found[2].memory, found[2].cpu) == (None, None)


@pytest.mark.parametrize("asked", ["other:1", 7, ["course:1"], {"image": "course:1"}, "course:1 ", "x" * 1000, True])
def test_unknown_environment_is_said_in_a_sentence(asked):
    with pytest.raises(envs.UnknownEnvironment, match="choose one from the list") as caught:
        envs.find(envs.from_images([image()]), asked)
    assert len(str(caught.value)) < 250


def test_missing_choice_and_missing_environments_are_said():
    with pytest.raises(envs.UnknownEnvironment, match="No environment was chosen"):
        envs.find(envs.from_images([image()]), None)
    with pytest.raises(envs.UnknownEnvironment, match="administrator of the hub has to add one"):
        envs.find([], "course:1")


@pytest.mark.parametrize("memory", [None, "", 0, "0", "unlimited", -5])
@pytest.mark.parametrize("cpu", [None, "", 0, "none", -1])
def test_limits_are_never_missing(memory, cpu):
    assert policy.default_limits(memory, cpu, 100) == policy.Limits(memory=2 * GIB, cpu=2.0, pids=100)


def test_environments_limits_come_before_the_defaults():
    (env,) = envs.from_images([image(memory="4G")])
    assert policy.limits_of(env, DEFAULTS) == policy.Limits(memory=4 * GIB, cpu=2.0, pids=1024)


def test_shared_data_is_mounted_only_when_it_is_roots():
    assert policy.trusted_data("") == ("", "")
    place = Path(tempfile.mkdtemp(prefix="plasmat-shared-", dir="/srv"))
    place.rmdir()
    source, note = policy.trusted_data(str(place))
    assert source == "" and "No such file" in note
    assert not place.exists(), "it is never made"
    place.mkdir()
    try:
        assert policy.trusted_data(str(place)) == (str(place), "")
        if os.geteuid() == 0:
            os.chown(place, 12345, 12345)
            source, note = policy.trusted_data(str(place))
            assert source == "" and "does not belong to root" in note
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make accounts")
def test_plan_holds_everything_about_a_server(accounts):
    person = accounts.add("plan")
    found = envs.from_images([image(name="Python ..  course", memory="1G")])
    plan = policy.plan_server(person.name, {"image": "course:1", "else": 1}, found, ANYBODY, False, DEFAULTS, "")
    assert plan.user == f"{person.uid}:{person.gid}"
    assert plan.limits.memory == GIB
    assert plan.variables == {
        "PLASMA_ENVIRONMENT": "Python .. course",
        "PLASMA_DIR": "Python-..-course",
        "PLASMA_IMAGE_ID": "sha256:course:1",
    }
    for options in (None, [], "course:1", {}, {"image": None}):
        with pytest.raises(policy.Refusal) as caught:
            policy.plan_server(person.name, options, found, ANYBODY, False, DEFAULTS, "")
        assert caught.value.status == 400
    with pytest.raises(policy.Refusal) as caught:
        policy.plan_server("games", {"image": "course:1"}, found, ANYBODY, False, DEFAULTS, "")
    assert caught.value.status == 403


def environments(*names):
    return envs.from_images([image(tag=f"{name}:1", name=name) for name in names])


def test_only_what_is_permitted_is_offered_and_carries_what_was_said_of_it():
    permissions = policy.Permissions(
        {"maths:1": Entry(("maths", "staff"), "Sums", opens="rstudio", gpus=2), "biology:1": Entry(("biology",))},
        open_by_default=False,
    )
    found = environments("biology", "free", "maths")

    def offered(groups, admin=False, permissions=permissions):
        return {one.name: one.description for one in policy.permitted(found, permissions, groups, admin)}

    assert offered(["maths", "other"]) == {"maths": "Sums"}
    (maths,) = policy.permitted(found, permissions, ["maths"], False)
    assert (maths.opens, maths.gpus) == ("rstudio", 2)
    assert offered([]) == {}
    assert offered([], admin=True) == {"biology": "", "free": "", "maths": "Sums"}
    assert offered(["biology"], permissions=policy.Permissions(permissions.entries, True)) == {
        "biology": "",
        "free": "",
    }


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ("biology:1", 403, "'biology' is not open to you"),
        ("free:1", 403, "'free' is not open to you"),
        ("gone:1", 400, "'gone:1' does not exist"),
        (None, 400, "No environment was chosen"),
        (["maths:1"], 400, "does not exist"),
    ],
)
def test_choice_is_refused_with_a_reason(asked, status, words):
    permissions = policy.Permissions({"maths:1": Entry(("maths",)), "biology:1": Entry(("biology",))}, False)
    found = environments("biology", "free", "maths")
    assert policy.choose(found, "maths:1", permissions, ["maths"], False).name == "maths"
    with pytest.raises(policy.Refusal, match=re.escape(words)) as caught:
        policy.choose(found, asked, permissions, ["maths"], False)
    assert caught.value.status == status


def test_16_primary_and_other_groups_count(accounts):
    """Members by their primary group are not listed in /etc/group."""
    primary, other = accounts.add_group("primary").gr_name, accounts.add_group("other").gr_name
    person = accounts.add("member", "--gid", primary, "--groups", other)
    assert group_names(person.name) == {primary, other}
    assert group_names("plasmat-nobody") == frozenset()
    found = environments("course")
    for group in (primary, other):
        permissions = policy.Permissions({"course:1": Entry((group,))}, False)
        plan = policy.plan_server(person.name, {"image": "course:1"}, found, permissions, False, DEFAULTS, "")
        assert plan.environment.name == "course"


def test_policy_does_without_docker():
    """The engine can be replaced: nothing that decides imports it."""
    code = (
        "import sys, tljh_plasma.policy, tljh_plasma.environments, tljh_plasma.accounts, tljh_plasma.settings\n"
        "found = lambda *names: [name for name in sys.modules if name.split('.')[0] in names]\n"
        "assert not found('docker', 'dockerspawner', 'jupyterhub')\n"
        "import tljh_plasma.planning\n"
        "print(found('docker', 'dockerspawner'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PASSWD = "root:x:0:0:root:/root:/bin/bash\njovyan:x:1000:1000::/home/jovyan:/bin/zsh\nalice:x:7:7::/:/bin/sh\nbroken\n"
GROUP = "root:x:0:\nusers:x:100:alice,bob\nother:x:2000:\ncourse:x:55:alice\njovyan:x:1000:\nsudo:x:27:alice\n"


def test_account_replaces_whoever_has_its_name_or_uid_in_the_image():
    lines = files.passwd_with(PASSWD, ALICE).splitlines()
    assert lines == ["root:x:0:0:root:/root:/bin/bash", "alice:x:1000:2000:alice:/home/alice:/bin/zsh"]
    # No shell of the image's user to take over.
    assert files.passwd_with(image_look.MINIMAL_PASSWD, ALICE).splitlines()[-1].endswith(":/bin/sh")


def test_groups_are_the_hosts_and_the_images_own_lose_the_account():
    lines = files.group_with(GROUP, ALICE).splitlines()
    assert lines == [
        "root:x:0:",
        "users:x:100:bob",
        "jovyan:x:1000:",
        "sudo:x:27:",
        "team:x:2000:",
        "course:x:3000:alice",
        "video:x:3001:alice",
    ]


def test_entrypoint_is_valid_shell():
    subprocess.run(["sh", "-n"], input=files.entrypoint_script(), check=True)
