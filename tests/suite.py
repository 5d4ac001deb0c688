"""
The whole suite: several parts at a time, the one that takes longest first; at the end, where the time went.

    python -m tests.suite [--jobs=3] [--list] [PART...]

A part is a process with tests that share servers. What it prints comes line by line, with its name in front.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.paths import REPOSITORY

E2E = REPOSITORY / "tests" / "e2e"
PYTEST = (sys.executable, "-m", "pytest", "-p", "tests.timing")
# Servers start from a snapshot of the one that this deploys.
DEPLOYS = "e2e-deploy"
# Those files begin with servers on which there is nothing.
BARE = (
    "backup",
    "deploy",
    "interruptions",
    "kernel",
    "quotas",
    "quotas_kernel",
    "refusals",
    "setup",
    "upgrade",
    "users",
)
# Seconds, of those that take long; only the order hangs on it.
SECONDS = {
    DEPLOYS: 9999,
    "plugin": 2000,
    "next": 350,
    "unit": 300,
    "e2e-users": 600,
    "e2e-interruptions": 500,
    "e2e-environments": 500,
    "e2e-admins": 500,
    "e2e-upgrade": 500,
    "e2e-uninstall": 500,
    "e2e-status": 600,
    "e2e-faults": 500,
    "e2e-docs": 400,
    "e2e-environment_sources": 300,
    "e2e-teaching": 300,
    "e2e-fleet": 500,
    "e2e-domains": 400,
    "e2e-active_directory": 400,
}


@dataclass
class Part:
    """Tests that run one after another, in a process of their own."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    after: str = ""
    returncode: int | None = None
    wall: float = 0
    cpu: float = 0
    tests: dict[str, float] = field(default_factory=dict)
    setups: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it may take."""
        return SECONDS.get(self.name, 200)


def parts() -> list[Part]:
    """All parts, from the files that there are."""
    made = [Part(name, ["make", "--no-print-directory", name]) for name in ("lint", "docs")]
    made += [Part(name, [*PYTEST, f"tests/{name}"]) for name in ("unit", "render")]
    # Each has a network of its own on the engine, with a firewall of its own. Not at the same time: the environments of
    # a hub are all those of its engine.
    for name, after in (("plugin", ""), ("next", "plugin")):
        command = ["make", "--no-print-directory", f"test-{name}"]
        made.append(Part(name, command, {"PLASMA_TEST_NETWORK": f"p-{name}"}, after))
    for file in sorted(E2E.glob("test_*.py")):
        subject = file.stem.removeprefix("test_")
        after = "" if subject in BARE else DEPLOYS
        made.append(Part(f"e2e-{subject}", [*PYTEST, str(file.relative_to(REPOSITORY))], after=after))
    return sorted(made, key=lambda part: -part.seconds)


class Runner:
    """Runs parts, a few at a time."""

    def __init__(self, waiting: list[Part], directory: Path) -> None:
        self.waiting, self.running, self.directory = list(waiting), [], directory
        self.lock = threading.Condition(threading.RLock())

    def say(self, part: Part, text: str) -> None:
        with self.lock:
            print(f"[{part.name}] {text}", flush=True)

    def work(self) -> None:
        """Run one part after another until none is left."""
        while part := self.next():
            self.run(part)
            with self.lock:
                self.running.remove(part.name)
                self.lock.notify_all()

    def next(self) -> Part | None:
        """The first part that waits for nothing; None when there is none left."""
        with self.lock:
            while self.waiting:
                unfinished = {*self.running, *(part.name for part in self.waiting)}
                if part := next((part for part in self.waiting if part.after not in unfinished), None):
                    self.waiting.remove(part)
                    self.running.append(part.name)
                    return part
                self.lock.wait()
        return None

    def run(self, part: Part) -> None:
        times = self.directory / f"{part.name}.json"
        environment = {**os.environ, **part.environment, "PLASMA_TIMES": str(times)}
        started = time.monotonic()
        self.say(part, "begins")
        process = subprocess.Popen(
            part.command, cwd=REPOSITORY, env=environment, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        for line in process.stdout:
            if line.startswith(("FAILED ", "ERROR ")):
                part.failures.append(line.rstrip())
            self.say(part, line.rstrip())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = part.returncode = os.waitstatus_to_exitcode(status)
        part.wall, part.cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
        if times.exists():
            found = json.loads(times.read_text(encoding="utf-8"))
            part.tests, part.setups = found["tests"], found["setups"]
        self.say(part, f"ends after {minutes(part.wall)}, exit code {part.returncode}")


def minutes(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def table(done: list[Part], wall: float) -> list[str]:
    """Where the time went: by part, by file, by test."""
    lines = ["", f"{'part':<16} {'wall':>7} {'cpu here':>8} {'tests':>6}"]
    for part in sorted(done, key=lambda part: -part.wall):
        lines.append(f"{part.name:<16} {minutes(part.wall):>7} {minutes(part.cpu):>8} {len(part.tests) or '':>6}")
    lines.append(f"{'together':<16} {minutes(wall):>7}")
    files, numbers, setups = Counter(), Counter(), Counter()
    for part in done:
        for test, seconds in part.tests.items():
            file = test.partition("::")[0]
            files[file] += seconds
            numbers[file] += 1
            setups[file] += part.setups.get(test, 0)
    lines += ["", f"{'file':<52} {'wall':>7} {'setup':>7} {'tests':>6}"]
    for file, seconds in files.most_common(40):
        lines.append(f"{file:<52} {minutes(seconds):>7} {minutes(setups[file]):>7} {numbers[file]:>6}")
    lines += ["", "seconds  test"]
    tests = Counter({test: seconds for part in done for test, seconds in part.tests.items()})
    lines += [f"{seconds:7.1f}  {test}" for test, seconds in tests.most_common(25)]
    return lines


def main(argv: list[str] | None = None) -> int:
    """Run the parts that were asked for; returns how many of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.suite", description="The whole suite, or parts of it.")
    parser.add_argument("--jobs", type=int, default=3, help="how many parts run at the same time")
    parser.add_argument("--list", action="store_true", help="print the names of the parts")
    parser.add_argument("part", nargs="*", help="names of parts")
    arguments = parser.parse_args(argv)
    known = parts()
    if unknown := set(arguments.part) - {part.name for part in known}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    chosen = [part for part in known if not arguments.part or part.name in arguments.part]
    if arguments.list:
        print("\n".join(part.name for part in chosen))
        return 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="plasma-times-") as directory:
        runner = Runner(chosen, Path(directory))
        workers = [threading.Thread(target=runner.work) for _ in range(arguments.jobs)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    print("\n".join(table(chosen, time.monotonic() - started)))
    failed = [part for part in chosen if part.returncode]
    for part in failed:
        print(f"\n{part.name} failed (exit code {part.returncode})", *part.failures, sep="\n  ")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
