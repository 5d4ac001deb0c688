"""Settings of the Docker engine under which servers and builds cannot work."""

from __future__ import annotations

import json

import pytest

import plasma_docker_daemon


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(plasma_docker_daemon, "_FORWARDING", tmp_path / "ip_forward")
    monkeypatch.setattr(plasma_docker_daemon, "_PID", tmp_path / "docker.pid")
    monkeypatch.setattr(plasma_docker_daemon, "_PROC", tmp_path / "proc")
    (tmp_path / "ip_forward").write_text("0\n")
    return tmp_path


def found(machine, config):
    path = machine / "daemon.json"
    path.write_text(json.dumps(config))
    return plasma_docker_daemon.daemon_problems(str(path))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"iptables": False}, "servers of users and builds reach neither the internet nor anything else"),
        ({"ip-forward": False}, "as the kernel does not forward"),
        ({"ip-masq": False}, "builds reach nothing outside of this server"),
        ({"bridge": "none"}, "builds have no network"),
        ({"userns-remap": "default"}, "cannot read the homes"),
        ({"hosts": ["tcp://127.0.0.1:2375"]}, "asks the engine at its Unix socket"),
    ],
)
def test_settings_that_break_servers_or_builds(machine, config, said):
    (sentence,) = found(machine, config)
    (key,) = config
    assert sentence.startswith(f'{machine}/daemon.json has "{key}": ')
    assert said in sentence
    assert sentence.endswith("Take it out, and restart the engine: `systemctl restart docker`")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"iptables": True, "ip-forward": True, "ip-masq": True, "bridge": "docker0", "userns-remap": ""},
        # Nothing of ours needs them.
        {"userland-proxy": False, "icc": False, "live-restore": True, "ipv6": False, "no-new-privileges": True},
        {"hosts": ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375"]},
        {"hosts": ["fd://"]},
    ],
)
def test_settings_that_do_no_harm(machine, config):
    assert found(machine, config) == []


def test_a_kernel_that_forwards_by_itself(machine):
    (machine / "ip_forward").write_text("1\n")
    assert found(machine, {"ip-forward": False}) == []


def test_without_a_file_and_with_a_broken_one(machine):
    assert plasma_docker_daemon.daemon_problems(str(machine / "nothing.json")) == []
    (machine / "daemon.json").write_text("{")  # the state docker says so
    assert plasma_docker_daemon.daemon_problems(str(machine / "daemon.json")) == []


def running(machine, *words, name="dockerd"):
    process = machine / "proc" / "77"
    process.mkdir(parents=True)
    (machine / "docker.pid").write_text("77")
    (process / "comm").write_text(f"{name}\n")
    (process / "cmdline").write_text("\0".join(["/usr/bin/dockerd", *words, ""]))


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("-H", "fd://", "--iptables=false"), "iptables"),
        (("--bridge", "none", "-H", "fd://"), "bridge"),
        (("-b=none",), "bridge"),
        (("-H", "tcp://0.0.0.0:2375"), "host"),
        (("--userns-remap=default",), "userns-remap"),
    ],
)
def test_the_command_line_of_the_engine(machine, words, key):
    running(machine, *words)
    (sentence,) = found(machine, {})
    assert sentence.startswith(f'the unit docker.service has "{key}": ')


def test_an_ordinary_command_line_and_another_process_of_that_number(machine):
    running(machine, "-H", "fd://", "--containerd=/run/containerd/containerd.sock", "--iptables")
    assert found(machine, {}) == []
    (machine / "proc" / "77" / "cmdline").write_text("x\0--iptables=false\0")
    (machine / "proc" / "77" / "comm").write_text("bash\n")
    assert found(machine, {}) == []


def test_status_says_the_first_of_them(monkeypatch):
    monkeypatch.setattr(plasma_docker_daemon, "daemon_problems", lambda: ["one", "two"])
    assert plasma_docker_daemon.health() == {"problem": "one"}
    monkeypatch.setattr(plasma_docker_daemon, "daemon_problems", lambda: [])
    assert plasma_docker_daemon.health() == {"problem": None}


@pytest.mark.parametrize(
    ("content", "root"),
    [
        (None, "/var/lib/docker"),
        ("{}", "/var/lib/docker"),
        ("[", "/var/lib/docker"),
        ("[]", "/var/lib/docker"),
        ('{"data-root": "/srv/docker"}', "/srv/docker"),
    ],
)
def test_where_the_engine_keeps_its_images(tmp_path, content, root):
    path = tmp_path / "daemon.json"
    if content:
        path.write_text(content, encoding="utf-8")
    assert plasma_docker_daemon.docker_root(str(path)) == root
