"""The execution module plasma_docker, against an engine's API on a real socket."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import socketserver
import threading
from unittest.mock import create_autospec

import pytest
import salt.modules.cmdmod as cmdmod
from salt.exceptions import CommandExecutionError

import _modules.plasma_docker as plasma_docker
import plasma_engine

WANTED = {"log_driver": "journald", "live_restore": True}
UNSET = {"log_driver": "json-file", "live_restore": False}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Engine:
    """
    The part of an engine that is asked: /info on a socket, and systemd's actions on its unit.

    configured
        What /etc/docker/daemon.json says; ``running`` is what the process works with.
    reloads, restarts, enables
        Whether systemctl's action has its effect.
    limited
        Whether systemd refuses to start it, as it was started too often.
    """

    def __init__(self, path):
        self.path = path
        self.configured = dict(WANTED)
        self.running = dict(WANTED)
        self.at_boot = True
        self.reloads = self.restarts = self.starts = self.enables = True
        self.limited = False
        self.actions = []
        self.body = None
        self._server = None

    def start(self):
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                assert self.path == "/info"
                body = engine.body if engine.body is not None else json.dumps(engine.answer()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                """Nothing on the test's output."""

            def address_string(self):
                return "unix"

        self._server = _Server(str(self.path), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self.path.unlink()
            self._server = None

    def answer(self):
        return {
            "ServerVersion": "28.5.1",
            "LoggingDriver": self.running["log_driver"],
            "LiveRestoreEnabled": self.running["live_restore"],
            "DockerRootDir": "/var/lib/docker",
            "Containers": 3,
            "Runtimes": {"runc": {}, "nvidia": {}},
        }

    def systemctl(self, command, **options):
        """Stands for ``cmd.run_all`` of ``systemctl ACTION docker.service``."""
        if command[0] == "journalctl":
            return {"retcode": 0, "stdout": "failed to load listeners\nexit code 1"}
        program, action, unit = command[0], command[1], command[-1]
        if action == "is-enabled":
            return {"retcode": 0 if self.at_boot else 1}
        assert (program, unit) == ("systemctl", "docker.service")
        if action == "reset-failed":
            self.limited = False
            return {"retcode": 0, "stdout": "", "stderr": "", "pid": 1}
        self.actions.append(action)
        done = getattr(self, f"{action}s") and not (self.limited and action in ("start", "restart"))
        if done and action == "enable":
            self.at_boot = True
        elif done and action == "reload":
            # All that dockerd(8) takes over of these settings without a restart.
            self.running["live_restore"] = self.configured["live_restore"]
        elif done:
            self.running = dict(self.configured)
            if not self._server:
                self.start()
        return {"retcode": 0 if done else 1, "stdout": "", "stderr": "", "pid": 1}


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setattr(plasma_engine, "SOCKET", str(tmp_path / "docker.sock"))
    engine = Engine(tmp_path / "docker.sock")
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def salt_functions(engine):
    return {
        "cmd.run_all": create_autospec(cmdmod.run_all, side_effect=engine.systemctl),
    }


@pytest.fixture
def configure_loader_modules(salt_functions, engine):
    return {plasma_docker: {"__salt__": salt_functions}}


def test_info(engine):
    assert plasma_docker.info() == {
        "version": "28.5.1",
        "log_driver": "journald",
        "live_restore": True,
        "root": "/var/lib/docker",
        "runtimes": ["nvidia", "runc"],
    }


def test_info_without_a_socket(engine):
    engine.stop()
    assert plasma_docker.info() == {}


def test_info_when_nobody_listens(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left_behind:
        left_behind.bind(str(tmp_path / "dead.sock"))
    assert plasma_docker.info(path=str(tmp_path / "dead.sock")) == {}


def test_info_when_nobody_answers(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen(1)
        assert plasma_docker.info(path=str(tmp_path / "silent.sock"), timeout=0.1) == {}


@pytest.mark.parametrize("body", [b"", b"not json", b'{"ServerVersion": '])
def test_info_when_the_answer_is_nothing_to_read(engine, body):
    engine.body = body
    assert plasma_docker.info() == {}


@pytest.mark.parametrize(
    "lists, installed, expected",
    [
        ({}, False, None),
        ({}, True, "other"),
        ({"docker-ce": "/.\n/usr/bin\n/usr/bin/dockerd\n"}, True, "docker-ce"),
        ({"docker.io": "/.\n/usr/sbin\n/usr/sbin/dockerd\n"}, True, "distro"),
        # Removed but not purged: dpkg keeps the list of the configuration files.
        ({"docker-ce": "/etc/default/docker\n", "docker.io": "/usr/sbin/dockerd\n"}, True, "distro"),
        ({"docker-ce": "/etc/default/docker\n"}, True, "other"),
        ({"docker-ce": "/etc/default/docker\n"}, False, None),
    ],
)
def test_engine(engine, tmp_path, monkeypatch, lists, installed, expected):
    engine.stop()
    for package, text in lists.items():
        (tmp_path / f"{package}.list").write_text(text, encoding="utf-8")
    monkeypatch.setattr(plasma_engine, "_DPKG_LISTS", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if installed else None)
    assert plasma_docker.engine() == expected
    assert plasma_docker.keeps_engine("docker-ce") is (expected not in (None, "docker-ce"))
    assert plasma_docker.keeps_engine("distro") is (expected not in (None, "distro"))


def test_engine_outside_of_the_path_answers(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert plasma_docker.engine() == "other"


def test_compare_equal():
    assert plasma_docker.compare() == {}


@pytest.mark.parametrize(
    "attribute, value, expected",
    [
        ("at_boot", False, {"at_boot": {"old": "disabled", "new": "enabled"}}),
        (
            "running",
            {"log_driver": "json-file", "live_restore": True},
            {"log_driver": {"old": "json-file", "new": "journald"}},
        ),
        (
            "running",
            {"log_driver": "journald", "live_restore": False},
            {"live_restore": {"old": False, "new": True}},
        ),
    ],
)
def test_compare_each_difference(engine, attribute, value, expected):
    setattr(engine, attribute, value)
    assert plasma_docker.compare() == expected


def test_compare_wanted_otherwise():
    assert plasma_docker.compare("local", False) == {
        "log_driver": {"old": "journald", "new": "local"},
        "live_restore": {"old": True, "new": False},
    }


def test_compare_stopped(engine):
    engine.stop()
    engine.at_boot = False
    assert plasma_docker.compare() == {
        "at_boot": {"old": "disabled", "new": "enabled"},
        "engine": {"old": "stopped", "new": "running"},
    }


def test_equal_touches_nothing(engine):
    assert plasma_docker.ensure_running() == {}
    assert engine.actions == []


def test_only_enabled(engine):
    engine.at_boot = False
    assert set(plasma_docker.ensure_running()) == {"at_boot"}
    assert engine.actions == ["enable"]


def test_live_restore_by_reload_alone(engine):
    engine.running["live_restore"] = False
    assert set(plasma_docker.ensure_running()) == {"live_restore"}
    assert engine.actions == ["reload"]


def test_live_restore_before_the_restart_that_the_log_driver_needs(engine):
    engine.running = dict(UNSET)
    assert plasma_docker.ensure_running() == {
        "log_driver": {"old": "json-file", "new": "journald"},
        "live_restore": {"old": False, "new": True},
    }
    assert engine.actions == ["reload", "restart"]


def test_log_driver_alone(engine):
    engine.running["log_driver"] = "json-file"
    assert set(plasma_docker.ensure_running()) == {"log_driver"}
    assert engine.actions == ["restart"]


def test_an_engine_that_was_started_too_often(engine):
    """Three times in a minute, by hand or by applies."""
    engine.running["log_driver"], engine.limited = "json-file", True
    plasma_docker.ensure_running("journald", timeout=1)
    assert engine.actions == ["restart"]


def test_start(engine):
    engine.stop()
    engine.at_boot = False
    assert set(plasma_docker.ensure_running()) == {"at_boot", "engine"}
    assert engine.actions == ["enable", "start"]
    assert plasma_docker.compare() == {}


def test_engine_that_does_not_come_up(engine, salt_functions):
    engine.stop()
    engine.starts = engine.restarts = False
    with pytest.raises(CommandExecutionError) as caught:
        plasma_docker.ensure_running(timeout=0.3)
    assert engine.actions == ["start", "restart"]
    assert "engine differ" in str(caught.value)
    assert str(caught.value).endswith("failed to load listeners\nexit code 1")
    commands = [call.args[0] for call in salt_functions["cmd.run_all"].call_args_list]
    assert "--unit=docker.service" in next(command for command in commands if command[0] == "journalctl")


def test_engine_that_does_not_take_its_configuration(engine):
    engine.running["log_driver"] = engine.configured["log_driver"] = "json-file"
    with pytest.raises(CommandExecutionError, match=r"log_driver differ.*daemon\.json(.|\n)*exit code 1"):
        plasma_docker.ensure_running(timeout=0.3)
    assert engine.actions == ["restart"]


@pytest.mark.parametrize("running", [WANTED, UNSET], ids=["else equal", "else different"])
def test_unit_that_cannot_be_enabled_restarts_nothing(engine, running):
    engine.at_boot = engine.enables = False
    engine.running = dict(running)
    with pytest.raises(CommandExecutionError, match="docker.service cannot be enabled"):
        plasma_docker.ensure_running(timeout=0.3)
    assert engine.actions == ["enable"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, None),
        ("{}", None),
        ('{"log-driver": "journald", "log-opts": {"tag": "x"}}', None),
        ('{"log-opts": {}}', None),
        ('{"log-opts": {"max-size": "10m"}}', "log-opts for the driver 'json-file'"),
        ('{"log-driver": "local", "log-opts": {"max-size": "10m"}}', "set plasma.docker.log_driver to 'local'"),
        ('{"log-driver": ', "is not valid JSON"),
        ("[]", "holds no JSON object"),
    ],
)
def test_configuration_that_the_daemon_could_not_start_with(tmp_path, text, said):
    path = tmp_path / "daemon.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    problem = plasma_docker.config_problem("journald", path=str(path))
    if said is None:
        assert problem is None
    else:
        assert said in problem
        assert str(path) in problem
