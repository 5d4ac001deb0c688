"""A server that ends at once is started a second time without what the home brings, and never a third time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import SimpleNamespace

import pytest
from tljh_plasma import failures, starts
from tljh_plasma.environments import Environment
from tljh_plasma.planning import PlannedSpawner, StartFailure
from tljh_plasma.spawner import PlasmaSpawner

ENVIRONMENT = Environment(image="course:1", image_id="sha256:x", name="Course", directory="course")


class Spawner:
    """What stands in for JupyterHub's part: each start is the next of ``ends``, an exception or None."""

    _run = PlasmaSpawner._run

    def __init__(self, *ends, **options):
        self.ends = list(ends)
        self.user_options = {"image": "course:1", **options}
        self.modes: list[bool] = []
        self.steps: list[str] = []
        self.discarded = 0
        self._safe = False
        self.told = {"memory": "of the last time"}
        self._log_name = "ada"
        self.log = logging.getLogger("safe-mode-test")

    async def _run_container(self):
        self.modes.append(self._safe)
        end = self.ends.pop(0)
        if end:
            raise end
        return ("10.0.0.2", 8888)

    async def _discard(self):
        self.discarded += 1

    def step(self, progress, message):
        self.steps.append(message)


def ended():
    state = {"ExitCode": 1, "OOMKilled": False}
    plan = SimpleNamespace(environment=ENVIRONMENT, limits=SimpleNamespace(memory=1024**3))
    return failures.of_container(state, "RuntimeError: damaged", plan)


def test_a_server_that_ends_at_once_starts_in_safe_mode(caplog):
    spawner = Spawner(ended(), None)
    assert asyncio.run(spawner._run()) == ("10.0.0.2", 8888)
    assert spawner.modes == [False, True]
    assert spawner.discarded == 1
    assert "safe mode" in spawner.steps[0]
    assert "Server ada starts again in safe mode" in caplog.text
    assert "RuntimeError: damaged" in caplog.text


def test_a_server_that_ends_in_safe_mode_too_is_its_environments_fault():
    spawner = Spawner(ended(), ended(), None)
    with pytest.raises(failures.EndedAtOnce, match="ended with code 1") as raised:
        asyncio.run(spawner._run())
    assert spawner.modes == [False, True]
    assert "its repository has to be mended" in raised.value.message


def test_somebody_asks_for_safe_mode_and_gets_nothing_else():
    spawner = Spawner(ended(), None, safe_mode=True)
    with pytest.raises(failures.EndedAtOnce):
        asyncio.run(spawner._run())
    assert spawner.modes == [True]


@pytest.mark.parametrize("options", [{}, {"safe_mode": False}, {"safe_mode": "yes"}, {"safe_mode": 1}])
def test_the_next_start_is_an_ordinary_one(options):
    spawner = Spawner(None, **options)
    spawner._safe = True
    asyncio.run(spawner._run())
    assert (spawner.modes, spawner.told) == ([False], {})


@pytest.mark.parametrize(
    ("state", "log"),
    [({"ExitCode": 137, "OOMKilled": True}, ""), ({"ExitCode": 1}, "OSError: No space left on device")],
)
def test_for_memory_and_disk_there_is_no_second_try(state, log):
    plan = SimpleNamespace(environment=ENVIRONMENT, limits=SimpleNamespace(memory=1024**3))
    spawner = Spawner(failures.of_container(state, log, plan))
    with pytest.raises(StartFailure):
        asyncio.run(spawner._run())
    assert spawner.modes == [False]


def test_what_is_told_says_how_to_get_out_of_it():
    told = starts.safe_mode(ENVIRONMENT)
    assert told.title == "This server runs in safe mode"
    assert "mv ~/.local ~/.local-old" in told.text
    assert "~/course/.jupyter" in told.text


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", None),
        ("[I 2026] JupyterLab\nplasma is mentioned\n", None),
        ("plasma: The files of Course cannot be read in its image: nothing is copied.\nother\n",
         "The files of Course cannot be read in its image: nothing is copied."),
        ("plasma: a\x1b[31mb\u202e\n", "a [31mb "),
        ("plasma: " + "x" * 500 + "\n", "x" * 400),
        ("".join(f"plasma: {number}.\n" for number in range(7)), "0. 1. 2. 3. 4. ... and 2 more."),
    ],
)  # fmt: skip
def test_what_the_entrypoint_could_not_do_is_told(log, expected):
    told = starts.complaints(log)
    assert (told.text if told else None) == expected


def test_the_form_offers_it(monkeypatch):
    monkeypatch.setattr("tljh_plasma.policy.choose", lambda *arguments: ENVIRONMENT)

    async def data():
        return [ENVIRONMENT], None, frozenset(), False

    spawner = SimpleNamespace(_policy_data=data, _telling=lambda what: contextlib.nullcontext())
    read = PlannedSpawner._read_form
    assert asyncio.run(read(spawner, {"image": ["course:1"]})) == {"image": "course:1"}
    form = {"image": ["course:1"], "safe_mode": ["yes"]}
    assert asyncio.run(read(spawner, form)) == {"image": "course:1", "safe_mode": True}
