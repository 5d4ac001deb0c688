"""The list of environments on the start page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from types import SimpleNamespace

from tljh_plasma import policy
from tljh_plasma.environments import Environment
from tljh_plasma.spawner import PlasmaSpawner

GIB = 1024**3


def render(rows, chosen=None, admin=False, environments_url="/services/plasma/environments"):
    template = PlasmaSpawner._templates.get_template("options_form.html")
    return template.render(
        rows=rows, chosen=chosen, user=SimpleNamespace(admin=admin), environments_url=environments_url
    )


def row(image, name, memory=2 * GIB, cpu=2.0, ref="", repo="", description="", gpus=0):
    texts = {"ref": ref, "repo": repo, "description": description}
    environment = Environment(image=image, image_id="sha256:x", name=name, directory=name, gpus=gpus, **texts)
    return environment, policy.Limits(memory=memory, cpu=cpu, pids=1024)


class Links(HTMLParser):
    """Collects the addresses of links."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            self.found.append(dict(attributes)["href"])


def test_environments_with_their_limits():
    html = render(
        [row("a:1", "Algebra", gpus=1), row("b:1", "Biology", int(3.5 * GIB), 0.5, "abcdef0123456789")], chosen="b:1"
    )
    assert re.search(r'value="b:1"[^>]* checked', html)
    assert not re.search(r'value="a:1"[^>]* checked', html)
    assert "2 GB of memory, 2 CPU, 1 GPU" in html
    assert "3.5 GB of memory, 0.5 CPU" in html
    assert "version abcdef012345" in html
    # Each button has a label and a description of its own.
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids)) == 6
    buttons = [name for name in ids if "environment" in name]
    assert re.findall(r'for="([^"]+)"', html) == [*buttons, "plasma-safe-mode"]
    described = [name for name in ids if "limits" in name]
    assert re.findall(r'aria-describedby="([^"]+)"', html) == [*described, "plasma-safe-mode-text"]


def test_a_limit_below_a_gigabyte_is_not_shown_as_none():
    assert "64 MB of memory" in render([row("a:1", "Algebra", memory=64 * 1024**2)])
    assert "0.5 GB of memory" in render([row("a:1", "Algebra", memory=GIB // 2)])


def test_descriptions_are_read_out_with_their_environments():
    html = render([row("a:1", "Algebra", description="For the first year"), row("b:1", "Biology")])
    assert re.search(r'<p id="plasma-description-1">For the first year</p>', html)
    assert 'aria-describedby="plasma-limits-1 plasma-description-1"' in html
    assert 'aria-describedby="plasma-limits-2"' in html
    assert "plasma-description-2" not in html


def test_source_links_go_to_web_pages_only():
    repos = ["https://example.org/repo", "http://example.org/repo", "git://example.org/repo", "javascript:alert(1)", ""]
    html = render([row(f"a:{number}", f"A{number}", repo=repo) for number, repo in enumerate(repos)])
    assert Links(html).found == ["https://example.org/repo", "http://example.org/repo"]


def test_names_are_text_and_not_html():
    html = render(
        [row('a"><script>:1', "<b>bold</b>", ref="<i>", repo='https://x/"><u>', description="<img src=x onerror=y>")]
    )
    for markup in ("<script>", "<b>", "<i>", "<u>", "<img"):
        assert markup not in html


def test_many_environments_can_be_searched():
    few, many = ([row(f"e:{number}", f"E{number}") for number in range(count)] for count in (8, 9))
    assert "plasma-filter" not in render(few)
    html = render(many)
    # Hidden until its script runs: without it nothing would happen there.
    assert re.search(r'<div[^>]* id="plasma-filter" hidden>', html)
    assert '<label class="form-label" for="plasma-filter-text">' in html
    assert 'role="status" id="plasma-filter-count"' in html


def test_without_environments_the_page_says_what_to_do():
    student, admin = render([]), render([], admin=True)
    assert "An administrator of the hub has to add one" in student
    assert Links(student).found == []
    assert "Add an environment" in admin
    assert Links(admin).found == ["/services/plasma/environments"]
    # The style sheet leaves out the Start button where this class is.
    assert all("plasma-empty" in html and "<input" not in html for html in (student, admin))
