"""What a change of keys does to the text of a YAML file."""

from __future__ import annotations

import json
import random

import pytest
from tljh_plasma.config_file import ConfigError, load, update

# --- values -----------------------------------------------------------------------------------------------------

VALUES = [
    ["007", "123", "1_000", "0x1f", "1e3", "0.5", ".5", "12:30", "2024-01-01", "none", "null", "~", "", "yes", "no"],
    [
        "on",
        "y",
        "true",
        "False",
        "=",
        "<<",
        " lead",
        "trail ",
        "# no comment",
        "a # b",
        "a: b",
        "- a",
        "*a",
        "&a",
        "!a",
    ],
    [
        "%a",
        "@a",
        "`a",
        "{a",
        "[a",
        "a,b",
        "'",
        '"',
        "\\",
        "two\nlines\n",
        "\ttab",
        "é",
        "\u2028",
        "\U0001f600",
        "x " * 99,
    ],
    [0, 1, -1, 2**70, 0.5, 1e-9, 1e300, True, False, None, [], {}, [1, [2, {"a": [None]}]], {"a": {"b": {}}}],
]


@pytest.mark.parametrize("value", [value for values in VALUES for value in values], ids=ascii)
def test_every_value_comes_back_with_its_type(path, value):
    for stored in (value, [value], {"key": value}):
        update(path, {"auth.value": stored})
        assert json.dumps(load(path)) == json.dumps({"auth": {"value": stored}})
        assert not update(path, {"auth.value": stored})["changed"]
    if isinstance(value, str):
        yaml = pytest.importorskip("yaml")  # PyYAML, a reader of YAML 1.1
        assert yaml.safe_load(path.read_text()) == {"auth": {"value": {"key": value}}}


@pytest.mark.parametrize("old, new", [(1, True), (0, False), (1, 1.0), ("1", 1), ("", None), ([], {}), ([1], [True])])
def test_a_change_of_type_alone_is_a_change(path, old, new):
    update(path, {"auth.value": old})
    assert update(path, {"auth.value": new})["changes"] == {"auth.value": {"old": old, "new": new}}
    assert json.dumps(load(path)["auth"]["value"]) == json.dumps(new)


def test_numeric_user_names_stay_strings(path):
    update(path, {"users.admin": ["20231234", "007"], "users.allowed": ["1e5", "anna"]})
    assert load(path)["users"] == {"admin": ["20231234", "007"], "allowed": ["1e5", "anna"]}
    assert "- '007'" in path.read_text()


# --- what the file keeps ----------------------------------------------------------------------------------------


def test_comments_order_quotes_and_indentation_survive(handwritten):
    changes = {"users.admin": ["bob", "anna", "007", "12"], "limits.cpu": 2, "users.banned": ["z"], "http.port": 8080}
    update(handwritten, changes)
    assert (
        handwritten.read_text()
        == """\
# The hub of the course
limits: # for each server
  # enough for pandas
  memory: 1G # per user
  cpu: 2

# People
users:
  admin:
    - bob
    - anna # teacher
    # visitors
    - "007"
    - '12'

  # banned ones
  banned: [z]    # both left
base_url: "/x/"
# the end
http:
  port: 8080
"""
    )


def test_the_comments_around_removed_keys_survive(handwritten):
    update(handwritten, {"users.admin": []}, unset=["limits.memory", "base_url"])
    assert (
        handwritten.read_text()
        == """\
# The hub of the course
  # enough for pandas

# People
users:
  admin: []
    # visitors

  # banned ones
  banned: [x, y] # both left
# the end
"""
    )


def test_a_file_of_comments_alone_keeps_them(path):
    path.write_text("# written by hand\n\n# later\n")
    update(path, {"limits.cpu": 1})
    assert path.read_text() == "# written by hand\n# later\nlimits:\n  cpu: 1\n"


def test_lines_that_only_look_like_comments_go_with_their_value(path):
    path.write_text("auth:\n  note: |\n    # heading\n    text\n  # about b\n  b: 1\n")
    update(path, {"auth.note": "short"})
    assert path.read_text() == "auth:\n  note: short\n  # about b\n  b: 1\n"


def test_a_document_marker_stays(path):
    path.write_text("---\nlimits: {}\n")
    update(path, {"limits.cpu": 1})
    assert path.read_text() == "---\nlimits:\n  cpu: 1\n"


