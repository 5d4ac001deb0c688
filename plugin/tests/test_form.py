"""The list of environments on the start page."""

from __future__ import annotations

import re
from types import SimpleNamespace

from tljh_plasma import policy
from tljh_plasma.environments import Environment
from tljh_plasma.spawner import PlasmaSpawner

GIB = 1024**3


def render(rows, chosen=None, admin=False):
    template = PlasmaSpawner._templates.get_template("options_form.html")
    return template.render(rows=rows, chosen=chosen, user=SimpleNamespace(admin=admin))


def row(image, name, memory=2 * GIB, cpu=2.0, ref=""):
    environment = Environment(image=image, image_id="sha256:x", name=name, directory=name, ref=ref)
    return environment, policy.Limits(memory=memory, cpu=cpu, pids=1024)


def test_environments_with_their_limits():
    html = render([row("a:1", "Algebra"), row("b:1", "Biology", int(3.5 * GIB), 0.5, "abcdef0123456789")], chosen="b:1")
    assert re.search(r'value="b:1"[^>]* checked', html)
    assert not re.search(r'value="a:1"[^>]* checked', html)
    assert "2 GB of memory, 2 CPU" in html
    assert "3.5 GB of memory, 0.5 CPU" in html
    assert "version abcdef012345" in html
    # Each button has a label and a description of its own.
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids)) == 4
    assert re.findall(r'for="([^"]+)"', html) == [name for name in ids if "environment" in name]
    assert re.findall(r'aria-describedby="([^"]+)"', html) == [name for name in ids if "limits" in name]


def test_names_are_text_and_not_html():
    html = render([row('a"><script>:1', "<b>bold</b>", ref="<i>")])
    assert "<script>" not in html
    assert "<b>" not in html
    assert "<i>" not in html


def test_without_environments_the_page_says_what_to_do():
    assert "An administrator of the hub has to add one" in render([])
    assert "repo2docker" in render([], admin=True)
    assert "<input" not in render([])
