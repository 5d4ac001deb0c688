"""Ports inside the machine: nobody takes them while the hub restarts, and what goes to the old ones arrives."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from support_hub import free_port, wait_until
from tljh_plasma import old_ports, settings
from tljh_plasma.iptables import Tables
from tljh_plasma.secret_files import kept_secret
from tljh_plasma.settings import Settings

from tests.support.thief import LOOP

pytestmark = pytest.mark.docker

# Binds places in a loop; says which it got and what was sent there.
THIEF = """
import json, os, signal, socket, sys
os.setgroups([])
os.setgid(12345)
os.setuid(12345)
places = [tuple(place) for place in json.loads(sys.argv[1])]
won, heard, tries = {}, [], 0

def end(*_):
    print(json.dumps({"won": [list(place) for place in won], "heard": heard, "tries": tries}), flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
""" + LOOP.lstrip()


class Thief:
    """Somebody with a shell who wants these places."""

    def __init__(self, places):
        self.process = subprocess.Popen(
            [sys.executable, "-c", THIEF, json.dumps(places)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def end(self):
        """What they got."""
        self.process.send_signal(signal.SIGTERM)
        found = json.loads(self.process.stdout.readline())
        self.process.wait(20)
        self.process.stdout.close()
        return found


def listeners(pids):
    """(address, port) of everything that these processes and their children listen on, by the kernel's tables."""
    found = set()
    for line in subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines():
        if any(f"pid={pid}," in line for pid in pids):
            address, _, port = line.split()[3].rpartition(":")
            found.add((address.removeprefix("[::ffff:").strip("[]*") or "127.0.0.1", int(port)))
    return found


def family(pid):
    """A process and all below it."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [pid, *(found for child in children for found in family(int(child)))]


def test_a3_a_local_user_takes_no_port_of_the_hub_while_it_restarts(hub):
    pids = [found for process in hub.processes.values() for found in family(process.pid)]
    inner = {place for place in listeners(pids) if place[1] != hub.port}
    assert {hub.hub_port, hub.api_port, hub.service_port} <= {port for _, port in inner}
    assert all(port <= 511 for _, port in inner), inner
    with socket.create_server(("127.0.0.1", 0)) as old:
        # Where an older hub would be: free for a moment, and taken.
        place = old.getsockname()
        thief = Thief([*map(list, inner), list(place)])
    try:
        with wait_until(lambda: connected(place), 10, "the thief's port") as mine:
            mine.sendall(b"token of root's")
        hub.stop_process("hub")
        hub.start_hub()
    finally:
        found = thief.end()
    assert found["won"] == [list(place)]
    assert found["heard"] == ["token of root's"]
    assert found["tries"] > 1000


def connected(place):
    try:
        return socket.create_connection(place, 5)
    except ConnectionRefusedError:
        return None


def test_a14_a_hub_that_lost_its_secrets_comes_back_by_itself(hub):
    """It used to be shut out of Traefik's API until somebody removed the file of routes."""
    state = hub.prefix / "state"
    names = ("traefik-api.secret", "jupyterhub_cookie_secret", "plasma-operator.token", "plasma-service-cookie.secret")

    def made():
        return all((state / name).exists() and len((state / name).read_bytes().strip()) == 64 for name in names)

    # The service loads for seconds before it makes its own.
    wait_until(made, 60, "secrets")
    before = {name: (state / name).read_text() for name in names}
    for name, spoilt in zip(names, (None, b"\xff\x00junk", b"", b"0123"), strict=True):
        (state / name).unlink()
        if spoilt is not None:
            (state / name).write_bytes(spoilt)
    hub.stop_process("hub")
    hub.start_hub()
    wait_until(made, 60, "new secrets")
    for name in names:
        assert (state / name).read_text() != before[name]
        assert (state / name).stat().st_mode & 0o777 == 0o600
    # The proxy takes routes with the new password, and knows the service.
    assert "route_api" in (state / "rules" / "rules.toml").read_text()
    token = (state / "plasma-operator.token").read_text()
    answer = hub.api("GET", "/plasma/administrators", headers={"Authorization": f"token {token}"})
    assert answer.status_code == 200


def test_a_secret_is_kept_and_whatever_is_no_secret_is_replaced(tmp_path):
    path = tmp_path / "a.secret"
    known = kept_secret(path)
    assert kept_secret(path) == known
    for spoil in (
        path.unlink,
        lambda: path.write_text(""),
        lambda: path.write_bytes(b"\xff" * 64),
        lambda: path.write_text("0123456789abcdef"),
        lambda: path.chmod(0o640),
        lambda: os.chown(path, 12345, -1),
        lambda: os.link(path, tmp_path / "other"),
        lambda: (path.unlink(), path.symlink_to("other")),
        lambda: (path.unlink(), path.mkdir()),
    ):
        spoil()
        made = kept_secret(path)
        assert made != known
        assert (path.is_symlink(), path.stat().st_mode & 0o777, len(made)) == (False, 0o600, 64)
        assert kept_secret(path) == made
        known = made


# --- servers of older releases


@pytest.fixture
def moved(net, tmp_path):
    """Settings of a hub that was at the old port of a network of its own."""
    (tmp_path / "state" / "rules").mkdir(parents=True)
    (tmp_path / "state" / "rules" / "rules.toml").write_text(
        f'[jupyterhub.routes.a]\ntarget = "http://{net.gateway}:{old_ports.HUB_PORT}"\n'
        "[jupyterhub.routes.a.data]\nhub = true\n"
    )
    yield Settings(prefix=tmp_path)
    old_ports._kept.clear()
    old_ports._remove()


def test_who_knows_the_old_port_arrives_at_the_new_one_whoever_listens(net, moved, monkeypatch):
    new = free_port()
    monkeypatch.setattr(settings, "HUB_PORT", new)
    place = (net.gateway, old_ports.HUB_PORT)
    with socket.create_server((net.gateway, new)) as hub:
        thief = Thief([list(place)])
        try:
            # Without the rules they get it.
            with wait_until(lambda: connected(place), 10, "the thief's port") as mine:
                mine.sendall(b"first")
            assert old_ports.begin(moved, net.gateway) is True
            assert old_ports.begin(moved, net.gateway) is True
            with socket.create_connection(place, 5) as mine:
                mine.sendall(b"second")
                hub.settimeout(10)
                assert hub.accept()[0].recv(100) == b"second"
        finally:
            found = thief.end()
    assert found["heard"] == ["first"]
    assert (moved.state_dir / old_ports.NOTE).exists()
    # As a reload of the host's firewall does.
    table = Tables("iptables", "", "nat")
    old_ports._kept[:] = old_ports._rules(net.gateway, moved)
    old_ports._remove()
    monkeypatch.setattr(old_ports, "_checked", 0.0)
    old_ports.ensure()
    with socket.create_server((net.gateway, new)), socket.create_connection(place, 5):
        assert len(table.rules()[old_ports.CHAIN]) == 2


def test_the_rules_go_when_nobody_needs_them(net, moved, docker_host, monkeypatch):
    monkeypatch.setattr(old_ports, "_in_use", lambda client: True)
    old_ports.follow(docker_host.api, moved, net.gateway)
    assert old_ports._kept
    (moved.state_dir / "rules" / "rules.toml").write_text("")
    monkeypatch.setattr(old_ports, "_in_use", lambda client: False)
    old_ports.follow(docker_host.api, moved, net.gateway)
    assert not (moved.state_dir / old_ports.NOTE).exists()
    assert old_ports.CHAIN not in Tables("iptables", "", "nat").rules()


def test_a_hub_that_was_at_no_old_port_changes_nothing(net, moved, docker_host):
    rules = moved.state_dir / "rules" / "rules.toml"
    for text in (rules.read_text().replace("15001", "303"), "", "junk"):
        rules.write_text(text)
        assert old_ports.begin(moved, net.gateway) is False
        old_ports.follow(docker_host.api, moved, net.gateway)
    assert not (moved.state_dir / old_ports.NOTE).exists()
    assert old_ports.CHAIN not in Tables("iptables", "", "nat").rules()


def test_servers_that_were_started_by_an_older_release_are_found(docker_host, environment):
    def run(port):
        return docker_host.containers.run(
            environment,
            entrypoint=["sleep", "60"],
            detach=True,
            labels={old_ports.LABEL_USER: "plasmat-nobody"},
            environment={"JUPYTERHUB_API_URL": f"http://172.20.0.1:{port}/hub/api"},
        )

    made = [run(303)]
    try:
        ours = lambda: old_ports._in_use(Few(docker_host.api, made))  # noqa: E731
        assert ours() is False
        made.append(run(old_ports.HUB_PORT))
        assert ours() is True
    finally:
        for container in made:
            container.remove(force=True)


class Few:
    """The engine, as if it had these containers alone: other tests run on it."""

    def __init__(self, client, made):
        self.client, self.made = client, made

    def containers(self, **filters):
        ids = {container.id for container in self.made}
        return [found for found in self.client.containers(**filters) if found["Id"] in ids]

    def inspect_container(self, name):
        return self.client.inspect_container(name)
