"""What the engine knows of GPUs, how it gets to know it, and what is taken away again."""

from __future__ import annotations

import json
import os
import pathlib
import types

import pytest
from salt.exceptions import CommandExecutionError

import plasma_engine
import plasma_gpu_engine as gpu
import plasma_systemd

NEW = {"old": None, "new": "nvidia"}
TICKS = os.sysconf("SC_CLK_TCK")


class Machine:
    """A server with an engine that looks for the hook when it starts, and reads its configuration at a reload too."""

    def __init__(self, root: pathlib.Path):
        self.root, self.now = root, 1000.0
        self.actions: list[str] = []
        self.live_restore, self.installed, self.deaf = True, "docker-ce", False
        self.containers: list[dict] = []
        self.daemon = root / "daemon.json"
        self.daemon.write_text('{"live-restore": true}')
        (root / "bin").mkdir()
        (root / "docker.pid").write_text("77\n")
        self.start()

    def start(self):
        self.read()
        place = self.root / "proc" / "77"
        place.mkdir(parents=True, exist_ok=True)
        words = ["S", *["0"] * 18, str(int(self.now * TICKS))]
        (place / "stat").write_text(f"77 (dockerd) {' '.join(words)} 0 0\n")

    def read(self):
        self.runtimes = sorted({"runc", *json.loads(self.daemon.read_text()).get("runtimes", {})})

    def install(self):
        hook = self.root / "bin" / gpu.HOOK
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)
        self.now += 10

    def configure(self):
        self.daemon.write_text(json.dumps({"live-restore": True, "runtimes": {"nvidia": {"path": "x"}}}))

    def systemctl(self, action, unit):
        assert unit == "docker.service"
        self.actions.append(action)
        if action == "restart":
            self.now += 10
        if action in ("restart", "reload") and not self.deaf:
            self.read() if action == "reload" else self.start()

    def show_gpus(self, number):
        for one in range(number):
            (self.root / "gpus" / f"0000:0{one}:00.0").mkdir(parents=True)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    found = Machine(tmp_path)
    monkeypatch.setattr(gpu, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(gpu, "_PID", tmp_path / "docker.pid")
    monkeypatch.setattr(gpu, "_PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(gpu, "DRIVER_FILES", tmp_path / "gpus")
    monkeypatch.setattr(gpu, "LIST", tmp_path / "nvidia.list")
    monkeypatch.setattr(gpu, "KEY", tmp_path / "nvidia.asc")
    # Of files, the time at which they changed cannot be set: the clock of the engine is laid around it.
    monkeypatch.setattr(gpu.time, "clock_gettime", lambda clock: found.now)
    monkeypatch.setattr(gpu.time, "time", lambda: os.stat(tmp_path / "bin").st_ctime + found.now - 1005)
    monkeypatch.setattr(plasma_systemd, "run", found.systemctl)
    monkeypatch.setattr(plasma_systemd, "journal", lambda unit, lines: "the last lines")
    monkeypatch.setattr(plasma_engine, "engine", lambda: found.installed)
    monkeypatch.setattr(plasma_engine, "info", lambda: {"runtimes": found.runtimes, "live_restore": found.live_restore})
    monkeypatch.setattr(plasma_engine, "request", lambda method, target: found.containers)
    return found


def managed(machine):
    """What the states before ``known`` leave."""
    gpu.LIST.write_text(f"{gpu.OURS}deb ...\n")
    gpu.KEY.write_text("key")
    machine.install()
    machine.configure()


def test_an_engine_that_is_older_than_the_toolkit_is_restarted_once(machine):
    managed(machine)
    assert gpu.compare() == {"runtime": NEW, "driver": NEW}
    assert gpu.make_known() == {"runtime": NEW, "driver": NEW}
    assert machine.actions == ["reset-failed", "restart"]
    assert (gpu.compare(), gpu.make_known()) == ({}, {})
    assert len(machine.actions) == 2


def test_for_the_runtime_alone_a_reload_is_enough(machine):
    machine.install()
    machine.start()
    machine.configure()
    assert gpu.make_known() == {"runtime": NEW}
    assert machine.actions == ["reload"]


def test_nobodys_server_is_ended_by_a_restart(machine):
    managed(machine)
    machine.live_restore = False
    with pytest.raises(CommandExecutionError, match="would end servers: apply the state docker first"):
        gpu.make_known()
    assert machine.actions == []


def test_an_engine_that_does_not_come_to_know_it(machine, monkeypatch):
    with pytest.raises(CommandExecutionError, match="nvidia-container-runtime-hook is not here"):
        gpu.make_known()
    managed(machine)
    machine.deaf = True
    monkeypatch.setattr(gpu.time, "sleep", lambda seconds: None)
    with pytest.raises(CommandExecutionError, match=r"(?s)\(runtime, driver\) after a restart.*the last lines"):
        gpu.make_known(timeout=0)


def test_an_engine_that_systemd_does_not_run_is_taken_at_its_word(machine):
    managed(machine)
    (machine.root / "docker.pid").unlink()
    assert gpu.compare() == {"runtime": NEW}


@pytest.mark.parametrize(
    ("number", "reserved", "named"),
    [(0, [], "one, two"), (1, [], "two"), (2, [], None), (2, [0], "two"), (2, [5], None)],
)
def test_environments_that_ask_for_more_than_there_is(machine, number, reserved, named):
    machine.show_gpus(number)
    environments = [{"name": "one", "gpus": 1}, {"name": "two", "gpus": 2}, {"name": "gone"}]
    told = gpu.missing({"environments": environments, "gpu": {"reserved": reserved}})
    assert (told or "").partition(" of ")[0] == (named or "")
    assert told is None or "`nvidia-smi`" in told


def test_health(machine):
    assert gpu.health() == {}
    managed(machine)
    assert gpu.health()["problem"].startswith("The driver of NVIDIA shows no GPU")
    machine.show_gpus(4)
    assert gpu.health()["problem"] == "The Docker engine cannot give GPUs to servers: `state.apply gpu`"
    gpu.make_known()
    machine.containers = [{"Labels": {"org.plasma.gpus": "0"}}, {"Labels": {"org.plasma.gpus": "2,3"}}]
    assert gpu.health() == {"count": 4, "used": 3, "problem": None}


def test_what_was_brought_is_taken_away(machine):
    path = str(machine.daemon)
    managed(machine)
    assert gpu.leftovers(path) == {
        str(gpu.LIST): {"old": "present", "new": None},
        str(gpu.KEY): {"old": "present", "new": None},
        path: {"old": {"nvidia": {"path": "x"}}, "new": None},
    }
    machine.containers = [{"Labels": {"org.plasma.gpus": "0"}}]
    with pytest.raises(CommandExecutionError, match="Servers have 1 GPUs: stop them first"):
        gpu.withdraw(path)
    machine.containers = []
    gpu.withdraw(path)
    gpu.forget()
    assert json.loads(machine.daemon.read_text()) == {"live-restore": True}
    assert machine.actions == ["reload"]
    assert gpu.leftovers(path) == {}


def test_other_runtimes_stay_and_so_does_a_toolkit_of_somebody_else(machine):
    path = str(machine.daemon)
    managed(machine)
    machine.daemon.write_text(json.dumps({"runtimes": {"nvidia": {}, "runsc": {"path": "y"}}}))
    gpu.withdraw(path)
    assert json.loads(machine.daemon.read_text()) == {"runtimes": {"runsc": {"path": "y"}}}
    gpu.LIST.write_text("deb https://nvidia.github.io/...\n")
    machine.configure()
    assert gpu.leftovers(path) == {}


def test_without_an_engine_nobody_has_a_gpu(machine, monkeypatch):
    managed(machine)
    machine.installed = None
    monkeypatch.setattr(plasma_engine, "request", types.SimpleNamespace())
    gpu.withdraw(str(machine.daemon))
    gpu.forget()
    assert not gpu.LIST.exists()
