"""What ``plasma.prove`` tries with cookies that a page of a user's server could plant."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import plasma_prove_pages


@pytest.mark.parametrize(("prefix", "refused"), [("", False), ("__Host-", True)])
def test_cookies_that_no_other_name_can_plant_are_not_planted(prefix, refused):
    answer = SimpleNamespace(status=200, text="anna")
    visitor = SimpleNamespace(
        base="/",
        where={"host": "hub.example.org"},
        cookies={("hub.example.org", "/hub/", f"{prefix}jupyterhub-hub-login"): "x"},
        cookie_header=lambda path: "own",
        open=lambda *arguments, **options: answer,
    )
    scene = SimpleNamespace(a={"name": "anna"}, browser=lambda person: visitor)
    assert plasma_prove_pages._cookies.play(scene)[0] is refused
