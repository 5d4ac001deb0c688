"""What cannot work is refused before anything on the server has changed."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from tests.e2e.conftest import bare_server
from tests.support.paths import REPOSITORY
from tests.support.site import SALT_SSH

# Everything an apply could leave behind on a bare server.
SNAPSHOT = (
    "sudo dpkg-query -W -f '${Package} ${Version} ${Status}\\n' | sort | md5sum; "
    "ls -la /etc/docker /opt /usr/local/bin /etc/apt/sources.list.d /etc/systemd/system 2>&1 || true"
)


@pytest.fixture(scope="module")
def target():
    """A bare one."""
    with bare_server("e2e-refusals") as started:
        yield started


@pytest.fixture
def unchanged(target):
    """Fails the test when it leaves the server otherwise than it found it."""
    before = target.ssh(SNAPSHOT).stdout
    yield
    assert target.ssh(SNAPSHOT).stdout == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("pillar_text", "said"),
    [
        ({"limts": {"memory": "2G"}}, ["plasma.limts", "did you mean 'limits'"]),
        ({"limits": {"memory": "two gigs"}}, ["plasma.limits.memory", "two gigs"]),
        ({"hub": {"prefix": "/"}}, ["plasma.hub.prefix"]),
        ({"users": [{"name": "root"}]}, ["plasma.users[0].name", "root"]),
    ],
)
def test_bad_pillar_stops_on_the_controller(site, pillar, pillar_text, said):
    pillar(**pillar_text)
    result = site.apply()
    output = result.stdout + result.stderr
    assert result.returncode != 0
    for words in said:
        assert words in output
    assert "Traceback" not in output


@pytest.mark.usefixtures("unchanged")
def test_an_unfit_server_is_refused_with_every_reason_at_once(site, target, pillar):
    target.sudo("systemd-run --unit squatter python3 -m http.server 80 --bind 0.0.0.0")
    target.ssh("for i in $(seq 100); do ss -ltn | grep -q ':80 ' && exit 0; sleep 0.1; done; exit 1")
    pillar(preflight={"min_memory": "900G", "min_disk": "900T"})
    try:
        result = site.apply()
    finally:
        target.sudo("systemctl stop squatter")
    assert result.returncode != 0
    assert list(result.failed) == ["preflight-server-is-fit|preflight-server-is-fit"]
    comment = next(iter(result.failed.values()))
    assert "port 80 is taken by python3" in comment
    assert "squatter.service" in comment
    assert "plasma.preflight.min_memory" in comment
    assert "plasma.preflight.min_disk" in comment


def test_ping_needs_no_flags_from_the_root(target, site, tmp_path):
    """The repository's own Saltfile and conf/master, with nothing but a roster beside them."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("Saltfile", "conf", "salt", "pillar", "_pillar", "_modules", "_roster", "_states", "plugin"):
        (tree / name).symlink_to(REPOSITORY / name)
    (tree / "roster").write_text(yaml.safe_dump({target.name: target.roster_entry()}), encoding="utf-8")
    done = subprocess.run(
        [str(SALT_SSH), "*", "test.ping"], cwd=tree, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [f"{target.name}:", "True"]
