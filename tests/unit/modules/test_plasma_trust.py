"""Authorities of pillar among those that the system trusts; the states about them."""

from __future__ import annotations

import json

import pytest
from salt.exceptions import CommandExecutionError

import _states.plasma_builds as builds_state
import _states.plasma_trust as trust_state
import plasma_engine
import plasma_run
import plasma_systemd
import plasma_trust
from tests.support.acme import make_certificate

LOGIN = "builds:pass-word-9"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    make = lambda name, **options: make_certificate(directory, name, **options)[1].read_text()  # noqa: E731
    return {
        "one": make("ca-one"),
        "two": make("ca-two"),
        "old": make("ca-old", days="-1"),
        "late": make("ca-l", days="9"),
    }


class System:
    """The parts of a server that are touched, below a directory."""

    def __init__(self, root, monkeypatch):
        self.called = []
        self.live_restore = True
        self.fails = False
        self.folder, self.bundle = root / "ca", root / "all.crt"
        self.drop_in = root / "unit.d" / "plasma-trust.conf"
        self.bundle.write_text("PUBLIC\n")
        for name, value in (("FOLDER", self.folder), ("BUNDLE", str(self.bundle)), ("DROP_IN", self.drop_in)):
            monkeypatch.setattr(plasma_trust, name, value)
        real = plasma_run.run
        fake = lambda command, **options: self.run(command) or real(command, **options)  # noqa: E731
        monkeypatch.setattr(plasma_run, "run", fake)
        monkeypatch.setattr(plasma_systemd, "check", lambda *words: self.called.append(words))
        monkeypatch.setattr(plasma_engine, "info", lambda timeout: {"live_restore": self.live_restore})

    def run(self, command):
        if command != ["update-ca-certificates"]:
            return None
        self.called.append(tuple(command))
        if self.fails:
            return plasma_run.Result(1, "", "it broke.", command)
        self.bundle.write_text("PUBLIC\n" + "".join(path.read_text() for path in sorted(self.folder.glob("*.crt"))))
        return plasma_run.Result(0, command=command)


@pytest.fixture
def system(tmp_path, monkeypatch):
    return System(tmp_path, monkeypatch)


def test_without_any_nothing_is_touched(system):
    assert plasma_trust.compare([]) == {}
    assert plasma_trust.apply([]) == {}
    assert system.called == [] and not system.folder.exists()


