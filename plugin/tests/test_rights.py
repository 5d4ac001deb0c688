"""An administrator of the hub is not root: what they try on an account that may use sudo, and on everybody else.

A4 of the attacks: they start its server, open it, and write a key into its home.
"""

from __future__ import annotations

import re
import subprocess
from types import SimpleNamespace

import pytest
import requests
from support_hub import TOKEN_HEADER, wait_until

pytestmark = pytest.mark.docker


def bearer(token):
    return {TOKEN_HEADER: f"token {token}"}


@pytest.fixture(scope="module")
def teacher(hub, accounts):
    """An administrator of the hub without rights on the server, with a session and a token of their own."""
    person = accounts.add("rteacher")
    hub.add_user(person.name)
    assert hub.api("PATCH", f"/users/{person.name}", json={"admin": True}).status_code == 200
    session, _ = hub.login(person.name, person.password)
    yield SimpleNamespace(name=person.name, session=session, token=own_token(hub, person))
    # Other tests count the hub's administrators.
    hub.api("DELETE", f"/users/{person.name}")


@pytest.fixture(scope="module")
def operator(hub, accounts, environment):
    """Somebody who may use sudo, as members of its group may, with a server that they started themselves."""
    person = accounts.add("roperator", "--groups", "sudo")
    session, _ = hub.login(person.name, person.password)
    token = own_token(hub, person)
    answer = hub.api("POST", f"/users/{person.name}/server", json={"image": environment}, headers=bearer(token))
    assert answer.status_code in (201, 202), answer.text
    wait_until(lambda: hub.api("GET", f"/users/{person.name}").json()["servers"][""]["ready"], 60, "server")
    return SimpleNamespace(name=person.name, session=session, token=token, password=person.password)


@pytest.fixture(scope="module")
def pupil(hub, accounts, environment):
    """Somebody with a server and no rights."""
    person = accounts.add("rpupil")
    session, _ = hub.login(person.name, person.password)
    token = own_token(hub, person)
    assert hub.spawn(person.name, environment, token=token).status_code in (201, 202)
    return SimpleNamespace(name=person.name, session=session, token=token)


def own_token(hub, person):
    """A token that somebody makes with their own password."""
    auth = {"auth": {"username": person.name, "password": person.password}, "note": "own"}
    made = requests.post(f"{hub.url}/hub/api/users/{person.name}/tokens", json=auth, timeout=30)
    assert made.status_code == 200 or made.status_code == 201, made.text
    return made.json()["token"]


def xsrf(session):
    return {"X-XSRFToken": session.cookies["_xsrf"]}


def enter(hub, session, name):
    """Open somebody's server in a browser that is logged in, confirm, and list their home."""
    page = session.get(f"{hub.url}/user/{name}/lab", timeout=60)
    form = re.search(r'<form[^>]*action="?([^" >]*)', page.text) if "authorize" in page.url else None
    if form:
        fields = re.findall(r'name="([^"]+)"[^>]*value="([^"]*)"', page.text)
        page = session.post(page.url, data=fields, timeout=60)
    listed = session.get(f"{hub.url}/user/{name}/api/contents", timeout=60)
    return listed.status_code == 200 and "content" in listed.json()


