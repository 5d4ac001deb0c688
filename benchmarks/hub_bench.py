"""The hub that the figures of `make bench-hub` are taken on, and what is made for them and removed again."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docker

from tests.support import engine
from tests.support.environment_image import environment_image
from tests.support.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "plugin" / "tests"))

from support_accounts import Accounts, Person
from support_hub import Hub

IMAGE = "plasmat-bench:1"
MEMORY = "512M"
CPUS = "1"
NETWORK = "plasmat-bench"
# Less to write than in tests: a server's log is not a debugger's either.
QUIET = "c.JupyterHub.log_level = 20\n"


class Bench:
    """A hub with real accounts and a real engine.

    Attributes:
        hub: the hub, as the tests start it.
        client: a client of the Docker engine.
        docker_host: the engine's address.
        admin: the administrator.
    """

    def __init__(self, accounts: Accounts, directory: Path, docker_host: str) -> None:
        self.accounts = accounts
        self.docker_host = docker_host
        self.client = docker.DockerClient(base_url=docker_host, version="auto")
        self.admin = accounts.add("benchadmin")
        self.hub = Hub(directory, self.admin.name, {"network": {"name": NETWORK}, "shared_data": ""})
        extra = directory / "config" / "jupyterhub_config.d" / "tests.py"
        extra.write_text(extra.read_text() + QUIET)
        self._images = [IMAGE]

    def people(self, count: int) -> list[Person]:
        """Make accounts.

        Args:
            count: how many.
        """
        return [self.accounts.add("bench") for _ in range(count)]

    def environments(self, count: int) -> None:
        """Make images that are environments, all from the same one.

        Args:
            count: how many.
        """
        for number in range(count):
            tag = f"plasmat-bench-{number:03}:{number:07x}"
            labels = {
                "repo2docker.ref": tag.partition(":")[2],
                "repo2docker.repo": f"https://example.org/courses/{number:03}",
                "tljh_repo2docker.image_name": tag,
                "tljh_repo2docker.display_name": f"Course {number:03}",
                "tljh_repo2docker.mem_limit": MEMORY,
                "tljh_repo2docker.cpu_limit": CPUS,
            }
            self._images.append(tag)
            self.client.images.build(fileobj=io.BytesIO(f"FROM {IMAGE}\n".encode()), tag=tag, labels=labels, rm=True)

    def clean_up(self) -> None:
        """Remove containers, images and network."""
        from tljh_plasma import firewall

        self.hub.remove_containers(self.client)
        for container in self.client.containers.list(all=True, filters={"network": NETWORK}):
            container.remove(force=True)
        for tag in self._images:
            with contextlib.suppress(docker.errors.ImageNotFound):
                self.client.images.remove(tag, force=True)
        for network in self.client.networks.list(names=[NETWORK]):
            firewall.remove(self.client.api.inspect_network(network.id))
            network.remove()
        self.client.close()


@contextlib.contextmanager
def running() -> Iterator[Bench]:
    """Start a hub; what was made for it is gone afterwards, but for layers of the image that the tests have too."""
    host = engine.ensure_engine()
    os.environ["DOCKER_HOST"] = host
    environment_image(IMAGE, mem_limit=MEMORY, cpu_limit=CPUS)
    accounts = Accounts()
    directory = Path(tempfile.mkdtemp(prefix="plasma-bench-"))
    bench = None
    try:
        bench = Bench(accounts, directory, host)
        bench.hub.start()
        yield bench
    finally:
        if bench is not None:
            bench.hub.stop()
            bench.clean_up()
        accounts.remove_all()
        shutil.rmtree(directory)


def machine(client: docker.DockerClient) -> dict[str, Any]:
    """Return what the figures were taken on."""
    import jupyterhub

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    return {
        "cpu": (names or [platform.machine()])[0],
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "kernel": platform.release(),
        "docker": client.version()["Version"],
        "python": platform.python_version(),
        "jupyterhub": jupyterhub.__version__,
        "image": f"{IMAGE}, limits {MEMORY} and {CPUS} CPU",
        "load_before": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
    }


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, 95th percentile, least and most of some values, and their number."""
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "min": ordered[0],
        "max": ordered[-1],
        "n": len(ordered),
    }
