"""Private code (``_utils``) comes with the modules that import it, also after a change: to a server without a
controller, and to a minion whose process goes on. Everything runs on this machine, in a directory of the test."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import pytest
import yaml

from tests.support.paths import REPOSITORY

BIN = pathlib.Path(sys.executable).parent
STATE = """\
import plasma_probe


def probed(name):
    return {"name": name, "result": True, "changes": {}, "comment": plasma_probe.word()}
"""
MODULE = """\
import plasma_public
from plasma_probe import word

plasma_public.offer(globals(), word)
"""


class Tree:
    """A tree of its own before the repository's, so that one module can change."""

    def __init__(self, directory: pathlib.Path):
        self.root = directory / "tree"
        for name, text in (
            ("_states/plasma_probe_states.py", STATE),
            ("_modules/plasma_probe_now.py", MODULE),
            ("probe.sls", "probe:\n  plasma_probe_states.probed: []\n"),
            ("top.sls", "base:\n  '*':\n    - probe\n"),
        ):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
        (self.root / "_utils").mkdir()
        self.say("first")

    def say(self, word: str) -> None:
        (self.root / "_utils" / "plasma_probe.py").write_text(f'def word():\n    return "{word}"\n')


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def configuration(directory: pathlib.Path, tree: Tree, **options) -> pathlib.Path:
    """A directory with the configuration of master and minion, whose files all are below ``directory``."""
    options = {
        "id": "probe",
        "root_dir": str(directory),
        "file_roots": {"base": [str(tree.root), str(REPOSITORY / "salt")]},
        "fileserver_limit_traversal": True,
        "grains_cache": True,
        "enable_gpu_grains": False,
        "enable_fqdns_grains": False,
        "log_level": "warning",
        **options,
    }
    (directory / "conf").mkdir()
    for kind in ("master", "minion"):
        (directory / "conf" / kind).write_text(yaml.safe_dump(options))
    return directory / "conf"


def answer(command: list[str], conf: pathlib.Path):
    """What a call of Salt returned; None where nobody answers yet."""
    done = subprocess.run(
        [BIN / command[0], "-c", str(conf), "--out=json", *command[1:]],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    with contextlib.suppress(ValueError, AttributeError):  # no JSON, or a sentence
        return next(iter(json.loads(done.stdout).values()))
    return None


def comment(states: dict) -> str:
    (state,) = states.values()
    assert state["result"] is True, state
    return state["comment"]


def test_a_server_without_a_controller(tmp_path, tree):
    conf = configuration(tmp_path, tree, file_client="local")
    call = ["salt-call", "--local"]
    assert comment(answer([*call, "state.apply"], conf)) == "first"
    assert answer([*call, "plasma_probe_now.word"], conf) == "first"
    tree.say("second")
    assert comment(answer([*call, "state.apply"], conf)) == "second"
    assert answer([*call, "plasma_probe_now.word"], conf) == "second"
    # The real ones: a function of a module, and one that is offered from ``_utils`` under its alias.
    assert {"plasma_backup.list", "plasma_backup.restore", "plasma_docker.keeps_engine"} <= set(
        answer([*call, "sys.list_functions", "plasma_backup", "plasma_docker"], conf)
    )
    assert answer([*call, "tljh_config.show", f"prefix={tmp_path}"], conf) == {}


@pytest.fixture
def minion(tree):
    """A master and a minion of it, which goes on from call to call."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    # Sockets are below it, whose paths may have 107 characters.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="plasma-"))
    conf = configuration(
        directory,
        tree,
        interface="127.0.0.1",
        publish_port=ports[0],
        ret_port=ports[1],
        master="127.0.0.1",
        master_port=ports[1],
        auto_accept=True,
        worker_threads=2,
    )
    programs = []
    try:
        for name in ("salt-master", "salt-minion"):
            log = open(directory / f"{name}.log", "w")  # noqa: SIM115
            programs.append(subprocess.Popen([BIN / name, "-c", str(conf)], stdout=log, stderr=log))
        until = time.monotonic() + 90
        while answer(["salt", "-t", "5", "probe", "test.ping"], conf) is not True:
            assert time.monotonic() < until, (directory / "salt-minion.log").read_text()
        yield lambda *command: answer(["salt", "-t", "60", "probe", *command], conf)
    finally:
        for program in reversed(programs):
            program.terminate()
            program.wait(30)
        shutil.rmtree(directory)


def test_a_minion_of_a_master(minion, tree):
    assert comment(minion("state.apply")) == "first"
    assert minion("plasma_probe_now.word") == "first"
    tree.say("second")
    assert comment(minion("state.apply")) == "second"
    assert minion("plasma_probe_now.word") == "second"
    tree.say("third")
    assert "utils.plasma_probe" in minion("saltutil.sync_all")["utils"]
    assert minion("plasma_probe_now.word") == "third"
    assert "plasma_backup.list" in minion("sys.list_functions", "plasma_backup")
