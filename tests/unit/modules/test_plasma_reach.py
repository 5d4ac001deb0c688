"""What can be reached of the network, asked for real on this machine."""

from __future__ import annotations

import http.server
import socket
import ssl
import subprocess
import threading
import time
from unittest.mock import create_autospec

import pytest

import plasma_engine
import plasma_reach as reach
import plasma_run
import plasma_trust


class Answers(http.server.BaseHTTPRequestHandler):
    """The last part of a path is the status; what was asked is kept."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        self.send_response(int(self.path.rpartition("/")[2] or 200))
        self.end_headers()

    def do_CONNECT(self):
        self.server.asked.append((self.path, dict(self.headers)))
        self.send_error(403)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as started:
        started.asked, started.place = [], f"127.0.0.1:{started.server_address[1]}"
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "place", "thing"),
    [
        (200, True, True),
        (302, True, True),
        (401, True, True),  # a login may be elsewhere than in the address
        (403, True, False),
        (404, True, False),
        (407, False, False),
        (503, False, False),
    ],
)
def test_an_answer(server, status, place, thing):
    said = f"HTTP status {status}"
    assert reach.url(f"http://{server.place}/a/{status}") == (None if place else said)
    assert reach.url(f"http://{server.place}/a/{status}", whole=True) == (None if thing else said)


def test_a_login_that_is_refused(server):
    address = f"http://me:secret@{server.place}/a/401"
    assert reach.url(address) is None
    assert reach.url(address, whole=True) == "HTTP status 401"


def test_no_answer(nobody, monkeypatch):
    assert reach.url(f"http://{nobody}/") == reach.port(*nobody.split(":")) == "connection refused"
    assert reach.url("http://no-such-host.invalid/") == "its name is not known"
    monkeypatch.setattr(reach, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert reach.url(f"http://127.0.0.1:{silent.getsockname()[1]}/") == "no answer within 0.2 seconds"
    assert "secret" not in str(reach.url(f"http://me:secret@{nobody}/"))


def test_no_tls_where_it_should_be(server):
    assert "ssl" in reach.url(f"https://{server.place}/").lower()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate for this machine, signed by itself, and its key."""
    return make_pair(tmp_path_factory.mktemp("pair"))


def make_pair(folder):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", folder / "key", "-out", folder / "cert"], check=True, capture_output=True)
    return folder / "cert", folder / "key"


@pytest.fixture
def secured(server, pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return f"https://{server.place}/a/200"


def test_authorities_of_the_same_run(secured, pair, tmp_path, monkeypatch):
    """Whose certificates the system trusts only once the states after preflight have run."""
    bundle = tmp_path / "list.crt"
    monkeypatch.setattr(plasma_trust, "BUNDLE", str(bundle))
    # Where there is no list, nobody can judge.
    assert reach.url(secured, authorities=str(bundle)) is None
    bundle.write_bytes(make_pair(tmp_path)[0].read_bytes())
    also = [pair[0].read_text()]
    for authorities in (None, str(bundle)):
        assert reach.url(secured, authorities=authorities).startswith("its certificate is not trusted")
        assert reach.url(secured, authorities=authorities, also=also) is None
    # A list of pip's own is not that of the system.
    other = tmp_path / "own.pem"
    other.write_bytes(bundle.read_bytes())
    assert reach.url(secured, authorities=str(other), also=also).startswith("its certificate is not trusted")


def test_by_a_proxy(server, nobody):
    proxy = {"http": f"http://me:p%40ss@{server.place}", "https": server.place}
    assert reach.url(f"http://{nobody}/x/200", proxy) is None
    path, headers = server.asked.pop()
    assert (path, headers["Proxy-Authorization"]) == (f"http://{nobody}/x/200", "Basic bWU6cEBzcw==")
    assert "403" in reach.url(f"https://{nobody}/", proxy)
    assert server.asked.pop()[0] == nobody
    for without in ("127.0.0.1", "other.example.org, 127.0.0.0/8", "127.0.0.1/8,::1/128"):
        assert reach.url(f"http://{nobody}/x/200", {**proxy, "no": without}) == "connection refused"
    assert reach.url(f"http://{nobody}/x/200", {**proxy, "no": "10.0.0.0/8, ::/0, x/8"}) is None


def test_an_address_that_leads_nowhere_holds_nobody_up(server, monkeypatch):
    """A host of two families, of which one is a black hole."""
    number = server.server_address[1]
    places = [("192.0.2.1", 9), ("127.0.0.1", number)]
    infos = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in places]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
    started = time.monotonic()
    assert reach.url("http://both.example.org/x/200") is None
    assert time.monotonic() - started < 2


def test_all_are_asked_at_once_and_nobody_waits_for_the_slowest():
    done = threading.Event()

    def slow():
        done.wait(20)

    started = time.monotonic()
    assert reach.all_of([lambda: "refused", slow, lambda: None], 0.3) == ["refused", "no answer within 0 seconds", None]
    assert time.monotonic() - started < 5
    done.set()


REFUSED = "connection refused"
PRINTED = """\
'http://deb.debian.org/debian/dists/bookworm/InRelease' deb.debian.org_debian_dists_bookworm_InRelease 0
'mirror+file:/etc/apt/mirrors/debian.list/dists/bookworm-updates/InRelease' x 0
'file:/srv/mirror/dists/bookworm/InRelease' x 0
'cdrom:[Debian]/dists/bookworm/InRelease' x 0
"""


