"""The first seconds of the service: JupyterHub must find it at once, and people must not meet an error."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
import requests
from support_hub import free_inner_port, free_port, wait_until
from tljh_plasma.service.waiting import Waiting

PREFIX = "/services/plasma/"


@pytest.fixture
def waiting():
    made = Waiting("127.0.0.1", free_port(), PREFIX)
    yield made, f"http://127.0.0.1:{made._listener.getsockname()[1]}"
    made.take_over().close()


def test_the_root_is_there_and_pages_come_in_a_moment(waiting):
    _, url = waiting
    assert requests.get(f"{url}{PREFIX}", timeout=5).status_code == 200
    page = requests.get(f"{url}{PREFIX}environments", timeout=5)
    assert page.status_code == 503
    assert page.headers["Retry-After"] == "1"
    assert 'http-equiv="refresh"' in page.text
    assert requests.post(f"{url}{PREFIX}api/environments", json={}, timeout=5).status_code == 503


def test_connections_queue_while_it_is_taken_over():
    made = Waiting("127.0.0.1", free_port(), PREFIX)
    listener = made.take_over()
    with listener, socket.create_connection(listener.getsockname(), 5) as client:
        client.sendall(b"hello")
        deadline = time.monotonic() + 5
        while True:
            try:
                connection, _ = listener.accept()
                break
            except BlockingIOError:
                assert time.monotonic() < deadline
        connection.setblocking(True)
        with connection:
            assert connection.recv(5) == b"hello"


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Waiting("127.0.0.1", taken.getsockname()[1], PREFIX)


def start(prefix, port):
    for name in ("config", "state"):
        (prefix / name).mkdir(exist_ok=True)
    (prefix / "config" / "config.yaml").write_text(f"plasma: {{service_port: {port}}}\n")
    env = {
        **os.environ,
        "TLJH_INSTALL_PREFIX": str(prefix),
        "JUPYTERHUB_API_TOKEN": "none",
        "JUPYTERHUB_API_URL": "http://127.0.0.1:1/hub/api",
        "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
        "JUPYTERHUB_CLIENT_ID": "service-plasma",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tljh_plasma.service"],
        env=env,
        cwd=prefix / "state",
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_service_answers_before_it_is_loaded_and_then_for_real(tmp_path):
    port = free_inner_port()
    process = start(tmp_path, port)
    try:
        address = f"http://127.0.0.1:{port}{PREFIX}"

        def answer():
            try:
                return requests.get(address, timeout=2, allow_redirects=False)
            except requests.ConnectionError:
                return None

        first = wait_until(answer, 10, "an answer")
        assert first.status_code == 200
        assert "in a moment" in first.text
        # The service itself sends people to the login.
        wait_until(lambda: answer().status_code == 302, 60, "the service")
    finally:
        process.terminate()
        process.wait(20)


def test_a_taken_port_ends_the_service_with_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", free_inner_port())) as taken:
        process = start(tmp_path, taken.getsockname()[1])
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "is taken: set plasma.service_port" in errors
    assert "Traceback" not in errors


def test_secret_of_cookies_stays_the_same(tmp_path):
    """Also where it would begin or end with a space, had it been made of bytes: people would be logged out."""
    from tljh_plasma.service.app import PlasmaService

    path = tmp_path / "cookie.secret"
    service = PlasmaService(cookie_secret_file=str(path))
    first = service._load_cookie_secret()
    assert len(first) == 64
    assert first == first.strip() == service._load_cookie_secret()
    assert path.stat().st_mode & 0o777 == 0o600
