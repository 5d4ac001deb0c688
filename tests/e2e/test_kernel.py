"""The same site on a server with a kernel of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import pytest

from tests.support.shell import wait_for
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


@pytest.mark.parametrize(("shift", "said"), [("-400 days", "400 days behind"), ("+3 hours", "3 hours ahead of")])
def test_a_wrong_clock_is_refused_and_named(vm, shift, said):
    """A clock that a virtual machine lost while it was suspended, or that nobody ever set."""
    vm.target.sudo(f"date --set '{shift}'")
    try:
        result = vm.apply("utils")
    finally:
        vm.target.sudo(f"date --set @{time.time()}")
    comment = result.failed["preflight-server-is-fit|preflight-server-is-fit"]
    assert said in comment
    assert "timedatectl set-ntp true" in comment
    assert vm.apply("utils").failed == {}


def test_the_machine_reboots_while_packages_are_installed(vm):
    before = vm.pillar
    vm.set_pillar({**before, "utils": {"monitor": "none", "packages": ["jq", "tree", "mc"]}})
    log = vm.directory / "rebooted.log"
    with log.open("w", encoding="utf-8") as output:
        process = vm.start("state.apply", "utils", stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    unpacking = "pgrep -f '[d]pkg .*--unpack'"
    wait_for(
        lambda: vm.target.ssh(unpacking, check=False).returncode == 0 or process.poll() is not None,
        timeout=300,
        what="dpkg",
        interval=0.1,
    )
    assert process.poll() is None, log.read_text(encoding="utf-8")
    boot = vm.target.boot_id()
    # At once: nothing is written back first.
    vm.target.sudo("sh -c 'echo 1 > /proc/sys/kernel/sysrq; (sleep 0.2; echo b > /proc/sysrq-trigger) &'", check=False)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    vm.target.disconnect()
    wait_for(
        lambda: vm.target.boot_id() not in ("", boot),
        timeout=300,
        what="the machine",
        interval=2,
    )
    result = vm.apply("utils")
    assert result.failed == {}, result.failed
    assert vm.target.ssh("dpkg-query -W -f '${Status}' mc").stdout == "install ok installed"
    assert vm.apply("utils").changed == {}
    vm.set_pillar(before)
