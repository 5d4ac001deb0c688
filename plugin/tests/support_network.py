"""Something to attack: servers on the host, and a network behind it that plays the internet and a cloud."""

from __future__ import annotations

import ipaddress
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from support_containers import run_in
from support_hub import free_port, wait_until
from tljh_plasma import firewall, network

# What the network behind the host has: a server of the internet, and metadata services of clouds.
INTERNET = "198.51.100.2"
METADATA = ("169.254.169.254", "168.63.129.16", "100.100.100.200")
# Any name resolves to it there (see SERVER).
RESOLVED = "203.0.113.80"

# Echoes on TCP and UDP, and answers every question for a name. Arguments: "tcp|ADDRESS|PORT", "udp|...", "dns|...".
SERVER = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for kind, address, port in (argument.split("|") for argument in sys.argv[1:]):
    server = socket.socket(
        socket.AF_INET6 if ":" in address else socket.AF_INET,
        socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM,
    )
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, int(port)))
    if kind == "tcp":
        server.listen(64)
    selector.register(server, selectors.EVENT_READ, kind)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.data == "tcp":
            connection, _ = key.fileobj.accept()
            connection.close()
        else:
            data, sender = key.fileobj.recvfrom(4096)
            if key.data == "dns":
                question = data[12 : data.index(b"\\0", 12) + 5]
                # An answer to "A", none to all else.
                answer = b"\\xc0\\x0c" + question[-4:] + b"\\0\\0\\0\\x3c\\0\\x04" + socket.inet_aton("203.0.113.80")
                found = question[-4:-2] == b"\\0\\1"
                head = data[:2] + b"\\x81\\x80\\0\\1" + (b"\\0\\1" if found else b"\\0\\0") + b"\\0\\0\\0\\0"
                data = head + question + (answer if found else b"")
            key.fileobj.sendto(data, sender)
"""

# Tries all targets at once; prints {target: "open" or what was said}.
CLIENT = """
import json, socket, sys, threading
results = {}
def attempt(target):
    kind, address, port = target.split("|")
    try:
        if kind == "tcp":
            socket.create_connection((address, int(port)), 3).close()
        else:
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.settimeout(2)
            client.connect((address, int(port)))
            client.send(b"hello")
            assert client.recv(100) == b"hello"
        results[target] = "open"
    except OSError as error:
        results[target] = str(error)
