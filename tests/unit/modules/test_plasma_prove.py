"""``plasma.prove``: how a run goes, what it returns, and how that looks on a terminal."""

from __future__ import annotations

import os
import signal

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_prove as plasma_prove
import _modules.plasma_server as plasma_server
import _output.plasma as shown
import _wrapper.plasma as wrapper
import plasma_prove_run as run
import plasma_prove_scene as scene
from plasma_prove_scene import Attack
from tests.unit.salt_options import minion_options

PILLAR = {"plasma": {"hub": {"prefix": "/srv/hub"}}}


class World:
    """A server on which only what a run calls is there."""

    def __init__(self):
        self.called, self.left, self.problems, self.allowed, self.listeners = [], [], [], [], [0]
        self.begins = {}
        self.plays = {
            "A10.late": lambda scene: (True, "last"),
            "A2.key": lambda scene: (True, "status 403"),
            "A2.password": lambda scene: (None, "does not apply"),
            "A3.bind": lambda scene: (True, scene.a["name"]),
        }

    def attacks(self):
        return [
            Attack(name, f"{name}?", "no", play, last=name.endswith("late"), begin=self.begins.get(name))
            for name, play in self.plays.items()
        ]

    def functions(self):
        return {
            "plasma_prove_browser.place": lambda prefix: {"address": "127.0.0.1", "port": 80},
            "plasma_hub_connection.connect": lambda prefix: object(),
            "plasma_listeners.listeners": lambda address, port: self.listeners,
            "tljh_settings.get": lambda key, prefix: self.allowed,
            "plasma_prove_people.left": lambda: list(self.left),
            "plasma_prove_people.make": self.make,
            "plasma_prove_people.remove": self.remove,
            "plasma_prove_environment.left": lambda: [],
            "plasma_prove_environment.remove": lambda prefix: [],
        }

    def make(self, tag):
        self.called.append("make")
        self.left = [f"plasma-prove-{letter}-{tag}" for letter in "ab"]
        return [{"name": name} for name in self.left]

    def remove(self, names, prefix):
        self.called.append(("remove", len(names), prefix))
        self.left = []
        return list(self.problems)


@pytest.fixture
def world():
    return World()


@pytest.fixture
def configure_loader_modules(world, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "attacks", world.attacks)
    for module in (run, scene):
        monkeypatch.setattr(module, "DIRECTORY", str(tmp_path / "keys"))
    monkeypatch.setattr(run, "LOCK", str(tmp_path / "lock"))
    opts = minion_options(tmp_path, color=False, color_theme=None)
    functions = {"plasma_server.prove": run.run, "pillar.items": lambda unmask: PILLAR}
    return {
        run: {"__salt__": world.functions()},
        plasma_prove: {"__salt__": functions, "__context__": {}},
        wrapper: {"__salt__": functions, "__pillar__": PILLAR, "__context__": {}},
        shown: {"__opts__": opts},
    }


def test_all_refused(world):
    found = run.run(prefix="/srv/hub")
    assert found["refused"] is True
    assert [one["attack"] for one in found["attacks"]] == ["A2.key", "A2.password", "A3.bind", "A10.late"]
    assert found["attacks"][1]["refused"] is None
    assert world.called == ["make", ("remove", 2, "/srv/hub")]
    assert not os.path.exists(run.DIRECTORY)


def test_one_that_is_not_refused(world):
    world.plays["A2.key"] = lambda scene: (False, "a shell")
    assert run.run()["refused"] is False
    assert world.left == []


def test_an_attack_that_cannot_be_played_counts(world):
    def broken(scene):
        raise CommandExecutionError("ssh is not installed.")

    world.plays["A2.key"] = broken
    found = run.run()
    assert (found["refused"], found["attacks"][0]["seen"]) == (False, "not played: ssh is not installed")


def test_one_that_cannot_begin_counts_and_stops_no_other(world):
    def broken(scene):
        raise CommandExecutionError("the throwaway server did not start")

    world.begins = {"A2.key": broken, "A3.bind": lambda scene: None}
    world.plays = {name: world.plays[name] for name in ("A2.key", "A2.password")}
    found = run.run()
    assert [one["seen"] for one in found["attacks"]] == [
        "not played: the throwaway server did not start",
        "does not apply",
    ]
    assert found["refused"] is False


