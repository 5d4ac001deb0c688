"""Somebody whose account is gone while they are logged in."""

from __future__ import annotations

import pytest
from support_hub import TOKEN_HEADER, Hub, wait_until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def strict_hub(docker_host, accounts, tmp_path_factory):
    """A hub that looks at accounts again a second after it last did, and not after five minutes."""
    running = Hub(tmp_path_factory.mktemp("strict"), accounts.add("admin3").name)
    with (running.prefix / "config" / "config.yaml").open("a") as file:
        file.write("auth: {PlasmaPAMAuthenticator: {auth_refresh_age: 1}}\n")
    running.start()
    yield running
    running.stop()


def test_cookies_and_tokens_of_an_account_that_is_gone_open_nothing(strict_hub, accounts):
    """JupyterHub 6.1 goes on with tokens unless it is told not to."""
    person = accounts.add("leaver")
    session, page = strict_hub.login(person.name, person.password)
    assert page.status_code == 200
    token = {TOKEN_HEADER: f"token {strict_hub.user_token(person.name)}"}
    assert strict_hub.api("GET", "/user", headers=token).json()["name"] == person.name

    accounts.remove(person.name)
    wait_until(lambda: strict_hub.api("GET", "/user", headers=token).status_code in (401, 403), 10, "refusal")
    page = session.get(f"{strict_hub.url}/hub/home", timeout=30)
    assert "/hub/login" in page.url
