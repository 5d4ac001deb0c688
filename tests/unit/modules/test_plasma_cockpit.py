"""Cockpit's configuration: written, kept, brought back, and how it is told."""

from __future__ import annotations

import json
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_cockpit as plasma_cockpit
import plasma_cockpit_socket as cockpit_socket
import plasma_files
import plasma_listeners as hub_sockets
import tljh_settings as tljh_config

PACKAGES = ["cockpit-bridge", "cockpit-system", "cockpit-ws"]
OPERATORS = "[WebService]\nLoginTitle = ours\n"
UP = {"socket": True, "enabled": True}


class Server:
    """The packages, config.yaml and the socket's unit. ``steps`` is how many changes are made before a kill."""

    def __init__(self, directory):
        self.directory = directory
        self.config = {"https": {"enabled": True}}
        self.packages = {"openssh-server": "1"}
        self.unit = {"known": False, "active": False, "enabled": False, "stale": False}
        self.stopped = 0
        self.put_back = []
        self.removed = []
        self.apt_fails = False
        self.listeners = [0]

    def apply(self, settings, prefix, unset, timeout):
        assert (settings, unset) == ({}, ["plasma.cockpit"])
        self.config["plasma"].pop("cockpit")

    def remove(self, pkgs):
        self.removed.append(pkgs)
        if not self.apt_fails:
            for name in pkgs:
                del self.packages[name]

    def stop(self):
        self.stopped += 1

    def install(self):
        """What the rest of the state does."""
        self.packages.update(dict.fromkeys(PACKAGES, "287"))
        plasma_cockpit.PAGE.mkdir(parents=True)
        self.config["plasma"] = {"cockpit": {"enabled": True}, "groups": []}


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in ("CONF", "DROP_IN", "PAGE", "NOTE", "BACKUPS"):
        path = getattr(plasma_cockpit, name)
        monkeypatch.setattr(plasma_cockpit, name, tmp_path / str(path).lstrip("/"))
    return Server(tmp_path)


@pytest.fixture
def configure_loader_modules(server):
    return {
        plasma_cockpit: {
            "__salt__": {
                "tljh_settings.show": create_autospec(tljh_config.show, side_effect=lambda prefix: server.config),
                "tljh_settings.apply": create_autospec(tljh_config.apply, side_effect=server.apply),
                "plasma_files.write": plasma_files.write,
                "pkg.list_pkgs": lambda: dict(server.packages),
                "pkg.remove": server.remove,
                "plasma_cockpit_socket.unit": create_autospec(cockpit_socket.unit, side_effect=lambda: server.unit),
                "plasma_cockpit_socket.listening": create_autospec(cockpit_socket.listening, return_value=UP),
                "plasma_cockpit_socket.stop": create_autospec(cockpit_socket.stop, side_effect=server.stop),
                "plasma_cockpit_socket.put_back": create_autospec(
                    cockpit_socket.put_back, side_effect=lambda *state: server.put_back.append(state)
                ),
                "plasma_listeners.listeners": create_autospec(
                    hub_sockets.listeners, side_effect=lambda address, port: server.listeners
                ),
            }
        }
    }


def operators(text=OPERATORS):
    plasma_cockpit.CONF.parent.mkdir(parents=True, exist_ok=True)
    plasma_cockpit.CONF.write_text(text)


@pytest.mark.parametrize(
    ("config", "allowed"),
    [
        ({"https": {"enabled": True}}, True),
        ({"https": {"enabled": "yes"}}, False),
        ({"https": {"enabled": False}}, False),
        ({"https": None}, False),
        ({}, False),
    ],
)
def test_without_https_it_is_refused(server, config, allowed):
    server.config = config
    assert (plasma_cockpit.refusal() is None) is allowed
    if not allowed:
        assert "needs HTTPS" in plasma_cockpit.refusal()


def test_what_is_written_leads_to_the_hub_and_nowhere_else(server):
    server.config["base_url"] = "/some/where/"
    assert set(plasma_cockpit.compare()) == {str(plasma_cockpit.CONF), str(plasma_cockpit.DROP_IN)}
    plasma_cockpit.prepare(PACKAGES)
    assert plasma_cockpit.compare() == {}
    conf = plasma_cockpit.CONF.read_text()
    assert "UrlRoot = /some/where/services/cockpit\n" in conf
    assert "ProtocolHeader = X-Forwarded-Proto\n" in conf
    drop_in = plasma_cockpit.DROP_IN.read_text().splitlines()
    listens = [line for line in drop_in if line.startswith("ListenStream=")]
    assert listens == ["ListenStream=", "ListenStream=/run/plasma-cockpit.sock"]
    assert "SocketMode=0600" in drop_in
    assert plasma_cockpit.SOCKET == cockpit_socket.SOCKET
    assert plasma_cockpit.DROP_IN.stat().st_mode & 0o777 == 0o644
    assert plasma_cockpit.NOTE.stat().st_mode & 0o777 == 0o600
    # Another address of the hub is another configuration.
    server.config["base_url"] = "/"
    assert set(plasma_cockpit.compare()) == {str(plasma_cockpit.CONF)}


def test_on_a_bare_server_nothing_is_left_behind(server, tmp_path):
    plasma_cockpit.prepare(PACKAGES)
    server.install()
    predicted = plasma_cockpit.compare_disabled()
    assert predicted["packages"] == {"old": PACKAGES, "new": None}
    assert plasma_cockpit.disable() == predicted
    assert plasma_cockpit.compare_disabled() == {}
    assert plasma_cockpit.disable() == {}
    assert server.config["plasma"] == {"groups": []}
    assert server.packages == {"openssh-server": "1"}
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert not plasma_cockpit.DROP_IN.parent.exists()


