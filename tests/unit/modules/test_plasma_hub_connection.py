"""The connection to the hub: where it is, what its answers become, and who is sent nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from salt.exceptions import CommandExecutionError

import plasma_hub_connection as connection
import plasma_listeners as sockets
from tests.unit.modules.stand_in_hub_api import TOKEN, StandInHubApi, functions_of_a_hub, make_prefix

PATH = "plasma/administrators"
LISTENERS, PEER = sockets.listeners, sockets.peer


@pytest.fixture
def functions():
    return functions_of_a_hub()


@pytest.fixture
def configure_loader_modules(functions):
    return {connection: {"__salt__": functions}}


@pytest.fixture
def prefix(tmp_path):
    return make_prefix(tmp_path)


@pytest.fixture
def hub(prefix, functions):
    started = StandInHubApi()
    functions["tljh_settings.show"].return_value = {"http": {"address": "127.0.0.1", "port": started.port}}
    yield started
    started.close()


def ask(prefix):
    return connection.connect(prefix).ask("GET", PATH)[1]


@pytest.mark.parametrize("base_url", ["/", "", None, "/x", "/x/", "x/y/"])
def test_the_base_url_is_part_of_the_address(hub, prefix, functions, base_url):
    hub.base = {"/x": "/x/hub/api/", "/x/": "/x/hub/api/", "x/y/": "/x/y/hub/api/"}.get(base_url, "/hub/api/")
    functions["tljh_settings.show"].return_value["base_url"] = base_url
    assert ask(prefix) == {"administrators": []}


def test_a_hub_that_does_not_answer_is_an_error(prefix, functions):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        functions["tljh_settings.show"].return_value = {"http": {"port": probe.getsockname()[1]}}
    with pytest.raises(CommandExecutionError, match="The hub does not answer at 127.0.0.1:.*Connection refused"):
        ask(prefix)


def test_a_server_that_accepts_and_says_nothing_is_not_waited_for_without_end(prefix, functions, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        functions["tljh_settings.show"].return_value = {"http": {"port": silent.getsockname()[1]}}
        with pytest.raises(CommandExecutionError, match=r"does not answer .*timed out"):
            ask(prefix)


@pytest.mark.parametrize(("status", "words"), [(502, "HTTP status 502, so it is"), (404, "404"), (403, "restart it")])
def test_other_answers_are_one_sentence(hub, prefix, status, words):
    hub.status = status
    with pytest.raises(CommandExecutionError, match=words) as caught:
        ask(prefix)
    assert "\n" not in str(caught.value)


def test_an_empty_page_is_no_answer(hub, prefix):
    hub.handle = lambda *request: (200, None)
    with pytest.raises(CommandExecutionError, match="HTTP status 200"):
        ask(prefix)


# --- the token


@pytest.mark.parametrize("spoilt", ["readable", "somebody's", "link", "cut off", "text", "directory"])
def test_a_token_that_others_may_know_is_not_used(hub, prefix, spoilt):
    path = prefix / "state" / connection.TOKEN_FILE
    if spoilt == "readable":
        path.chmod(0o640)
    elif spoilt == "somebody's":
        if os.geteuid():
            pytest.skip("needs root")
        os.chown(path, 12345, -1)
    elif spoilt == "directory":
        path.unlink()
        path.mkdir(0o700)
    elif spoilt == "link":
        path.rename(prefix / "state" / "elsewhere")
        path.symlink_to(prefix / "state" / "elsewhere")
    else:
        path.write_text(TOKEN[:10] if spoilt == "cut off" else "header\r\nX: 1")
    with pytest.raises(CommandExecutionError) as caught:
        ask(prefix)
    assert TOKEN[:10] not in str(caught.value)
    assert hub.asked == []


LISTENER = """
import os, socket, sys, time
os.setuid(12345)
server = socket.create_server((sys.argv[1], 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_somebody_elses_program_on_the_port_is_sent_nothing(prefix, functions, address):
    """While the proxy is down, any user can listen on its port when that is above 1023."""
    process = subprocess.Popen([sys.executable, "-c", LISTENER, address], stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline())
        functions["tljh_settings.show"].return_value = {"http": {"port": port}}
        with pytest.raises(CommandExecutionError, match=f"Port {port} of 127.0.0.1 .*belongs to uid 12345"):
            ask(prefix)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


THIEF = """
import os, socket, sys
os.setuid(12345)
door = socket.socket(getattr(socket, sys.argv[1]))
door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
door.bind((sys.argv[2], 0))
print(door.getsockname()[1], flush=True)
sys.stdin.readline()
door.listen()
print("listening", flush=True)
taken = door.accept()[0]
door.close()
print("taken", flush=True)
taken.settimeout(20)
print(repr(taken.recv(65536)), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
@pytest.mark.parametrize("after", ["nobody listens", "root listens"])
@pytest.mark.parametrize(("family", "bound", "asked"), [("AF_INET", "", "127.0.0.1"), ("AF_INET6", "::", "::1")])
def test_somebody_who_takes_the_connection_between_two_looks_is_sent_nothing(
    prefix, functions, family, bound, asked, after
):
    """Nobody listens at the first look, and the one who accepted does not listen any more at the second."""
    process = subprocess.Popen(
        [sys.executable, "-c", THIEF, family, bound], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    root = []
    try:
        port = int(process.stdout.readline())
        functions["tljh_settings.show"].return_value = {"http": {"address": asked, "port": port}}

        def taken():
            if process.stdout.readline() == "taken\n" and after == "root listens":
                root.append(socket.create_server((asked, port), family=getattr(socket, family)))

        def listeners(*place):
            found = LISTENERS(*place)
            if not looks:
                process.stdin.write("go\n")
                process.stdin.flush()
                assert process.stdout.readline() == "listening\n"
            elif len(looks) == 1 and not root:
                taken()
            looks.append(found)
            return LISTENERS(*place) if len(looks) == 2 else found

        def peer(*ends):
            if len(looks) == 1:
                taken()
                looks.append(None)
            return PEER(*ends)

        looks = []
        functions.update({"plasma_listeners.listeners": listeners, "plasma_listeners.peer": peer})
        with pytest.raises(CommandExecutionError, match=f"Port {port} of {asked} .*belongs to uid 12345"):
            ask(prefix)
        assert looks[0] == []
        assert process.stdout.readline() == "b''\n"
    finally:
        for server in root:
            server.close()
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_program_that_took_the_connection_and_listens_no_more_is_sent_nothing(hub, prefix, functions, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER", 0.2)
    functions["plasma_listeners.listeners"] = lambda address, port: []
    with pytest.raises(CommandExecutionError, match=r"does not answer .*timed out"):
        ask(prefix)
    assert hub.asked == []


def test_the_token_is_sent_and_nothing_keeps_it(hub, prefix, caplog):
    with caplog.at_level(0):
        ask(prefix)
    assert hub.tokens == [f"token {TOKEN}"]
    assert TOKEN not in caplog.text


# --- keeping it


def test_a_connection_that_the_proxy_has_ended_is_made_again(hub, prefix):
    known = connection.connect(prefix)
    known.ask("GET", PATH)
    first = known.kept.connection
    first.sock.shutdown(socket.SHUT_RDWR)
    assert known.ask("GET", PATH)[0] == 200
    assert known.kept.connection is not first
