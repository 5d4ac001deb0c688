"""Sessions: a copied cookie after a logout and after a change of the password, and whose session id it is.

A15 of the attacks: the cookie went on for 30 days.
"""

from __future__ import annotations

import copy
import subprocess
from types import SimpleNamespace

import pytest
import requests
from support_hub import TOKEN_HEADER, wait_until
from tljh_plasma import accounts as account_files
from tljh_plasma import sessions


def test_the_digest_follows_the_password_and_nothing_else(tmp_path, monkeypatch):
    shadow = tmp_path / "shadow"
    monkeypatch.setattr(account_files, "SHADOW", shadow)

    def digest(line, key=b"k" * 32):
        shadow.write_text(f"root:*:1:0:99999:7:::\n{line}\n")
        return sessions.digest("anna", key)

    first = digest("anna:$y$one:20000:0:99999:7:::")
    assert len(first) == 32 and "one" not in first
    # A lock, other fields and other people's lines are no other password.
    for line in ("anna:!$y$one:20000:0:99999:7:::", "anna:$y$one:20000:0:90:7::30000:", "anna:$y$one:20000::::::"):
        assert digest(line) == first
    others = {digest("anna:$y$two:20000:::::"), digest("anna:$y$one:20001:::::"), digest("bea:$y$one:20000:::::")}
    assert len(others | {first, digest("anna:$y$one:20000:::::", b"x" * 32)}) == 5
    # An account of a directory has none here, and of a file that cannot be read nothing is known.
    assert digest("bea:x:1:::::") == ""
    shadow.unlink()
    assert sessions.digest("anna", b"k") is None


def copied(session):
    """The same cookies in another browser."""
    other = requests.Session()
    other.cookies = copy.deepcopy(session.cookies)
    return other


def is_in(hub, session):
    return "/hub/login" not in session.get(f"{hub.url}/hub/home", timeout=30).url


def tokens_of_sessions(hub, name):
    tokens = hub.api("GET", f"/users/{name}/tokens").json()["api_tokens"]
    return [token for token in tokens if token["session_id"]]


def opens(hub, session, page):
    answer = session.get(f"{hub.url}{page}", timeout=60)
    return answer.status_code == 200 and "/hub/" not in answer.url


def test_sessions_of_an_earlier_release_go_on_until_the_next_login():
    user = SimpleNamespace(cookie_id="0123456789abcdef")
    assert sessions.agrees(user, "now") and not sessions.agrees(user, "now", login=True)
    user.cookie_id += ".then"
    assert sessions.agrees(user, "then", login=True) and sessions.agrees(user, None)
    assert not sessions.agrees(user, "now") and not sessions.agrees(user, "")


@pytest.mark.docker
def test_a_logout_ends_the_sessions_on_the_server(quick_hub, accounts, environment):
    hub = quick_hub
    person = accounts.add("slogout")
    script = {TOKEN_HEADER: f"token {made_by_oneself(hub, person)}"}
    session, _ = hub.login(person.name, person.password)
    assert hub.spawn(person.name, environment, token=script[TOKEN_HEADER].split()[1]).status_code in (201, 202)
    pages = ("/services/plasma/servers", f"/user/{person.name}/api/contents")
    for page in (pages[0], f"/user/{person.name}/lab"):
        assert opens(hub, session, page)
    thief = copied(session)
    assert is_in(hub, thief) and opens(hub, thief, pages[0]) and opens(hub, thief, pages[1])
    assert len(tokens_of_sessions(hub, person.name)) == 2
    # Another site's picture, or the thief: whoever asks without the cookie ends nothing.
    requests.get(f"{hub.url}/hub/logout", timeout=30)
    assert is_in(hub, thief)

    session.get(f"{hub.url}/hub/logout", timeout=30)
    assert not is_in(hub, thief)
    assert not opens(hub, thief, pages[0])
    wait_until(lambda: not opens(hub, thief, pages[1]), 20, "the server's refusal")
    assert tokens_of_sessions(hub, person.name) == []
    # What they made for programs goes on, and so does their server.
    assert hub.api("GET", "/user", headers=script).status_code == 200
    assert requests.get(f"{hub.url}{pages[1]}", headers=script, timeout=30).status_code == 200
    hub.stop_server(person.name)


def made_by_oneself(hub, person):
    hub.visitors.add(person.name)
    hub.add_user(person.name)
    body = {"auth": {"username": person.name, "password": person.password}, "note": "a script"}
    return requests.post(f"{hub.url}/hub/api/users/{person.name}/tokens", json=body, timeout=30).json()["token"]


@pytest.mark.docker
def test_a_new_password_ends_the_sessions_wherever_it_was_set(quick_hub, accounts):
    hub = quick_hub
    person = accounts.add("spasswd")
    script = {TOKEN_HEADER: f"token {made_by_oneself(hub, person)}"}
    session, _ = hub.login(person.name, person.password)
    thief = copied(session)
    assert opens(hub, session, "/services/plasma/servers")
    subprocess.run(["passwd", "--lock", person.name], check=True, capture_output=True)
    subprocess.run(["passwd", "--unlock", person.name], check=True, capture_output=True)
    subprocess.run(["chpasswd"], input=f"{person.name}:another one 1\n", text=True, check=True)
    wait_until(lambda: not is_in(hub, thief), 10, "the end of the session")
    assert not is_in(hub, session)
    assert not opens(hub, thief, "/services/plasma/servers")
    assert tokens_of_sessions(hub, person.name) == []
    assert hub.api("GET", "/user", headers=script).status_code == 200

    # Also while the hub was down.
    session, _ = hub.login(person.name, "another one 1")
    assert is_in(hub, session)
    hub.stop_process("hub")
    hub.start_hub()
    assert is_in(hub, session)
    hub.stop_process("hub")
    subprocess.run(["chpasswd"], input=f"{person.name}:another one 2\n", text=True, check=True)
    hub.start_hub()
    assert not is_in(hub, session)
    # And where the next login is the first to notice.
    session, _ = hub.login(person.name, "another one 2")
    subprocess.run(["chpasswd"], input=f"{person.name}:another one 3\n", text=True, check=True)
    fresh, _ = hub.login(person.name, "another one 3")
    assert is_in(hub, fresh)
    assert not is_in(hub, session)


@pytest.mark.docker
def test_the_session_id_is_another_one_after_the_login(hub, accounts):
    person = accounts.add("sfixed")
    planted = "0123456789abcdef0123456789abcdef"
    session = requests.Session()
    session.cookies.set("jupyterhub-session-id", planted, domain="127.0.0.1", path="/")
    session, page = hub.login(person.name, person.password, session)
    assert page.status_code == 200
    first = session.cookies["jupyterhub-session-id"]
    assert first != planted
    session, _ = hub.login(person.name, person.password)
    assert session.cookies["jupyterhub-session-id"] not in (first, planted)