threads = [threading.Thread(target=attempt, args=(target,)) for target in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(results))
"""


class Servers:
    """A process that listens at ``targets``, on the host or in a network namespace."""

    def __init__(self, *targets: str, namespace: str = "") -> None:
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        self.process = subprocess.Popen(
            [*inside, sys.executable, "-uc", SERVER, *targets], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *details: Any) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def from_host(*targets: str) -> dict[str, str]:
    """What the host itself gets from ``targets``."""
    done = subprocess.run([sys.executable, "-c", CLIENT, *targets], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def from_container(container: Any, *targets: str) -> dict[str, str]:
    """What somebody in a container gets from ``targets``."""
    code, output = run_in(container, "python3", "-c", CLIENT, *targets)
    assert code == 0, output
    return json.loads(output)


def from_namespace(namespace: str, *targets: str) -> dict[str, str]:
    """What somebody outside gets from ``targets``."""
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", CLIENT, *targets],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def host_addresses(*selection: str) -> list[str]:
    """The IPv4 addresses of the host but loopback: all, or those of what ``ip addr show`` selects."""
    shown = subprocess.run(["ip", "-j", "-4", "addr", "show", *selection], capture_output=True, check=True)
    links = json.loads(shown.stdout)
    found = [info["local"] for link in links for info in link.get("addr_info", [])]
    return [address for address in found if not ipaddress.ip_address(address).is_loopback]


def ip(*arguments: str) -> None:
    """Run the ip command."""
    subprocess.run(["ip", *arguments], check=True)


def iptables(*arguments: str, program: str = "iptables") -> None:
    """Run the iptables command, as an administrator does."""
    subprocess.run([firewall.tables(program).prefix, "-w", *arguments], check=True)


class Outside:
    """A network namespace behind the host, with the addresses above."""

    HOST = "198.51.100.1"

    def __init__(self, name: str) -> None:
        self.name = name
        self.link = f"v{name[-8:]}"
        # What a run that was killed left.
        self.remove()
        ip("netns", "add", name)
        try:
            self._connect()
        except BaseException:
            self.remove()
            raise

    def _connect(self) -> None:
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("addr", "add", f"{self.HOST}/24", "dev", self.link)
        ip("link", "set", self.link, "up")
        ip("-n", self.name, "addr", "add", f"{INTERNET}/24", "dev", "eth0")
        ip("-n", self.name, "link", "set", "eth0", "up")
        ip("-n", self.name, "link", "set", "lo", "up")
        ip("-n", self.name, "route", "add", "default", "via", self.HOST)
        for address in METADATA:
            ip("-n", self.name, "addr", "add", f"{address}/32", "dev", "lo")
            ip("route", "add", f"{address}/32", "via", INTERNET)

    def remove(self) -> None:
        """Remove the namespace if it is there; the link and its routes go with it."""
        for command in (["link", "del", self.link], ["netns", "del", self.name]):
            subprocess.run(["ip", *command], check=False, stderr=subprocess.DEVNULL)


def assert_open(results: dict[str, str]) -> None:
    """Every one answered."""
    assert results
    closed = {target: said for target, said in results.items() if said != "open"}
    assert not closed, closed


def assert_closed(results: dict[str, str]) -> None:
    """No one answered; a TCP port says so at once."""
    assert results
    wanted = {"tcp": "refused", "udp": ""}
    others = {target: said for target, said in results.items() if said == "open" or wanted[target[:3]] not in said}
    assert not others, others


WEB = 8888
LISTEN = f"import http.server as h; h.ThreadingHTTPServer(('', {WEB}), h.SimpleHTTPRequestHandler).serve_forever()"


@dataclass
class Net:
    """A network as the hub makes it, with a container and a port that stands for the hub's."""

    name: str
    gateway: str
    port: int
    attrs: dict[str, Any]
    engine: Any
    image: str

    @property
    def bridge(self) -> str:
        return network.bridge_of(self.attrs)

    def run(self, **options: Any) -> Any:
        """Start a container with a web server, restricted as users' are, and wait for it."""
        restricted = {"network": self.name, "user": "1000", "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
        options["working_dir"] = "/tmp"
        made = self.engine.containers.run(
            self.image, ["-uc", LISTEN], entrypoint=["python3"], detach=True, **{**restricted, **options}
        )
        made.reload()
        wait_until(lambda: from_host(f"tcp|{address(made)}|{WEB}") == {f"tcp|{address(made)}|{WEB}": "open"}, 30, "web")
        return made

    def protect(self) -> None:
        firewall.protect(self.attrs, self.port)

    def remove(self) -> None:
        for container in self.engine.containers.list(all=True, filters={"network": self.name}):
            container.remove(force=True)
        self.engine.networks.get(self.name).remove()
        firewall.remove(self.attrs)


def address(container: Any) -> str:
    (found,) = container.attrs["NetworkSettings"]["Networks"].values()
    return found["IPAddress"]


@contextmanager
def networks(engine: Any, image: str) -> Iterator[Any]:
    """A factory of networks; all are removed at the end."""
    made = []

    def one(**options: Any) -> Net:
        """Make one as the hub does, or one with ``options`` that the hub then finds."""
        name = f"plasmat-{secrets.token_hex(4)}"
        client = network.connect()
        if options:
            engine.networks.create(name, **options)
        gateway = network.ensure_network(client, name)
        made.append(Net(name, gateway, free_port(), client.inspect_network(name), engine, image))
        return made[-1]

    yield one
    for net in made:
        net.remove()


@pytest.fixture(scope="module")
def make_network(docker_host, environment):
    """Factory of networks."""
    with networks(docker_host, environment) as factory:
        yield factory


@pytest.fixture(scope="module")
def protected(make_network):
    """A network with our rules, and a container on it."""
    net = make_network()
    net.protect()
    return net, net.run()


@pytest.fixture
def net(protected):
    """The network with our rules, repaired for the next test."""
    yield protected[0]
    protected[0].protect()


@pytest.fixture
def inside(protected):
    """The container on that network."""
    return protected[1]
