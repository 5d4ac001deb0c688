"""The first start of a hub that the official installer makes, where pillar wants it."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest

import plasma_hub_seed


def answered():
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


@pytest.mark.parametrize("given", [None, {}, {"address": None, "port": None}])
def test_without_keys_nothing_is_there_before_the_installer(tmp_path, given):
    with plasma_hub_seed.seeded(tmp_path, given):
        assert list(tmp_path.iterdir()) == []
        assert answered() is None


def test_the_hub_finds_its_port_and_the_installer_an_answer(tmp_path):
    if answered() is not None:
        pytest.skip("port 80 of this machine is somebody's")
    with plasma_hub_seed.seeded(tmp_path / "hub", {"address": "127.0.0.1", "port": 81}):
        config = tmp_path / "hub" / "config" / "config.yaml"
        assert json.loads(config.read_text()) == {"http": {"address": "127.0.0.1", "port": 81}}
        assert (config.stat().st_mode & 0o777, config.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert answered() == 204
    assert answered() is None
    # What is there is somebody's settings, and stays.
    config.write_text("http: {port: 82}\n")
    with plasma_hub_seed.seeded(tmp_path / "hub", {"port": 81}):
        assert config.read_text() == "http: {port: 82}\n"


@pytest.mark.parametrize(
    ("content", "given", "needed"),
    [
        ("http: {port: 82}\n", None, True),
        ("http: {address: 192.0.2.1}\n", None, True),
        ("http: {address: 127.0.0.1, port: 81}\n", {"address": None, "port": None}, True),
        ("limits: {memory: 1G}\n", None, False),
        ("http: {address: 0.0.0.0, port: 80}\n", None, False),
        # The first start goes by the file: pillar's port is written when all is installed.
        ("limits: {memory: 1G}\n", {"port": 81}, False),
        ("http: {port: 82}\n", {"port": 80}, True),
        ("http: [\n", None, False),
        ("http: 82\n", None, False),
        ("- http\n", None, False),
    ],
)
def test_a_port_that_was_set_by_hand_leaves_the_installer_without_an_answer(
    tmp_path, monkeypatch, content, given, needed
):
    began = []

    @contextlib.contextmanager
    def answering():
        began.append(True)
        yield

    monkeypatch.setattr(plasma_hub_seed, "_answering", answering)
    config = tmp_path / "config" / "config.yaml"
    config.parent.mkdir()
    config.write_text(content)
    with plasma_hub_seed.seeded(tmp_path, given):
        assert bool(began) is needed
        assert config.read_text() == content
