"""What ``plasma.prove`` says of builds."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from salt.exceptions import CommandExecutionError

import plasma_prove_builds as builds
import plasma_run


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        ({"done": [], "tried": 9}, (True, "9 refused")),
        (
            {"done": ["the engine's socket", "root of the server"], "tried": 9},
            (False, "the engine's socket, root of the"),
        ),
        (None, (None, "DOES NOT HOLD: builds have the Docker engine")),
    ],
)
def test_what_was_seen(monkeypatch, found, outcome):
    monkeypatch.setattr(plasma_run, "run", lambda *_given, **_options: plasma_run.Result(0, json.dumps(found)))
    refused, seen = builds._build.play(SimpleNamespace(prefix="/opt/tljh"))
    assert refused is outcome[0] and seen.startswith(outcome[1])


def test_a_builder_that_does_not_run(monkeypatch):
    said = json.dumps({"problem": "Error: no user\nnamespace"})
    monkeypatch.setattr(plasma_run, "run", lambda *_given, **_options: plasma_run.Result(0, said))
    with pytest.raises(CommandExecutionError, match="^Error: no user namespace$"):
        builds._build.play(SimpleNamespace(prefix="/opt/tljh"))


@pytest.mark.parametrize("program", [builds._MAKE, builds._ATTEMPT])
def test_the_programs_are_valid(program):
    compile(program, "program", "exec")
