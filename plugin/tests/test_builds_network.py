"""What steps of a build reach (A16): the internet and what ``plasma.network`` names, whichever builder runs them."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from docker.errors import NotFound
from support_builds import until, wait_for_line
from support_hub import NETWORK, free_port
from support_network import (
    CLIENT,
    INTERNET,
    METADATA,
    Outside,
    Servers,
    address,
    assert_closed,
    assert_open,
    from_container,
    ip,
    iptables,
)
from tljh_plasma import builds, firewall, firewall_rules, network

from tests.support.git_repository import bridge_address, slow

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker

NEIGHBOUR = "10.214.0.2"


@pytest.fixture(scope="module")
def outside(docker_host):
    """The internet, a cloud's metadata service, and another machine of the private network."""
    made = Outside("plasmat-builds")
    ip("-n", made.name, "addr", "add", f"{NEIGHBOUR}/32", "dev", "lo")
    ip("route", "add", f"{NEIGHBOUR}/32", "via", INTERNET)
    yield made
    made.remove()


@contextmanager
def targets(outside):
    """What is attacked: (ports of the host, machines behind it that are forbidden, the internet)."""
    port = free_port()
    behind = (NEIGHBOUR, METADATA[0])
    with Servers(f"tcp|0.0.0.0|{port}"), Servers("tcp|0.0.0.0|7777", namespace=outside.name):
        # Not the address that repositories are served at, which is allowed.
        forbidden = [f"tcp|{Outside.HOST}|{port}", *[f"tcp|{one}|7777" for one in behind]]
        yield forbidden, f"tcp|{INTERNET}|7777"


def attempt(*wanted: str) -> str:
    """An instruction that tries to reach targets and prints what came of it."""
    return f"RUN {json.dumps(['python3', '-c', CLIENT, *wanted])}"


def results(text: str) -> dict[str, str]:
    """What ``attempt`` printed."""
    (line,) = [line for line in text.splitlines() if line.startswith('{"tcp|')]
    return json.loads(line)


class BuildKit:
    """The engine's BuildKit, asked as ``docker buildx build`` asks it: its recipe comes over HTTP."""

    def __init__(self, engine, image: str) -> None:
        self.engine = engine
        self.image = image

    def run(self, *wanted: str) -> dict[str, str]:
        """What a step of a build gets from targets."""

        class Recipe(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(recipe)))
                self.end_headers()
                self.wfile.write(recipe.encode())

            def log_message(self, *args):
                pass

        # What BuildKit says of a build is no text: the result is a file of the image.
        recipe = f"FROM {self.image}\nUSER root\nRUN {json.dumps(['python3', '-c', WRITE, CLIENT, *wanted])}\n"
        name = "plasmat-buildkit:1"
        with ThreadingHTTPServer((bridge_address(), 0), Recipe) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            remote = quote(f"http://{bridge_address()}:{server.server_port}/Dockerfile", safe="")
            connection = http.client.HTTPConnection("engine")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(os.environ["DOCKER_HOST"].removeprefix("unix://"))
            connection.request("POST", f"/build?version=2&nocache=1&remote={remote}&t={name}")
            answer = connection.getresponse().read().decode()
            server.shutdown()
        assert '"error"' not in answer, answer
        made = self.engine.containers.run(name, ["/result.json"], entrypoint=["cat"], remove=True)
        self.engine.images.remove(name, force=True)
        return json.loads(made)


WRITE = """
import subprocess, sys
done = subprocess.run([sys.executable, "-c", *sys.argv[1:]], capture_output=True, check=True)
open("/result.json", "wb").write(done.stdout)
"""


async def build(bench, *wanted: str) -> dict[str, str]:
    request = bench.request(bench.repository(f"ENV ATTEMPT={secrets.token_hex(4)}", attempt(*wanted)))
    async with bench.builder() as builder:
        row = await bench.build(builder, request)
    assert row.status == "built", row.log
    return results(row.log)


