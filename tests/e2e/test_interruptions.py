"""A run that is killed, at whatever point, is finished by the next one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import pytest

from tests.e2e.conftest import fresh_target, site_pillar
from tests.support.mirror import Mirror
from tests.support.shell import wait_for
from tests.support.site import Site

# What runs on the server at the moment of the kill: patterns for pgrep -f, in the order a deployment meets them.
POINTS = {
    "dpkg": "dpkg .*--unpack",
    "packages": "/opt/tljh/hub/bin/python3 -m pip install|/opt/tljh/hub/bin/pip install",
    "settings": "tljh_plasma.config_file|jupyterhub -f",
}
# Brackets keep a pattern from matching the command line of pkill itself and of the shell around it.
# Again until nothing is left: what was killed is there until somebody has taken note of it.
KILL = (
    "for i in $(seq 50); do "
    "pkill -9 -f '[s]alt-call'; pkill -9 -x dpkg; pkill -9 -x apt-get; pkill -9 -f '[/]opt/tljh/hub/bin/[^ ]* -m pip'; "
    "pkill -9 -f '[b]ootstrap.py'; pkill -9 -f '[t]ljh.installer'; "
    "! pgrep -f '[s]alt-call' && ! pgrep -x dpkg && ! pgrep -x apt-get && "
    "! pgrep -f '[/]opt/tljh/hub/bin/[^ ]* -m pip' && exit 0; "
    "sleep 0.1; done; exit 1"
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A server that takes Docker from a signed repository and a tool by its checksum, as the defaults of pillar do."""
    target = fresh_target("e2e-kill")
    gateway = target.ssh("ip route show default | cut -d' ' -f3").stdout.strip()
    directory = tmp_path_factory.mktemp("mirror") / "files"
    directory.mkdir()
    mirror = Mirror(directory, gateway)
    architecture = target.ssh("dpkg --print-architecture").stdout.strip()
    pillar = site_pillar()
    pillar["docker"] = {
        "source": "docker-ce",
        "repository": {
            "url": f"{mirror.url}/linux",
            "key_sha256": mirror.add_docker_repository(target, "debian", "bookworm"),
        },
    }
    pillar["utils"] = {
        "monitor": "ctop",
        "ctop": {
            "url": mirror.url + "/ctop-{version}-{arch}",
            "sha256": {architecture: mirror.add(f"ctop-0.7.7-{architecture}", b"#!/bin/sh\necho a tool\n")},
        },
    }
    yield Site(target, tmp_path_factory.mktemp("kill"), pillar)
    mirror.close()
    if not os.environ.get("PLASMA_KEEP"):
        target.down()


def running(target, pattern):
    # The bracket keeps pgrep from finding the shell that runs it.
    bracketed = "|".join(f"[{part[0]}]{part[1:]}" for part in pattern.split("|"))
    return target.ssh(f"pgrep -f -- '{bracketed}'", check=False).returncode == 0


def start_and_reach(site, pattern):
    """Start an apply and return its process once the server is at this point."""
    log = site.directory / "interrupted.log"
    with log.open("w", encoding="utf-8") as output:
        process = site.start("state.apply", stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    wait_for(
        lambda: running(site.target, pattern) or process.poll() is not None, timeout=300, what=pattern, interval=0.05
    )
    assert process.poll() is None, f"the apply ended before {pattern!r} was seen:\n{log.read_text(encoding='utf-8')}"
    return process


def cut(process):
    """The operator's side is gone from one moment to the next."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("point", POINTS)
def test_everything_on_the_server_is_killed(bare, point):
    """Each next apply starts from what the one before was killed at."""
    process = start_and_reach(bare, POINTS[point])
    try:
        bare.target.sudo(KILL)
    finally:
        cut(process)


def test_the_connection_is_lost_while_packages_are_installed(bare):
    """The operator's side dies; what runs on the server goes on or not, and the next apply copes with either."""
    # An environment that was never completed is made afresh: something to be cut in the middle of.
    bare.target.sudo("rm -rf /opt/tljh/hub")
    cut(start_and_reach(bare, POINTS["packages"]))
    # It does go on, and the next one would change the server beside it. Here it stands still until that is looked at.
    going = "pkill -{} -f 'salt-cal[l] .*state.pkg'"
    bare.target.sudo(going.format("STOP"))
    try:
        # Of a part that has no preflight, too.
        refused = bare.apply("groups")
        assert list(refused.failed) == ["apply-has-its-turn|apply-has-its-turn"] == list(refused.states)
        assert not bare.apply("groups", "test=True").failed
        assert bare.salt("plasma.status").value["problems"][0]["problem"].startswith("An apply runs on this server")
    finally:
        bare.target.sudo(going.format("CONT"))


def test_the_next_apply_finishes(bare):
    # What the lost connection left running may still be at it: an operator sees this sentence and tries again.
    deadline = time.monotonic() + 600
    while True:
        result = bare.apply()
        if "Another apply runs on this server" not in result.stdout or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert not result.failed, result.failed
    assert result.returncode == 0
    again = bare.apply()
    assert again.returncode == 0
    assert again.changed == {}
    assert bare.salt("tljh_config.ready").value["ready"]


def test_half_configured_packages_are_finished(bare):
    """dpkg's own record of an interrupted configuration, as a power cut leaves it."""
    half = "s/^Status: install ok installed$/Status: install ok half-configured/"
    bare.target.sudo(f"sed -i '/^Package: tree$/,/^$/ {half}' /var/lib/dpkg/status")
    predicted = bare.apply("utils", "test=True")
    result = bare.apply("utils")
    assert not result.failed
    assert predicted.changed["preflight-packages-are-settled|preflight-packages-are-settled"] == {
        "tree": {"old": "half-done", "new": "installed"}
    }
    assert "preflight-packages-are-settled|preflight-packages-are-settled" in result.changed
    assert "half" not in bare.target.ssh("dpkg-query -W -f '${Status}' tree").stdout


def test_docker_came_from_the_signed_repository(bare):
    assert bare.target.ssh("dpkg-query -W -f '${Version}' docker-ce").stdout == "1:99"
    assert bare.target.ssh("/usr/local/bin/ctop").stdout == "a tool\n"


def test_another_key_is_refused(bare):
    pillar = {**bare.pillar, "docker": {**bare.pillar["docker"]}}
    pillar["docker"]["repository"] = {**pillar["docker"]["repository"], "key_sha256": "0" * 64}
    before = bare.pillar
    key = bare.target.ssh("sha256sum /etc/apt/keyrings/docker.asc").stdout
    bare.set_pillar(pillar)
    try:
        result = bare.apply("docker")
    finally:
        bare.set_pillar(before)
    assert "docker-engine|docker-engine" in result.failed
    assert bare.target.ssh("sha256sum /etc/apt/keyrings/docker.asc").stdout == key
    assert bare.target.ssh("systemctl is-active docker").stdout.strip() == "active"
