"""What the service accepts in the bodies of requests, and what it says when it does not."""

from __future__ import annotations

import json
import string

import pytest
from tljh_plasma.environments import UNITS, source_url
from tljh_plasma.service import requests
from tljh_plasma.service.errors import Invalid, Refused
from tljh_plasma.service.groups import Group, check, look_up
from tljh_plasma.service.requests import Change, NewEnvironment, NewLink, Permissions, Rebuild, parse

GB = UNITS["G"]
REPO = "https://example.org/teacher/course"

HOSTILE_BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "a form": b"repo=x&ref=y",
    "no UTF-8": b'{"repo": "\xff"}',
    "a list": b"[]",
    "a string": b'"repo"',
    "null": b"null",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "NaN": b'{"repo": "x", "memory": NaN}',
    "Infinity": b'{"repo": "x", "memory": Infinity}',
    "a long number": b'{"repo": "x", "memory": ' + b"9" * 10_000 + b"}",
    "half a character": b'{"repo": "\\ud800"}',
    "no repository": b"{}",
    "null repository": b'{"repo": null}',
    "a number": b'{"repo": 7}',
    "a list of repositories": b'{"repo": ["x"]}',
    "an object": b'{"repo": {"x": 1}}',
    "unknown key": b'{"repo": "x", "image": "y"}',
    "dangerous key": b'{"repo": "x", "__class__": "y"}',
    "boolean memory": b'{"repo": "x", "memory": true}',
    "list of memory": b'{"repo": "x", "memory": [2]}',
    "text for groups": b'{"repo": "x", "groups": "wheel"}',
    "numbers for groups": b'{"repo": "x", "groups": [0]}',
    "null in groups": b'{"repo": "x", "groups": [null]}',
    "list for arguments": b'{"repo": "x", "buildargs": ["A=b"]}',
}


@pytest.mark.parametrize("body", HOSTILE_BODIES.values(), ids=HOSTILE_BODIES)
def test_bodies_that_are_something_else_are_refused_with_a_sentence(body):
    with pytest.raises(Invalid) as caught:
        parse(NewEnvironment, body)
    sentence = caught.value.sentence
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 300
    assert "pydantic" not in sentence


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        (NewEnvironment, {"repo": "x", "colour": 1}, "unknown key, 'colour'"),
        (NewEnvironment, {"ref": "x"}, "lacks 'repo'"),
        (NewEnvironment, {"repo": "x", "memory": []}, "'memory' must be a number of GB"),
        (NewEnvironment, {"repo": "x", "opens": ["lab"]}, "'opens' must be text"),
        (NewLink, {"repo": "x"}, "lacks 'image'"),
        (NewLink, {"image": "x:1", "next": "/hub/home"}, "unknown key, 'next'"),
        (Change, {"groups": [1]}, "'groups' must be a list of names of groups"),
        (Permissions, {"environments": {"x:1": "all"}}, "'environments' must be an object that maps images to lists"),
        (Permissions, {"environments": [["x:1", ["a"]]]}, "'environments' must be an object"),
        (Permissions, {}, "lacks 'environments'"),
        (Rebuild, {"name": "x"}, "unknown key, 'name'"),
        (Rebuild, {"pull": 1}, "'pull' must be true or false"),
        (Rebuild, {"repo": "x", "reference": "y:1"}, "both 'repo' and 'reference'"),
        (NewEnvironment, {"reference": "y:1", "ref": "2"}, "has no 'ref'"),
        (Rebuild, {"password": 1}, "'password' must be text"),
        (Change, {"<img src=x onerror=alert(1)>\n" + "x" * 500: 1}, "unknown key"),
    ],
)
def test_refusals_name_the_key(model, body, words):
    with pytest.raises(Invalid) as caught:
        parse(model, json.dumps(body).encode())
    assert words in caught.value.sentence
    assert len(caught.value.sentence) < 300
    assert caught.value.sentence.isprintable()


def test_what_an_environment_opens_with():
    """The rule itself is in ``test_links.py``."""
    assert requests.opens("  ") == ""
    assert requests.opens(" /voila/render/a.ipynb ") == "/voila/render/a.ipynb"
    with pytest.raises(Invalid) as caught:
        requests.opens("https://evil.example.org/\n" + "x" * 500)
    sentence = caught.value.sentence
    assert "is neither one of these names nor a path" in sentence and "Give lab, notebook, rstudio" in sentence
    assert sentence.isprintable() and len(sentence) < 500


