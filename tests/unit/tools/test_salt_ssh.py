"""
salt-ssh as an operator calls it, with what people do to the roster and to files of pillar: real salt-ssh, the
repository's configuration, and a stand-in for ssh that runs commands on this machine, or refuses them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY
from tests.support.site import SALT_SSH, thin

pytestmark = pytest.mark.slow

MARKER = "Marker-7f3a9c"
SSH = """#!/bin/sh
case "$*" in
*refuses*) echo "root@refuses: Permission denied (publickey)." >&2; exit 255;;
*-V*) echo "OpenSSH_9.2p1" >&2; exit 0;;
esac
for last; do :; done
exec sh -c "$last"
"""
SCP = """#!/bin/sh
for word; do from=$to to=$word; done
exec cp "$from" "${to#*:}"
"""


class Tree:
    """An operator's clone, and calls in it or from elsewhere."""

    def __init__(self, root: Path):
        self.root = root
        for name in ("Saltfile", "salt", "_pillar", "_renderers", "_roster", "_wrapper", "_output", "_utils", "plugin"):
            (root / name).symlink_to(REPOSITORY / name)
        for name in ("conf", "pillar"):
            shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("gpgkeys"))
        for name in ("_modules", "_states"):
            (root / name).symlink_to(REPOSITORY / name)
        shutil.copy(REPOSITORY / "plasma", root / "plasma")
        (root / ".venv" / "bin").mkdir(parents=True)
        (root / ".venv" / "bin" / "salt-ssh").symlink_to(SALT_SSH)
        (root / "bin").mkdir()
        for name, text in (("ssh", SSH), ("scp", SCP)):
            (root / "bin" / name).write_text(text, encoding="utf-8")
            (root / "bin" / name).chmod(0o755)
        self.roster("here")

    def roster(self, *servers: str) -> None:
        """Servers by name: `here` is this machine, `refuses` does not take the key."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        text = "".join(
            f"{server}:\n  host: {server}\n  set_path: {path}\n  thin_dir: {self.root}/thin-{server}\n"
            for server in servers
        )
        (self.root / "roster").write_text(text, encoding="utf-8")

    def call(self, *arguments: str, cwd: Path | None = None) -> tuple[int, list[str]]:
        """The exit code and the lines of a call of ./plasma by an absolute path."""
        environment = {**os.environ, "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            [str(self.root / "plasma"), "--no-color", *arguments],
            cwd=cwd or self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        text = done.stdout.decode()
        assert "Traceback" not in text and MARKER not in text
        return done.returncode, text.splitlines()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    tree = Tree(tmp_path_factory.mktemp("clone"))
    shutil.copytree(thin(), tree.root / ".salt" / "cache" / "thin")
    return tree


@pytest.fixture
def tree(clone):
    """The clone, as it was before a test has changed it."""
    clone.roster("here")
    yield clone
    shutil.rmtree(clone.root / "pillar")
    shutil.copytree(REPOSITORY / "pillar", clone.root / "pillar")


def test_the_front_works_from_anywhere(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree.root / "plasma")
    assert tree.call("here", "test.ping", cwd=tmp_path) == (0, ["here:", "    True"])
    done = subprocess.run([tmp_path / "link", "--version"], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.startswith("salt-ssh ")


def test_the_front_without_setup(tree, tmp_path):
    shutil.copy(tree.root / "plasma", tmp_path / "plasma")
    done = subprocess.run([tmp_path / "plasma"], cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"salt-ssh is missing here: run `make -C {tmp_path} setup` once.\n")


def test_a_server_that_refuses_the_key_stops_no_other(tree):
    tree.roster("refuses", "here")
    code, lines = tree.call("*", "test.ping")
    assert code != 0
    assert sorted(lines) == ["    True", "    root@refuses: Permission denied (publickey).", "here:", "refuses:"]


def test_an_unknown_server(tree):
    # Salt itself would connect to this one, as it is no server of the roster.
    assert tree.call("localhost", "test.ping") == (1, ["No server of roster matches localhost. It has: here."])


def test_the_list_of_servers(tree):
    code, lines = tree.call("--hosts")
    assert code == 0 and "    here:" in lines


def test_a_top_file_that_cannot_be_decoded(tree):
    (tree.root / "pillar" / "top.sls").write_bytes(b"base:\n  '*':\n    - plasma # f\xfcr alle\n")
    assert tree.call("here", "test.ping") == (
        1,
        ["pillar/top.sls:3: the line is not UTF-8 (Latin-1, perhaps); save the file as UTF-8."],
    )


def test_a_file_of_pillar_that_cannot_be_read(tree):
    """The whole way: nothing of the file is on the terminal, in the log, in a cache or on the server."""
    text = f"plasma:\n  users:\n    - name: anna\n      password: {MARKER}\n    - name: ben\n      password: a: b\n"
    (tree.root / "pillar" / "plasma.sls").write_text(text, encoding="utf-8")
    assert tree.call("here", "state.apply") == (
        20,
        [
            "here:",
            "    - Pillar failed to render with the following messages:",
            "    - pillar/plasma.sls:6: password: a colon followed by a space, within a value; "
            "put the whole value in single quotes.",
        ],
    )
    (tree.root / "pillar" / "plasma.sls").unlink()
    left = [path for path in tree.root.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]
    assert left == []
