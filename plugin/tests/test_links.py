"""What environments open with, and links that lead there: what is let through, and where it leads."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from tljh_plasma.hub_rules import APPLICATIONS, OPENS, NotAllowed
from tljh_plasma.links import FIELDS, Link, NoLink

REPO = "https://git.example.org/teacher/course"
# Nothing of this is a place in a server.
HOSTILE = (
    *(
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "https://evil.example.org/",
        "evil.example.org",
    ),
    *("//evil.example.org", "///evil.example.org", "/\\evil.example.org", "\\\\evil", "/%5cevil.example.org"),
    *("/%2fevil.example.org", "/lab//evil", "/..", "/../hub/admin", "/lab/../../bob/lab", "/%2e%2e/bob", "/.%2E/bob"),
    *("/a/.", "/./a", "/", "/?x=1", "/lab\n", "/lab\r\nSet-Cookie: a=b", "/lab%0d%0aSet-Cookie:a", "/lab%00", "/lab\0"),
    *("/login?next=https://evil.example.org", "/login?next=//evil", "/login?next=%2f%2fevil", "/a?b=javascript:x"),
    *("/a?b?c", "/a#b", "/a b", "/é", "/%ff", "/%zz", "/{username}", "/a%U", "/<b>", "/\u202ea", "/" + "x" * 500),
    *("Lab", "lab ", " lab", "", "emacs", "lab/tree"),
)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_an_environment_opens_with_is_inside_the_server(text):
    with pytest.raises(NotAllowed) as caught:
        OPENS.check(text)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 120
    assert not OPENS.allows(text)


@pytest.mark.parametrize("value", [None, 1, True, ["lab"], {"lab": 1}])
def test_it_is_a_text(value):
    assert not OPENS.allows(value)


@pytest.mark.parametrize(
    "text",
    [
        *APPLICATIONS,
        *("/voila/render/course.ipynb", "/lab/tree/week%201/%C3%A9t%C3%A9.ipynb", "/lab/workspaces/auto-x?reset"),
        *("/vscode/?folder=/home/jovyan", "/webapp/", "/lab/tree/..a/b..", "/tree?a=1&b=2", "/" + "x" * 499),
    ],
)
def test_what_an_environment_may_open_with(text):
    assert OPENS.check(text) == text


def made(**values):
    return Link("course:1", **values).checked()


@pytest.mark.parametrize(
    ("values", "target"),
    [
        ({}, ""),
        ({"opens": "rstudio"}, "/rstudio/"),
        ({"opens": "/voila/render/a.ipynb?x=1"}, "/voila/render/a.ipynb?x=1"),
        ({"file": "week 1/\u00e9t\u00e9 #1?.ipynb"}, "/lab/tree/week%201/%C3%A9t%C3%A9%20%231%3F.ipynb"),
        ({"file": "a.ipynb", "opens": "notebook"}, "/tree/a.ipynb"),
    ],
)
def test_without_a_repository_a_link_leads_straight_there(values, target):
    assert made(**values).target == target


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ({}, {"urlpath": "lab/tree/course"}),
        ({"branch": "feature/x"}, {"branch": "feature/x", "urlpath": "lab/tree/course"}),
        ({"file": "a b/100%.ipynb"}, {"urlpath": "lab/tree/course/a%20b/100%25.ipynb"}),
        ({"file": "a.ipynb", "opens": "notebook"}, {"urlpath": "tree/course/a.ipynb"}),
        ({"opens": "vscode"}, {"urlpath": "vscode/"}),
        ({"opens": "/voila/render/course/a.ipynb"}, {"urlpath": "voila/render/course/a.ipynb"}),
        # What is like another value of the query stays in its own.
        ({"file": "a&repo=b#c+d.ipynb"}, {"urlpath": "lab/tree/course/a%26repo%3Db%23c%2Bd.ipynb"}),
    ],
)
def test_with_one_nbgitpuller_is_asked_first(values, asked):
    for repo in (REPO, f"{REPO}/"):
        target = urlsplit(made(repo=repo, **values).target)
        assert target.path == "/git-pull" and not target.netloc
        assert parse_qs(target.query) == {name: [value] for name, value in {"repo": REPO, **asked}.items()}


def test_what_follows_the_question_mark_is_the_link_again():
    link = made(repo=REPO, branch="main", file="a & b/\u00e9.ipynb", opens="notebook")
    values = {name: value for name, (value,) in parse_qs(link.query).items()}
    assert set(values) == {"image", *FIELDS}
    assert Link(**values).checked() == link
    assert made().query == "image=course%3A1"


REFUSED = {
    "repo": (
        *("javascript:alert(1)", "//evil", "course", "file:///etc", "/srv/git", "ext::sh -c id", "-c", "https://host/"),
        *(
            "https://user:password@git.example.org/a",
            "https://token@git.example.org/a",
            "https://git.example.org/a?b=c",
        ),
        *(
            "https://git.example.org/a#b",
            "https://git.example.org/a/..",
            "https://git.example.org/a/.",
            "https://example.org/.jupyter",
            f"{REPO}\n",
        ),
        *("ssh://git@git.example.org/a", "git@git.example.org:a", "https://git.example.org/" + "x" * 1000),
    ),
    "branch": ("-x", "--upload-pack=x", "a..b", "a@{1}", "a b", "a\nb", "$(id)", "x" * 201),
    "file": (
        *(
            "/etc/passwd",
            "../bob/a.ipynb",
            "a/../../b",
            "a//b",
            "./a",
            "a/",
            "a\\b",
            "a\nb",
            "a\0b",
            "\u202ea",
            "x" * 301,
        ),
        *(".", ".."),
    ),
    "opens": HOSTILE[:-2],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in REFUSED for value in REFUSED[name] if value])
def test_hostile_values_make_no_link(name, value):
    with pytest.raises(NoLink) as caught:
        made(**{"repo": REPO, name: value})
    sentence = str(caught.value)
    assert sentence.isprintable() and sentence.endswith(".") and len(sentence) < 400


def test_what_does_not_go_together():
    with pytest.raises(NoLink, match="needs a repository"):
        made(branch="main")
    for opens in ("rstudio", "/voila/render/a.ipynb"):
        with pytest.raises(NoLink, match="with lab or notebook alone"):
            made(repo=REPO, file="a.ipynb", opens=opens)
