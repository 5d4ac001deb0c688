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
