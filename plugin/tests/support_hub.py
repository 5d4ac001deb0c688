"""A hub for tests: standalone_config.py behind Traefik, as on a server, in a directory of its own."""

from __future__ import annotations

import functools
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import requests

TOKEN_HEADER = "Authorization"
LABEL_USER = "org.plasma.user"
# Another one keeps the firewalls of two checkouts apart whose tests run on one engine.
NETWORK = os.environ.get("PLASMA_TEST_NETWORK", "plasma")


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def free_inner_port() -> int:
    """A TCP port for a hub, its service or its proxy's API, which are root's, that nobody listens on."""
    while True:
        # Those from 301 to 304 are a real hub's.
        port = random.randrange(310, 512)
        try:
            socket.create_server(("", port)).close()
        except OSError:
            continue
        return port


def wait_until(check, timeout: float, what: str, interval: float = 0.1) -> Any:
    """Call ``check`` until it returns something true, and return that."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(interval)


@functools.cache
def environments_database() -> bytes:
    """An empty database of environments, whose tables take two seconds to make."""
    from tljh_repo2docker.dbutil import write_alembic_ini

    with tempfile.TemporaryDirectory() as scratch:
        ini, made = Path(scratch, "alembic.ini"), Path(scratch, "made.sqlite")
        write_alembic_ini(ini, f"sqlite+aiosqlite:///{made}")
        alembic = Path(sys.executable).parent / "alembic"
        subprocess.run([alembic, "-c", ini, "upgrade", "head"], check=True, capture_output=True, timeout=120)
        return made.read_bytes()


class Hub:
    """Traefik and JupyterHub with the plugin, configured by a config.yaml."""

    def __init__(
        self,
        prefix: Path,
        admin: str,
        plasma: dict[str, Any] | None = None,
        base_url: str = "/",
        cull: str = "{timeout: 3600}",
        builds: Iterable[str] = (),
    ) -> None:
        self.prefix = prefix
        self.admin = admin
        self.port = free_port()
        self.hub_port = free_inner_port()
        self.api_port = free_inner_port()
        self.service_port = free_inner_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        # Without the slash at the end.
        self.url = f"{self.origin}{base_url}".rstrip("/")
        self.token = secrets.token_hex(16)
        self.processes: dict[str, subprocess.Popen] = {}
        self.visitors: set[str] = {admin}
        settings = {"service_port": self.service_port, "network": {"name": NETWORK, "builds": list(builds)}}
        (prefix / "config" / "jupyterhub_config.d").mkdir(parents=True)
        (prefix / "state").mkdir()
        (prefix / "state" / "tljh_repo2docker.sqlite").write_bytes(environments_database())
        (prefix / "state" / "tljh_repo2docker.sqlite").chmod(0o600)
        (prefix / "config" / "config.yaml").write_text(
            f"base_url: {base_url}\n"
            f"users:\n  admin: [{admin}]\n"
            f"http:\n  address: 127.0.0.1\n  port: {self.port}\n"
            f"traefik_api:\n  port: {self.api_port}\n"
            f"services:\n  cull: {cull}\n"
            f"plasma: {json.dumps({**settings, **(plasma or {})})}\n"
        )
        (prefix / "config" / "jupyterhub_config.d" / "tests.py").write_text(
            f"c.JupyterHub.hub_port = {self.hub_port}\n"
            f"c.JupyterHub.services.append({{'name': 'tests', 'api_token': '{self.token}', 'admin': True}})\n"
            f"c.PlasmaSpawner.notices_dir = {str(prefix / 'notices')!r}\n"
            f"c.PlasmaSpawner.files_dir = {str(prefix / 'files')!r}\n"
            # A server that ends by itself is noticed soon, and not after half a minute.
            "c.Spawner.poll_interval = 5\n"
            "c.JupyterHub.log_level = 10\n"
            # A busy machine takes its time to start a server.
            "c.Spawner.http_timeout = 180\n"
            "c.Spawner.start_timeout = 240\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        bin_dir = str(Path(sys.executable).parent)
        return {**os.environ, "TLJH_INSTALL_PREFIX": str(self.prefix), "PATH": f"{bin_dir}:{os.environ['PATH']}"}

    def log(self, name: str = "hub") -> str:
        """What a process has written."""
        return (self.prefix / f"{name}.log").read_text(errors="replace")

    def _run(self, name: str, *command: str) -> None:
        with (self.prefix / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self.prefix / "state", env=self.environment
            )

    def start(self) -> None:
        """Start the proxy and the hub, and wait until people could log in."""
        subprocess.run(
            [sys.executable, "-m", "tljh_plasma.standalone", "traefik"], env=self.environment, check=True, timeout=60
        )
        try:
            self._run("traefik", "traefik", f"--configfile={self.prefix / 'state' / 'traefik.toml'}")
            self.start_hub()
        except BaseException:
            self.stop()
            raise

    def start_hub(self) -> None:
        """Start the hub alone."""
        import tljh_plasma

        config = Path(tljh_plasma.__file__).parent / "standalone_config.py"
        self._run("hub", sys.executable, "-m", "jupyterhub", "-f", str(config), "--upgrade-db")
        wait_until(self.answers, 180, f"hub at {self.url}")

    def answers(self) -> bool:
        """Whether the login page comes through the proxy."""
        if self.processes["hub"].poll() is not None:
            raise AssertionError(f"the hub ended:\n{self.log()[-5000:]}")
        try:
            return requests.get(f"{self.url}/hub/login", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def stop_process(self, name: str) -> None:
        """End a process and wait for it."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End hub and proxy. Servers stay."""
        for name in ("hub", "traefik"):
            self.stop_process(name)

    def remove_containers(self, client: Any) -> None:
        """Remove the containers of everybody who was here, and of nobody else: other tests may run on the engine."""
        for container in client.containers.list(all=True, filters={"label": LABEL_USER}, ignore_removed=True):
            if container.labels[LABEL_USER] in self.visitors:
                container.remove(force=True)

    # As the administrator's program.

    def api(self, method: str, path: str, **options: Any) -> requests.Response:
        """Call the hub's API with an administrator's token."""
        headers = {TOKEN_HEADER: f"token {self.token}", **options.pop("headers", {})}
        return requests.request(method, f"{self.url}/hub/api{path}", headers=headers, timeout=150, **options)

    def add_user(self, name: str) -> requests.Response:
        """Make the account known to the hub, as a login does."""
        self.visitors.add(name)
        return self.api("POST", f"/users/{name}")

    def user_token(self, name: str) -> str:
        """A token with a person's own permissions."""
        response = self.api("POST", f"/users/{name}/tokens", json={"note": "tests", "expires_in": 3600})
        response.raise_for_status()
        return response.json()["token"]

    def spawn(self, name: str, image: Any, server: str = "", token: str | None = None) -> requests.Response:
        """Start a server by API as the person; waits until it runs, or returns the refusal."""
        self.add_user(name)
        token = token or self.user_token(name)
        path = f"/users/{name}/servers/{server}" if server else f"/users/{name}/server"
        body = {} if image is None else {"image": image}
        response = self.api("POST", path, json=body, headers={TOKEN_HEADER: f"token {token}"})
        if response.status_code == 202:

            def ready() -> bool:
                model = self.api("GET", f"/users/{name}").json()["servers"].get(unquote(server))
                if model is None:
                    raise AssertionError(f"server of {name} did not start:\n{self.log()[-6000:]}")
                return model["ready"]

            wait_until(ready, 250, f"server of {name}")
        return response

    def stop_server(self, name: str, server: str = "") -> None:
        """Stop a server and wait until it is gone."""
        path = f"/users/{name}/servers/{server}" if server else f"/users/{name}/server"
        self.api("DELETE", path)
        wait_until(lambda: server not in self.api("GET", f"/users/{name}").json()["servers"], 60, f"stop of {name}")

    def login(
        self, name: str, password: str, session: requests.Session | None = None
    ) -> tuple[requests.Session, requests.Response]:
        """Log in through the form, as a browser would. Returns session and the page after it."""
        self.visitors.add(name)
        session = session or requests.Session()
        page = session.get(f"{self.url}/hub/login", timeout=30)
        token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert token, page.text
        answer = session.post(
            f"{self.url}/hub/login?next=",
            data={"username": name, "password": password, "_xsrf": token[1]},
            timeout=60,
        )
        return session, answer


def container_name(user: str, server: str = "") -> str:
    """Name of a server's container."""
    escaped = user.replace("-", "-2d")
    return f"jupyter-{escaped}--{server}" if server else f"jupyter-{escaped}"
