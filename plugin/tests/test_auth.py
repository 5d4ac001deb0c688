"""Logging in through the PAM of this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
from types import SimpleNamespace

import pytest
from tljh_plasma.auth import PlasmaPAMAuthenticator
from tornado import web

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="PAM lets only root check passwords of others")


def login(authenticator, name, password):
    """What the hub does with the login form. Returns the name, or None."""

    async def answer():
        return await authenticator.get_authenticated_user(None, {"username": name, "password": password})

    result = asyncio.run(answer())
    return result and result["name"]


@pytest.fixture
def authenticator():
    return PlasmaPAMAuthenticator(allow_all=True)


def test_right_and_wrong_passwords(authenticator, accounts):
    person = accounts.add("pam")
    assert login(authenticator, person.name, person.password) == person.name
    # JupyterHub's names are in lower case, however they are typed.
    assert login(authenticator, person.name.upper(), person.password) == person.name
    assert login(authenticator, person.name, "wrong") is None


@pytest.mark.parametrize("name", ["", "no-such-account", "a\0b", "../x", "a:b", "x" * 5000, "root\n"])
def test_strange_names_are_wrong_passwords(authenticator, name):
    assert login(authenticator, name, "password") is None


def test_missing_password_is_a_wrong_one(authenticator):
    async def answer():
        return await authenticator.get_authenticated_user(None, {"username": "root"})

    assert asyncio.run(answer()) is None


def test_expired_account_is_refused(authenticator, accounts):
    """PAM's own account check still counts. Debian's stack answers that nothing is allowed, whatever the reason is."""
    person = accounts.add("expired")
    subprocess.run(["usermod", "--expiredate", "2001-01-01", person.name], check=True)
    with pytest.raises(web.HTTPError, match="Your account on this server has expired"):
        login(authenticator, person.name, person.password)
    subprocess.run(["chage", "-E", "-1", "--lastday", "10000", "--maxdays", "9", "-I", "5", person.name], check=True)
    with pytest.raises(web.HTTPError, match="Your password has expired, and the time to change it is over"):
        login(authenticator, person.name, person.password)
    # Who does not know the password is told none of it.
    assert login(authenticator, person.name, "wrong") is None


@pytest.mark.parametrize("allow_all", [True, False])
def test_account_is_checked_whatever_the_allow_rules_say(accounts, allow_all, caplog):
    """With allow_all, JupyterHub does not call check_allowed."""
    person = accounts.add("system", "--system")
    authenticator = PlasmaPAMAuthenticator(allow_all=allow_all, allowed_users={person.name})
    with pytest.raises(web.HTTPError) as caught:
        login(authenticator, person.name, person.password)
    assert caught.value.status_code == 403
    assert "ask the administrator" in caught.value.log_message
    # The administrator reads why.
    assert "system account: uid" in caplog.text


def test_blocked_and_not_allowed_people_stay_out(accounts):
    person = accounts.add("blocked")
    other = accounts.add("other")
    blocking = PlasmaPAMAuthenticator(allow_all=True, blocked_users={person.name})
    assert login(blocking, person.name, person.password) is None
    listing = PlasmaPAMAuthenticator(allow_all=False, allowed_users={other.name})
    assert login(listing, person.name, person.password) is None
    assert login(listing, other.name, other.password) == other.name


def test_removed_account_is_logged_out(authenticator, accounts):
    person = accounts.add("gone")
    user = SimpleNamespace(name=person.name)
    assert asyncio.run(authenticator.refresh_user(user)) is True
    accounts.remove(person.name)
    assert asyncio.run(authenticator.refresh_user(user)) is False


def test_expired_account_is_logged_out_and_starts_nothing(authenticator, accounts):
    person = accounts.add("leaving")
    user, asked = SimpleNamespace(name=person.name), SimpleNamespace(expanded_scopes=set())
    let_in = SimpleNamespace(expanded_scopes={"servers!user"})
    assert asyncio.run(authenticator.refresh_user(user, let_in)) is True
    subprocess.run(["usermod", "--expiredate", "1", person.name], check=True)
    assert asyncio.run(authenticator.refresh_user(user, asked)) is False
    with pytest.raises(web.HTTPError, match="has expired. Please ask the administrator"):
        asyncio.run(authenticator.refresh_user(user, let_in))
    # Whatever PAM says about them.
    with pytest.raises(web.HTTPError, match="has expired"):
        asyncio.run(authenticator.check_blocked_users(person.name))
