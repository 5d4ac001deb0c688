"""
What goes wrong on real servers, in the middle of an apply or before it. Whatever it is: nothing is lost, the apply says
what to do, and the one after it finishes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import site_pillar
from tests.support.engine import docker
from tests.support.hub import HubUser
from tests.support.shell import wait_for
from tests.support.site import Site

CONFIG = "/opt/tljh/config/config.yaml"
PIP = "[/]opt/tljh/hub/bin/[^ ]* -m pip install"
# What nobody may lose, as far as it can be seen from outside.
TREASURES = (
    "sqlite3 /opt/tljh/state/jupyterhub.sqlite 'select name from users order by name' 2>/dev/null || "
    "/opt/tljh/hub/bin/python3 -c \"import sqlite3; print(sorted(sqlite3.connect('/opt/tljh/state/jupyterhub.sqlite')"
    ".execute('select name from users')))\"; "
    "sha256sum /opt/tljh/state/jupyterhub_cookie_secret /home/keeper/thesis.txt; "
    "grep -E '^keeper:' /etc/passwd /etc/shadow; stat -c '%U %a' /home/keeper/thesis.txt"
)


@pytest.fixture(scope="module")
def keeper(kept_server):
    """Somebody with a file."""
    kept_server.target.sudo(
        "id keeper 2>/dev/null || useradd --create-home keeper; echo words > /home/keeper/thesis.txt; "
        "chown keeper: /home/keeper/thesis.txt"
    )


@pytest.fixture
def server(kept, keeper):
    """The kept server; what people have is as it was afterwards, and the next apply finishes."""
    before = kept.target.sudo(TREASURES).stdout
    yield kept
    kept.with_pillar()
    assert kept.site.apply().failed == {}
    assert kept.target.sudo(TREASURES).stdout == before


def ready(server):
    return server.site.salt("tljh_config.ready", "timeout=60").value["ready"]


def limits(memory):
    return {"limits": {"memory": memory, "cpu": 2}}


def start(server, directory):
    """Start an apply of the hub, in a process group of its own, writing to a file."""
    log = directory / "apply.log"
    with log.open("w", encoding="utf-8") as output:
        return server.site.start(
            "state.apply", "tljh", stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ), log


def test_docker_is_stopped(server):
    server.target.sudo("systemctl stop docker.socket docker.service")
    predicted = server.site.apply("docker", "test=True")
    result = server.site.apply()
    assert result.failed == {}
    assert predicted.predicted == {"docker-service|docker-service"}
    assert "docker-service|docker-service" in result.changed
    assert ready(server)


def test_config_yaml_is_no_yaml(server):
    good = server.target.sudo(f"cat {CONFIG}").stdout
    broken = good + "limits: [2G\n"
    server.target.ssh(f"sudo tee {CONFIG} >/dev/null", input=broken)
    try:
        for arguments in (("test=True",), ()):
            result = server.site.apply("tljh", *arguments)
            assert "config.yaml" in result.failed["hub-settings|hub-settings"]
            assert "not valid YAML" in result.failed["hub-settings|hub-settings"]
        # Whoever wrote it finds it as it was, and the hub that runs goes on.
        assert server.target.sudo(f"cat {CONFIG}").stdout == broken
        assert server.target.ssh("systemctl is-active jupyterhub traefik").stdout.split() == ["active", "active"]
        with urllib.request.urlopen(f"http://{server.target.host}/hub/login", timeout=10) as answer:
            assert answer.status == 200
    finally:
        server.target.ssh(f"sudo tee {CONFIG} >/dev/null", input=good)


@contextlib.contextmanager
def full(server, directory):
    """A file system of its own over a directory, with the same files in it and no room left."""
    server.target.sudo(
        f"set -e; rm -rf /run/copy; cp -a {directory} /run/copy; "
        f"size=$(( $(du -s --block-size=1K /run/copy | cut -f1) + 256 ))k; "
        f"mount -t tmpfs -o size=$size,mode=0755 tmpfs {directory}; "
        f"chmod --reference=/run/copy {directory}; cp -a /run/copy/. {directory}/; "
        f"dd if=/dev/zero of={directory}/fills bs=1K 2>/dev/null || true; "
        f"! sh -c 'head -c 8192 /dev/zero > {directory}/more' 2>/dev/null; rm -f {directory}/more"
    )
    try:
        yield
    finally:
        server.target.sudo(f"umount --lazy {directory}; rm -rf /run/copy")


def test_the_disk_is_full_when_settings_change(server):
    before = server.target.sudo(f"cat {CONFIG}").stdout
    server.with_pillar(**limits("1G"))
    with full(server, "/opt/tljh/config"):
        result = server.site.apply("tljh")
        assert "No space left on device" in result.failed["hub-settings|hub-settings"]
        assert server.target.sudo(f"cat {CONFIG}").stdout == before
        assert server.target.ssh("systemctl is-active jupyterhub traefik").stdout.split() == ["active", "active"]
    again = server.site.apply("tljh")
    assert again.failed == {}
    assert again.changed["hub-settings|hub-settings"]["limits.memory"] == {"old": "2G", "new": "1G"}


def test_the_disk_is_full_when_people_come(server):
    files = "sha256sum /etc/passwd /etc/shadow /etc/group /etc/gshadow"
    before = server.target.sudo(files).stdout
    people = [{"name": f"late{number}", "groups": ["maths"]} for number in range(40)]
    server.with_pillar(users=people)
    with full(server, "/etc"):
        result = server.site.apply("users")
        assert result.returncode != 0
        assert "No space left on device" in result.failed["users-managed|users-managed"]
        assert server.target.sudo(files).stdout == before
    assert server.site.apply("users").failed == {}
    assert server.target.ssh("getent passwd late0 late39 | wc -l").stdout.strip() == "2"
    server.with_pillar(users=[{"name": person["name"], "absent": True, "remove_home": True} for person in people])
    assert server.site.apply("users").failed == {}


@contextlib.contextmanager
def no_network(server):
    """The server answers, and gets no connection anywhere."""
    rule = "OUTPUT -o eth0 -m conntrack --ctstate NEW -j REJECT"
    server.target.sudo(f"iptables -I {rule}")
    try:
        yield
    finally:
        server.target.sudo(f"iptables -D {rule}")


def test_there_is_no_network(server):
    with no_network(server):
        # Nothing to do needs nothing from anywhere.
        assert server.site.apply().changed == {}
        server.target.sudo("/opt/tljh/hub/bin/python3 -m pip uninstall -q -y escapism")
        server.target.sudo("rm -rf /root/.cache/pip/http* || true")
        result = server.site.apply("tljh")
        assert (list(result.failed), result.changed) == (["preflight-server-is-fit|preflight-server-is-fit"], {})
        comment = next(iter(result.failed.values()))
        assert "cannot be reached" in comment and "plasma.hub.sources.pip_index_url" in comment
        assert server.target.ssh("systemctl is-active jupyterhub traefik").stdout.split() == ["active", "active"]
    assert server.site.apply("tljh").failed == {}
    assert ready(server)


def test_another_program_holds_the_package_manager(server):
    server.target.sudo(
        "systemd-run --unit holds-apt python3 -c "
        "\"import fcntl, time; file = open('/var/lib/dpkg/lock-frontend', 'w'); "
        'fcntl.lockf(file, fcntl.LOCK_EX); time.sleep(25)"'
    )
    server.with_pillar(utils={"monitor": "none", "packages": ["jq", "tree", "dos2unix"]})
    result = server.site.apply("utils")
    assert result.failed == {}
    assert "dos2unix" in result.changed["utils-packages|utils-packages"]
    # It waited: the other one came to its end.
    assert server.target.ssh("systemctl is-active holds-apt", check=False).stdout.strip() != "active"


def test_the_power_goes_while_packages_are_installed(server, tmp_path):
    server.target.sudo("echo '# older' | tee -a /opt/tljh/hub/lib/python3*/site-packages/tljh_plasma/settings.py")
    process, log = start(server, tmp_path)
    wait_for(
        lambda: server.target.ssh(f"pgrep -f -- '{PIP}'", check=False).returncode == 0 or process.poll() is not None,
        timeout=120,
        what="the installation",
        interval=0.05,
    )
    assert process.poll() is None, log.read_text(encoding="utf-8")
    docker("kill", server.target.container)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    server.target.up()
    server.site = Site(server.target, server.site.directory, site_pillar())  # its address may be another one
    result = server.site.apply()
    assert result.failed == {}
    assert ready(server)


def test_two_operators_at_once(server, tmp_path):
    """Each with a configuration of their own; one of them wins, or has to try again, and nothing is mixed up."""
    other = Site(server.target, tmp_path / "other", {**site_pillar(), **limits("3G")})
    server.with_pillar(**limits("1G"))
    process, log = start(server, tmp_path)
    second = other.apply("tljh")
    process.wait(timeout=300)
    first = log.read_text(encoding="utf-8")
    for code, said in ((process.returncode, first), (second.returncode, second.stdout)):
        assert code == 0 or "Another apply runs on this server" in said, said
    assert 0 in (process.returncode, second.returncode)
    assert server.site.salt("tljh_config.get", "limits.memory").value in ("1G", "3G")
    assert ready(server)
    again = server.site.apply("tljh")
    assert again.failed == {}
    assert server.site.salt("tljh_config.get", "limits.memory").value == "1G"


LIMITS = {"jupyterhub": ("16384", str(2 * 1024**3)), "traefik": ("131072", str(2 * 1024**3))}


def test_a_flood_of_requests(kept, keeper):
    """Nobody needs a login for it: large bodies, and requests without an end. Others log in meanwhile."""
    for unit, (descriptors, memory) in LIMITS.items():
        shown = kept.target.sudo(["systemctl", "show", "--property=LimitNOFILE,MemoryMax,OOMPolicy", unit]).stdout
        assert {f"LimitNOFILE={descriptors}", f"MemoryMax={memory}"} <= set(shown.split()), shown
    kept.target.sudo("echo keeper:flooded-1 | chpasswd")
    pid = kept.target.sudo("systemctl show --property=MainPID jupyterhub | cut -d= -f2").stdout.strip()
    resident = f"awk '/VmRSS/ {{print $2}}' /proc/{pid}/status"
    before = int(kept.target.sudo(resident).stdout)
    hub = HubUser(f"http://{kept.target.host}", "keeper")
    with contextlib.ExitStack() as held, ThreadPoolExecutor(8) as pool:
        for _ in range(1100):
            connection = held.enter_context(socket.create_connection((kept.target.host, 80), 10))
            connection.sendall(b"POST /hub/login HTTP/1.1\r\nHost: hub\r\nContent-Length: 100\r\n\r\nusername=")
        bodies = [pool.submit(send_megabytes, kept.target.host, 95) for _ in range(8)]
        hub.login("flooded-1")
        assert hub.logged_in
        for body in bodies:
            body.result()
        # Kilobytes, of the same process; it was 1.5 GB.
        assert int(kept.target.sudo(resident).stdout) - before < 200_000


def send_megabytes(host, count):
    """Send the hub a login of this size, or as much of it as is taken."""
    with socket.create_connection((host, 80), 10) as connection, contextlib.suppress(OSError):
        connection.sendall(f"POST /hub/login HTTP/1.1\r\nHost: hub\r\nContent-Length: {count << 20}\r\n\r\n".encode())
        for _ in range(count):
            connection.sendall(b"0" * (1 << 20))


def test_in_the_end_nothing_is_left_to_do(kept, keeper):
    assert kept.site.apply().changed == {}
