"""The web server that one client cannot fill, with a small application in it."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from tljh_plasma import limits
from tornado import web
from tornado.httpserver import HTTPServer

PROXY, STUDENT, OTHER = "127.0.0.1", "127.0.0.2", "127.0.0.3"


class Echo(web.RequestHandler):
    """Says who asked, and how much they sent."""

    def post(self) -> None:
        self.write(f"{self.request.remote_ip} {len(self.request.body)}")

    get = post


class Page(web.RequestHandler):
    """Takes its time, as making a page does, and says which number it has."""

    made = 0

    def get(self) -> None:
        time.sleep(0.005)
        Page.made += 1
        self.write(str(Page.made))


class Download(web.RequestHandler):
    """A large file."""

    async def get(self) -> None:
        for _ in range(1000):
            self.write(b"0" * 65536)
            await self.flush()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """One address is the proxy's, and there is little room."""
    monkeypatch.setattr(limits.MACHINE, "has", lambda address: address == PROXY)
    for name, value in {"DIRECT": 3, "UNFINISHED": 4, "UNFINISHED_BYTES": 40_000, "LINGER_TIME": 0.2}.items():
        monkeypatch.setattr(limits, name, value)


class Client:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, method: str, path: str, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        """Send a request, or its beginning where the length says so."""
        named = {"Host": "hub", "Content-Length": str(len(body) if length is None else length)}
        named.update({key.replace("_", "-"): value for key, value in headers.items()})
        lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in named.items() if value)]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def answer(self) -> tuple[int, str]:
        """Status and text; (0, "") when the connection was closed without an answer."""
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return int(head.split()[1]), (await self.reader.readexactly(length)).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, ""

    @property
    def waits(self) -> bool:
        """Whether nothing came, and the connection is open."""
        return not self.reader.at_eof() and not self.reader._buffer


@asynccontextmanager
async def serving():
    """The server, and what connects to it from an address."""
    server = limits.LimitedServer(
        web.Application([("/download", Download), ("/page", Page), (".*", Echo)]), xheaders=True
    )
    server.listen(0, address="127.0.0.1")
    port = next(iter(server._sockets.values())).getsockname()[1]
    clients: list[Client] = []

    async def connect(address: str = PROXY) -> Client:
        clients.append(Client(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))))
        return clients[-1]

    try:
        yield server, connect
    finally:
        for client in clients:
            client.writer.close()
        server.stop()
        await server.close_all_connections()


def run(play) -> None:
    """Play in a server's presence."""

    async def whole() -> None:
        async with serving() as (server, connect):
            await play(server, connect)

    asyncio.run(whole())


async def settle(check) -> None:
    """Wait until the server has seen what was sent."""
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.01)


def test_bodies_end_at_the_limit_and_the_answer_arrives():
    async def play(server, connect):
        allowed = await connect()
        allowed.send("POST", "/hub/login", b"0" * limits.SMALL_BODY)
        assert await allowed.answer() == (200, f"{PROXY} {limits.SMALL_BODY}")
        # On the same connection, by its own word, without a body yet.
        allowed.send("POST", "/hub/login", length=limits.SMALL_BODY + 1)
        assert await allowed.answer() == (413, limits.SENTENCES[413])

        chunked = await connect()
        chunked.send("POST", "/hub/login", Content_Length="", Transfer_Encoding="chunked")
        for _ in range(5):
            chunked.writer.write(b"1000\r\n" + b"0" * 4096 + b"\r\n")
        assert (await chunked.answer())[0] == 413

        lists = await connect()
        lists.send("POST", "/hub/api/users", b"0" * 30_000)
        assert (await lists.answer())[0] == 200

        long = await connect()
        long.send("GET", f"/hub/login?next={'x' * limits.LONGEST_ADDRESS}")
        assert (await long.answer())[0] == 414

    run(play)


def test_the_oldest_of_many_unfinished_requests_makes_way():
    async def play(server, connect):
        other = await connect()
        other.send("POST", "/", b"x", length=2, X_Real_Ip="192.0.2.7")
        await settle(lambda: len(server._unfinished) == 1)
        flood = []
        for _ in range(10):
            flood.append(await connect())
            flood[-1].send("POST", "/", b"x", length=2, X_Real_Ip="192.0.2.1")
        assert [(await one.answer())[0] for one in flood[:6]] == [408] * 6
        assert all(one.waits for one in [other, *flood[6:]])
        assert len(server._unfinished) == 5
        for one in (other, flood[-1]):
            one.writer.write(b"y")
            assert (await one.answer())[0] == 200

    run(play)


def test_unfinished_bodies_have_room_together():
    async def play(server, connect):
        flood = []
        for _ in range(4):
            flood.append(await connect())
            flood[-1].send("POST", "/", b"0" * 12_000, length=limits.SMALL_BODY, X_Real_Ip="192.0.2.1")
        assert (await flood[0].answer())[0] == 408
        assert sum(one.size for one in server._unfinished) <= limits.UNFINISHED_BYTES

    run(play)