def test_a_server_of_an_account_with_sudo_is_started_by_itself_alone(hub, operator, teacher, accounts, environment):
    """By API and form, with the teacher's session, their token, a service's token, and a token made for it."""
    other = accounts.add("rsudo", "--groups", "sudo")
    hub.add_user(other.name)
    path = f"/users/{other.name}/server"
    body = {"image": environment}
    answers = [
        hub.api("POST", path, json=body),
        hub.api("POST", path, json=body, headers=bearer(teacher.token)),
        hub.api("POST", path, json=body, headers=bearer(operator.token)),
        hub.api("POST", f"/users/{other.name}/servers/x", json=body, headers=bearer(teacher.token)),
        teacher.session.post(f"{hub.url}/hub/api{path}", json=body, headers=xsrf(teacher.session), timeout=60),
        teacher.session.post(
            f"{hub.url}/hub/spawn/{other.name}", data={**body, "_xsrf": teacher.session.cookies["_xsrf"]}, timeout=60
        ),
        teacher.session.get(f"{hub.url}/hub/spawn/{other.name}", timeout=60),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    for header in ({}, bearer(teacher.token)):
        made = hub.api("POST", f"/users/{other.name}/tokens", json={"note": "mine"}, headers=header)
        assert made.status_code == 403, made.text
    assert hub.api("GET", f"/users/{other.name}").json()["servers"] == {}
    # Themselves, they can; and others stop it.
    assert hub.api("POST", path, json=body, headers=bearer(own_token(hub, other))).status_code in (201, 202)
    hub.stop_server(other.name)


def test_nobody_else_enters_it(hub, operator, teacher, pupil):
    assert enter(hub, operator.session, operator.name)
    assert not enter(hub, teacher.session, operator.name)
    # Helping others is what administrators are for.
    assert enter(hub, teacher.session, pupil.name)
    for token in (hub.token, teacher.token, pupil.token):
        asked = requests.get(f"{hub.url}/user/{operator.name}/api/contents", headers=bearer(token), timeout=30)
        assert asked.status_code in (302, 403), asked.text
        scopes = hub.api("GET", "/user", headers=bearer(token)).json()["scopes"]
        assert not any(scope.startswith("access:servers") and operator.name in scope for scope in scopes)
        assert "access:servers" not in scopes
    assert requests.get(f"{hub.url}/user/{pupil.name}/api/contents", headers=bearer(teacher.token), timeout=30).ok, (
        "programs of administrators go on"
    )


def test_it_cannot_be_shared_renamed_or_changed_into(hub, operator, teacher, pupil):
    share = {"user": teacher.name, "scopes": [f"access:servers!server={operator.name}/"]}
    for header in ({}, bearer(teacher.token), bearer(operator.token)):
        answer = hub.api("POST", f"/shares/{operator.name}/", json=share, headers=header)
        assert answer.status_code in (403, 404), answer.text
    for name in (operator.name, "plasmat-other"):
        answer = hub.api("PATCH", f"/users/{pupil.name}", json={"name": name}, headers=bearer(teacher.token))
        assert answer.status_code == 400, answer.text
        assert "not renamed here" in answer.text
    for body in ({"auth_state": {"a": "b"}}, {"groups": ["x"]}, {"roles": ["admin"]}):
        answer = hub.api("PATCH", f"/users/{operator.name}", json=body, headers=bearer(teacher.token))
        assert answer.status_code == 400, answer.text
    assert "state" not in hub.api("GET", f"/users/{operator.name}", headers=bearer(teacher.token)).text


def test_a_token_that_was_made_before_somebody_got_sudo_opens_nothing_after(hub, teacher, accounts):
    person = accounts.add("rrises")
    hub.add_user(person.name)
    made = hub.api("POST", f"/users/{person.name}/tokens", json={"note": "script"}, headers=bearer(teacher.token))
    assert made.status_code == 201, made.text
    assert made.json()["note"] == f"script (requested by user {teacher.name})"
    theirs = bearer(own_token(hub, person))
    token = bearer(made.json()["token"])
    path = f"/users/{person.name}"
    assert hub.api("GET", path, headers=token).status_code == 200
    subprocess.run(["usermod", "--append", "--groups", "sudo", person.name], check=True)
    # At once: the file of groups is another one.
    assert hub.api("GET", path, headers=token).status_code in (403, 404)
    assert hub.api("POST", f"{path}/server", json={}, headers=token).status_code in (403, 404)
    assert hub.api("GET", path, headers=theirs).status_code == 200
    # Nor can the maker's name be hidden.
    made = hub.api("POST", f"/users/{teacher.name}/tokens", json={"note": "a" * 450}).json()
    assert made["note"].endswith("(requested by service tests)")


def test_administrators_add_no_services_and_move_no_proxy(hub, teacher):
    """A service that asks nobody gets tokens of its visitors, and its address is any port of the server."""
    body = {"url": "http://127.0.0.1:304", "oauth_no_confirm": True, "oauth_client_allowed_scopes": ["inherit"]}
    for answer in (
        hub.api("POST", "/services/evil", json=body, headers=bearer(teacher.token)),
        hub.api("PATCH", "/proxy", json={"api_url": "http://192.0.2.1"}, headers=bearer(teacher.token)),
        hub.api("POST", "/proxy", headers=bearer(teacher.token)),
    ):
        assert answer.status_code == 403, answer.text
    held = hub.api("GET", "/user", headers=bearer(teacher.token)).json()["scopes"]
    assert not {"admin:services", "proxy", "access:servers"} & set(held)


def test_administrators_who_may_not_enter_hold_no_scope_for_it(quick_hub, accounts, environment, helpers):
    """Pillar's plasma.enter_servers, here a group. The others list and stop servers, and no more."""
    hub = quick_hub
    pupil = accounts.add("rleft")
    hub.add_user(pupil.name)
    assert hub.spawn(pupil.name, environment).status_code in (201, 202)
    allowed, refused = accounts.add("rhelper", "--groups", helpers.gr_name), accounts.add("rother")
    for person, may in ((allowed, True), (refused, False)):
        hub.add_user(person.name)
        assert hub.api("PATCH", f"/users/{person.name}", json={"admin": True}).status_code == 200
        session, _ = hub.login(person.name, person.password)
        token = bearer(own_token(hub, person))
        assert enter(hub, session, pupil.name) is may
        made = hub.api("POST", f"/users/{pupil.name}/tokens", json={}, headers=token)
        assert made.status_code == (201 if may else 403)
        started = hub.api("POST", f"/users/{pupil.name}/servers/x", json={"image": "none:1"}, headers=token)
        assert started.status_code == (400 if may else 404), started.text
        held = hub.api("GET", "/user", headers=token).json()["scopes"]
        theirs = [scope for scope in held if scope.split("!")[0] in ("servers", "access:servers", "tokens", "shares")]
        assert all(scope.endswith(f"!user={person.name}") for scope in theirs) is not may, theirs
        assert hub.api("GET", "/users", headers=token).status_code == 200
        if may:
            acting = bearer(made.json()["token"])
            assert hub.api("GET", "/user", headers=acting).json()["name"] == pupil.name
    # Who may no longer does not go on with what they made when they might.
    subprocess.run(["gpasswd", "--delete", allowed.name, helpers.gr_name], check=True, capture_output=True)
    assert hub.api("GET", f"/users/{pupil.name}", headers=acting).status_code in (403, 404)
    assert hub.api("DELETE", f"/users/{pupil.name}/server", headers=token).status_code in (202, 204)
