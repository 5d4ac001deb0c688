"""Who listens, and who is at the other end of a connection, as the kernel says."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

import pytest

import plasma_listeners as sockets

ME = os.geteuid()


def test_who_listens_is_told_for_both_kinds_of_addresses():
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        for address in ("127.0.0.1", "::1", "::1%lo", "::ffff:127.0.0.1", "hub.example"):
            assert sockets.listeners(address, port) == [ME]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert sockets.listeners("127.0.0.1", port) == [ME]
        assert sockets.listeners("192.0.2.1", port) == []
    assert sockets.listeners("127.0.0.1", port) == []


@pytest.mark.parametrize(
    ("family", "bound", "asked"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),  # listed as IPv4 in IPv6 at one end, and as IPv4 at the other
    ],
)
def test_the_other_end_is_nobodys_until_it_is_accepted(family, bound, asked):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((bound, 0), family=family, dualstack_ipv6=bound == "::"))
        ours = stack.enter_context(socket.create_connection((asked, server.getsockname()[1])))
        assert sockets.peer(ours.getsockname(), ours.getpeername()) is None
        accepted = stack.enter_context(server.accept()[0])
        assert sockets.peer(ours.getsockname(), ours.getpeername()) == ME
        # The listener does not matter, nor do other connections to the same port.
        server.close()
        assert sockets.peer(ours.getsockname(), ours.getpeername()) == ME
        assert sockets.peer((asked, 1), ours.getpeername()) is None
        accepted.close()
        assert sockets.peer(ours.getsockname(), ours.getpeername()) is None


@pytest.mark.skipif(ME != 0, reason="needs root to be somebody else")
def test_somebody_elses_end_is_told():
    program = (
        "import os, socket, time; os.setuid(12345); taken = socket.socket(fileno=0).accept(); "
        "print(1, flush=True); time.sleep(60)"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        # It accepts at a socket of root's, as one does that was handed down.
        process = subprocess.Popen([sys.executable, "-c", program], stdin=server, stdout=subprocess.PIPE)
        try:
            with socket.create_connection(server.getsockname()) as ours:
                process.stdout.readline()
                assert sockets.listeners("127.0.0.1", server.getsockname()[1]) == [ME]
                assert sockets.peer(ours.getsockname(), ours.getpeername()) == 12345
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_connection_to_itself_has_no_other_end():
    """The kernel may choose the port that is asked for as the one to ask from."""
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))
        ours.connect(ours.getsockname())
        assert sockets.peer(ours.getsockname(), ours.getpeername()) is None


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (None, True),
        ("", True),
        ("0.0.0.0", True),
        ("[::]", True),
        ("localhost", True),
        ("127.0.0.1", True),
        ("192.0.2.1", False),
        ("[2001:db8::1]", False),
    ],
)
def test_who_holds_a_port_of_one_address(address, found):
    """nginx on the public address leaves the loopback one to the hub; whoever listens on all of them leaves none."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as everywhere:
        assert bool(sockets.holders(one.getsockname()[1], address=address)) is found
        assert sockets.holders(everywhere.getsockname()[1], address=address)