def test_what_could_not_be_removed_counts(world):
    world.problems = ["userdel failed"]
    found = run.run()
    assert (found["refused"], found["problems"]) == (False, ["userdel failed"])


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ("A2", ["A2.key", "A2.password"]),
        ("A2.key, A3", ["A2.key", "A3.bind"]),
        (["A10.late"], ["A10.late"]),
    ],
)
def test_some_of_them(only, names):
    assert [one["attack"] for one in run.run(only=only)["attacks"]] == names


def test_an_attack_that_there_is_not(world):
    with pytest.raises(CommandExecutionError, match=r"no attack 'A99': .* names: A2.key, A2.password, A3.bind"):
        run.run(only="A99")
    assert world.called == []


def test_what_an_earlier_run_left_goes_first(world):
    world.left = ["plasma-prove-a-000000"]
    found = run.run(prefix="/srv/hub")
    assert found["removed"] == ["plasma-prove-a-000000"]
    assert world.called == [("remove", 1, "/srv/hub"), "make", ("remove", 2, "/srv/hub")]


def test_only_that(world):
    world.left = ["plasma-prove-a-000000"]
    assert run.run(clean=True)["attacks"] == []
    assert [call[0] for call in world.called] == ["remove"]


@pytest.mark.parametrize("number", run.SIGNALS)
def test_a_lost_connection_removes_everything(world, number):
    world.plays["A2.key"] = lambda scene: os.kill(os.getpid(), number)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit):
        run.run()
    assert world.left == []
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("change", "text"),
    [({"allowed": ["ada"]}, "users.allowed"), ({"listeners": [1000]}, "not that of a proxy of root's")],
)
def test_where_nothing_can_be_tried(world, change, text):
    vars(world).update(change)
    with pytest.raises(CommandExecutionError, match=text):
        run.run()
    assert world.called == []


def test_two_runs_at_once(world):
    def again(scene):
        with pytest.raises(CommandExecutionError, match="Another run"):
            run.run()
        return True, "refused"

    world.plays["A2.key"] = again
    assert run.run(only="A2.key")["refused"]


def test_the_exit_code(world):
    assert plasma_prove.prove(only="A3")["refused"]
    assert "retcode" not in plasma_prove.__context__
    assert wrapper.prove(only="A3")["local"]["retcode"] == 0
    assert world.called[-1][2] == "/srv/hub"
    world.plays["A3.bind"] = lambda scene: (False, "taken")
    plasma_prove.prove()
    assert plasma_prove.__context__["retcode"] == 1
    found = wrapper.prove()["local"]
    assert (found["retcode"], found["out"]) == (1, "plasma")
    assert wrapper.__context__["retcode"] == 1


def test_a_refusal_is_one_sentence_under_salt_ssh(monkeypatch):
    def refuse(**_):
        raise CommandExecutionError("There is no hub.")

    monkeypatch.setattr(run, "run", refuse)
    assert plasma_server.prove() == "There is no hub."
    monkeypatch.setitem(wrapper.__salt__, "plasma_server.prove", plasma_server.prove)
    assert wrapper.prove()["local"] == {"return": "There is no hub.", "retcode": 1, "out": "plasma"}


def test_the_table():
    attacks = [
        {
            "attack": "A2.key",
            "what": "A key " * 20,
            "expected": "no",
            "seen": "a shell",
            "refused": False,
            "seconds": 1,
        },
        {"attack": "A3.bind", "what": "A port", "expected": "EACCES", "seen": "EACCES", "refused": True, "seconds": 1},
    ]
    found = {"refused": False, "attacks": attacks, "problems": ["it stays"], "removed": ["x"], "seconds": 61.2}
    lines = shown.output({"course": found}).splitlines()
    assert lines[0] == "course: 1 of 2 attacks NOT REFUSED, NOT ALL REMOVED (61 s)"
    assert lines[2].split("  ")[0] == " !! A2.key"
    assert max(map(len, lines)) < 170
    assert [line for line in lines if line.startswith(" ok A3.bind")]
    assert lines[-2:] == ["  !! it stays", "       -> salt-ssh 'course' plasma.prove clean=True"]
    well = {**found, "refused": True, "attacks": attacks[1:], "problems": []}
    assert shown.output({"course": well}).startswith("course: all of 1 attack refused (61 s)")
    # A line with -- is an attack that was not refused either.
    open_here = {**well, "attacks": [attacks[1], {**attacks[1], "attack": "A15.hsts", "refused": None}]}
    assert shown.output({"course": open_here}).startswith("course: all of 1 attack refused, 1 to look at (--) (61 s)")
    assert "Permission denied" in shown.output({"course": "Permission denied"})
