"""What a build uses is measured by programs that it may stop, which nothing waits for; what both sides agree on."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from tljh_plasma.buildpack import plasma_rootless
from tljh_plasma.builds import local, rootless

from tests.support.paths import REPOSITORY


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


def test_both_sides_and_the_recipe_say_the_same():
    """The module inside cannot import what the service has, nor either of them what Salt has."""
    for name in ("PLACE", "IMAGES", "SECRETS", "MOST_IMAGES"):
        assert getattr(plasma_rootless, name) == getattr(rootless, name), name
    assert f"{rootless.SECRETS}/{rootless.NEEDS}" == plasma_rootless.NEEDS
    assert f"{rootless.SECRETS}/{rootless.GIVEN}" == plasma_rootless.GIVEN
    assert Path(plasma_rootless.__file__).name == local.PROGRAM
    owner = plasma_rootless.FIRST_ID
    assert f"uid={owner},gid={owner}" in rootless.TMPFS["/var/cache/containers"]
    recipe = (REPOSITORY / "salt/builder/files/builder/Dockerfile").read_text()
    assert f"-o {owner} -g {owner} {plasma_rootless.PLACE} {plasma_rootless.IMAGES} " in recipe
    for file, line in (
        ("plasma_builder_profile.py", f'NAME = "{rootless.PROFILE}"'),
        ("plasma_builder_images.py", f'VOLUME = "{rootless.LABEL_VOLUME}"'),
    ):
        assert line in (REPOSITORY / "_utils" / file).read_text()