def test_repositories_of_the_network(monkeypatch):
    run = create_autospec(plasma_run.run, return_value=plasma_run.Result(0, PRINTED))
    monkeypatch.setattr(plasma_run, "run", run)
    assert list(reach.repositories()) == ["http://deb.debian.org/debian/", "mirror+file:/etc/apt/mirrors/debian.list/"]


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (0, "", None),
        (100, "E: Failed to fetch http://x/dists/y/InRelease  404  Not Found [IP: 192.0.2.1 80]\n", None),
        (
            100,
            "E: Failed to fetch http://x/dists/y/InRelease  Could not resolve 'x'\nE: Download Failed\n",
            "its name is not known",
        ),
        (
            100,
            "E: Failed to fetch http://x/y  Could not connect to x:80. - connect (111: Connection refused)\n",
            REFUSED,
        ),
        (100, "E: Failed to fetch http://x/y  Connection timed out [IP: 192.0.2.1 80]\n", "no answer within 6 seconds"),
        (
            100,
            "E: Failed to fetch http://x/y  407  Proxy Authentication Required\n",
            "407  Proxy Authentication Required",
        ),
        (124, "/usr/lib/apt/apt-helper did not finish within 9 seconds", "no answer within 6 seconds"),
    ],
)
def test_what_apt_says(monkeypatch, code, said, expected):
    run = create_autospec(plasma_run.run, return_value=plasma_run.Result(code, "", said))
    monkeypatch.setattr(plasma_run, "run", run)
    assert reach.apt("http://x/dists/y/InRelease") == expected


UNTRUSTED = "Certificate verification failed: The certificate is NOT trusted. The certificate issuer is unknown"


@pytest.mark.parametrize(
    ("said", "also", "reached"),
    [
        (UNTRUSTED, [], False),
        (UNTRUSTED, ["an authority"], True),
        ("SSL connection failed: error:0A000086:SSL routines::certificate verify failed", ["an authority"], True),
        ("Could not connect to x:443. - connect (111: Connection refused)", ["an authority"], False),
        ("No system certificates available. Try installing ca-certificates", [], True),
    ],
)
def test_certificates_that_apt_cannot_judge_yet(monkeypatch, said, also, reached):
    result = plasma_run.Result(100, "", f"E: Failed to fetch https://x/y  {said}.\nE: Download Failed\n")
    monkeypatch.setattr(plasma_run, "run", create_autospec(plasma_run.run, return_value=result))
    assert (reach.apt("https://x/y", also=also) is None) is reached


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (200, b"{}", None),
        (403, b'{"message": "errors: denied: requested access to the resource is denied"}', None),
        (401, b'{"message": "unauthorized: authentication required"}', None),
        (404, b'{"message": "manifest unknown"}', "manifest unknown"),
        (
            500,
            b'{"message": "Get \\"https://quay.io/v2/\\": dial tcp:\\n lookup quay.io"}',
            'Get "https://quay.io/v2/": dial tcp: lookup quay.io',
        ),
        (500, b"", "HTTP status 500"),
    ],
)
def test_an_image_is_looked_for_by_the_engine(monkeypatch, status, content, expected):
    monkeypatch.setattr(plasma_engine, "engine", lambda: "distro")
    ask = create_autospec(plasma_engine.ask, return_value=(status, content))
    monkeypatch.setattr(plasma_engine, "ask", ask)
    assert reach.image("quay.io/x/y:1") == expected
    assert ask.call_args.args[:2] == ("GET", "/distribution/quay.io/x/y:1/json")


def test_a_registry_whose_certificate_the_engine_cannot_judge_yet(monkeypatch):
    monkeypatch.setattr(plasma_engine, "engine", lambda: "distro")
    said = b'{"message": "tls: failed to verify certificate: x509: certificate signed by unknown authority"}'
    monkeypatch.setattr(plasma_engine, "ask", create_autospec(plasma_engine.ask, return_value=(500, said)))
    assert reach.image("registry.example.org/x", also=["an authority"]) is None
    assert "x509:" in reach.image("registry.example.org/x")


@pytest.mark.parametrize(("pings", "expected"), [(True, "no answer within 7 seconds"), (False, None)])
def test_a_registry_that_drops_packets(monkeypatch, pings, expected):
    """The engine waits for half a minute; one that does not answer itself says so elsewhere."""
    waited = []

    def ask(method, target, timeout):
        waited.append(timeout)
        if target != "/_ping" or not pings:
            raise plasma_engine.NoAnswer("Docker does not answer")
        return 200, b"OK"

    monkeypatch.setattr(plasma_engine, "engine", lambda: "distro")
    monkeypatch.setattr(plasma_engine, "ask", ask)
    assert reach.image("registry.example.org/x") == expected
    # Before all_of answers for it.
    assert sum(waited) < reach.TOGETHER


def test_an_image_where_no_engine_is_yet(monkeypatch):
    asked = []
    monkeypatch.setattr(plasma_engine, "engine", lambda: None)
    monkeypatch.setattr(reach, "url", lambda address, also: asked.append(address))
    monkeypatch.setattr(reach, "_engine_has_settings", lambda: False)
    for name in ("quay.io/x/y:1", "localhost/y:1", "registry.example.org:5000/y:1", "x/y:1", "y"):
        reach.image(name)
    hosts = ["quay.io", "localhost", "registry.example.org:5000", "registry-1.docker.io", "registry-1.docker.io"]
    assert asked == [f"https://{host}/v2/" for host in hosts]
    # It may get there by a proxy of its own.
    monkeypatch.setattr(reach, "_engine_has_settings", lambda: True)
    assert reach.image("quay.io/x/y:1") is None
    assert len(asked) == len(hosts)