async def test_a16_a_step_reaches_the_internet_alone(bench, outside, monkeypatch):
    """The engine's older builder, through the real repo2docker. Nothing is left for containers of others."""
    shared = network.connect().inspect_network(network.SHARED)
    chain = firewall_rules.chain_names(network.bridge_of(shared))[0]
    with targets(outside) as (forbidden, world):
        with monkeypatch.context() as patched:
            # Builds as they were before: nothing is written.
            patched.setattr(firewall, "ensure", lambda *_, **__: None)
            client, name = network.connect(), builds.network.name_for(NETWORK)
            network.ensure_network(client, name)
            firewall.remove(client.inspect_network(name))
            assert_open(await build(bench, *forbidden, world))
        seen = await build(bench, *forbidden, world)
        assert_open({world: seen.pop(world)})
        assert_closed(seen)
        assert chain not in firewall.tables("iptables").rules()


@contextmanager
def others(bench):
    """A factory of containers on the engine's own network, which are not ours."""
    made = []

    def start():
        made.append(bench.client.containers.run(bench.environment, ["600"], entrypoint=["sleep"], detach=True))
        made[-1].reload()
        return made[-1]

    yield start
    for container in made:
        with suppress(NotFound):
            container.remove(force=True)


def test_a16_an_address_that_is_used_again_opens_nothing(bench, outside):
    """The engine gives that of a container that ended to the next one: a step of a build, for one."""
    client = network.connect()
    shared = client.inspect_network(network.SHARED)
    chains = firewall_rules.chain_names(network.bridge_of(shared))
    with targets(outside) as (forbidden, world), others(bench) as start:
        try:
            former = start()
            firewall.ensure(client, network.SHARED, None)
            assert_open(from_container(former, *forbidden, world))
            used = address(former)
            former.remove(force=True)
            # Others on this engine may end meanwhile, too, and leave lower ones.
            later = next(one for one in (start() for _ in range(20)) if address(one) == used)
            for chain in chains:
                iptables("-I", chain, "-s", f"{used}/32", "-j", "RETURN")
            assert_open(from_container(later, *forbidden, world))
            for chain in chains:
                iptables("-D", chain, "-s", f"{used}/32", "-j", "RETURN")
            seen = from_container(later, *forbidden, world)
            assert_open({world: seen.pop(world)})
            assert_closed(seen)
            firewall.ensure(client, network.SHARED, None)
            assert_open(from_container(later, *forbidden, world))
        finally:
            firewall.release(shared)


RELEASE = """
from tljh_plasma import firewall, network
firewall.release(network.connect().inspect_network(network.SHARED))
"""


def test_a16_another_hub_without_builds_leaves_the_rules(docker_host):
    """On a machine of developers there may be two: the last one that builds takes them away."""
    client = network.connect()
    shared = client.inspect_network(network.SHARED)
    chain = firewall_rules.chain_names(network.bridge_of(shared))[0]
    firewall.ensure(client, network.SHARED, None)
    subprocess.run([sys.executable, "-c", RELEASE], check=True)
    assert chain in firewall.tables("iptables").rules()
    firewall.release(shared)
    assert chain not in firewall.tables("iptables").rules()


async def test_a16_a_step_of_buildkit_reaches_the_internet_alone(bench, outside):
    """It runs on the engine's own network; containers of others there go on as before, also those that come later."""
    shared = network.connect().inspect_network(network.SHARED)
    kit = BuildKit(bench.client, bench.environment)
    request = bench.request(bench.repository(slow(600)))
    with targets(outside) as (forbidden, world), others(bench) as start:
        firewall.release(shared)
        assert_open(kit.run(*forbidden, world))
        earlier = start()
        async with bench.builder() as builder:
            await builder.submit(request)
            await wait_for_line(builder, request.image, "slow step 1")
            seen = await asyncio.to_thread(kit.run, *forbidden, world)
            assert_open({world: seen.pop(world)})
            assert_closed(seen)
            for other in (earlier, start()):
                mark = f"-s {address(other)}/32 -m physdev"
                await until(lambda mark=mark: mark in str(firewall.tables("iptables").rules()), "the other's rule")
                assert_open(await asyncio.to_thread(from_container, other, *forbidden, world))
            await builder.cancel(request.image)
            chain = firewall_rules.chain_names(network.bridge_of(shared))[0]
            await until(lambda: chain not in firewall.tables("iptables").rules(), "the end of the rules")
