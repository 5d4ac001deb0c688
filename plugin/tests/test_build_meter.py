"""What a build uses is measured by programs that it may stop: nothing waits for them."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from tljh_plasma.buildpack import plasma_rootless


@pytest.fixture
def meter(monkeypatch):
    """A meter whose program is a stand-in that says ``meter.said``; it looks at a clock that tests set."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(plasma_rootless, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(plasma_rootless, "inside", lambda work: work())
    made = SimpleNamespace(clock=clock, said=[], asked=0, meter=plasma_rootless.Meter(500))

    def call(words, *, stdout, **_options):
        made.asked += 1
        if made.said:
            os.write(stdout, made.said.pop(0))
        return 0

    monkeypatch.setattr(plasma_rootless.subprocess, "call", call)
    return made


def look(meter, at: float) -> None:
    meter.clock.now = at
    meter.meter.look()


def test_it_measures_again_and_again(meter):
    meter.said = [b"400\t/build\n", b"49000\t/build\n"] * 2
    look(meter, 1)
    assert meter.asked == 0
    look(meter, plasma_rootless.MEASURE + 1)
    look(meter, plasma_rootless.MEASURE + 2)
    assert meter.asked == 2
    look(meter, 2 * plasma_rootless.MEASURE + 3)
    assert meter.asked == 4


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([b"501\t/build\n", b"1\t/build\n"], "more than 500 MB of disk space"),
        ([b"1\t/build\n", b"50001\t/build\n"], "more than 50000 files"),
    ],
)
def test_too_much(meter, capsys, said, why):
    meter.said = said
    with pytest.raises(SystemExit):
        look(meter, plasma_rootless.MEASURE + 1)
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("said", [[], [b"1\t/build\n"]])
def test_a_build_that_stops_the_program(meter, capsys, said):
    meter.said = said
    began = plasma_rootless.MEASURE + 1
    look(meter, began)
    look(meter, began + plasma_rootless.MEASURING)
    with pytest.raises(SystemExit):
        look(meter, began + plasma_rootless.MEASURING + 1)
    assert "cannot be measured" in capsys.readouterr().err
