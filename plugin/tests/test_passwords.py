"""The pages that ask for passwords, at a hub."""

from __future__ import annotations

import re
import subprocess

import pytest
import requests
from support_hub import TOKEN_HEADER
from test_sessions import is_in, made_by_oneself, opens
from tljh_plasma import pam_words

pytestmark = pytest.mark.docker
NEW = "Zebra-crossing 71"


def fields(page, **values):
    """The hidden fields of a form, with values for the others."""
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
    assert "_xsrf" in dict(hidden), page.text
    return {**dict(hidden), **values}


def new(first, second=None):
    return {"new_password": first, "new_password_again": first if second is None else second}


def test_a_password_that_has_to_be_changed_is_changed_at_the_login(hub, accounts):
    person = accounts.add("pmust")
    subprocess.run(["chage", "--lastday", "0", person.name], check=True)
    session, page = hub.login(person.name, person.password)
    assert page.status_code == 200 and "Change your password" in page.text
    assert person.password not in page.text
    # Nobody is logged in by that.
    assert not is_in(hub, session)
    url = f"{hub.url}/hub/login?next="
    page = session.post(url, data=fields(page, **new("a")), timeout=60)
    assert page.status_code == 400 and pam_words.NOT_ACCEPTED in page.text
    page = session.post(url, data=fields(page, **new(NEW)), timeout=60)
    assert is_in(hub, session)
    _, page = hub.login(person.name, NEW)
    assert f">{person.name}</span>" in page.text
    # A program gets nothing; JupyterHub gives every such failure the same plain answer.
    subprocess.run(["chage", "--lastday", "0", person.name], check=True)
    body = {"auth": {"username": person.name, "password": NEW}}
    answer = requests.post(f"{hub.url}/hub/api/users/{person.name}/tokens", json=body, timeout=30)
    assert (answer.status_code, answer.json()["message"]) == (403, "Forbidden")


def test_people_change_their_password_and_are_out_elsewhere(hub, accounts, environment):
    person = accounts.add("pwill")
    url = f"{hub.url}/hub/password"
    token = made_by_oneself(hub, person)
    assert hub.spawn(person.name, environment).status_code in (201, 202)
    session, _ = hub.login(person.name, person.password)
    elsewhere, _ = hub.login(person.name, person.password)
    page = session.get(url, timeout=30)
    assert "Change your password" in page.text and 'href="/hub/password" aria-current="page"' in page.text
    for values, words in (
        ({"password": "wrong", **new(NEW)}, pam_words.WRONG_CURRENT),
        ({"password": person.password, **new("a")}, pam_words.NOT_ACCEPTED),
        ({"password": person.password, **new(NEW, "other")}, pam_words.NOT_THE_SAME),
        ({"password": person.password}, pam_words.EMPTY),
    ):
        page = session.post(url, data=fields(page, **values), timeout=60)
        assert page.status_code == 400 and words in page.text
        assert NEW not in page.text and person.password not in page.text
    assert is_in(hub, elsewhere)
    # Without the token of the form, and with a token of the person in the place of their cookie.
    answer = session.post(url, data={"password": person.password, **new(NEW)}, timeout=60)
    assert answer.status_code == 403
    headers = {TOKEN_HEADER: f"token {token}"}
    answer = requests.post(url, data={"password": person.password, **new(NEW)}, headers=headers, timeout=60)
    assert answer.status_code == 403
    page = session.post(url, data=fields(page, password=person.password, **new(NEW)), timeout=60)
    assert page.status_code == 200 and "Your password is changed" in page.text
    assert is_in(hub, session) and not is_in(hub, elsewhere)
    assert requests.get(f"{hub.url}/hub/api/user", headers=headers, timeout=30).status_code == 403
    _, page = hub.login(person.name, NEW)
    assert f">{person.name}</span>" in page.text
    # Their server goes on, and knows its owner.
    assert hub.api("GET", f"/users/{person.name}").json()["servers"][""]["ready"]
    assert opens(hub, session, f"/user/{person.name}/lab")
    hub.stop_server(person.name)
    assert NEW not in hub.log() and person.password not in hub.log()


def test_guesses_of_the_current_password_come_to_an_end(hub, accounts):
    """Whoever finds an open browser."""
    person = accounts.add("pguess")
    url = f"{hub.url}/hub/password"
    session, _ = hub.login(person.name, person.password)
    page = session.get(url, timeout=30)
    for _ in range(10):
        page = session.post(url, data=fields(page, password="wrong", **new(NEW)), timeout=60)
        assert page.status_code == 400
    page = session.post(url, data=fields(page, password=person.password, **new(NEW)), timeout=60)
    assert page.status_code == 429 and "Too many wrong passwords" in page.text
