"""The same site on a server with a kernel of its own."""

from __future__ import annotations

import os

import pytest

from tests.support.site import Site
from tests.support.vm import VMTarget

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def vm(tmp_path_factory):
    target = VMTarget("e2e-vm")
    target.down()
    target.up()
    # The machine's disk is a small one: nothing but tools goes to it here.
    pillar = {"preflight": {"min_disk": "2G"}, "docker": {"source": "distro"}, "utils": {"monitor": "none"}}
    yield Site(target, tmp_path_factory.mktemp("vm"), pillar)
    if not os.environ.get("PLASMA_KEEP"):
        target.down()


def test_it_has_a_kernel_of_its_own(vm):
    kernel = vm.target.ssh(["uname", "-r"]).stdout.strip()
    assert kernel != os.uname().release
    vm.target.sudo("modprobe quota_v2")


def test_utilities_apply_and_then_nothing_more(vm):
    first = vm.apply("utils")
    assert not first.failed
    assert first.changed
    assert vm.apply("utils").changed == {}


def test_people_come_with_their_limits_in_one_apply(vm):
    before = vm.pillar
    vm.set_pillar(
        {
            **before,
            "quota": {"soft": "20M", "hard": "30M"},
            "groups": [{"name": "biology", "quota": {"hard": "60M"}}],
            "users": [
                {"name": "anna", "password": "a long enough phrase", "groups": ["biology"]},
                {"name": "ben", "password": "another long phrase", "quota": {"soft": "5M", "hard": "8M"}},
            ],
        }
    )
    first = vm.apply("users")
    assert first.failed == {}
    assert {key.partition("|")[0] for key in first.changed} == {
        "groups-managed",
        "users-managed",
        "quotas-enabled",
        "quotas-limits",
    }
    for name, within, beyond in (("anna", 50, 70), ("ben", 7, 9)):
        command = f"fallocate -l {within}M file && rm file && fallocate -l {beyond}M file"
        tried = vm.target.sudo(["su", "-", name, "-c", command], check=False)
        assert tried.stderr == "fallocate: fallocate failed: Disk quota exceeded\n"
    assert vm.apply("users").changed == {}
    vm.set_pillar(before)
