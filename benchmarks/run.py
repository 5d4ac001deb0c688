"""
The figures that the documentation quotes, measured in one run on one throwaway server: `make bench`.

Runs of what is compared alternate, so that a noisy machine disturbs both alike; medians are reported. Writes
benchmarks/results.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.report import machine, report
from tests.support.container import ContainerTarget
from tests.support.engine import ensure_engine
from tests.support.environment_image import environment_image
from tests.support.images import base_image
from tests.support.paths import REPOSITORY, state_dir
from tests.support.site import Site

RESULTS = pathlib.Path(__file__).with_name("results.json")
ENTRYPOINT = REPOSITORY / "plugin" / "src" / "tljh_plasma" / "entrypoint.sh"
PILLAR = {"hub": {"provider": "pypi"}, "docker": {"source": "distro"}, "utils": {"monitor": "none"}}
# Runs inside the container: the entrypoint, to the point where it would become the server.
TIME_ENTRYPOINT = """
import statistics, subprocess, time, json
times = []
for _ in range(%d):
    start = time.perf_counter()
    subprocess.run(["/bin/sh", "/entrypoint.sh", "/bin/true"], check=True, capture_output=True)
    times.append((time.perf_counter() - start) * 1000)
print(json.dumps(times))
"""


def timed(site: Site, *arguments: str) -> float:
    """Wall seconds of one salt-ssh call, which must succeed."""
    result = site.salt(*arguments)
    if result.returncode:
        raise SystemExit(f"salt-ssh {' '.join(arguments)} failed:\n{result.stdout}\n{result.stderr}")
    return result.seconds


def connections(site: Site, *arguments: str) -> int:
    """How many ssh and scp commands one salt-ssh call runs: its round trips."""
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "log")
        for name in ("ssh", "scp"):
            wrapper = pathlib.Path(folder, name)
            wrapper.write_text(f'#!/bin/sh\necho {name} >>{log}\nexec {shutil.which(name)} "$@"\n', encoding="utf-8")
            wrapper.chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        subprocess.run(site.command(*arguments), cwd=REPOSITORY, env=environment, check=True, capture_output=True)
        return len(log.read_text(encoding="utf-8").split())


def measure_site(rounds: int) -> dict:
    """First apply on a bare server, then no-op applies beside bare pings and a one-state apply."""
    target = ContainerTarget("bench", pip_cache=False)
    target.down()
    base_image()
    try:
        return _measure_site(target, rounds)
    finally:
        target.down()


def _measure_site(target: ContainerTarget, rounds: int) -> dict:
    started = time.monotonic()
    target.up()
    boot = time.monotonic() - started
    with tempfile.TemporaryDirectory() as folder:
        site = Site(target, pathlib.Path(folder), PILLAR)
        first_ping = timed(site, "test.ping")
        first = timed(site, "state.apply")
        calls = {
            "ping": ["test.ping"],
            "one_state": ["state.apply", "preflight"],
            "no_op_site": ["state.apply"],
        }
        series = {name: [] for name in calls}
        for _ in range(rounds):
            for name, arguments in calls.items():
                series[name].append(timed(site, *arguments))
        return {
            "boot_s": boot,
            "first_ping_s": first_ping,
            "first_apply_s": first,
            **{f"{name}_s": statistics.median(values) for name, values in series.items()},
            "no_op_over_ping": statistics.median(
                site_time / ping for site_time, ping in zip(series["no_op_site"], series["ping"], strict=True)
            ),
            "round_trips_no_op": connections(site, "state.apply"),
            "round_trips_ping": connections(site, "test.ping"),
        }


def measure_entrypoint(rounds: int, counts=(10, 100_000)) -> dict:
    """The container's entrypoint with few and with many files in the user's directory."""
    host = ensure_engine()
    image = environment_image()
    series = {count: [] for count in counts}
    home = pathlib.Path(tempfile.mkdtemp(prefix="plasma-bench-", dir=state_dir()))
    try:
        for count in counts:
            # One directory for each environment, as on a server.
            for number in range(count):
                folder = home / f"environment-{count}" / f"{number // 1000:03}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{number}.txt").touch()
        subprocess.run(["chown", "-R", "1234:1234", str(home)], check=True)
        for _ in range(5):
            for count in counts:
                series[count] += _entrypoint_times(host, image, home, f"environment-{count}", rounds)
    finally:
        shutil.rmtree(home)
    medians = {count: statistics.median(values) for count, values in series.items()}
    return {f"entrypoint_{count}_files_ms": value for count, value in medians.items()} | {
        "entrypoint_ratio": medians[counts[-1]] / medians[counts[0]]
    }


def _entrypoint_times(host, image, home, directory, rounds) -> list[float]:
    command = ["docker", "--host", host, "run", "--rm", "--user", "1234:1234", "--network", "none"]
    command += ["--volume", f"{home}:/home/ada", "--volume", f"{ENTRYPOINT}:/entrypoint.sh:ro"]
    for name, value in entrypoint_environment(directory).items():
        command += ["--env", f"{name}={value}"]
    command += ["--entrypoint", "/srv/conda/envs/notebook/bin/python3", image, "-c", TIME_ENTRYPOINT % rounds]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    # The first one copies the image's files, once in the life of the directory.
    return json.loads(done.stdout)[1:]


def entrypoint_environment(directory: str) -> dict[str, str]:
    """What the spawner hands to the entrypoint."""
    return {
        "HOME": "/home/ada",
        "PLASMA_ENVIRONMENT": directory,
        "PLASMA_DIR": directory,
        "PLASMA_IMAGE_ID": "sha256:bench",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of each timed call (default: %(default)s)")
    parser.add_argument("--only", choices=["site", "entrypoint"], help="measure only this")
    arguments = parser.parse_args()
    ensure_engine()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() and arguments.only else {}
    results |= machine()
    if arguments.only != "site":
        results |= measure_entrypoint(arguments.rounds)
    if arguments.only != "entrypoint":
        results |= measure_site(arguments.rounds)
    report(results, RESULTS, "Plasma on Salt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
