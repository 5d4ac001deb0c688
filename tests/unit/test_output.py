"""What a run of states looks like at its end."""

from __future__ import annotations

import pytest
import salt.loader

import _output.highstate as highstate
from tests.support.paths import REPOSITORY

SLS = "tljh.pypi"


@pytest.fixture
def configure_loader_modules():
    return {highstate: {"__opts__": {"color": False, "state_output": "changes", "state_verbose": False}}}


def state(number, name, result, comment, changes=None, **keys):
    return {
        f"plasma_|-{name}_|-{name}_|-managed": {
            "__id__": name,
            "__run_num__": number,
            "__sls__": SLS,
            "name": name,
            "result": result,
            "comment": comment,
            "changes": changes or {},
            "start_time": "10:00:00.000000",
            "duration": 1.5,
            **keys,
        }
    }


def missed(number, name, *needed):
    comment = f"One or more requisite failed: {', '.join(f'{SLS}.{one}' for one in needed)}"
    return state(number, name, False, comment)


def shown(**parts):
    return highstate.output({"course": {tag: one for part in parts.values() for tag, one in part.items()}})


def test_a_failed_run_ends_with_its_causes():
    """First what others wait for, though it comes later in the run."""
    text = shown(
        a=state(0, "ctop", False, "github.com cannot be reached."),
        b=state(1, "engine", False, "The key of Docker cannot be fetched: set plasma.docker.source."),
        c=missed(2, "service", "engine"),
        d=missed(3, "hub", "service"),
        e=missed(4, "settings", "hub", "service"),
        f=state(5, "admins", True, "Fine.", {"ada": {"old": None, "new": "admin"}}),
    )
    assert text.splitlines()[-4:] == [
        "What failed on course, first the one to mend:",
        "  1. engine: The key of Docker cannot be fetched: set plasma.docker.source.",
        "  2. ctop: github.com cannot be reached.",
        "3 more need what failed, and were not tried.",
    ]
    assert "requisite" not in text
    assert "Failed:    2" in text
    assert "ada" in text


def test_of_a_long_comment_the_beginning_and_the_end_are_said_again():
    log = "\n".join(["Installing failed. The end of the log:", *(f"line {number}" for number in range(25))])
    lines = shown(a=state(0, "hub", False, log), b=missed(1, "settings", "hub")).splitlines()
    at = lines.index("What failed on course:")
    assert lines[at + 1 :] == [
        "  1. hub: Installing failed. The end of the log:",
        "     line 0",
        "     ... 18 lines, see above",
        *(f"     line {number}" for number in range(19, 25)),
        "1 more needs what failed, and was not tried.",
    ]


def test_a_good_run_looks_as_salt_shows_it():
    parts = {"a": state(0, "hub", True, "Fine.", {"x": {"old": 1, "new": 2}}), "b": state(1, "quiet", True, "Fine.")}
    text = shown(**parts)
    assert text.splitlines()[-1].startswith("Total ")
    assert "quiet" not in text and "What failed" not in text


def test_a_warning_is_seen_where_nothing_changed():
    text = shown(a=state(0, "users", True, "Fine.", warnings=["The password of ada is not set."]))
    assert text.splitlines()[-2:] == ["To know about course:", "  ! users: The password of ada is not set."]


@pytest.mark.parametrize(
    "data", [{"course": ["Pillar failed to render"]}, {"course": "no answer"}, {"course": 7}, None]
)
def test_what_is_no_run_is_left_to_salt(data):
    assert "What failed" not in highstate.output(data)


def test_salt_takes_this_one_for_its_own():
    opts = {
        "outputter_dirs": [str(REPOSITORY / "_output")],
        "extension_modules": "",
        "optimization_order": [0],
        "color": False,
    }
    found = salt.loader.outputters({**opts, "grains": {}, "state_output": "changes"})["highstate"]
    text = found({"course": state(0, "ctop", False, "github.com cannot be reached.")})
    assert text.splitlines()[-2:] == ["What failed on course:", "  1. ctop: github.com cannot be reached."]
