"""Files that hub and proxy make when they start: each one lost or spoilt in every way."""

from __future__ import annotations

import os
import shutil
import time

import pytest

import plasma_hub_secrets as secrets
from tests.unit import needs_root

SECRETS = ("plasma-operator.token", "traefik-api.secret", "jupyterhub_cookie_secret")


class Server:
    def __init__(self, state):
        self.state = state
        self.running = True
        self.started = time.monotonic() - 3600
        self.backends = {"hub": ["172.20.0.1", 303]}

    def lost(self):
        return {os.path.basename(one["file"]): one["component"] for one in secrets.lost(self.state.parent)}


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path / "state")


@pytest.fixture
def configure_loader_modules(server):
    return {
        secrets: {
            "__salt__": {
                "tljh_service.running": lambda: server.running,
                "tljh_service.started": lambda component: server.started,
                "plasma_hub_ports.backends": lambda prefix: server.backends,
            }
        }
    }


@pytest.fixture(autouse=True)
def files(server):
    server.state.mkdir()
    for name in SECRETS:
        file = server.state / name
        file.touch(0o600)
        # JupyterHub ends its own with a line break.
        file.write_text("0123456789abcdef" * 4 + "\n" * (name == "jupyterhub_cookie_secret"))
    (server.state / "traefik.toml").write_text('[entryPoints.auth_api]\naddress = "127.0.0.1:304"\n')
    (server.state / "acme.json").write_text("")


def test_nothing_is_lost(server):
    assert server.lost() == {}
    (server.state / "acme.json").write_text('{"letsencrypt": {}}')
    assert server.lost() == {}
    assert secrets.health(server.state.parent) == {"problem": None}


@needs_root
@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("way", ["gone", "empty", "cut off", "garbage", "readable", "link", "directory", "another's"])
def test_a_secret(server, name, way):
    file = server.state / name
    if way == "readable":
        file.chmod(0o644)
    elif way == "another's":
        os.chown(file, 12345, -1)
    else:
        file.rename(server.state / "aside")
        if way == "link":
            file.symlink_to(server.state / "aside")
        elif way == "directory":
            file.mkdir()
        elif way != "gone":
            file.touch(0o600)
            file.write_bytes({"empty": b"", "cut off": b"0123", "garbage": b"\xff" * 64}[way])
    assert server.lost() == {name: "hub"}
    problem = secrets.health(server.state.parent)["problem"]
    assert problem.startswith(f"Lost or spoilt: {file} (")
    assert problem.endswith(": `tljh_config.reload hub`")


@pytest.mark.parametrize(("name", "text"), [("traefik.toml", None), ("traefik.toml", ""), ("acme.json", "{")])
def test_files_of_the_proxy(server, name, text):
    file = server.state / name
    file.unlink()
    if text is not None:
        file.write_text(text)
    assert server.lost() == {name: "proxy"}
    (server.state / SECRETS[0]).unlink()
    # A reload of the proxy restarts the hub as well.
    assert secrets.health(server.state.parent)["problem"].endswith(": `tljh_config.reload proxy`")


def test_routes_that_do_not_lead_to_the_hub(server):
    server.backends = {}
    assert server.lost() == {"rules.toml": "hub"}
    # It writes them while it starts.
    server.started = time.monotonic() - 5
    assert server.lost() == {}
    server.started = None
    assert server.lost() == {}


def test_a_hub_that_does_not_run_has_lost_nothing(server):
    shutil.rmtree(server.state)
    server.running = False
    assert secrets.health(server.state.parent) == {"problem": None}
