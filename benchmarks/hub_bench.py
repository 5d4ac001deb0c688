"""The hub that the figures of `make bench-hub` are taken on, and the people who use it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import jupyterhub
import requests
from tljh_plasma import firewall

from benchmarks import machine, summary
from tests.support import engine
from tests.support.environment_image import environment_image
from tests.support.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "plugin" / "tests"))

from support_accounts import Accounts, Person
from support_hub import TOKEN_HEADER, Hub

IMAGE = "plasmat-bench:1"
MEMORY = "512M"
CPUS = "1"
NETWORK = "plasmat-bench"
# Seconds between two requests that measure the hub's latency.
EVERY = 0.2


class Bench:
    """
    A hub with real accounts and a real engine.

    hub
        The hub, as the tests start it.
    client
        A client of the Docker engine.
    admin
        The administrator.
    """

    def __init__(self, accounts: Accounts, directory: Path, docker_host: str) -> None:
        self.accounts = accounts
        self.client = docker.DockerClient(base_url=docker_host, version="auto")
        self.admin = accounts.add("benchadmin")
        self.hub = Hub(directory, self.admin.name, {"network": {"name": NETWORK}, "shared_data": ""})
        extra = directory / "config" / "jupyterhub_config.d" / "tests.py"
        # Less to write than in tests: a server's log is not a debugger's either.
        extra.write_text(extra.read_text() + "c.JupyterHub.log_level = 20\n")
        self._images = [IMAGE]

    def people(self, count: int) -> list[Person]:
        """Make so many accounts."""
        return [self.accounts.add("bench") for _ in range(count)]

    def environments(self, count: int) -> None:
        """Make so many images that are environments, all from the same one."""
        for number in range(count):
            self._images.append(environment_image(f"plasmat-bench-{number:03}:1", MEMORY, CPUS))

    def clean_up(self) -> None:
        """Remove containers, images and network."""
        for container in self.client.containers.list(all=True, filters={"network": NETWORK}):
            container.remove(force=True)
        for tag in self._images:
            with contextlib.suppress(docker.errors.ImageNotFound):
                self.client.images.remove(tag, force=True)
        for network in self.client.networks.list(names=[NETWORK]):
            firewall.remove(self.client.api.inspect_network(network.id))
            network.remove()
        self.client.close()

    def about(self) -> dict[str, Any]:
        """What the figures are taken on."""
        return {
            **machine(),
            "docker": self.client.version()["Version"],
            "jupyterhub": jupyterhub.__version__,
            "image": f"{IMAGE}, limits {MEMORY} and {CPUS} CPU",
            "load_before": round(os.getloadavg()[0], 2),
        }


@contextlib.contextmanager
def running() -> Generator[Bench]:
    """Start a hub; what was made for it is gone afterwards, but for layers of the image that the tests have too."""
    host = os.environ["DOCKER_HOST"] = engine.ensure_engine()
    environment_image(IMAGE, MEMORY, CPUS)
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="plasma-bench-"))
        stack.callback(shutil.rmtree, directory)
        accounts = Accounts()
        stack.callback(accounts.remove_all)
        bench = Bench(accounts, directory, host)
        stack.callback(bench.clean_up)
        stack.callback(bench.hub.stop)
        bench.hub.start()
        yield bench


def log_in(hub: Hub, person: Person) -> requests.Session:
    """Log in through the form; the session of somebody who has the list of environments before them."""
    session, page = hub.login(person.name, person.password)
    if page.url != f"{hub.url}/hub/spawn":
        raise RuntimeError(f"{person.name} did not arrive at the list of environments but at {page.url}")
    return session


def start_server(hub: Hub, name: str) -> list[tuple[float, dict[str, Any]]]:
    """
    Start a server of the image as its person and follow its progress, as the page that waits does.

    Returns the steps with their times (`time.time()`); the last one says "ready".
    """
    headers = {TOKEN_HEADER: f"token {hub.user_token(name)}"}
    steps: list[tuple[float, dict[str, Any]]] = [(time.time(), {"progress": 0, "message": "asked for"})]
    hub.api("POST", f"/users/{name}/server", json={"image": IMAGE}, headers=headers).raise_for_status()
    with hub.api("GET", f"/users/{name}/server/progress", headers=headers, stream=True) as events:
        data = (line[5:] for line in events.iter_lines(chunk_size=1) if line.startswith(b"data:"))
        for event in map(json.loads, data):
            steps.append((time.time(), event))
            if event.get("ready"):
                return steps
    raise RuntimeError(f"the server of {name} did not become ready: {steps[-1][1]['message']}")


def open_lab(hub: Hub, session: requests.Session, name: str) -> dict[str, float]:
    """Open JupyterLab, then ask its API; returns the seconds of each."""
    begin = time.perf_counter()
    page = session.get(f"{hub.url}/user/{name}/lab", timeout=60)
    if page.status_code != 200 or not page.url.startswith(f"{hub.url}/user/{name}/lab"):
        raise RuntimeError(f"{page.url} answers {page.status_code} in place of JupyterLab")
    loaded = time.perf_counter()
    session.get(f"{hub.url}/user/{name}/api/status", timeout=60).raise_for_status()
    return {"lab": loaded - begin, "status": time.perf_counter() - loaded}


def repeated(call: Callable[[], requests.Response], times: int) -> dict[str, float]:
    """How long a request takes that must succeed, in milliseconds; the first one does not count."""
    taken = []
    for _ in range(times + 1):
        begin = time.perf_counter()
        call().raise_for_status()
        taken.append((time.perf_counter() - begin) * 1000)
    return summary(taken[1:])


class Latency:
    """How long the hub takes for a trifle, again and again, while a block runs (one or more)."""

    def __init__(self, hub: Hub) -> None:
        self._addresses = {"GET /hub/api/": f"{hub.url}/hub/api/", "login page": f"{hub.url}/hub/login"}
        # Seconds of each request, and whether it succeeded.
        self._samples: dict[str, list[tuple[float, bool]]] = {name: [] for name in self._addresses}

    @contextlib.contextmanager
    def measured(self) -> Generator[None]:
        stop = threading.Event()
        with ThreadPoolExecutor() as pool:
            for name in self._addresses:
                pool.submit(self._sample, name, stop)
            try:
                yield
            finally:
                stop.set()

    def _sample(self, name: str, stop: threading.Event) -> None:
        while not stop.wait(EVERY):
            begin = time.perf_counter()
            # Everybody who comes to the login page comes for the first time: there are no cookies.
            try:
                succeeded = requests.get(self._addresses[name], timeout=30).ok
            except requests.RequestException:
                succeeded = False
            self._samples[name].append((time.perf_counter() - begin, succeeded))

    def results(self) -> dict[str, dict[str, float]]:
        """The latencies in milliseconds, with the number of failures, by the name of the figure."""
        return {
            name: {
                **summary([seconds * 1000 for seconds, _ in samples]),
                "errors": sum(not succeeded for _, succeeded in samples),
            }
            for name, samples in self._samples.items()
        }
