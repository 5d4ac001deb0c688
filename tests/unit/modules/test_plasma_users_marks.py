"""Edited passwords that are not set."""

from __future__ import annotations

import pytest

import plasma_users_marks as marks


def person(mark, hashed="$y$1", name="anna"):
    return {"name": name, "password_hash": hashed, **({"password_mark": mark} if mark else {})}


def test_an_edit_is_told_until_it_is_set_or_taken_back():
    noted, edited = marks.compare([person("here.1")], {}, {}, ["anna"])
    assert (noted, edited) == ({"anna": {"here": "1"}}, [])
    for _ in range(2):
        noted, edited = marks.compare([person("here.2", "$y$2")], noted, {"anna": "$y$1"}, [])
        assert (noted, edited) == ({"anna": {"here": "1"}}, ["anna"])
    assert marks.compare([person("here.1")], noted, {"anna": "$y$own"}, []) == (noted, [])
    assert marks.compare([person("here.2", "$y$2")], noted, {"anna": "$y$1"}, ["anna"]) == (
        {"anna": {"here": "2"}},
        [],
    )
    # Set by somebody else, such as `chpasswd --encrypted`.
    assert marks.compare([person("here.2", "$y$2")], noted, {"anna": "$y$2"}, [])[1] == []


def test_a_password_of_ones_own_is_no_edit():
    assert marks.compare([person("here.1")], {"anna": {"here": "1"}}, {"anna": "$y$own"}, [])[1] == []


def test_another_controller_is_no_edit():
    """Whose hashes and marks differ, though nobody edited anything; it tells its own edits afterwards."""
    noted, edited = marks.compare([person("there.9", "$y$9")], {"anna": {"here": "1"}}, {"anna": "$y$1"}, [])
    assert (noted, edited) == ({"anna": {"here": "1", "there": "9"}}, [])
    assert marks.compare([person("there.8", "$y$8")], noted, {}, [])[1] == ["anna"]
    assert marks.compare([person("here.1", "$y$1")], noted, {}, [])[1] == []


@pytest.mark.parametrize("known", [{}, {"anna": {"here": "1"}}])
def test_a_ready_hash_is_its_own_mark(known):
    noted, edited = marks.compare([person(None, "$y$1")], known, {"anna": "$y$own"}, [])
    assert edited == []
    assert marks.compare([person(None, "$y$1")], noted, {"anna": "$y$own"}, [])[1] == []
    assert marks.compare([person(None, "$y$2")], noted, {"anna": "$y$own"}, [])[1] == ["anna"]
    assert "$y$" not in str(noted)


def test_people_without_a_password_have_no_mark():
    assert marks.compare([{"name": "anna"}, {"name": "ben", "absent": True}], {}, {}, []) == ({}, [])