def test_what_an_operator_had_comes_back(server):
    server.packages.update(dict.fromkeys(PACKAGES, "287"))
    server.unit = {"known": True, "active": True, "enabled": True, "stale": False}
    operators()
    plasma_cockpit.CONF.chmod(0o640)
    plasma_cockpit.prepare(PACKAGES)
    assert "UrlRoot" in plasma_cockpit.CONF.read_text()
    assert plasma_cockpit.BACKUPS.stat().st_mode & 0o777 == 0o700
    assert "packages" not in plasma_cockpit.compare_disabled()
    plasma_cockpit.disable()
    assert plasma_cockpit.CONF.read_text() == OPERATORS
    assert plasma_cockpit.CONF.stat().st_mode & 0o777 == 0o640
    assert server.removed == []
    assert server.put_back == [(True, True)]


def test_edits_of_the_operator_are_kept_and_the_first_text_comes_back(server):
    operators()
    plasma_cockpit.prepare(PACKAGES)
    operators("edited")
    plasma_cockpit.prepare(PACKAGES)
    copies = [path for path in plasma_cockpit.BACKUPS.iterdir() if path.name != "cockpit.conf"]
    assert [path.read_text() for path in copies] == ["edited"]
    plasma_cockpit.disable()
    assert plasma_cockpit.CONF.read_text() == OPERATORS


def test_an_edit_before_it_is_taken_away_is_kept(server):
    plasma_cockpit.prepare(PACKAGES)
    operators("edited")
    plasma_cockpit.disable()
    assert not plasma_cockpit.CONF.exists()
    assert [path.read_text() for path in plasma_cockpit.BACKUPS.iterdir()] == ["edited"]


def test_packages_that_others_need_stay(server):
    plasma_cockpit.prepare(PACKAGES)
    server.install()
    server.packages["cockpit-storaged"] = "287"
    assert plasma_cockpit.kept_packages() == {"kept": PACKAGES, "for": ["cockpit-storaged"]}
    assert "packages" not in plasma_cockpit.compare_disabled()
    plasma_cockpit.disable()
    assert server.removed == []
    assert server.put_back == [(False, False)]
    assert plasma_cockpit.compare_disabled() == {}
    assert plasma_cockpit.kept_packages() == {"kept": [], "for": []}


def test_what_apt_does_not_remove_is_said_and_tried_again(server):
    plasma_cockpit.prepare(PACKAGES)
    server.install()
    server.apt_fails = True
    with pytest.raises(CommandExecutionError, match="apt did not remove"):
        plasma_cockpit.disable()
    assert plasma_cockpit.compare_disabled()["packages"] == {"old": PACKAGES, "new": None}
    server.apt_fails = False
    plasma_cockpit.disable()
    assert plasma_cockpit.compare_disabled() == {}


def test_an_interrupted_preparation_still_knows_what_was_there(server, monkeypatch):
    operators()
    real = plasma_cockpit._write

    def killed(path, text):
        if path == plasma_cockpit.CONF:
            raise KeyboardInterrupt
        real(path, text)

    monkeypatch.setattr(plasma_cockpit, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        plasma_cockpit.prepare(PACKAGES)
    monkeypatch.setattr(plasma_cockpit, "_write", real)
    server.install()
    plasma_cockpit.prepare(PACKAGES)
    assert plasma_cockpit.compare() == {}
    plasma_cockpit.disable()
    assert plasma_cockpit.CONF.read_text() == OPERATORS
    assert server.packages == {"openssh-server": "1"}
    assert [path.name for path in plasma_cockpit.BACKUPS.iterdir()] == ["cockpit.conf"]


def test_a_damaged_note_is_an_error_that_says_what_to_do(server):
    plasma_cockpit.NOTE.parent.mkdir(parents=True)
    plasma_cockpit.NOTE.write_text("{")
    with pytest.raises(CommandExecutionError, match="move it away"):
        plasma_cockpit.prepare(PACKAGES)


def test_health_of_a_server_without_it(server):
    assert plasma_cockpit.health() == {"installed": None, "running": False, "problem": None}


def test_health_finds_what_is_wrong_and_says_what_mends_it(server, configure_loader_modules):
    functions = configure_loader_modules[plasma_cockpit]["__salt__"]
    plasma_cockpit.prepare(PACKAGES)
    server.install()
    assert plasma_cockpit.health() == {"installed": "287", "running": True, "problem": None}
    server.listeners = [1000]
    assert "journalctl --unit=jupyterhub" in plasma_cockpit.health()["problem"]
    functions["plasma_cockpit_socket.listening"].return_value = None
    assert "state.apply cockpit" in plasma_cockpit.health()["problem"]
    operators("edited")
    assert "was changed" in plasma_cockpit.health()["problem"]
    del server.packages["cockpit-ws"]
    assert "not installed any more" in plasma_cockpit.health()["problem"]
    server.config["https"] = {}
    assert "HTTPS is off" in plasma_cockpit.health()["problem"]
    functions["tljh_settings.show"].side_effect = CommandExecutionError("no")
    assert plasma_cockpit.health()["problem"] is None


def test_the_note_holds_no_content(server):
    operators()
    plasma_cockpit.prepare(PACKAGES)
    note = json.loads(plasma_cockpit.NOTE.read_text())
    assert set(note) == {"packages", "conf", "enabled", "active", "written"}
    assert OPERATORS not in str(note)
