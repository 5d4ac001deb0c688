"""tests.support.engine: a pid file is only believed when the process is the engine it was written for."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.support import engine, paths, shell


@pytest.fixture
def engine_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PLASMA_ENGINE_DIR", str(tmp_path / "engine"))
    monkeypatch.setenv("PLASMA_STATE_DIR", str(tmp_path / "state"))
    engine.pidfile().parent.mkdir(parents=True)
    return paths.engine_dir()


@pytest.fixture
def dockerd_lookalike(tmp_path):
    """A process called dockerd with the data root on its command line, which is what live_pid() looks at."""
    program = tmp_path / "bin" / "dockerd"
    program.parent.mkdir()
    shutil.copy(shutil.which("tail"), program)
    processes = []

    def start(data_root):
        data_root.mkdir(parents=True, exist_ok=True)
        watched = data_root.parent / "watched"
        watched.touch()
        processes.append(subprocess.Popen([program, "-q", "-f", watched, data_root], stderr=subprocess.DEVNULL))
        return processes[-1].pid

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_no_pid_file(engine_home):
    assert engine.running_pid() is None
    assert engine.stop_engine() is False


@pytest.mark.parametrize("text", ["", "no number\n", "-1\n", "99999999\n"])
def test_pid_file_that_names_no_process(engine_home, text):
    engine.pidfile().write_text(text)
    assert engine.running_pid() is None
    assert engine.stop_engine() is False


def test_pid_of_somebody_else_is_neither_believed_nor_killed(engine_home):
    engine.pidfile().write_text(f"{os.getpid()}\n")
    assert engine.running_pid() is None
    assert engine.stop_engine() is False


def test_pid_of_an_engine_with_another_data_root_is_not_ours(engine_home, dockerd_lookalike, tmp_path):
    pid = dockerd_lookalike(tmp_path / "other" / "docker")
    engine.pidfile().write_text(f"{pid}\n")
    assert engine.running_pid() is None


def test_our_engine_is_recognised_and_stopped(engine_home, dockerd_lookalike):
    pid = dockerd_lookalike(engine.data_root())
    engine.pidfile().write_text(f"{pid}\n")
    shell.wait_for(lambda: engine.running_pid() == pid, timeout=10, what="the process")
    assert engine.stop_engine() is True
    assert engine.running_pid() is None
    assert not engine.pidfile().exists()


def test_stale_files_are_removed_and_the_rest_is_kept(tmp_path):
    containerd = tmp_path / "exec" / "containerd"
    containerd.mkdir(parents=True)
    for stale in (tmp_path / "dockerd.pid", tmp_path / "docker.sock", containerd / "containerd.pid"):
        stale.write_text("4711")
    (tmp_path / "kept").touch()
    engine.clear_stale_files(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["exec", "kept"]


def test_named_engine_that_does_not_answer_is_an_error(engine_home, monkeypatch):
    if not shutil.which("docker"):
        pytest.skip("needs the docker client")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine_home}/nobody.sock")
    with pytest.raises(shell.SupportError, match="no engine answers there"):
        engine.ensure_engine()
