"""From the login to JupyterLab through the hub, beside `docker run` of the same image without one."""

from __future__ import annotations

import calendar
import json
import socket
import statistics
import subprocess
import time
from typing import Any

import requests
from support_accounts import Person
from support_hub import wait_until

from .hub_bench import CPUS, IMAGE, MEMORY, NETWORK, Bench, summary
from .hub_browser import Browser

BARE = "plasmat-bench-bare"
POLL = 0.02


def docker_time(text: str) -> float:
    """Return a time as Docker writes it as seconds since 1970."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction or 0}")


def through_hub(bench: Bench, person: Person) -> dict[str, float]:
    """Log in, start a server, open JupyterLab; returns the seconds of each part, and of all."""
    browser = Browser(bench.hub, person)
    begin = time.time()
    form = browser.login()
    steps = browser.start(IMAGE)
    ready = time.time()
    pages = browser.open()
    end = time.time()
    container = bench.client.containers.list(filters={"label": f"org.plasma.user={person.name}"})[0]
    # Of the list alone, without these times.
    container.reload()
    created = docker_time(container.attrs["Created"])
    started = docker_time(container.attrs["State"]["StartedAt"])
    clicked = steps[0][0]
    # The page that shows the steps is there a second after the click: the times of earlier ones are the engine's.
    answers = next(when for when, step in steps if step["progress"] == 90)
    browser.stop()
    return {
        "total": end - begin,
        "login form": form["form"],
        "login (PAM, list of environments)": form["login"],
        "checks, until there is a container": created - clicked,
        "container starts": started - created,
        "JupyterLab boots": answers - started,
        "hub notices, proxy has the route": ready - answers,
        "JupyterLab's page (OAuth)": pages["lab"],
        "JupyterLab's API": pages["status"],
    }


def bare(bench: Bench, person: Person) -> dict[str, float]:
    """Run JupyterLab in a container without a hub; returns the seconds of each part, and of all."""
    docker = ["docker", "--host", bench.docker_host]
    name = f"{BARE}-{person.name}"
    limits = ["--memory", MEMORY, "--memory-swap", MEMORY, "--cpus", CPUS, "--pids-limit", "1024"]
    rights = ["--init", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", NETWORK]
    home = ["--user", f"{person.uid}:{person.gid}", "--volume", f"{person.home}:{person.home}"]
    place = ["--env", f"HOME={person.home}", "--workdir", str(person.home)]
    server = ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--IdentityProvider.token="]
    begin = time.time()
    subprocess.run(
        [*docker, "run", "--detach", "--name", name, *limits, *rights, *home, *place, IMAGE, *server],
        check=True,
        capture_output=True,
    )
    running = time.time()
    inspected = json.loads(subprocess.run([*docker, "inspect", name], check=True, capture_output=True).stdout)[0]
    address = inspected["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]

    def answers() -> bool:
        try:
            socket.create_connection((address, 8888), timeout=1).close()
        except OSError:
            return False
        return True

    try:
        wait_until(answers, 120, "JupyterLab without a hub", interval=POLL)
    except AssertionError as error:
        logs = subprocess.run([*docker, "logs", "--tail", "20", name], capture_output=True, text=True, check=False)
        raise RuntimeError(f"{error}; its log:\n{logs.stdout}{logs.stderr}") from error
    answered = time.time()
    with requests.Session() as session:
        session.trust_env = False
        for path in ("lab", "api/status"):
            session.get(f"http://{address}:8888/{path}", timeout=60).raise_for_status()
    end = time.time()
    subprocess.run([*docker, "rm", "--force", name], check=True, capture_output=True)
    return {
        "total": end - begin,
        "until the port answers": answered - begin,
        "docker run": running - begin,
        "JupyterLab boots": answered - docker_time(inspected["State"]["StartedAt"]),
        "JupyterLab's page and API": end - answered,
    }


def compare(bench: Bench, pairs: int) -> dict[str, Any]:
    """Both, alternating, after one of each that does not count.

    Args:
        pairs: how many.
    """
    person = bench.people(1)[0]
    both = {"hub": through_hub, "bare": bare}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in both}
    for number in range(pairs + 1):
        # Each of them comes first in every other pair.
        for name in sorted(both, reverse=bool(number % 2)):
            parts = both[name](bench, person)
            if number:
                taken[name].append(parts)
    added = [hub["total"] - alone["total"] for hub, alone in zip(taken["hub"], taken["bare"], strict=True)]
    return {
        "pairs": pairs,
        "hub_s": {part: summary([run[part] for run in taken["hub"]]) for part in taken["hub"][0]},
        "bare_s": {part: summary([run[part] for run in taken["bare"]]) for part in taken["bare"][0]},
        "added_s": {**summary(added), "runs": [round(value, 3) for value in added]},
        "added_median_s": statistics.median(added),
    }
