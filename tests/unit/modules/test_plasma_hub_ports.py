"""Inner ports: where the proxy leads, whose programs listen there, and what is sent to whom."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from salt.exceptions import CommandExecutionError

import plasma_hub_connection as connection
import plasma_hub_ports as ports
import plasma_listeners as sockets
from tests.unit import needs_root
from tests.unit.modules.stand_in_hub_api import TOKEN, StandInHubApi, functions_of_a_hub, make_prefix

# As the package toml writes it, in an order of its own.
RULES = """
[http.routers.router__2F]
rule = "PathPrefix(`/`)"
service = "service__2F"
entryPoints = [ "http",]

[jupyterhub.routes.router__2F]
routespec = "/"
target = "{hub}"
router = "router__2F"

[http.services.service__2F.loadBalancer]
passHostHeader = true
[[http.services.service__2F.loadBalancer.servers]]
url = "{hub}"

[http.services.service__2Fuser_2Fada_2F.loadBalancer]
passHostHeader = true
[[http.services.service__2Fuser_2Fada_2F.loadBalancer.servers]]
url = "http://172.20.0.2:8888"

[http.services.service__2Fservices_2Fplasma_2F.loadBalancer]
passHostHeader = true
[[http.services.service__2Fservices_2Fplasma_2F.loadBalancer.servers]]
url = "{service}"

[jupyterhub.routes.router__2F.data]
hub = true

[jupyterhub.routes.router__2Fuser_2Fada_2F.data]
user = "ada"
server_name = ""

[jupyterhub.routes.router__2Fservices_2Fplasma_2F.data]
service = "plasma"
"""
STATIC = '[entryPoints.auth_api]\naddress = "127.0.0.1:{}"\n'
LISTENER = """
import os, socket, sys
os.setuid(12345)
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
server.settimeout(30)
while True:
    taken = server.accept()[0]
    print(repr(taken.recv(65536)), flush=True)
"""
CHECK = ports.check


@pytest.fixture
def functions():
    return {**functions_of_a_hub(), "plasma_hub_ports.check": ports.check}


@pytest.fixture
def configure_loader_modules(functions):
    return {connection: {"__salt__": functions}, ports: {"__salt__": functions}}


@pytest.fixture
def prefix(tmp_path):
    return make_prefix(tmp_path)


def lead(prefix, hub, service="http://127.0.0.1:302"):
    (prefix / "state" / "rules").mkdir(exist_ok=True)
    (prefix / "state" / "rules" / "rules.toml").write_text(RULES.format(hub=hub, service=service))


@pytest.fixture
def thief():
    """Somebody's program on a port that the hub could have had."""
    process = subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True)
    yield int(process.stdout.readline()), process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def api(prefix, functions):
    """The proxy, as far as whoever asks can see."""
    started = StandInHubApi()
    functions["tljh_settings.show"].return_value = {"http": {"address": "127.0.0.1", "port": started.port}}
    yield started
    started.close()


def ask(prefix):
    return connection.connect(prefix).ask("GET", "plasma/administrators")[0]


def test_where_the_proxy_leads(prefix):
    assert ports.backends(prefix) == {}
    lead(prefix, "http://172.20.0.1:303")
    assert ports.backends(prefix) == {"hub": ["172.20.0.1", 303], "plasma": ["127.0.0.1", 302]}
    lead(prefix, "http://[fd00::1]:303")
    assert ports.backends(prefix)["hub"] == ["fd00::1", 303]
    (prefix / "state" / "rules" / "rules.toml").write_bytes(b"\xff[http]\nurl = \nx")
    assert ports.backends(prefix) == {}


@needs_root
@pytest.mark.parametrize("whose", ["hub", "service"])
def test_a_listener_behind_the_proxy_that_is_not_roots_gets_no_token(prefix, api, functions, thief, whose):
    """The proxy is root's; what it leads to is not."""
    port, process = thief
    stolen = f"http://127.0.0.1:{port}"
    lead(prefix, **{"hub": "http://127.0.0.1:303", whose: stolen})
    # Seen to be sent without the check.
    functions["plasma_hub_ports.check"] = lambda prefix: None
    assert ask(prefix) == 200
    assert api.tokens.pop() == f"token {TOKEN}"
    functions["plasma_hub_ports.check"] = CHECK
    named = "the hub" if whose == "hub" else "the service plasma"
    with pytest.raises(CommandExecutionError, match=f"Port {port} .* {named} but belongs to uid 12345, so nothing"):
        ask(prefix)
    assert api.tokens == []
    # What it was sent: nothing at all.
    with socket.create_connection(("127.0.0.1", port)) as mine:
        mine.sendall(b"end")
    assert process.stdout.readline() == "b'end'\n"


def test_a_port_of_anybodys_with_nobody_on_it_gets_no_token(prefix, api):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lead(prefix, f"http://127.0.0.1:{port}")
    with pytest.raises(CommandExecutionError, match=f"Nobody listens on port {port} .* restart the hub with"):
        ask(prefix)
    assert api.tokens == []


def test_ports_of_roots_get_it_whether_anybody_answers_or_not(prefix, api, monkeypatch):
    lead(prefix, "http://127.0.0.1:303")
    assert ask(prefix) == 200
    # An older release, whose hub is there.
    with socket.create_server(("127.0.0.1", 0)) as older:
        lead(prefix, f"http://127.0.0.1:{older.getsockname()[1]}")
        assert ask(prefix) == 200


# --- what status says


def test_all_is_well(prefix):
    lead(prefix, "http://127.0.0.1:303")
    (prefix / "state" / "traefik.toml").write_text(STATIC.format(304))
    assert ports.health(prefix) == {"problem": None}


@pytest.mark.parametrize("start", [0, 80, 303, 511])
def test_a_kernel_that_gives_these_ports_to_everybody(prefix, tmp_path, monkeypatch, start):
    file = tmp_path / "start"
    file.write_text(f"{start}\n")
    monkeypatch.setattr(ports, "_SYSCTL", str(file))
    assert ports.anybodys() == start
    problem = ports.health(prefix)["problem"]
    assert problem.startswith(f"Anybody may take ports from {start} on")
    assert problem.endswith(": `sysctl -w net.ipv4.ip_unprivileged_port_start=1024`")


def test_a_kernel_that_does_not_know_the_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(ports, "_SYSCTL", str(tmp_path / "none"))
    assert ports.anybodys() == 1024


def test_a_port_that_is_still_the_one_of_an_older_release(prefix):
    lead(prefix, "http://127.0.0.1:15001")
    assert "take port 15001, of the hub, while it restarts: `state.apply tljh`" in ports.health(prefix)["problem"]
    lead(prefix, "http://127.0.0.1:303")
    (prefix / "state" / "traefik.toml").write_text(STATIC.format(8099))
    assert "port 8099, of the proxy's API" in ports.health(prefix)["problem"]


@needs_root
def test_somebody_on_the_hubs_port(prefix, functions, thief):
    lead(prefix, f"http://127.0.0.1:{thief[0]}")
    problem = ports.health(prefix)["problem"]
    assert f"Port {thief[0]} of 127.0.0.1 is to be that of the hub but belongs to uid 12345" in problem
    assert sockets.listeners("127.0.0.1", thief[0]) == [12345]
