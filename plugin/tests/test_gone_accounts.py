"""Somebody whose account is gone while they are logged in."""

from __future__ import annotations

import subprocess
import threading

import pytest
import requests
from support_hub import TOKEN_HEADER, wait_until
from tljh_plasma.operators import TOKEN_FILE

pytestmark = pytest.mark.docker


def test_cookies_and_tokens_of_an_account_that_is_gone_open_nothing(quick_hub, accounts):
    """JupyterHub 6.1 goes on with tokens unless it is told not to."""
    person = accounts.add("leaver")
    session, page = quick_hub.login(person.name, person.password)
    assert page.status_code == 200
    token = {TOKEN_HEADER: f"token {quick_hub.user_token(person.name)}"}
    assert quick_hub.api("GET", "/user", headers=token).json()["name"] == person.name

    accounts.remove(person.name)
    wait_until(lambda: quick_hub.api("GET", "/user", headers=token).status_code in (401, 403), 10, "refusal")
    page = session.get(f"{quick_hub.url}/hub/home", timeout=30)
    assert "/hub/login" in page.url


def test_somebody_whose_account_has_expired_starts_nothing_more(hub, accounts, environment):
    """At once, and not minutes later: their removal waits until nothing of theirs runs or starts."""
    person = accounts.add("expired")
    hub.add_user(person.name)
    headers = {TOKEN_HEADER: f"token {hub.user_token(person.name)}"}
    # The hub has just looked at the account.
    assert hub.api("GET", "/user", headers=headers).status_code == 200
    subprocess.run(["usermod", "--expiredate", "1", person.name], check=True)

    seen, over, address = [], threading.Event(), f"{hub.url}/hub/api/users/{person.name}"

    def insist(path):
        while not over.is_set():
            answer = requests.post(f"{address}/{path}", headers=headers, json={"image": environment}, timeout=60)
            seen.append((answer.status_code, answer.text))

    threads = [threading.Thread(target=insist, args=(path,)) for path in ("server", "servers/x", "server")]
    for thread in threads:
        thread.start()
    try:
        listed = [hub.api("GET", f"/users/{person.name}").json()["servers"] for _ in range(100)]
        # Nobody starts it for them either.
        answer = hub.api("POST", f"/users/{person.name}/server", json={"image": environment})
        assert (answer.status_code, "has expired. Please ask" in answer.text) == (403, True)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in seen} <= {401, 403}
    assert any("Your account on this server has expired. Please ask the administrator" in text for _, text in seen)
    assert listed == [{}] * 100


def test_somebody_whom_the_operator_revokes_is_looked_at_again_at_once(hub, accounts):
    """Requests for a server that runs would go on otherwise, and hold up that it is stopped."""
    person = accounts.add("revoked")
    session, _ = hub.login(person.name, person.password)
    headers = {TOKEN_HEADER: f"token {hub.user_token(person.name)}"}
    operator = {TOKEN_HEADER: f"token {(hub.prefix / 'state' / TOKEN_FILE).read_text()}"}

    def revoke():
        assert hub.api("PATCH", "/plasma/administrators", headers=operator, json={"revoke": [person.name]}).ok

    revoke()
    assert hub.api("GET", "/user", headers=headers).status_code == 200
    subprocess.run(["usermod", "--expiredate", "1", person.name], check=True)
    revoke()
    assert hub.api("GET", "/user", headers=headers).status_code in (401, 403)
    assert "/hub/login" in session.get(f"{hub.url}/hub/home", timeout=30).url
