"""The socket on which Cockpit listens: asked of systemd and of the kernel, and changed."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError

import plasma_cockpit_socket as cockpit_socket

TABLE = """\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 100 /run/other.sock
0000000000000000: 00000003 00000000 00000000 0001 03 101
{line}
"""
ACCEPTS = "0000000000000000: 00000002 00000000 00010000 0001 01 102 /run/plasma-cockpit.sock"
CONNECTED = "0000000000000000: 00000003 00000000 00000000 0001 03 103 /run/plasma-cockpit.sock"


class Systemd:
    """What it answers, and what it was told."""

    def __init__(self, path):
        self.path = path
        self.properties = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}
        self.told = []
        self.fails = ""

    def run(self, argv, **options):
        if argv[1] == "show":
            return {"retcode": 0, "stdout": "\n".join(f"{k}={v}" for k, v in self.properties.items()), "stderr": ""}
        self.told.append(argv[1:])
        if argv[1] == self.fails:
            return {"retcode": 1, "stdout": "", "stderr": "first\nUnit is masked."}
        if argv[1] == "start":
            self.path.write_text(TABLE.format(line=ACCEPTS))
        return {"retcode": 0, "stdout": "", "stderr": ""}


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    monkeypatch.setattr(cockpit_socket, "UNIX_SOCKETS", tmp_path / "unix")
    return Systemd(tmp_path / "unix")


@pytest.fixture
def configure_loader_modules(systemd):
    return {cockpit_socket: {"__salt__": {"cmd.run_all": systemd.run}}}


@pytest.mark.parametrize(("line", "there"), [(ACCEPTS, True), (CONNECTED, False), ("", False)])
def test_listening_is_what_takes_connections(systemd, line, there):
    systemd.path.write_text(TABLE.format(line=line))
    assert cockpit_socket.listening() == {"socket": there, "enabled": True}


@pytest.mark.parametrize("change", [{"ActiveState": "inactive"}, {"NeedDaemonReload": "yes"}])
def test_a_unit_with_other_instructions_does_not_listen_as_it_should(systemd, change):
    systemd.path.write_text(TABLE.format(line=ACCEPTS))
    systemd.properties.update(change)
    assert cockpit_socket.listening()["socket"] is False


def test_without_the_package_there_is_nothing(systemd):
    systemd.properties = {"LoadState": "not-found"}
    assert cockpit_socket.listening() is None
    cockpit_socket.stop()
    cockpit_socket.put_back(True, True)
    assert systemd.told == [["daemon-reload"]]


def test_listening_again_takes_the_service_down_first(systemd):
    assert cockpit_socket.listen() == {"socket": True, "enabled": True}
    assert [words[0] for words in systemd.told] == ["daemon-reload", "stop", "enable", "start"]
    assert systemd.told[1] == ["stop", "cockpit.socket", "cockpit.service"]


def test_a_socket_that_does_not_come_up_is_an_error(systemd):
    systemd.fails = "enable"
    with pytest.raises(CommandExecutionError, match="`systemctl enable cockpit.socket` failed: Unit is masked"):
        cockpit_socket.listen()
    systemd.fails = ""
    systemd.properties["ActiveState"] = "failed"
    with pytest.raises(CommandExecutionError, match="does not listen on /run/plasma-cockpit.sock"):
        cockpit_socket.listen()


@pytest.mark.parametrize(("enabled", "active"), [(True, False), (False, True)])
def test_the_state_of_before_comes_back(systemd, enabled, active):
    cockpit_socket.put_back(enabled, active)
    assert systemd.told == [
        ["daemon-reload"],
        ["enable" if enabled else "disable", "cockpit.socket"],
        ["start" if active else "stop", "cockpit.socket"],
    ]
