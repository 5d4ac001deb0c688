"""The hub for development: its settings, its proxy, its process, and what it leaves in the engine."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import docker
from tljh_plasma import config_file, firewall
from tljh_plasma.builds.container import LABEL_UID as BUILD_LABEL

from .options import DevError, Options, free_ports
from .processes import Child, kill_orphans

HERE = Path(__file__).parent
START_TIMEOUT = 90
CONFIG = """\
# The hub of `make dev`, as config.yaml of a server (plugin/README.md). Changes count when the hub starts again, which
# it does when this file is saved. `make dev` itself sets http, traefik_api, plasma.network and plasma.service_port.
"""


class Hub:
    """Proxy and hub as processes of ours.

    Args:
        options: what to run.
        docker_host: address of the Docker engine.
    """

    def __init__(self, options: Options, docker_host: str) -> None:
        self.options = options
        self.docker_host = docker_host
        self.config_file = options.directory / "config" / "config.yaml"
        self._hub_port, self._api_port, self._service_port = free_ports(3)
        self._hub: Child | None = None
        self._proxy: Child | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the processes."""
        programs = Path(sys.executable).parent
        return {
            **os.environ,
            "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
            "TLJH_INSTALL_PREFIX": str(self.options.directory),
            "DOCKER_HOST": self.docker_host,
            "PLASMA_DEV_HUB_PORT": str(self._hub_port),
            "PLASMA_DEV_NAME": self.options.name,
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def state(self) -> Path:
        """Where databases and secrets are."""
        return self.options.directory / "state"

    def prepare(self) -> None:
        """Make directories and settings; what is there stays, but for what a run decides.

        Raises:
            DevError: config.yaml cannot be used.
        """
        # The state holds secrets.
        for directory, mode in (("config/jupyterhub_config.d", 0o755), ("state", 0o700), ("log", 0o755)):
            (self.options.directory / directory).mkdir(mode=mode, parents=True, exist_ok=True)
        if not self.config_file.exists():
            self.config_file.write_text(CONFIG, encoding="utf-8")
        try:
            named = (config_file.load(self.config_file).get("users") or {}).get("admin") or []
            config_file.update(
                self.config_file,
                {
                    "users.admin": [*named, *(name for name in self.options.admins if name not in named)],
                    "http.address": "127.0.0.1",
                    "http.port": self.options.port,
                    "traefik_api.port": self._api_port,
                    "plasma.network.name": self.options.name,
                    "plasma.service_port": self._service_port,
                },
            )
        except config_file.ConfigError as error:
            raise DevError(f"{self.config_file}: {error}") from error

    def start_proxy(self) -> None:
        """Start Traefik.

        Raises:
            DevError: config.yaml cannot be used.
        """
        rendered = subprocess.run(
            [sys.executable, "-m", "tljh_plasma.standalone", "traefik"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if rendered.returncode:
            raise DevError(f"The proxy's settings could not be written ({rendered.stderr.strip()}).")
        command = ["traefik", f"--configfile={self.state / 'traefik.toml'}"]
        self._proxy = Child("traefik", command, self.environment, self.state, self.options.log_directory / "proxy.log")

    def start(self) -> None:
        """Start JupyterHub."""
        command = [sys.executable, "-m", "jupyterhub", "-f", str(HERE / "hub_config.py"), "--upgrade-db"]
        log = self.options.log_directory / "hub.log"
        self._hub = Child("jupyterhub", command, self.environment, self.state, log, shown=True)

    def ended(self) -> str:
        """Return which of the processes has ended; empty while both run."""
        for child in (self._proxy, self._hub):
            if child is not None and child.ended() is not None:
                return f"{child.name} ended with exit code {child.ended()} (see {child.log})"
        return ""

    def answers(self) -> bool:
        """Return whether the hub answers through the proxy."""
        try:
            with urllib.request.urlopen(f"{self.options.url}hub/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def restart(self) -> None:
        """Start JupyterHub again, with the code as it is now. Users' servers and the proxy go on."""
        self._hub.stop()
        # A hub that was stopped while it started leaves its services behind.
        kill_orphans(self._proxy.pid)
        self.start()

    def stop(self) -> None:
        """Stop the hub, then the proxy, then what they have left behind."""
        children = [child for child in (self._hub, self._proxy) if child is not None]
        for child in children:
            child.stop()
        kill_orphans()
        for child in children:
            child.finish()

    def _builds(self) -> set[str]:
        """Return the ids of all builds there were: other hubs may build on the same engine."""
        database = self.state / "tljh_repo2docker.sqlite"
        if not database.exists():
            return set()
        with contextlib.closing(sqlite3.connect(database)) as connection:
            try:
                return {str(uuid.UUID(row[0])) for row in connection.execute("SELECT uid FROM images")}
            except sqlite3.OperationalError:  # the service ended before it made its table
                return set()

    def clean_up(self) -> list[str]:
        """Remove the containers of servers and builds, their network and its rules; returns what was removed.

        Raises:
            DevError: the engine does not do it.
        """
        removed = []
        try:
            client = docker.DockerClient(base_url=self.docker_host, version="auto")
            try:
                servers = client.containers.list(all=True, filters={"network": self.options.name})
                builds = client.containers.list(all=True, filters={"label": BUILD_LABEL})
                ours = self._builds()
                for container in [*servers, *(build for build in builds if build.labels[BUILD_LABEL] in ours)]:
                    removed.append(container.name)
                    container.remove(force=True, v=True)
                for network in client.networks.list(names=[self.options.name]):
                    if network.name == self.options.name:
                        if os.geteuid() == 0:  # else none were made
                            firewall.remove(client.api.inspect_network(network.id))
                        network.remove()
            finally:
                client.close()
        except (docker.errors.DockerException, firewall.FirewallError) as error:
            raise DevError(f"Not all containers of users' servers could be removed: {error}") from error
        return removed
