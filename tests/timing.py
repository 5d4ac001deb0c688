"""A plugin of pytest: where a run's time went, for the table at the end of ``make test`` (tests.suite)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path


class Clock:
    """Adds up seconds by test, and writes them to a file when the run ends."""

    def __init__(self, file: Path) -> None:
        self.file, self.started, self.seconds, self.setups = file, time.time(), {}, {}

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.when == "setup":
            self.setups[report.nodeid] = report.duration

    def pytest_sessionfinish(self) -> None:
        wall = time.time() - self.started
        self.file.write_text(json.dumps({"wall": wall, "tests": self.seconds, "setups": self.setups}), encoding="utf-8")


def pytest_configure(config) -> None:
    """PLASMA_TIMES: the file."""
    if file := os.environ.get("PLASMA_TIMES"):
        config.pluginmanager.register(Clock(Path(file)))
