"""Who gets to Cockpit, and what of their requests and its answers gets through."""

from __future__ import annotations

import asyncio

import pytest
import requests
from support_cockpit import BIG, PREFIX, StandIn
from support_hub import wait_until
from tornado.httpclient import HTTPClientError

PATHS = ("", "cockpit/login", "cockpit/@localhost/system/index.html", "cockpit/static/login.css", "ping", "a%2Fb")
SCRIPT = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
FRAME = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}


@pytest.fixture
def world(tmp_path, monkeypatch):
    made = StandIn(tmp_path, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def admin(world):
    return world.person(admin=True)


# Who.


@pytest.mark.parametrize("path", PATHS)
def test_administrators_get_through(world, admin, path):
    for headers in ({}, SCRIPT, FRAME, {"Sec-Fetch-Mode": None, "Sec-Fetch-Site": None, "Sec-Fetch-Dest": None}):
        answer = world.get(path, admin, headers=headers)
        assert (answer.status_code, answer.text) == (200, "Cockpit's page")
    assert [(method, asked) for method, asked, _ in world.seen] == [("GET", f"{PREFIX}{path}")] * 4


@pytest.mark.parametrize("path", PATHS)
def test_nobody_else_does(world, path):
    others = {
        "a user": world.person(admin=False),
        "somebody without access": world.person(admin=False, scopes=()),
        "an administrator whose access was taken": world.person(admin=True, scopes=()),
        "a manager of environments": world.person(
            admin=False, scopes=("access:services!service=cockpit", "custom:tljh_repo2docker:admin")
        ),
        "a token of nobody": "none",
    }
    for name, token in others.items():
        for headers in ({}, SCRIPT, FRAME):
            answer = world.get(path, token, headers=headers)
            if name == "a token of nobody" and headers is not SCRIPT:
                assert answer.status_code == 302
            else:
                assert answer.status_code == 403, name
        assert refused(world, token) == 403, name
    assert world.seen == []


def refused(world, token="", **headers) -> int:
    with pytest.raises(HTTPClientError) as found:
        asyncio.run(world.connect(token, **headers))
    return found.value.code


def test_strangers_are_sent_to_the_login_and_scripts_are_refused(world):
    answer = world.get()
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/base/hub/api/oauth2/authorize?")
    assert world.get(headers=SCRIPT).status_code == 403
    assert refused(world) == 403
    assert refused(world, Sec_Fetch_Mode=None, Sec_Fetch_Site=None) == 403
    assert world.seen == []


def test_without_tls_nobody_gets_through(world, admin):
    for proto in ("http", None, "ws"):
        answer = world.get("", admin, headers={"X-Forwarded-Proto": proto})
        assert answer.status_code == 403
        assert "https://" in answer.text
    assert refused(world, admin, X_Forwarded_Proto="ws") == 403
    assert world.seen == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", **SCRIPT},
        {"Sec-Fetch-Site": "same-site", **SCRIPT},
        {"Sec-Fetch-Site": "cross-site", **FRAME},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
        {"Sec-Fetch-Site": None, "Sec-Fetch-Mode": None, "Origin": "https://evil.example.org"},
        {"Origin": "null"},
    ],
)
def test_pages_of_other_sites_get_nothing(world, admin, headers):
    assert world.get("cockpit/login", admin, headers=headers).status_code == 403
    assert world.seen == []