class Layout:
    """Random configuration files with comments in every place, and random changes to them."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.notes = 0
        self.step, self.offset = self.random.choice([2, 4]), self.random.choice([0, 2])

    def note(self, indent):
        self.notes += 1
        return f"{' ' * indent}# note {self.notes}.\n"

    def between(self, indent):
        text = "\n" if self.random.random() < 0.25 else ""
        return text + (self.note(self.random.choice([indent, 0])) if self.random.random() < 0.3 else "")

    def end(self):
        return " # end\n" if self.random.random() < 0.25 else "\n"

    def scalar(self):
        return self.random.choice(["abc", '"007"', "'x # y'", "2G", "12", "0.5", "true", '"a: b"', "yes", "0x10"])

    def section(self, indent=0, depth=0):
        text = ""
        inner = " " * (indent + self.step)
        for key in self.random.sample("abcdef", self.random.randint(1, 4)):
            text += f"{self.between(indent)}{' ' * indent}{key}:"
            kind = self.random.randrange(6)
            if kind < 2 and depth < 3:
                text += self.end() + self.section(indent + self.step, depth + 1)
            elif kind == 2:
                text += self.end()
                for _ in range(self.random.randint(1, 3)):
                    dash = indent + self.offset
                    text += f"{self.between(dash)}{' ' * dash}- {self.scalar()}{self.end()}"
            elif kind == 3:
                text += self.random.choice([' [x, "1", 2]', " {x: 1, y: [1]}", " {}", " []"]) + self.end()
            elif kind == 4:
                text += f" |\n{inner}# text\n{inner}more\n"
            else:
                text += f" {self.scalar()}{self.end()}"
        return text

    def value(self, depth=0):
        if depth > 1 or self.random.random() < 0.6:
            return self.random.choice(["x", "007", "yes", "a\nb\n", "# no", "", 1, True, None, 0.5])
        if self.random.random() < 0.5:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 3))]
        return {key: self.value(depth + 1) for key in self.random.sample("abcdef", self.random.randint(0, 3))}

    def key(self):
        return ".".join(self.random.choice("abcdef") for _ in range(self.random.randint(1, 3)))


def expected(config, wanted, unwanted):
    """What the change means, on plain dicts; None when it is an error."""
    for key, value in wanted.items():
        *sections, last = key.split(".")
        place = config
        for name in sections:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                return None
        place[last] = value
    for key in unwanted:
        names = key.split(".")
        places = [config]
        for name in names[:-1]:
            if name not in places[-1]:
                break
            places.append(places[-1][name])
            if not isinstance(places[-1], dict):
                return None
        else:
            for place, name in zip(reversed(places), reversed(names), strict=True):
                if place.pop(name, ...) is ... or place:
                    break
    return config


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_layout_only_the_keys_change_and_no_comment_is_lost(path, seed):
    layout = Layout(seed)
    text = layout.section() + (layout.note(0) if seed % 2 else "")
    path.write_text(text)
    before = load(path)
    wanted = {layout.key(): layout.value() for _ in range(2)}
    unwanted = [layout.key()] if seed % 3 == 0 else []
    try:
        result = update(path, wanted, unwanted)
    except ConfigError as error:
        assert "contradict" in str(error) or expected(before, wanted, unwanted) is None, error
        assert path.read_text() == text
        return
    after = path.read_text()
    assert json.dumps(load(path), sort_keys=True) == json.dumps(expected(before, wanted, unwanted), sort_keys=True)
    for number in range(1, layout.notes + 1):
        assert after.count(f"# note {number}.") == 1, after
    assert result["previous"] == text
    assert not update(path, wanted, unwanted)["changed"]


# --- secrets ----------------------------------------------------------------------------------------------------


def test_the_diff_shows_that_secrets_change_but_not_what_they_are(path):
    path.write_text(
        "traefik_api:\n  password: |\n    # old1\n    old2\n  # password: old3\n"
        "auth: {client_secret: old4, type: x}\nmine:\n  api_tokens:\n    - old5\n    - kept6\n  last: 1\n"
    )
    result = update(path, {"traefik_api.password": "new1", "auth.client_secret": "new4", "mine.api_tokens": ["kept6"]})
    diff = result["diff"].splitlines()
    assert "-auth: {client_secret: ********, type: x}" in diff
    assert "+auth: {client_secret: ********, type: x}" in diff
    assert "+  password: ********" in diff
    for secret in ("old", "new", "kept", "\0"):
        assert secret not in result["diff"]
    diff = update(path, {"mine.last": 2})["diff"]
    assert "+  last: 2" in diff
    assert "kept6" not in diff
