"""Bodies and names that break handlers: 400 with a sentence, and nothing is kept.

A11 of the attacks. The addresses are those of the code, so that a new one is covered.
"""

from __future__ import annotations

import inspect
import re

import pytest
import requests
from jupyterhub import apihandlers
from support_hub import TOKEN_HEADER
from tljh_plasma import bodies, handlers

DEEP = b"[" * 5000
BODIES = (
    b"[]",
    b"1",
    b"null",
    b"true",
    b'"x"',
    b"{",
    b"\xff\xfe",
    DEEP,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"note": NaN}',
    b'{"expires_in": 1e999}',
    b'{"note": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"expires_in": 1' + b"0" * 40 + b"}",
    b'{"expires_in": 1' + b"0" * 6000 + b"}",
)
# Of the right shape, and of the wrong type inside.
INNER = (
    b'{"usernames": [1]}',
    b'{"usernames": 5}',
    b'{"groups": [{}]}',
    b'{"groups": ["plasmat-fuzz"], "users": [[]]}',
    b'{"users": [1]}',
    b'{"name": [], "admin": 1}',
    b'{"groups": ["x"]}',
    b'{"proxy": [], "servers": {}}',
    b'{"expires_in": 9007199254740991}',
    b'{"expires_in": true}',
    b'{"note": {}}',
    b'{"scopes": [5], "roles": [[]]}',
    b'{"user": 1, "scopes": ["x!y=z"]}',
    b'{"last_activity": "0001-01-01T00:00:00+14:00"}',
    b'{"last_activity": {}, "servers": 5}',
    b'{"servers": {"": {"last_activity": "0001-01-01T00:00:00+14:00"}}}',
    b'{"remove": []}',
    b'{"image": {"a": []}}',
    b'{"grant": [[]], "revoke": {}}',
)


@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_are_no_objects(body):
    with pytest.raises(bodies.Unusable, match="[.]$"):
        bodies.read_object(body)


def test_bodies_that_are():
    for body in (b"{}", b'{"image": "a:1", "n": [1, 2.5, null, {"\\ud83d\\ude00": false}]}', ' {"é": "漢"}\n'.encode()):
        assert isinstance(bodies.read_object(body), dict)


def writing():
    """Methods and addresses of the hub that take a body."""
    yield "PATCH", "/api/plasma/administrators"
    found = [*handlers.HANDLERS, *apihandlers.default_handlers]
    for pattern, handler, *_ in found:
        for method in ("post", "put", "patch", "delete"):
            own = getattr(handler, method)
            if "/api/" in pattern and inspect.unwrap(own).__module__ != "tornado.web":
                yield method.upper(), pattern


@pytest.mark.docker
def test_no_body_makes_a_handler_of_the_hub_fail(hub, accounts):
    person = accounts.add("fuzz")
    hub.add_user(person.name)
    values = {"users": person.name, "shares": person.name, "share-codes": person.name, "groups": "plasmat-fuzz"}
    hub.api("POST", "/groups/plasmat-fuzz")
    session = requests.Session()
    session.headers[TOKEN_HEADER] = f"token {hub.token}"
    failed, sentences = [], 0
    for method, pattern in sorted(set(writing())):
        kind = pattern.split("/")[2].partition("?")[0]
        path = re.sub(r"\(\[\^/\]\+\)", values.get(kind, "x"), pattern, count=1)
        path = re.sub(r"\(\?:/\(\[\^/\][+*]\)\)\?|\(\[\^/\][+*]\)|\(\.\*\)|\?", "x", path)
        for body in BODIES + INNER:
            # It would do as it is told.
            if "shutdown" in path and body in INNER and b"proxy" not in body:
                continue
            answer = session.request(method, f"{hub.url}/hub{path}", data=body, timeout=60)
            if answer.status_code >= 500:
                failed.append((method, path, body[:60], answer.status_code))
            elif body in BODIES and answer.status_code == 400:
                sentences += answer.json().get("message", "").endswith(".")
    assert failed == []
    assert sentences > 100
    assert hub.api("GET", "/info").status_code == 200
    hub.api("DELETE", "/groups/plasmat-fuzz")


GOOD_NAMES = ("Lab 2.b-c_d", "漢字", "x" * 64)
BAD_NAMES = (
    "a%3Fb",
    "a%23b",
    "a%3Bb",
    "a%25b",
    "a%2Fb",
    "a%5Cb",
    "...",
    ".a",
    "%20a",
    "a%20",
    "a%0Ab",
    "x" * 65,
    "%3C%22%27",
    "_a",
)


@pytest.mark.docker
def test_names_of_servers_work_or_are_refused_before_they_take_a_place(hub, accounts, environment):
    person = accounts.add("named")
    hub.add_user(person.name)
    token = hub.user_token(person.name)
    session, _ = hub.login(person.name, person.password)
    headers = {TOKEN_HEADER: f"token {token}"}

    def places():
        answer = hub.api("GET", f"/users/{person.name}?include_stopped_servers=1")
        return sorted(name for name in answer.json()["servers"] if name)

    for name in BAD_NAMES:
        address = f"{hub.url}/hub/api/users/{person.name}/servers/{name}"
        # As it stands: the library would take "a/.." away.
        request = requests.Request("POST", address, json={"image": environment}, headers=headers).prepare()
        request.url = address
        answer = requests.Session().send(request, timeout=60)
        assert answer.status_code in (400, 404), (name, answer.text)
        # Traefik itself refuses some, without a word.
        if answer.status_code == 400 and answer.text:
            assert "A server's name may have" in answer.text, name
        page = session.get(f"{hub.url}/hub/spawn/{person.name}/{name}", timeout=60)
        assert page.status_code in (200, 400, 404), name
        assert places() == [], name
    # Neither a page that is looked at nor a start that is refused takes one.
    for name in ("one", "two", "three"):
        assert session.get(f"{hub.url}/hub/spawn/{person.name}/{name}", timeout=60).status_code == 200
        assert hub.spawn(person.name, "plasmat-none:1", name, token).status_code == 400
        form = {"image": "plasmat-none:1", "_xsrf": session.cookies["_xsrf"]}
        page = session.post(f"{hub.url}/hub/spawn/{person.name}/{name}", data=form, timeout=60)
        assert "no longer" in page.text or "environment" in page.text
        assert places() == []
    for name in GOOD_NAMES:
        assert hub.spawn(person.name, environment, name, token).status_code in (201, 202), name
        opened = requests.get(f"{hub.url}/user/{person.name}/{name}/api/contents", headers=headers, timeout=60)
        assert opened.status_code == 200, name
        hub.stop_server(person.name, name)
    assert places() == sorted(GOOD_NAMES)
    # A server that there is keeps its place through a start that is refused.
    assert hub.spawn(person.name, "plasmat-none:1", "Lab 2.b-c_d", token).status_code == 400
    assert places() == sorted(GOOD_NAMES)
