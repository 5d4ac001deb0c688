"""Every rendered state names a function that exists, with arguments that it takes."""

from __future__ import annotations

import re

import pytest
import salt.utils.args
from salt.state import STATE_INTERNAL_KEYWORDS

from tests.render.compiler import SLS, SYSTEMS, high_state, loaded, low_state
from tests.render.pillars import GIVEN
from tests.support.paths import REPOSITORY

# What Salt itself puts into or reads from a state, beside its keywords.
OWN = STATE_INTERNAL_KEYWORDS | {"name", "name_order", "__sls_included_from__", "backup"}
TEMPLATE = re.compile(r"\{[{%].*?[}%]\}", re.DOTALL)


def _chunks():
    """One state of each shape: functions and arguments do not depend on the architecture."""
    found = {}
    for system in SYSTEMS:
        for pillar in GIVEN:
            for chunk in low_state(system, "amd64", pillar):
                found[(chunk["state"], chunk["fun"], chunk["__id__"], tuple(sorted(chunk)))] = chunk
    return found.values()


@pytest.fixture(scope="module")
def chunks():
    return _chunks()


def test_functions_exist(chunks):
    wanted = {f"{chunk['state']}.{chunk['fun']}" for chunk in chunks}
    assert len(wanted) > 10
    assert [name for name in sorted(wanted) if name not in loaded().states] == []


def test_arguments_are_taken(chunks):
    """`**kwargs` would swallow a misspelt name: then the function's documentation must name it."""
    for chunk in chunks:
        function = loaded().states[f"{chunk['state']}.{chunk['fun']}"]
        spec = salt.utils.args.get_function_argspec(function)
        given = {key for key in chunk if key not in OWN}
        for name in given - set(spec.args):
            where = f"{chunk['__id__']}: {chunk['state']}.{chunk['fun']} has no argument {name!r}"
            assert spec.keywords, where
            assert re.search(rf"\b{name}\b", function.__doc__), where


def test_required_arguments_are_given(chunks):
    for chunk in chunks:
        function = loaded().states[f"{chunk['state']}.{chunk['fun']}"]
        spec = salt.utils.args.get_function_argspec(function)
        required = spec.args[: len(spec.args) - len(spec.defaults or ())]
        assert [name for name in required if name not in chunk] == [], chunk["__id__"]


@pytest.mark.parametrize("pillar", ["minimal", "full-pypi"])
def test_watched_states_can_react(pillar):
    """Salt turns a `watch` silently into a `require` where the state's module has no mod_watch."""
    watching = {
        (id_, state)
        for id_, states in high_state("debian-12", "amd64", pillar).items()
        for state, arguments in states.items()
        if not state.startswith("__")
        and any(
            isinstance(argument, dict) and set(argument) & {"watch", "watch_any", "listen"} for argument in arguments
        )
    }
    assert ("hub-installed", "plasma_hub") in watching
    assert [id_ for id_, state in watching if f"{state}.mod_watch" not in loaded().states] == []


def test_no_state_of_the_site_has_a_condition(chunks):
    """To evaluate one, Salt looks for ``mod_run_check``, which few states have, in all of its modules: a second."""
    site = [chunk for chunk in chunks if not chunk["__sls__"].endswith(".disabled")]
    assert site
    assert [chunk["__id__"] for chunk in site if {"unless", "onlyif", "creates"} & chunk.keys()] == []


@pytest.mark.parametrize("sls", ["top", *SLS])
def test_templates_call_no_functions(sls):
    """Each such call is a round trip of its own under salt-ssh, but for ``cp``, which answers on the controller."""
    path = REPOSITORY / "salt" / f"{sls.replace('.', '/')}.sls"
    if not path.exists():
        path = path.with_suffix("") / "init.sls"
    for expression in TEMPLATE.findall(path.read_text(encoding="utf-8")):
        assert not re.search(r"\bsalt\s*(\[(?!'cp\.)|\.|\|)|__salt__|\bimport\b.*\bwith context\b", expression), (
            expression
        )
