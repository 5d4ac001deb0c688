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
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("plasma.sls", b"plasma:\n  users:\n    - {name: anna, password: a{{b}\n", "pillar/plasma.sls:3: name: `{{`"),
        ("plasma.sls", b"plasma:\n\tlimits: {}\n", "pillar/plasma.sls:2: limits: a tab"),
        ("plasma.sls", b"plasma: {home_path: /\xfc}\n", "pillar/plasma.sls:1: the line is not UTF-8"),
        ("top.sls", b"base:\n  other:\n    - plasma\n", "pillar/top.sls names no file for"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_a_line(site, pillar, name, text, said):
    path = site.directory / "pillar" / name
    before = path.read_bytes()
    path.write_bytes(text)
    try:
        result = site.salt_text("state.apply")
    finally:
        path.write_bytes(before)
    lines = (result.stdout + result.stderr).splitlines()
    assert result.returncode != 0
    assert len(lines) == 3 and lines[2].startswith(f"    - {said}")


@pytest.mark.usefixtures("unchanged")
def test_an_unfit_server_is_refused_with_every_reason_at_once(site, target, pillar):
    target.sudo("systemd-run --unit squatter python3 -m http.server 80 --bind 0.0.0.0")
    target.ssh("for i in $(seq 100); do ss -ltn | grep -q ':80 ' && exit 0; sleep 0.1; done; exit 1")
    target.sudo("mkdir -p /etc/docker && echo '{\"iptables\": false}' >/etc/docker/daemon.json")
    pillar(preflight={"min_memory": "900G", "min_disk": "900T"})
    try:
        result = site.apply()
    finally:
        target.sudo("systemctl stop squatter; rm -r /etc/docker")
    assert result.returncode != 0
    assert list(result.failed) == ["preflight-server-is-fit|preflight-server-is-fit"]
    comment = next(iter(result.failed.values()))
    assert "port 80 is taken by python3" in comment
    assert "squatter.service" in comment
    assert '/etc/docker/daemon.json has "iptables": false, so servers of users and builds reach' in comment
    assert "plasma.preflight.min_memory" in comment
    assert "plasma.preflight.min_disk" in comment


@pytest.mark.usefixtures("unchanged")
def test_what_cannot_be_reached_is_told_before_anything_is_changed(site, pillar):
    """The default provider in a closed network, with the keys that help; and the end of what people see."""
    pillar(
        hub={"sources": {"installer": "https://tljh.invalid/bootstrap.py", "traefik": "pypi", "miniforge": "none"}},
        docker={"repository": {"url": "https://docker.invalid/linux"}},
        utils={"monitor": "ctop", "ctop": {"url": "https://tools.invalid/ctop-{version}-{arch}"}},
    )
    for arguments in ((), ("test=True",), ("preflight",)):
        result = site.apply(*arguments)
        # A dry run goes on where an apply ends at once; what depends on preflight is not tried.
        assert result.changed == {} or "test=True" in arguments
        failed = {key: said for key, said in result.failed.items() if not said.startswith("One or more requisite")}
        assert list(failed) == ["preflight-server-is-fit|preflight-server-is-fit"]
        (comment,) = failed.values()
        for host, key in (
            ("docker.invalid", "plasma.docker.source: distro"),
            ("tools.invalid", "plasma.utils.monitor: none"),
            ("tljh.invalid", "plasma.hub.provider: pypi"),
        ):
            (line,) = [line for line in comment.splitlines() if line.startswith(f"- {host} cannot be reached (")]
            assert key in line
    lines = site.salt_text("state.apply").stdout.splitlines()
    at = lines.index(f"What failed on {site.target.name}:")
    assert lines[at + 1].startswith("  1. preflight-server-is-fit: Nothing was changed.")


def test_ping_needs_no_flags_from_the_root(target, site, tmp_path):
    """The repository's own Saltfile and conf/master, with nothing but a roster beside them."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (
        "Saltfile",
        "conf",
        "salt",
        "pillar",
        "_pillar",
        "_renderers",
        "_modules",
        "_roster",
        "_states",
        "_utils",
        "plugin",
    ):
        (tree / name).symlink_to(REPOSITORY / name)
    (tree / "roster").write_text(yaml.safe_dump({target.name: target.roster_entry()}), encoding="utf-8")
    done = subprocess.run(
        [str(SALT_SSH), "*", "test.ping"], cwd=tree, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [f"{target.name}:", "True"]
