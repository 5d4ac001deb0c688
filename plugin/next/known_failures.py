"""Plugin of pytest for the tests on the next JupyterHub: what is known to fail there must fail, all else must pass.

known-failures.txt names the tests that fail and says why. They count as expected failures, and as errors once they
work, so that the list stays true. After a run of all tests report.md says what does not work yet.

    PYTHONPATH=plugin/next python -m pytest -p known_failures plugin/tests
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KNOWN = HERE / "known-failures.txt"
REPORT = HERE / "report.md"
TESTS = "plugin/tests/"
LINE = re.compile(r"(?P<test>\S.*?)  +# *(?P<reason>\S.*)")


def read(path: Path) -> dict[str, str]:
    """Return the reasons by test.

    Args:
        path: file with lines "test_file.py::test_name[parameters]  # reason"; other comments begin a line.

    Raises:
        pytest.UsageError: a line is not like that, or a test is named twice.
    """
    known: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        found = LINE.fullmatch(line)
        if not found or found["test"] in known:
            raise pytest.UsageError(f"{path.name}, line {number}: write 'test_file.py::test_name  # reason', once.")
        known[found["test"]] = found["reason"]
    return known


def name_of(nodeid: str) -> str:
    """Return how the list names a test: parameters as they are shown in reports."""
    return nodeid.removeprefix(TESTS)


class KnownFailures:
    """Marks what is known, and notes what came of it.

    Args:
        known: reasons by test.
        report: file for the report.
    """

    def __init__(self, known: dict[str, str], report: Path) -> None:
        self.known = known
        self.report = report
        self.whole = False
        self.failed: set[str] = set()
        self.worked: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Mark the tests that are known to fail.

        Raises:
            pytest.UsageError: the list names tests that do not exist.
        """
        # Before others deselect.
        names = {name_of(item.nodeid) for item in items}
        files = {name.partition("::")[0] for name in names}
        if not any("::" in argument for argument in config.args):
            lost = [test for test in self.known if test.partition("::")[0] in files and test not in names]
            if lost:
                raise pytest.UsageError(f"{KNOWN.name} names tests that do not exist: {', '.join(lost)}")
        here = {path.name for path in (HERE.parent / "tests").glob("test_*.py")}
        self.whole = files == here and not config.option.keyword and not config.option.markexpr
        for item in items:
            reason = self.known.get(name_of(item.nodeid))
            if reason:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a test went."""
        name = name_of(report.nodeid)
        if report.failed:
            # How pytest says that a test worked which was to fail.
            works = str(report.longrepr).startswith("[XPASS(strict)]")
            (self.worked if works else self.failed).add(name)

    def pytest_sessionfinish(self) -> None:
        """Write the report after a run of all tests."""
        if self.whole:
            self.report.write_text(self.text(), encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what to do about what was not expected."""
        if self.failed:
            terminalreporter.write_line(
                f"{len(self.failed)} tests fail on JupyterHub {release()} that are not in {KNOWN.name}: "
                "mend the plugin, or name them there with the reason."
            )
        if self.worked:
            terminalreporter.write_line(f"These work now, so take them out of {KNOWN.name}: {', '.join(self.worked)}")

    def text(self) -> str:
        """Return the report, which names no figures of a single run."""
        lines = [
            f"# The plugin on JupyterHub {release()}",
            "",
            "Written by `make test-plugin-next`, which runs all tests of the plugin there.",
            "",
        ]
        rows = [(test, self.known[test]) for test in sorted(self.known) if test not in self.worked]
        rows += [(test, "not known yet") for test in sorted(self.failed)]
        if rows:
            lines += ["| what does not work yet | why |", "|---|---|"]
            for test, reason in rows:
                lines.append(f"| `{cell(test)}` | {cell(reason)} |")
        else:
            lines.append("Everything that the tests ask for works.")
        return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Return text for a table, where a bar would begin another column."""
    return text.replace("|", "\\|")


def release() -> str:
    """Return the release of JupyterHub that is tested."""
    from jupyterhub import __version__

    return __version__


def pytest_configure(config: pytest.Config) -> None:
    """Start with the list of this directory."""
    config.pluginmanager.register(KnownFailures(read(KNOWN), REPORT), "plasma-known-failures")
