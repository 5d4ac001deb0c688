"""The state of the images that builds begin with."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError

import plasma_builder_images
from _states import plasma_builds

CHANGES = {plasma_builder_images.BASE: {"old": None, "new": "0123"}}
PLASMA = {
    "builder": {"https_proxy": "http://p.example.org:1", "http_proxy": None, "no_proxy": None, "index": "https://b"},
    "hub": {"sources": {"pip_index_url": "https://u:p@h", "http_proxy": "http://q.example.org:1", "no_proxy": None}},
}


@pytest.fixture(params=[False, True], ids=["apply", "test"])
def state(request, monkeypatch, tmp_path):
    """Called with a recipe of two files; ``state.asked`` is what its work was asked for."""
    for name in ("packages.txt", "base/Dockerfile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    paths = [str(path) for path in tmp_path.rglob("*") if path.is_file()]
    monkeypatch.setattr(plasma_builds, "__opts__", {"test": request.param}, raising=False)
    monkeypatch.setattr(plasma_builds, "__pillar__", {"plasma": PLASMA}, raising=False)
    monkeypatch.setattr(plasma_builds, "__salt__", {"cp.cache_dir": lambda _recipe: call.paths}, raising=False)

    def work(*arguments):
        call.asked.append(arguments)
        if isinstance(call.changes, Exception):
            raise call.changes
        return call.changes

    monkeypatch.setattr(plasma_builder_images, "make" if not request.param else "compare", work)

    def call():
        return plasma_builds.images("x", "salt://builder/files")

    call.test, call.paths, call.asked, call.changes = request.param, paths, [], CHANGES
    return call


def test_what_would_be_done_is_what_is_done(state):
    ret = state()
    assert (ret["result"], ret["changes"]) == (None if state.test else True, CHANGES)
    verb = "would be" if state.test else "were"
    assert ret["comment"] == f"{plasma_builder_images.BASE} {verb} made."
    (recipe, *given) = state.asked[0]
    assert recipe == {"packages.txt": b"packages.txt", "base/Dockerfile": b"base/Dockerfile"}
    if not state.test:
        # What builds have comes first, and then what the hub was installed with.
        assert given[0] == {"https_proxy": "http://p.example.org:1", "http_proxy": "http://q.example.org:1"}
        assert given[1] == "https://u:p@h"


def test_nothing_to_do(state):
    state.changes = {}
    assert (state()["result"], state()["changes"]) == (True, {})


def test_what_goes_wrong_is_one_sentence(state):
    state.changes = CommandExecutionError("The root of bookworm for builds cannot be made: no space.")
    ret = state()
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, str(state.changes))
    state.paths = []
    assert (state()["result"], state()["comment"]) == (False, "salt://builder/files is not on the file server.")


@pytest.mark.parametrize("test", [False, True])
def test_removing(monkeypatch, test):
    here = [plasma_builder_images.BASE]
    monkeypatch.setattr(plasma_builds, "__opts__", {"test": test}, raising=False)
    monkeypatch.setattr(plasma_builder_images, "present", lambda: list(here))
    monkeypatch.setattr(plasma_builder_images, "remove", here.clear)
    ret = plasma_builds.images_removed("x")
    assert ret["changes"] == {plasma_builder_images.BASE: {"old": "here", "new": None}}
    assert (ret["result"], bool(here)) == ((None, True) if test else (True, False))
    here.clear()
    assert (plasma_builds.images_removed("x")["result"], plasma_builds.images_removed("x")["changes"]) == (True, {})
