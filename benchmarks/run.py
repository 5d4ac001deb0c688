"""
The figures that the documentation quotes, measured in one run on one throwaway server: `make bench`.

Runs of what is compared alternate, so that a noisy machine disturbs both alike; medians are reported. Writes
benchmarks/results.json and prints it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time

from benchmarks import alternating, load, machine, median_ratio, medians, report
from benchmarks.servers import PILLAR, connections, throwaway, timed
from tests.support.container import ContainerTarget
from tests.support.engine import ensure_engine
from tests.support.environment_image import environment_image
from tests.support.images import base_image
from tests.support.paths import REPOSITORY
from tests.support.site import Site

ENTRYPOINT = REPOSITORY / "plugin" / "src" / "tljh_plasma" / "entrypoint.sh"
# Runs inside the container: makes files in a home, then runs the entrypoint to where it would become the server. The
# first run does not count: it copies the image's files, once in the life of the directory.
TIME_ENTRYPOINT = """
import json, os, pathlib, subprocess, sys, time
folder, count, rounds = pathlib.Path.home() / os.environ["PLASMA_DIR"], int(sys.argv[1]), int(sys.argv[2])
for number in range(count):
    (folder / f"{number // 1000:03}").mkdir(parents=True, exist_ok=True)
    (folder / f"{number // 1000:03}" / f"{number}.txt").touch()
times = []
for _ in range(rounds):
    start = time.perf_counter()
    subprocess.run(["/bin/sh", "/entrypoint.sh", "/bin/true"], check=True, capture_output=True)
    times.append((time.perf_counter() - start) * 1000)
print(json.dumps(times[1:]))
"""


def measure_site(rounds: int) -> dict[str, float]:
    """First apply on a bare server, then no-op applies beside bare pings and a one-state apply."""
    base_image()
    target = ContainerTarget("bench", pip_cache=False)
    started = time.monotonic()
    with throwaway(target) as folder:
        boot = time.monotonic() - started
        site = Site(target, folder, PILLAR)
        first = {"first_ping_s": timed(site, "test.ping"), "first_apply_s": timed(site, "state.apply")}
        calls = {
            "ping": lambda: timed(site, "test.ping"),
            "one_state": lambda: timed(site, "state.apply", "preflight"),
            "no_op_site": lambda: timed(site, "state.apply"),
        }
        series = alternating(calls, rounds)
        return {
            "boot_s": boot,
            **first,
            **medians(series),
            "no_op_over_ping": median_ratio(series["no_op_site"], series["ping"]),
            "round_trips_no_op": connections(site, "state.apply"),
            "round_trips_ping": connections(site, "test.ping"),
        }


def measure_entrypoint(rounds: int, few: int = 10, many: int = 100_000) -> dict[str, float]:
    """The container's entrypoint with few and with many files in the user's directory."""
    host, image = ensure_engine(), environment_image()
    series: dict[int, list[float]] = {few: [], many: []}
    for _ in range(5):
        for count, times in series.items():
            times += _entrypoint_times(host, image, count, rounds)
    found = medians({f"entrypoint_{count}_files": times for count, times in series.items()}, unit="ms")
    ratio = found[f"entrypoint_{many}_files_ms"] / found[f"entrypoint_{few}_files_ms"]
    return found | {"entrypoint_ratio": ratio}


def _entrypoint_times(host: str, image: str, files: int, rounds: int) -> list[float]:
    """Milliseconds of each start of the entrypoint in one container, in the environment that the spawner makes."""
    command = ["docker", "--host", host, "run", "--rm", "--user", "1234:1234", "--network", "none"]
    command += ["--tmpfs", "/home/ada:uid=1234,gid=1234", "--volume", f"{ENTRYPOINT}:/entrypoint.sh:ro"]
    command += ["--env", "HOME=/home/ada", "--env", "PLASMA_ENVIRONMENT=course", "--env", "PLASMA_DIR=course"]
    command += ["--env", "PLASMA_IMAGE_ID=sha256:bench", "--entrypoint", "/srv/conda/envs/notebook/bin/python3"]
    command += [image, "-c", TIME_ENTRYPOINT, str(files), str(rounds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of each timed call (default: %(default)s)")
    parser.add_argument("--only", choices=["site", "entrypoint"], help="measure only this")
    arguments = parser.parse_args()
    results = {**(load("results.json") if arguments.only else {}), **machine()}
    if arguments.only != "site":
        results |= measure_entrypoint(arguments.rounds)
    if arguments.only != "entrypoint":
        results |= measure_site(arguments.rounds)
    report(results, "results.json")


if __name__ == "__main__":
    main()