def test_gpus_are_a_small_whole_number():
    assert [requests.gpus(value) for value in (None, "", " ", 0, "0", 1, " 16 ")] == [0, 0, 0, 0, 0, 1, 16]
    for value in (-1, 17, "1.5", "all", "0,1", "\u0663", True, "9" * 9):
        with pytest.raises(Invalid, match="cannot be the number of GPUs: give a whole number from 0 to 16"):
            requests.gpus(value)
    with pytest.raises(Invalid, match="'gpus' must be a whole number of GPUs"):
        parse(Change, b'{"gpus": [0]}')


def test_what_was_not_given_is_known():
    assert parse(Rebuild, b"{}").model_fields_set == set()
    assert parse(Rebuild, b'{"memory": ""}').model_fields_set == {"memory"}
    assert parse(NewEnvironment, b'{"repo": "x", "memory": 2}').memory == 2


@pytest.mark.parametrize(
    ("text", "repo", "name"),
    [
        ("course", REPO, "course"),
        ("Python Course", REPO, "python-course"),
        ("Cours d été", REPO, "cours-d-ete"),
        ("intro - part 2", REPO, "intro-part-2"),
        ("  2025.python_intro  ", REPO, "2025.python_intro"),
        ("", "https://github.com/plasmabio/template-python", "plasmabio-template-python"),
        ("", "https://github.com/plasmabio/Template-Python.git/", "plasmabio-template-python"),
        ("", "https://example.org/a%20b/~c/d_e", "a-b-c-d-e"),
        ("", "git://192.0.2.1/course", "course"),
        ("", "https://example.org/" + "x" * 200, "x" * 63),
    ],
)
def test_names(text, repo, name):
    assert requests.environment_name(text, repo) == name


@pytest.mark.parametrize(
    "text",
    [
        *["..", "../..", "-x", ".x", "x-", "a..b", "a/b", "a:b", "$(id)", "`id`", "<b>", "a\nb", "a\0b", "名前", "a'b"],
        *['a"b', "a\\b", "x" * 64, "x" * 5000, "--help", "a\u202eb", "_", "a__b", "@", "a=b", "%2e%2e", "ı" * 3],
    ],
)
def test_names_that_could_be_something_else_are_refused(text):
    with pytest.raises(Invalid) as caught:
        requests.environment_name(text, REPO)
    assert caught.value.sentence.isprintable()


@pytest.mark.parametrize(
    "repo", ["https://example.org", "https://example.org/", "https://example.org/---", "http://[/x"]
)
def test_name_that_cannot_be_made_of_the_url_is_asked_for(repo):
    with pytest.raises(Invalid):
        requests.environment_name("", repo)


def test_every_printable_character_ends_up_as_an_allowed_one_or_is_refused():
    for char in string.printable + "éßıİſK\u00a0\u2003":
        try:
            name = requests.environment_name(f"a{char}b", REPO)
        except Invalid:
            continue
        assert requests.NAME.fullmatch(name), (char, name)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        *[("", None), (None, None), (" ", None), ("2", 2 * GB), (2, 2 * GB), (3.5, int(3.5 * GB))],
        *[("3.5", int(3.5 * GB)), ("0.25", GB // 4), ("8", 8 * GB), (1 / 3, int(GB / 3))],
    ],
)
def test_memory(value, result):
    assert requests.memory(value, 8 * GB + 12345) == result


@pytest.mark.parametrize(
    "value",
    [
        *["3,5", "0", "-1", "0.1", "8.5", "1e1", "1e-9", "0x10", "two", "2G", "1_0", "٣", "NaN", "inf", "9" * 400],
        *[0, -1, 0.1, 1e22, 1e-9, 10**400, "2;3", "2 3", "\x00"],
    ],
)
def test_memory_that_makes_no_sense_is_refused(value):
    with pytest.raises(Invalid):
        requests.memory(value, 8 * GB)


