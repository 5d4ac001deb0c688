"""What one client may take of a web server of ours: connections, time to send a request, and room for its body.

Tornado reads a body into memory before a handler looks at it, waits an hour for the head of a request and for ever for
the rest, and takes as many connections as come. ``LimitedServer`` takes its place. Nobody is shut out for what others
do: where there is no more room, the request that has been unfinished for longest makes way, and it is taken from the
client that has most of them. A browser's request is complete within milliseconds, so it is never the one.

Many people may share one address, as a classroom behind one router does: no limit here counts requests that are
complete, or connections that come through the proxy. But addresses take turns: each gets one answer, and then the next.
"""

from __future__ import annotations

import heapq
import logging
import re
import resource
import time
from collections import Counter, OrderedDict, deque
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tornado import gen, httputil
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError

from . import front
from .logins import network

LOG = logging.getLogger("tornado.general")

# Bytes of a body: a login, a token, the options of a start. A name and a password are far smaller.
SMALL_BODY = 16 * 1024
# Lists of people and groups: a thousand names are 40 kB.
LARGE_BODY = 1024 * 1024
# Addresses of the hub that take such lists, all of them for administrators.
LARGE_BODIES = re.compile(r"/hub/api/(?:users|proxy|groups/[^/]+(?:/(?:users|properties))?|plasma/administrators)/?\Z")
# Characters of an address: each refused one becomes a line of the log.
LONGEST_ADDRESS = 8 * 1024
LARGEST_HEAD = 64 * 1024
# Seconds for a body, which is 35 kB/s for the largest one.
BODY_TIME = 30
# Seconds that a connection may say nothing. Traefik gives up unused ones after 90 and must be the first to do so, or
# it would use one that is just being closed.
IDLE_TIME = 120

# Connections from one address that do not come through the proxy: a user's server has some ten at a time.
DIRECT = 64
# Requests of one client whose bodies are still to come.
UNFINISHED = 128
# Bytes of all unfinished bodies together.
UNFINISHED_BYTES = 64 * 1024 * 1024
# Connections in all: each is a descriptor, and some are needed for other things.
CONNECTIONS = 4096
# Where there is no more room, so many parts of them make way at a time: to choose takes milliseconds.
DROPPED = 64
DESCRIPTORS = 16384
SPARE_DESCRIPTORS = 256

# Who was told an answer before all of the body was there gets it read for so long, so that the answer arrives.
LINGER_TIME = 2
LINGER_BYTES = 8 * 1024 * 1024
# Seconds between two lines of the log about the same.
SAID_AGAIN = 60