def test_a_link_on_another_site_may_lead_here(world, admin):
    assert world.get("", admin, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example.org", "null", None])
def test_websockets_of_other_sites_get_nothing(world, admin, origin):
    assert refused(world, admin, Origin=origin) == 403
    assert world.seen == []


def test_a_body_is_not_waited_for(world):
    url = f"http://127.0.0.1:{world.port}{PREFIX}"
    assert requests.post(url, data=b"0" * 1000, timeout=30).status_code in (403, 405)
    assert requests.post(url, data=b"0" * 20_000, timeout=30).status_code == 413


@pytest.mark.parametrize("path", PATHS)
def test_pages_of_user_servers_get_nothing(world, admin, path):
    """They are on this origin, and their requests have the administrator's cookies."""
    ahead = {"Sec-Purpose": "prefetch;prerender"}
    nothing = {"Sec-Fetch-Mode": None, "Sec-Fetch-Site": None, "Sec-Fetch-Dest": None}
    picture = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    others = world.own(world.person(admin=True))
    for headers in (SCRIPT, FRAME, ahead, nothing, picture):
        for begins in ("", others, "~0/", "~/"):
            answer = world.get(f"{begins}{path}", admin, own=False, headers=headers)
            assert answer.status_code == 403, (headers, begins)
    assert refused(world, admin, own=False) == 403
    assert refused(world, admin, own=False, path=f"{others}cockpit/socket") == 403
    assert world.seen == []
    # People are shown the way, with the path of an earlier login too.
    for begins in ("", others):
        answer = world.get(f"{begins}{path}", admin, own=False)
        assert answer.status_code == 302
        assert answer.headers["Location"] == f"{PREFIX}{world.own(admin)}{path}"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_pages_find_cockpit_at_the_path_of_the_visitor(world, admin):
    own = f"{PREFIX}{world.own(admin)}"
    text = world.get("page", admin).text
    assert text == (
        f'<base href="{own}$1a/system/index.html"><base href="{own}"><meta name="url-root" content="{own[:-1]}">'
        f'<a href="{PREFIX[:-1]}s/">'
    )


def test_pages_connect_to_cockpit_alone(world, admin):
    policy = world.get("", admin).headers["Content-Security-Policy"]
    assert f"connect-src https://{world.host}{PREFIX} wss://{world.host}{PREFIX}; " in policy
    assert f"frame-src https://{world.host}{PREFIX}" in policy


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_but_reading_is_let_through(world, admin, method):
    assert world.get("", admin, method, headers={"Origin": f"https://{world.host}"}).status_code == 405
    assert world.seen == []


def test_a_hub_that_does_not_answer_lets_nobody_in(world, admin):
    world.hub_fails = 502
    assert world.get("", admin).status_code == 503
    assert world.seen == []


# What.


def test_cockpit_gets_nothing_of_the_hub(world, admin):
    cookies = f"_xsrf=secret; jupyterhub-session-id=secret; cockpit=dj0y; {world.cookie(admin)}"
    headers = {"Cookie": cookies, "X-XSRFToken": "secret", "Authorization": "Basic dTpw", "X-Superuser": "any"}
    assert world.get(f"{world.own(admin)}cockpit/login", headers={**headers, **SCRIPT}).status_code == 200
    (_, _, got) = world.seen[0]
    assert got["Cookie"] == "cockpit=dj0y"
    assert got["Authorization"] == "Basic dTpw"
    assert got["X-Superuser"] == "any"
    assert got["X-Forwarded-Proto"] == "https"
    assert got["X-Forwarded-For"] == "192.0.2.7"
    assert got["Host"] == world.host
    assert "secret" not in str(got)
    assert admin not in str(got)


def test_a_token_of_the_hub_opens_the_door_and_stays_there(world, admin):
    assert world.get("", headers={"Authorization": f"token {admin}"}).status_code == 200
    assert "Authorization" not in world.seen[0][2]


def test_cockpits_cookie_is_for_cockpit_alone(world, admin):
    answer = world.get("login", admin, headers=SCRIPT)
    assert answer.headers["Set-Cookie"] == (
        f"cockpit=dj0yO2s9; Path={PREFIX}{world.own(admin)}; SameSite=Strict; Secure; HttpOnly"
    )


def test_answers_have_the_headers_of_the_hubs_services(world, admin):
    headers = world.get("", admin).headers
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"].startswith("default-src 'self'; frame-ancestors 'self'")
    assert "base-uri 'self'" in headers["Content-Security-Policy"]
    assert "Server" not in headers


def test_answers_pass_as_they_are(world, admin):
    answer = world.get("zipped", admin, stream=True)
    assert answer.raw.read(decode_content=False) == b"\x1f\x8b not really"
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Cache-Control"] == "max-age=86400, private"
    assert answer.headers["ETag"] == '"z"'
    assert world.get("unchanged", admin).status_code == 304
    assert world.get("moved", admin).headers["Location"] == f"{PREFIX}{world.own(admin)}elsewhere"
    denied = world.get("denied", admin, headers=SCRIPT)
    assert (denied.status_code, denied.headers["WWW-Authenticate"]) == (401, "X-Conversation 1 eA==")
    head = world.get("zipped", admin, "HEAD")
    assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", '"z"')


def test_what_is_big_is_passed_on_as_fast_as_it_is_taken(world, admin):
    with world.get("big", admin, stream=True) as answer:
        next(answer.iter_content(1024 * 1024))
        wait_until(lambda: world.pushed, 10, "the first piece")
        # The rest waits in Cockpit, and not in our memory.
        assert world.pushed < BIG // 2
        assert sum(len(piece) for piece in answer.iter_content(1024 * 1024)) == BIG - 1024 * 1024


def test_an_answer_that_breaks_off_is_not_taken_for_the_whole(world, admin):
    with pytest.raises(requests.RequestException):
        _ = world.get("broken", admin).content


def test_a_cockpit_that_is_down_is_said_on_a_page(world, admin):
    world.run(world.stop_cockpit())
    answer = world.get("", admin)
    assert answer.status_code == 503
    assert "systemctl status cockpit.socket" in answer.text
    assert 'href="/base/services/plasma/' in answer.text
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert refused(world, admin) == 503
    world.run(world.start_cockpit())
    assert world.get("", admin).status_code == 200


# WebSockets.


def test_messages_pass_both_ways_whatever_they_are(world, admin):
    async def talk():
        connection = await world.connect(admin)
        assert connection.selected_subprotocol == "cockpit1"
        for message in ("4:1\nhello", "ä" * 200_000, b"\x00\xff" * 500_000, ""):
            await connection.write_message(message, binary=isinstance(message, bytes))
            assert await connection.read_message() == message
        connection.close()

    asyncio.run(talk())
    (_, path, headers) = world.seen[0]
    assert path == f"{PREFIX}cockpit/socket"
    assert headers["Cookie"] == "cockpit=own"
    assert headers["Origin"] == f"https://{world.host}"
    wait_until(lambda: all(opened.closed for opened in world.sockets), 10, "Cockpit's end is closed")


def test_a_websocket_that_cockpit_refuses_or_ends_is_refused_or_ended(world, admin):
    with pytest.raises(HTTPClientError) as found:
        asyncio.run(world.connect(admin, "refused/socket"))
    assert found.value.code == 403

    async def ended():
        connection = await world.connect(admin)
        await connection.write_message("there")
        await connection.read_message()
        asyncio.run_coroutine_threadsafe(world.sockets[0].close(code=1001), world._loop)
        assert await asyncio.wait_for(connection.read_message(), 10) is None

    asyncio.run(ended())


@pytest.mark.parametrize("how", ["revoked", "no access", "logged out"])
def test_who_is_no_administrator_any_more_is_disconnected(world, admin, how):
    async def talk():
        connection = await world.connect(admin)
        await connection.write_message("there")
        assert await connection.read_message() == "there"
        if how == "revoked":
            world.people[admin]["admin"] = False
        elif how == "no access":
            world.people[admin]["scopes"] = []
        else:
            del world.people[admin]
        assert await asyncio.wait_for(connection.read_message(), 10) is None
        assert connection.close_code == 1008

    asyncio.run(talk())
    wait_until(lambda: all(opened.closed for opened in world.sockets), 10, "Cockpit's end is closed")


def test_a_hub_that_is_away_for_a_moment_disconnects_nobody(world, admin):
    async def talk():
        connection = await world.connect(admin)
        world.hub_fails = 502
        await asyncio.sleep(0.5)
        world.hub_fails = 0
        await asyncio.sleep(1)
        await connection.write_message("there")
        assert await asyncio.wait_for(connection.read_message(), 10) == "there"
        world.hub_fails = 502
        assert await asyncio.wait_for(connection.read_message(), 20) is None

    asyncio.run(talk())
