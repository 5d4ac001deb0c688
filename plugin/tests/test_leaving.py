"""Somebody who does not want to be removed: the module that takes people out, at a real hub and engine."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
import requests
from support_hub import LABEL_USER, TOKEN_HEADER, wait_until

pytestmark = pytest.mark.docker
UTILS = Path(__file__).resolve().parents[2] / "_utils"


@pytest.fixture
def leaving(hub, docker_host, monkeypatch):
    """``plasma_hub_accounts`` as Salt would run it on the hub's machine."""
    errors = ModuleType("salt.exceptions")
    errors.CommandExecutionError = type("CommandExecutionError", (Exception,), {})
    errors.SaltInvocationError = type("SaltInvocationError", (Exception,), {})
    for name in ("salt", "salt.utils", "salt.utils.yaml"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "salt.exceptions", errors)
    monkeypatch.syspath_prepend(UTILS)
    for path in UTILS.glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    api, containers, engine, service, settings = (
        importlib.import_module(name)
        for name in ("plasma_hub_accounts", "plasma_hub_containers", "plasma_engine", "tljh_service", "tljh_settings")
    )
    socket = os.environ["DOCKER_HOST"].removeprefix("unix://")
    monkeypatch.setattr(engine, "engine", lambda: "docker")
    monkeypatch.setattr(containers, "remove", functools.partial(containers.remove, path=socket))
    monkeypatch.setattr(service, "running", lambda: True)
    config = {"http": {"address": "127.0.0.1", "port": hub.port}}
    monkeypatch.setattr(settings, "show", lambda prefix="": config)
    monkeypatch.setattr(settings, "get", lambda key, prefix: None)
    (hub.prefix / "hub" / "bin").mkdir(parents=True, exist_ok=True)
    (hub.prefix / "hub" / "bin" / "python3").touch()
    return api


class Insistent:
    """Somebody who starts servers by API as fast as they can."""

    def __init__(self, hub, name: str, image: str, servers: int = 3) -> None:
        self.address = f"{hub.url}/hub/api/users/{name}"
        hub.add_user(name)
        self.headers = {TOKEN_HEADER: f"token {hub.user_token(name)}"}
        self.image, self.over, self.seen = image, threading.Event(), []
        paths = ["server", *(f"servers/s{number}" for number in range(servers - 1))]
        self.threads = [threading.Thread(target=self._insist, args=(path,)) for path in 2 * paths]
        for thread in self.threads:
            thread.start()

    def _insist(self, path: str) -> None:
        while not self.over.is_set():
            try:
                answer = requests.post(
                    f"{self.address}/{path}", headers=self.headers, json={"image": self.image}, timeout=2
                )
            except requests.Timeout:
                continue  # the start goes on
            self.seen.append(answer.status_code)

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


def _containers(client, name: str) -> list:
    return client.containers.list(all=True, filters={"label": f"{LABEL_USER}={name}"}, ignore_removed=True)


@pytest.mark.parametrize("moment", ["at once", "starting", "running"])
def test_somebody_who_starts_servers_without_end_is_removed_with_all_of_them(
    leaving, hub, accounts, environment, docker_host, moment
):
    person, other = accounts.add("insistent"), accounts.add("bystander")
    hub.add_user(other.name)
    insistent = Insistent(hub, person.name, environment)
    try:
        if moment == "starting":
            wait_until(lambda: _containers(docker_host, person.name), 60, "container")
        elif moment == "running":
            wait_until(lambda: hub.api("GET", f"/users/{person.name}").json()["server"], 120, "server")
        # As the state does that removes accounts.
        subprocess.run(["usermod", "--expiredate", "1", person.name], check=True)
        done = leaving.forget([person.name, other.name], prefix=hub.prefix, timeout=60)
        assert set(done["forgotten"]) == {person.name, other.name}
        assert set(done["stopped"]) <= {person.name}
        assert _containers(docker_host, person.name) == []
        # Of each thread, one request that began before may be answered now.
        seen = len(insistent.seen) + len(insistent.threads)
        wait_until(lambda: len(insistent.seen) > seen + 20, 60, "more tries")
        assert not {201, 202}.intersection(insistent.seen[seen:])
    finally:
        insistent.end()
    assert _containers(docker_host, person.name) == []
    assert hub.api("GET", f"/users/{person.name}").status_code == 404