# What a proxy says of its client. Nobody else is believed.
FORWARDED = ("X-Forwarded-For", "X-Real-Ip", "X-Scheme", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port")
SENTENCES = {
    408: "The request did not come to its end.",
    413: "The request is too large.",
    414: "The address of the request is too long.",
}


def hub_body(path: str) -> int:
    """Return how many bytes a request to the hub may have.

    Args:
        path: its path, without the query.
    """
    return LARGE_BODY if LARGE_BODIES.search(path) else SMALL_BODY


def raise_descriptors() -> int:
    """Let this process have as many descriptors as it may, up to what it needs; returns how many connections that is.

    Units of ours say so to systemd. This is for a hub that something else started.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(64, min(CONNECTIONS, soft - SPARE_DESCRIPTORS))


def protect_hub() -> None:
    """Have the hub, which makes its web server itself, make one of ours."""
    HTTPServer.configure(LimitedServer)


class LimitedServer(HTTPServer):
    """A web server that one client cannot fill.

    Args:
        request_callback: the application.
        body: returns how many bytes a request to a path may have.
        options: those of Tornado's own server.
    """

    def initialize(self, request_callback: Any, body: Any = hub_body, **options: Any) -> None:
        """Set up; Tornado calls it in place of ``__init__``."""
        options.setdefault("max_header_size", LARGEST_HEAD)
        options.setdefault("idle_connection_timeout", IDLE_TIME)
        options.setdefault("body_timeout", BODY_TIME)
        super().initialize(request_callback, **options)
        self.body = body
        self.most = raise_descriptors()
        self._open: dict[Any, _Connection] = {}
        self._direct: Counter[str] = Counter()
        # In the order in which they began.
        self._unfinished: dict[_Request, None] = {}
        # Complete ones that are to be answered, by client; the one whose turn is next first.
        self._ready: OrderedDict[str, deque[_Request]] = OrderedDict()
        self._said: dict[str, float] = {}

    # Connections.

    def handle_stream(self, stream: Any, address: Any) -> None:
        """Take a connection, or refuse it."""
        peer = address[0] if address else ""
        connection = _Connection(peer, MACHINE.has(peer))
        if not connection.proxied:
            if self._direct[peer] >= DIRECT:
                self._say(f"{peer} has {DIRECT} connections to this server, and gets no more")
                stream.close()
                return
            self._direct[peer] += 1
        if len(self._open) >= self.most:
            self._make_room()
        self._open[stream] = connection
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        """Forget a connection."""
        super().on_close(server_conn)
        self._forget(server_conn.stream)

    def _forget(self, stream: Any) -> None:
        connection = self._open.pop(stream, None)
        if connection and not connection.proxied:
            self._direct[connection.peer] -= 1
            if self._direct[connection.peer] <= 0:
                del self._direct[connection.peer]

    def _make_room(self) -> None:
        """Close some connections of the client that has most of them: the oldest that wait for it, if any do.

        Else it has answers under way in all of them, and may just not read them.
        """
        self._say(f"{len(self._open)} connections are open: the oldest of whoever has most of them make way")
        client, _ = Counter(one.client for one in self._open.values()).most_common(1)[0]
        theirs = [
            (one.answering, one.since, number, stream)
            for number, (stream, one) in enumerate(self._open.items())
            if one.client == client
        ]
        for *_, stream in heapq.nsmallest(max(1, self.most // DROPPED), theirs):
            # At once: it counts until its end is seen, otherwise, and many may come before that.
            self._forget(stream)
            stream.close()

    # Requests.

    def start_request(self, server_conn: Any, request_conn: Any) -> httputil.HTTPMessageDelegate:
        """Look at a request before the application does."""
        connection = self._open.get(server_conn.stream) or _Connection("", False)
        return _Request(self, connection, request_conn, super().start_request(server_conn, request_conn))

    def begin(self, request: _Request) -> None:
        """Count a request whose body is to come."""
        self._unfinished[request] = None
        client = request.connection.client
        same = [other for other in self._unfinished if other.connection.client == client]
        if len(same) > UNFINISHED:
            self._say(f"{client} has {UNFINISHED} requests that do not come to an end: the oldest make way")
            same[0].give_up()

    def grow(self) -> None:
        """Look whether there is still room, after a piece of a body came."""
        sizes: Counter[str] = Counter()
        for request in self._unfinished:
            sizes[request.connection.client] += request.size
        if sizes.total() > UNFINISHED_BYTES:
            client, _ = sizes.most_common(1)[0]
            self._say(f"unfinished requests take {UNFINISHED_BYTES} bytes: the oldest of {client} make way")
            next(one for one in self._unfinished if one.connection.client == client and one.size).give_up()

    def end(self, request: _Request) -> None:
        """A request is complete, or its connection is gone."""
        self._unfinished.pop(request, None)

    def ready(self, request: _Request) -> None:
        """Answer a complete request when its client's turn comes: so nobody waits for what others ask."""
        if not self._ready:
            IOLoop.current().add_callback(self._turn)
        self._ready.setdefault(request.connection.client, deque()).append(request)

    def _turn(self) -> None:
        request = None
        # Who has left meanwhile takes up no turn.
        while self._ready and (request is None or request.is_gone):
            client, waiting = self._ready.popitem(last=False)
            request = waiting.popleft()
            if waiting:
                self._ready[client] = waiting
        if self._ready:
            # Before the answer, which may fail.
            IOLoop.current().add_callback(self._turn)
        if request and not request.is_gone:
            request.answer()

    def _say(self, text: str) -> None:
        """Write a line to the log, and not again soon."""
        now = time.monotonic()
        if now - self._said.get(text, -SAID_AGAIN) >= SAID_AGAIN:
            if len(self._said) > 1000:
                self._said.clear()
            self._said[text] = now
            LOG.warning("%s", text)


class _Connection:
    """What is known of a connection."""

    def __init__(self, peer: str, proxied: bool) -> None:
        self.peer = peer
        self.proxied = proxied
        # Behind the proxy it is known with the first request.
        self.client = peer
        self.since = time.monotonic()
        self.answering = False


class _Machine:
    """The addresses of this machine, from which the proxy comes. User servers have addresses of their own."""

    FILE = Path("/proc/net/fib_trie")
    # Seconds between two looks.
    MAX_AGE = 5

    def __init__(self) -> None:
        self._addresses: set[str] = set()
        self._read = -self.MAX_AGE * 1.0

    def has(self, address: str) -> bool:
        try:
            if ip_address(address).is_loopback or address in self._addresses:
                return True
        except ValueError:
            # A Unix socket, which only root reaches.
            return True
        if time.monotonic() - self._read < self.MAX_AGE:
            return False
        self._read = time.monotonic()
        try:
            found = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", self.FILE.read_text(encoding="ascii"))
        except OSError:
            found = []
        self._addresses = set(found)
        return address in self._addresses


MACHINE = _Machine()


class _Request(httputil.HTTPMessageDelegate):
    """Stands between a connection and the application until a request is complete."""

    def __init__(self, server: LimitedServer, connection: _Connection, request_conn: Any, inner: Any) -> None:
        self.server = server
        self.connection = connection
        self.size = 0
        self._conn = request_conn
        self._stream = request_conn.stream
        self._inner = inner
        self._most = 0
        self._begun = False
        connection.answering = False
        connection.since = time.monotonic()

    async def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> None:
        """Refuse what is too large by its own word; everything else begins."""
        if self.connection.proxied:
            named = front.asked_by(headers)
            self.connection.client = network(named) or self.connection.peer
        else:
            for name in FORWARDED:
                headers.pop(name, None)
        if len(start_line.path) > LONGEST_ADDRESS:
            await self._refuse(414)
            return
        self._most = self.server.body(start_line.path.partition("?")[0])
        length = headers.get("Content-Length", "0")
        if length.isdecimal() and int(length[:20]) > self._most:
            await self._refuse(413, min(LINGER_BYTES, int(length[:20])))
            return
        # A piece of a chunked body is read in parts, so it is never larger than what is counted here.
        self._conn.set_max_body_size(max(self._most * 2, LARGE_BODY))
        self._begun = True
        if length != "0" or "Transfer-Encoding" in headers:
            self.server.begin(self)
        began = self._inner.headers_received(start_line, headers)
        if began is not None:
            await began

    async def data_received(self, chunk: bytes) -> None:
        """Count, and hand on."""
        self.size += len(chunk)
        if self.size > self._most:
            await self._refuse(413)
            return
        self.server.grow()
        if not self._stream.closed():
            taken = self._inner.data_received(chunk)
            if taken is not None:
                await taken

    def finish(self) -> None:
        """All is there."""
        self.server.end(self)
        self.connection.answering = True
        self.server.ready(self)

    @property
    def is_gone(self) -> bool:
        """Whether the client has left."""
        return self._stream.closed()

    def answer(self) -> None:
        """Let the application answer."""
        self._inner.finish()

    def on_connection_close(self) -> None:
        """The client has left, or was sent away."""
        self.server.end(self)
        if self._begun:
            self._inner.on_connection_close()

    def give_up(self) -> None:
        """End a request that does not come to its end, to make room."""
        self.server.end(self)
        if not self._stream.closed():
            self._stream.write(_answer(408))
            self._stream.close()

    async def _refuse(self, status: int, left: int = LINGER_BYTES) -> None:
        """Say why, and close.

        What is still coming is read for a moment and thrown away: closed at once, the connection would be reset, and
        the answer lost with it.
        """
        self.server.end(self)
        self.server._say(f"refused a request of {self.connection.client}: {SENTENCES[status]}")
        try:
            await self._stream.write(_answer(status))
            end = IOLoop.current().time() + LINGER_TIME
            while left > 0:
                left -= len(await gen.with_timeout(end, self._stream.read_bytes(64 * 1024, partial=True)))
        except (StreamClosedError, gen.TimeoutError):
            pass
        finally:
            self._stream.close()


def _answer(status: int) -> bytes:
    text = SENTENCES[status].encode()
    head = (
        f"HTTP/1.1 {status} {httputil.responses[status]}",
        "Content-Type: text/plain; charset=utf-8",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        f"Content-Length: {len(text)}",
        "Connection: close",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + text