def test_numbers_are_explained():
    with pytest.raises(Invalid, match=r"Write the memory limit with a point and not with a comma, as in 3\.5\."):
        requests.memory("3,5", 8 * GB)
    with pytest.raises(Invalid, match=r"The memory limit must be between 0\.25 and 8 GB"):
        requests.memory("100", 8 * GB)
    with pytest.raises(Invalid, match=r"The CPU limit must be between 0\.1 and 2 CPUs"):
        requests.cpus("2.5", 2.0)
    assert requests.cpus("0.5", 2.0) == 0.5
    assert requests.cpus(2, 2.0) == 2.0
    assert requests.cpus("", 2.0) is None


def test_descriptions():
    assert requests.description("  Plots, été 2025: <b>  ") == "Plots, été 2025: <b>"
    for text in ("two\nlines", "x" * 201, "a\x07", "a\u2028b", "a\u202eb"):
        with pytest.raises(Invalid):
            requests.description(text)


@pytest.mark.parametrize(
    ("repo", "ref", "url"),
    [
        ("https://github.com/a/b", "4709318", "https://github.com/a/b/tree/4709318"),
        ("https://github.com/a/b.git", "feature/x", "https://github.com/a/b/tree/feature/x"),
        ("https://github.com/a/b/", "HEAD", "https://github.com/a/b"),
        ("https://gitlab.com/a/b/c", "v1", "https://gitlab.com/a/b/c/-/tree/v1"),
        ("https://gitlab.example.org:8443/a/b", "v1", "https://gitlab.example.org:8443/a/b/-/tree/v1"),
        ("https://bitbucket.org/a/b", "v1", "https://bitbucket.org/a/b/src/v1"),
        ("https://codeberg.org/a/b", "v1", "https://codeberg.org/a/b/src/v1"),
        ("https://example.org/a/b", "v1", "https://example.org/a/b"),
        ("http://[2001:db8::1]:80/a", "v1", "http://[2001:db8::1]:80/a"),
        ("https://user:secret@github.com/a/b", "v1", "https://github.com/a/b/tree/v1"),
        ("git://example.org/a", "v1", ""),
        ("git@github.com:a/b", "v1", ""),
        ("ssh://git@github.com/a/b", "v1", ""),
        ("javascript:alert(1)", "v1", ""),
        ("JavaScript://github.com/%0aalert(1)", "v1", ""),
        ("data:text/html,x", "", ""),
        ("//github.com/a", "v1", ""),
        ("https://", "v1", ""),
        ("https://[/a", "v1", ""),
        ("https://x:99999999/a", "v1", ""),
        ("", "", ""),
        (
            'https://github.com/a"><script>',
            'x"onclick="',
            "https://github.com/a%22%3E%3Cscript%3E/tree/x%22onclick%3D%22",
        ),
    ],
)
def test_links_to_the_source(repo, ref, url):
    assert source_url(repo, ref) == url


def test_14_groups_that_cannot_be_granted_are_refused():
    """Permissions were accepted for groups that do not exist."""
    groups = {
        "here": Group("here", True, 3, True),
        "gone": Group("gone", False, 0, True),
        "former": Group("former", True, 1, False),
    }
    assert check(["here", "here"], [], groups) == ("here",)
    # What an environment has can stay, and be taken away.
    assert check(["former", "gone"], ["former", "gone"], groups) == ("former", "gone")
    assert check([], ["former"], groups) == ()
    for name in ("gone", "former", "root", "", "x" * 1000, "a\nb"):
        with pytest.raises(Refused) as caught:
            check(["here", name], ["here"], groups)
        assert caught.value.status_code == 400
        assert caught.value.sentence.isprintable()


def test_16_members_by_primary_group_count(accounts):
    """Members whose primary group it is were missed."""
    course = accounts.add_group("course")
    accounts.add("one", "--gid", course.gr_name)
    accounts.add("two", "--groups", course.gr_name)
    both = accounts.add("three", "--gid", course.gr_name, "--groups", course.gr_name)
    assert both.gid == course.gr_gid
    found = look_up([course.gr_name, "plasmat-no-such-group"], ["plasmat-former", course.gr_name])
    assert found[course.gr_name] == Group(course.gr_name, True, 3, True)
    assert found["plasmat-no-such-group"] == Group("plasmat-no-such-group", False, 0, True)
    assert found["plasmat-former"] == Group("plasmat-former", False, 0, False)
    assert list(found) == sorted(found)
