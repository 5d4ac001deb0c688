"""The list of what is known to fail on the next JupyterHub: it excuses what it names, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_package import normal, versions, wanted

ROOT = Path(__file__).resolve().parents[2]
NEXT = ROOT / "plugin" / "next"
TESTS = """
import pytest

@pytest.mark.parametrize("value", ["1", "a#b", "c d"])
def test_equal(value):
    assert value == "1"

def test_fails():
    assert False

@pytest.fixture
def broken():
    raise RuntimeError

def test_without_its_fixture(broken):
    pass
"""
RUN = """
import sys
from pathlib import Path
import pytest
from known_failures import KnownFailures, read
directory = Path(sys.argv[1])
plugin = KnownFailures(read(directory / "known.txt"), directory / "report.md")
code = pytest.main(["-q", "-p", "no:cacheprovider", str(directory / "test_them.py")], plugins=[plugin])
print(plugin.text())
sys.exit(code)
"""
ALL = """\
# A comment.
test_them.py::test_equal[a#b]  # the hash
test_them.py::test_equal[c d]  # the space | the bar
test_them.py::test_fails  # never works
test_them.py::test_without_its_fixture  # has no fixture
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "test_them.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def call(known: str) -> subprocess.CompletedProcess:
        (tmp_path / "known.txt").write_text(known)
        return subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path)],
            cwd=tmp_path,
            env={"PYTHONPATH": str(NEXT), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return call


def test_known_failures_are_no_errors(run):
    done = run(ALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 4 xfailed" in done.stdout
    assert "| what does not work yet | why |" in done.stdout
    assert "| `test_them.py::test_equal[c d]` | the space \\| the bar |" in done.stdout


def test_another_failure_is_an_error(run):
    done = run(ALL.replace("test_them.py::test_fails", "# test_them.py::test_fails"))
    assert done.returncode == 1
    assert "1 failed, 1 passed, 3 xfailed" in done.stdout
    assert "1 tests fail on JupyterHub" in done.stdout
    assert "| `test_them.py::test_fails` | not known yet |" in done.stdout


def test_what_works_again_is_an_error(run):
    done = run(f"{ALL}test_them.py::test_equal[1]  # did not work\n")
    assert done.returncode == 1
    assert "These work now" in done.stdout
    assert "test_them.py::test_equal[1]" in done.stdout
    assert "| `test_them.py::test_equal[1]` |" not in done.stdout


def test_the_list_names_tests_that_there_are(run):
    done = run(f"{ALL}test_them.py::test_gone  # was here once\n")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "names tests that do not exist: test_them.py::test_gone" in done.stdout + done.stderr


@pytest.mark.parametrize("line", ["test_them.py::test_fails", "test_them.py::test_fails #", ALL.splitlines()[1]])
def test_the_list_gives_a_reason_once(run, line):
    done = run(f"{ALL}{line}\n")
    assert done.returncode != 0
    assert "line 6: write 'test_file.py::test_name  # reason', once." in done.stderr


def test_the_list_of_this_repository_can_be_read():
    sys.path.insert(0, str(NEXT))
    try:
        from known_failures import KNOWN, read
    finally:
        sys.path.remove(str(NEXT))
    for test, reason in read(KNOWN).items():
        assert (ROOT / "plugin" / "tests" / test.partition("::")[0]).exists(), test
        assert len(reason) > 10


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_its_environment_differs_from_that_of_servers_in_jupyterhub_alone(python):
    servers, tests = versions("requirements.txt", python), versions("tests/requirements.txt", python)
    there = versions("next/requirements.txt", python)
    (override,) = (
        Requirement(line) for line in (NEXT / "overrides.txt").read_text().splitlines() if not line.startswith("#")
    )
    assert override.name == "jupyterhub"
    assert override.specifier.contains(there["jupyterhub"])
    assert not override.specifier.contains(servers["jupyterhub"])
    assert {name: there[name] for name in servers if name != "jupyterhub"} == {
        name: version for name, version in servers.items() if name != "jupyterhub"
    }
    assert set(tests) <= set(there)
    # Nothing but the plugin itself refuses it.
    refusing = [one.name for one in wanted() if not one.specifier.contains(there[normal(one.name)])]
    assert refusing == ["jupyterhub"]


def test_its_lock_has_a_hash_for_every_line_and_names_no_index():
    text = (NEXT / "requirements.txt").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) > 50
    assert all("--hash=sha256:" in line for line in lines)
    assert "://" not in text
