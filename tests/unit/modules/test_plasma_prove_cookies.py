"""What ``plasma.prove`` tries with cookies that a page of a user's server could plant."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import _modules.plasma_prove_pages as plasma_prove_pages


@pytest.mark.parametrize(("prefix", "refused"), [("", False), ("__Host-", True)])
def test_cookies_that_no_other_name_can_plant_are_not_planted(prefix, refused):
    answer = SimpleNamespace(status=200, text="anna")
    visitor = SimpleNamespace(
        base="/",
        where={"host": "hub.example.org"},
        cookies={("hub.example.org", "/hub/", f"{prefix}jupyterhub-hub-login"): "x"},
        _cookies=lambda host, path: "own",
        open=lambda *arguments, **options: answer,
    )
    scene = SimpleNamespace(a={"name": "anna"}, browser=lambda person: visitor, said=lambda answer: "status 200")
    assert plasma_prove_pages._cookies(scene)[0] is refused
