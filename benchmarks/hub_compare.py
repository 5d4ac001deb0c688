"""From the login to JupyterLab through the hub, beside `docker run` of the same image without one."""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import requests

from benchmarks import summary
from benchmarks.hub_bench import CPUS, IMAGE, MEMORY, NETWORK, Bench, Person, log_in, open_lab, start_server
from tests.support.engine import docker
from tests.support.shell import wait_for


def docker_time(text: str) -> float:
    """A time as Docker writes it as seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def through_hub(bench: Bench, person: Person) -> dict[str, float]:
    """Log in, start a server, open JupyterLab; returns the seconds of each part, and of all."""
    begin = time.time()
    session = log_in(bench.hub, person)
    logged_in = time.time()
    steps = start_server(bench.hub, person.name)
    ready = time.time()
    pages = open_lab(bench.hub, session, person.name)
    end = time.time()
    container = bench.client.containers.list(filters={"label": f"org.plasma.user={person.name}"})[0]
    # Of the list alone, without these times.
    container.reload()
    created = docker_time(container.attrs["Created"])
    started = docker_time(container.attrs["State"]["StartedAt"])
    # The times of earlier steps are the engine's.
    answers = next(when for when, step in steps if step["progress"] == 90)
    bench.hub.stop_server(person.name)
    return {
        "total": end - begin,
        "login (form, PAM, list of environments)": logged_in - begin,
        "checks, until there is a container": created - steps[0][0],
        "container starts": started - created,
        "JupyterLab boots": answers - started,
        "hub notices, proxy has the route": ready - answers,
        "JupyterLab's page (OAuth)": pages["lab"],
        "JupyterLab's API": pages["status"],
    }


def listens(address: str) -> bool:
    try:
        socket.create_connection((address, 8888), timeout=1).close()
    except OSError:
        return False
    return True


def bare(bench: Bench, person: Person) -> dict[str, float]:
    """Run JupyterLab in a container without a hub; returns the seconds of each part, and of all."""
    limits = [f"--memory={MEMORY}", f"--memory-swap={MEMORY}", f"--cpus={CPUS}", "--pids-limit=1024", "--init"]
    rights = ["--cap-drop=ALL", "--security-opt=no-new-privileges", f"--network={NETWORK}"]
    home = [f"--user={person.uid}:{person.gid}", f"--volume={person.home}:{person.home}", f"--workdir={person.home}"]
    server = ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--IdentityProvider.token="]
    begin = time.time()
    options = ["--detach", *limits, *rights, *home, f"--env=HOME={person.home}"]
    container = docker("run", *options, IMAGE, *server).stdout.strip()
    running = time.time()
    try:
        attributes = json.loads(docker("inspect", container).stdout)[0]
        address = attributes["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]
        log = lambda: docker("logs", "--tail", "20", container).stderr  # noqa: E731
        wait_for(lambda: listens(address), timeout=120, interval=0.02, what="JupyterLab without a hub", details=log)
        answered = time.time()
        with requests.Session() as session:
            session.trust_env = False
            for path in ("lab", "api/status"):
                session.get(f"http://{address}:8888/{path}", timeout=60).raise_for_status()
        end = time.time()
    finally:
        docker("rm", "--force", container)
    return {
        "total": end - begin,
        "until the port answers": answered - begin,
        "docker run": running - begin,
        "JupyterLab boots": answered - docker_time(attributes["State"]["StartedAt"]),
        "JupyterLab's page and API": end - answered,
    }


def compare(bench: Bench, pairs: int) -> dict[str, Any]:
    """So many pairs of both, alternating, after one of each that does not count."""
    person = bench.people(1)[0]
    ways: dict[str, Callable[[Bench, Person], dict[str, float]]] = {"hub": through_hub, "bare": bare}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(pairs + 1):
        # Each of them comes first in every other pair.
        for name in sorted(ways, reverse=bool(number % 2)):
            runs[name].append(ways[name](bench, person))
    hub, alone = runs["hub"][1:], runs["bare"][1:]
    added = [one["total"] - other["total"] for one, other in zip(hub, alone, strict=True)]
    return {
        "pairs": pairs,
        "hub_s": {part: summary([run[part] for run in hub]) for part in hub[0]},
        "bare_s": {part: summary([run[part] for run in alone]) for part in alone[0]},
        "added_s": {**summary(added), "runs": [round(value, 3) for value in added]},
        "added_median_s": statistics.median(added),
    }