def test_they_are_trusted_once(system, certificates):
    wanted = [certificates["one"], certificates["two"]]
    changes = plasma_trust.apply(wanted)
    assert changes["CN=ca-one"] == changes["CN=ca-two"] == {"old": None, "new": "trusted"}
    assert system.called == [("update-ca-certificates",), ("daemon-reload",), ("restart", "docker.service")]
    files = list(system.folder.iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    assert all(path.name.startswith("plasma-") and path.suffix == ".crt" for path in files)
    assert f"REQUESTS_CA_BUNDLE={plasma_trust.BUNDLE}" in plasma_trust._DROP_IN_TEXT or system.drop_in.exists()
    assert plasma_trust.apply(wanted) == {}
    assert len(system.called) == 3


def test_what_leaves_pillar_is_trusted_no_more_and_others_files_stay(system, certificates):
    plasma_trust.apply([certificates["one"], certificates["two"]])
    (system.folder / "campus.crt").write_text(certificates["late"])
    plasma_trust.apply([certificates["two"]])
    assert [path.read_text() for path in system.folder.glob("plasma-*")] == [certificates["two"]]
    changes = plasma_trust.apply([])
    assert len(changes) == 2 and changes["hub"]["new"] is None
    assert [path.name for path in system.folder.iterdir()] == ["campus.crt"]
    assert not system.drop_in.exists()
    assert certificates["two"] not in system.bundle.read_text()


def test_docker_is_not_restarted_where_that_would_end_servers(system, certificates):
    system.live_restore = False
    plasma_trust.apply([certificates["one"]])
    assert ("restart", "docker.service") not in system.called


def test_an_interrupted_apply_is_finished(system, certificates):
    system.fails = True
    with pytest.raises(CommandExecutionError, match="it broke"):
        plasma_trust.apply([certificates["one"]])
    system.fails = False
    assert plasma_trust.compare([certificates["one"]]) != {}
    plasma_trust.apply([certificates["one"]])
    assert plasma_trust.compare([certificates["one"]]) == {}


def test_dates_are_warned_of(certificates):
    assert plasma_trust.warnings([certificates["one"]]) == []
    (sentence,) = plasma_trust.warnings([certificates["one"], certificates["old"]])
    assert sentence.startswith("plasma.trust: the certificate of CN=ca-old has expired on 20")
    assert " expires on 20" in plasma_trust.warnings([certificates["late"]])[0]


@pytest.mark.parametrize("test", [False, True])
def test_the_state(system, certificates, monkeypatch, test):
    monkeypatch.setattr(trust_state, "__opts__", {"test": test}, raising=False)
    ret = trust_state.authorities("x", [certificates["old"]])
    assert ret["result"] is (None if test else True)
    assert "CN=ca-old" in ret["changes"] and ret["warnings"]
    assert system.folder.exists() is not test
    if not test:
        again = trust_state.authorities("x", [certificates["old"]])
        assert (again["result"], again["changes"]) == (True, {})
    # Salt would count an empty list.
    assert "warnings" not in trust_state.authorities("x", [certificates["one"]])
    ret = trust_state.authorities("x", ["-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"])
    assert (ret["result"], ret["changes"]) == (False, {})


@pytest.fixture(params=[False, True], ids=["apply", "test"])
def proxy(request, monkeypatch, tmp_path):
    """The state of the builds' proxy, called with what pillar has for it."""
    monkeypatch.setattr(builds_state, "__opts__", {"test": request.param}, raising=False)
    (tmp_path / "plasma").mkdir()

    def call(**builder):
        monkeypatch.setattr(builds_state, "__pillar__", {"plasma": {"builder": builder}}, raising=False)
        return builds_state.proxy("x", prefix=str(tmp_path))

    call.test, call.path = request.param, tmp_path / "plasma" / "builds.json"
    return call


def test_the_proxy_of_builds(proxy):
    assert proxy(http_proxy=None, image="x")["changes"] == {}
    url = f"http://{LOGIN}@proxy.example.org:3128"
    ret = proxy(https_proxy=url, no_proxy="localhost", image="x")
    assert ret["changes"] == {
        "https_proxy": {"old": None, "new": "http://proxy.example.org:3128"},
        "no_proxy": {"old": None, "new": "localhost"},
    }
    assert "pass-word-9" not in json.dumps(ret)
    if proxy.test:
        assert ret["result"] is None and not proxy.path.exists()
        return
    assert json.loads(proxy.path.read_text()) == {"https_proxy": url, "no_proxy": "localhost"}
    assert proxy.path.stat().st_mode & 0o777 == 0o600
    assert proxy(https_proxy=url, no_proxy="localhost")["changes"] == {}
    # Another login alone is a change, of which nothing is shown.
    changes = proxy(https_proxy=url.replace("word-9", "word-10"), no_proxy="localhost")["changes"]
    assert changes["https_proxy"]["old"] == changes["https_proxy"]["new"] == "http://proxy.example.org:3128"
    assert proxy()["changes"]["no_proxy"] == {"old": "localhost", "new": None}
    index = "https://pypi.example.org/simple"
    assert proxy(index=index)["changes"]["index"] == {"old": None, "new": index}
    assert json.loads(proxy.path.read_text()) == {"index": index}
    assert proxy()["changes"]["index"] == {"old": index, "new": None}
    assert not proxy.path.exists()


def test_a_damaged_note_is_one_sentence(proxy):
    proxy.path.write_text("{")
    ret = proxy()
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"].endswith("remove it, and apply again.")