def test_a_user_server_has_so_many_connections_and_no_more():
    async def play(server, connect):
        flood = [await connect(STUDENT) for _ in range(10)]
        await settle(lambda: sum(one.waits for one in flood) == limits.DIRECT)
        other = await connect(OTHER)
        other.send("GET", "/")
        assert await other.answer() == (200, f"{OTHER} 0")
        # The proxy may have any number; and places are given back.
        for client in [await connect() for _ in range(5)]:
            client.send("GET", "/")
            assert (await client.answer())[0] == 200
        for client in flood:
            client.writer.close()
        await settle(lambda: not server._direct[STUDENT])
        again = await connect(STUDENT)
        again.send("GET", "/")
        assert (await again.answer())[0] == 200

    run(play)


def test_where_all_connections_are_taken_the_most_idle_makes_way():
    async def play(server, connect):
        server.most = 4
        first = await connect(OTHER)
        await settle(lambda: len(server._open) == 1)
        flood = [await connect(STUDENT) for _ in range(3)]
        await settle(lambda: len(server._open) == 4)
        newcomer = await connect()
        newcomer.send("GET", "/")
        assert (await newcomer.answer())[0] == 200
        assert (await flood[0].answer())[0] == 0
        assert first.waits

    run(play)


# A client, and what it may call itself with IPv6: each machine has as many addresses as it likes.
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::{}"])
def test_answers_that_nobody_reads_make_way(address):
    """Each of them is a descriptor until its client has read it, and a client need not."""

    async def play(server, connect):
        server.most = 6
        for client in ("192.0.2.7", "192.0.2.7", *(address.format(number) for number in range(1, 21))):
            reader = await connect()
            reader.send("GET", "/download", X_Real_Ip=client)
            # The answer has begun.
            await asyncio.wait_for(reader.reader.readuntil(b"\r\n\r\n"), 10)
        assert len(server._open) == server.most
        newcomer = await connect()
        newcomer.send("GET", "/", X_Real_Ip="192.0.2.8")
        assert await newcomer.answer() == (200, "192.0.2.8 0")
        assert [one.client for one in server._open.values() if one.answering].count("192.0.2.7") == 2

    run(play)


def test_clients_take_turns():
    """Whoever asks for a thousand pages at once waits for them, and nobody else does."""

    async def play(server, connect):
        Page.made = 0
        flood = [await connect() for _ in range(40)]
        other = await connect()
        for client in flood:
            client.send("GET", "/page", X_Real_Ip="192.0.2.1")
        other.send("GET", "/page", X_Real_Ip="192.0.2.7")
        status, number = await other.answer()
        assert status == 200 and int(number) < 5, number
        assert sorted([int((await one.answer())[1]) for one in flood])[-1] == 41
        # One that has left gets none.
        for client in flood:
            client.send("GET", "/page", X_Real_Ip="192.0.2.1")
        await settle(lambda: len(server._ready) > 0)
        for client in flood:
            client.writer.transport.abort()
        other.send("GET", "/page", X_Real_Ip="192.0.2.7")
        assert int((await other.answer())[1]) < 60
        await settle(lambda: not server._ready)

    run(play)


def test_only_the_proxy_says_whose_request_it_is():
    async def play(server, connect):
        forged = {"X_Real_Ip": "192.0.2.1", "X_Forwarded_For": "192.0.2.1", "X_Forwarded_Proto": "https"}
        for address, seen in ((PROXY, "192.0.2.1"), (STUDENT, STUDENT)):
            client = await connect(address)
            client.send("GET", "/", **forged)
            assert await client.answer() == (200, f"{seen} 0")

    run(play)


def test_time_for_a_body_ends(monkeypatch):
    monkeypatch.setattr(limits, "BODY_TIME", 0.1)

    async def play(server, connect):
        slow = await connect()
        slow.send("POST", "/", b"x", length=2)
        assert (await slow.answer())[0] == 0

    run(play)


def test_this_machine_has_its_own_addresses_and_no_others(monkeypatch):
    monkeypatch.undo()
    assert limits.MACHINE.has("127.0.0.1")
    assert limits.MACHINE.has("::1")
    assert not limits.MACHINE.has("192.0.2.77")


def test_the_hub_makes_this_server():
    limits.protect_hub()
    try:
        made = HTTPServer(web.Application([]), xheaders=True)
        assert isinstance(made, limits.LimitedServer)
        assert made.conn_params.body_timeout == limits.BODY_TIME
        assert made.conn_params.header_timeout == limits.IDLE_TIME
        assert not made.conn_params.decompress
    finally:
        HTTPServer.configure(None)
