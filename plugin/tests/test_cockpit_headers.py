"""What passes between browsers and Cockpit, header by header."""

from __future__ import annotations

import pytest
from tljh_plasma.cockpit import headers

PREFIX = "/some/where/services/cockpit/"


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ("", ""),
        ("jupyterhub-session-id=a; jupyterhub-hub-login=b; _xsrf=c; service-cockpit=d", ""),
        ("a=1; cockpit=dj0yO2s9; _xsrf=c", "cockpit=dj0yO2s9"),
        ("cockpit=x==; CockpitLang=de; machine-cockpit+host=z", "cockpit=x==; CockpitLang=de; machine-cockpit+host=z"),
        ("xcockpit=1; cockpitx=2; COCKPIT=3", ""),
    ],
)
def test_only_cockpits_own_cookies_reach_it(sent, passed):
    assert headers.cookies_for_cockpit(sent) == passed


@pytest.mark.parametrize(
    ("login", "passed"),
    [
        ("Basic dTpw", True),
        ("X-Conversation 1 abc", True),
        ("token 123", False),
        ("Bearer 123", False),
        ("bearer 123", False),
        ("Negotiate 123", False),
    ],
)
def test_only_logins_of_cockpit_reach_it(login, passed):
    found = headers.for_cockpit({"Authorization": login}, "hub.test", "192.0.2.1")
    assert found.get("Authorization") == (login if passed else None)


def test_nothing_a_browser_says_of_its_way_is_believed():
    found = headers.for_cockpit(
        {
            "X-Forwarded-For": "10.0.0.1",
            "X-Forwarded-Proto": "wss",
            "X-XSRFToken": "t",
            "Accept": "*/*",
            "Host": "evil",
        },
        "hub.test:8443",
        "192.0.2.1",
    )
    assert found == {
        "Accept": "*/*",
        "Host": "hub.test:8443",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "192.0.2.1",
    }


@pytest.mark.parametrize(
    ("cookie", "kept"),
    [
        (
            "cockpit=dj0y; Path=/; SameSite=Strict; HttpOnly",
            f"cockpit=dj0y; Path={PREFIX}; SameSite=Strict; Secure; HttpOnly",
        ),
        (
            "cockpit=deleted; PATH=/; Max-Age=0; Secure; HttpOnly",
            f"cockpit=deleted; Max-Age=0; Path={PREFIX}; SameSite=Strict; Secure; HttpOnly",
        ),
        ("cockpit=a; Domain=example.org", f"cockpit=a; Path={PREFIX}; SameSite=Strict; Secure; HttpOnly"),
        ("jupyterhub-hub-login=x; Path=/hub/", None),
        ("_xsrf=x", None),
    ],
)
def test_cockpits_cookie_goes_to_cockpit_alone(cookie, kept):
    assert headers.set_cookie(cookie, PREFIX) == kept


def test_what_belongs_to_a_connection_or_to_the_hub_is_not_answered():
    given = [
        ("Content-Type", "text/html"),
        ("Connection", "keep-alive"),
        ("Transfer-Encoding", "chunked"),
        ("Access-Control-Allow-Origin", "*"),
        ("Set-Cookie", "a=b"),
        ("ETag", '"x"'),
        ("Content-Encoding", "gzip"),
    ]
    assert headers.answered(given) == [("Content-Type", "text/html"), ("ETag", '"x"'), ("Content-Encoding", "gzip")]


@pytest.mark.parametrize(("value", "secure"), [("https", True), ("wss", True), ("http", False), ("ws", False)])
def test_secure_is_what_came_through_tls(value, secure):
    assert headers.is_secure({"X-Forwarded-Proto": value}) is secure
    assert not headers.is_secure({})
