"""The operator's token: who can read it, what it opens, and what it does not."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest
import requests
from support_hub import TOKEN_HEADER, Hub, wait_until
from tljh_plasma.operators import SERVICE, TOKEN_FILE, kept_token


def test_the_token_is_made_once_and_nobody_else_can_read_it(tmp_path):
    before = os.umask(0)
    try:
        token = kept_token(tmp_path)
    finally:
        os.umask(before)
    assert kept_token(tmp_path) == token
    assert len(token) == 64
    status = (tmp_path / TOKEN_FILE).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.geteuid()
    assert [path.name for path in tmp_path.iterdir()] == [TOKEN_FILE]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602, 0o620])
def test_a_token_that_others_could_read_or_choose_is_replaced(tmp_path, mode):
    token = kept_token(tmp_path)
    (tmp_path / TOKEN_FILE).chmod(mode)
    renewed = kept_token(tmp_path)
    assert renewed != token
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600
    assert kept_token(tmp_path) == renewed


@pytest.mark.parametrize("text", ["", "a" * 63, "g" * 64, "a" * 65])
def test_a_token_that_was_cut_off_is_replaced(tmp_path, text):
    path = tmp_path / TOKEN_FILE
    path.touch(0o600)
    path.write_text(text)
    assert len(kept_token(tmp_path)) == 64
    assert path.read_text() != text


def test_a_token_of_somebody_else_is_replaced(tmp_path):
    token = kept_token(tmp_path)
    os.chown(tmp_path / TOKEN_FILE, 12345, -1)
    assert kept_token(tmp_path) != token
    assert (tmp_path / TOKEN_FILE).stat().st_uid == os.geteuid()


@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe"])
def test_links_and_pipes_are_neither_read_nor_written(tmp_path, kind):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(0o600)
    elsewhere.write_text("b" * 64)
    state = tmp_path / "state"
    state.mkdir()
    path = state / TOKEN_FILE
    if kind == "symbolic":
        path.symlink_to(elsewhere)
    elif kind == "hard":
        path.hardlink_to(elsewhere)
    else:
        os.mkfifo(path, 0o600)
    assert kept_token(state) != "b" * 64
    assert elsewhere.read_text() == "b" * 64
    assert stat.S_ISREG(path.lstat().st_mode)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr("tljh_plasma.secret_files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept_token(tmp_path)
    assert list(tmp_path.iterdir()) == []


# At a hub.


class Operator:
    """Root on the machine, at the hub's API."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    @property
    def token(self) -> str:
        return (self.hub.prefix / "state" / TOKEN_FILE).read_text()

    def api(self, method: str, path: str, **options) -> requests.Response:
        return self.hub.api(method, path, headers={TOKEN_HEADER: f"token {self.token}"}, **options)

    def administrators(self) -> list[str]:
        answer = self.api("GET", "/plasma/administrators")
        assert answer.status_code == 200, answer.text
        return answer.json()["administrators"]


@pytest.fixture(scope="module")
def operator(hub):
    return Operator(hub)


@pytest.fixture
def person(hub, accounts):
    """Somebody with an account whom the hub knows, as an ordinary user again afterwards."""
    made = accounts.add("promoted")
    assert hub.add_user(made.name).status_code == 201
    yield made
    hub.api("DELETE", f"/users/{made.name}")


@pytest.mark.docker
def test_the_hub_accepts_it_for_what_is_needed(operator, person, hub, environment):
    assert hub.spawn(person.name, environment).status_code in (201, 202)
    user = operator.api("GET", f"/users/{person.name}").json()
    assert (user["admin"], list(user["servers"])) == (False, [""])
    assert person.name in [user["name"] for user in operator.api("GET", "/users?state=active").json()]
    assert operator.api("DELETE", f"/users/{person.name}/server").status_code in (202, 204)
    wait_until(lambda: not operator.api("GET", f"/users/{person.name}").json()["servers"], 60, "stop")
    assert operator.api("DELETE", f"/users/{person.name}").status_code == 204
    assert operator.api("GET", f"/users/{person.name}").status_code == 404


@pytest.mark.docker
def test_it_gets_no_more_scopes_than_these(operator):
    mine = operator.api("GET", "/user").json()
    assert mine["name"] == SERVICE
    assert not mine["admin"]
    assert set(mine["scopes"]) == {
        "list:users",
        "read:users:name",
        "read:users:activity",
        "read:servers",
        "delete:servers",
        "delete:users",
        "custom:plasma:administrators",
        "custom:plasma:people",
        "access:services!service=plasma",
        "custom:tljh_repo2docker:admin",
    }


@pytest.mark.docker
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/users/{name}/tokens", {}),
        ("GET", "/users/{name}/tokens", None),
        ("POST", "/users/{name}/server", {}),
        ("PATCH", "/users/{name}", {"admin": False}),
        ("PATCH", "/users/{name}", {"name": "somebody"}),
        ("POST", "/users/plasmat-nobody", {}),
        ("POST", "/users", {"usernames": ["plasmat-nobody"], "admin": True}),
        ("POST", "/groups/plasmat-group", {}),
        ("GET", "/services", None),
        ("GET", "/proxy", None),
        ("GET", "/info", None),
        ("POST", "/shutdown", {}),
        ("POST", "/services/mine", {"name": "mine"}),
    ],
)
def test_it_is_refused_everything_else(operator, person, method, path, body):
    answer = operator.api(method, path.format(name=person.name), json=body)
    assert answer.status_code in (403, 404), answer.text
    assert operator.administrators() == [operator.hub.admin]


@pytest.mark.docker
def test_it_does_not_open_servers_and_pages(operator, person, hub, environment):
    assert hub.spawn(person.name, environment).status_code in (201, 202)
    header = {TOKEN_HEADER: f"token {operator.token}"}
    for page in (f"/user/{person.name}/api/contents", "/hub/home", "/hub/admin"):
        answer = requests.get(f"{hub.url}{page}", headers=header, timeout=30, allow_redirects=False)
        assert answer.status_code in (302, 403, 404), page
        # Browsers are sent to the login.
        assert "login" in answer.headers.get("Location", "login")
    hub.stop_server(person.name)


@pytest.mark.docker
def test_nobody_else_can_read_the_file(hub, person):
    path = hub.prefix / "state" / TOKEN_FILE
    # What is above it lets people through: the file itself has to keep them out.
    done = subprocess.run(
        ["setpriv", f"--reuid={person.uid}", f"--regid={person.gid}", "--clear-groups", "cat", str(path)],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == b""


@pytest.mark.docker
def test_it_stands_in_no_log_argument_and_environment(operator, hub):
    """The hub's log is that of level DEBUG."""
    token = operator.token
    operator.api("GET", "/user")
    assert token not in hub.log()
    assert token not in (hub.prefix / "config" / "config.yaml").read_text()
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                text = (process / name).read_bytes()
            except OSError:
                continue
            assert token.encode() not in text, (process / "cmdline").read_bytes()
    holders = [path for path in hub.prefix.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert holders == [hub.prefix / "state" / TOKEN_FILE]


# Administrators.


@pytest.mark.docker
def test_somebody_is_named_administrator_and_revoked_with_old_session_and_token(operator, person, hub):
    session, _ = hub.login(person.name, person.password)
    token = {TOKEN_HEADER: f"token {hub.user_token(person.name)}"}
    admin_page = f"{hub.url}/hub/admin"
    assert session.get(admin_page, timeout=30).status_code == 403

    answer = operator.api("PATCH", "/plasma/administrators", json={"grant": [person.name]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["administrators"] == sorted([hub.admin, person.name])
    assert session.get(admin_page, timeout=30).status_code == 200
    assert hub.api("GET", "/users", headers=token).status_code == 200

    # Made while they were one: it must fall with them.
    made = requests.post(
        f"{hub.url}/hub/api/users/{person.name}/tokens",
        headers=token,
        json={"scopes": ["admin:users"], "note": "kept"},
        timeout=30,
    )
    assert made.status_code == 201, made.text
    kept = {TOKEN_HEADER: f"token {made.json()['token']}"}
    assert hub.api("GET", "/users", headers=kept).status_code == 200

    answer = operator.api("PATCH", "/plasma/administrators", json={"revoke": [person.name]})
    assert answer.json()["administrators"] == operator.administrators() == [hub.admin]
    assert session.get(admin_page, timeout=30).status_code == 403
    assert hub.api("GET", "/users", headers=token).status_code == 403
    assert hub.api("GET", "/users", headers=kept).status_code == 403
    # A new login does not bring it back.
    session, _ = hub.login(person.name, person.password)
    assert session.get(admin_page, timeout=30).status_code == 403


@pytest.mark.docker
def test_an_administrator_of_the_configuration_stays_revoked_until_the_hub_reads_it_again(operator, hub):
    """Their login would make them one again otherwise: the hub remembers its configuration."""
    admin = hub.admin
    assert operator.api("PATCH", "/plasma/administrators", json={"revoke": [admin]}).status_code == 200
    try:
        password = "a password for one test"
        subprocess.run(["chpasswd"], input=f"{admin}:{password}\n", text=True, check=True)
        session, _ = hub.login(admin, password)
        assert session.get(f"{hub.url}/hub/admin", timeout=30).status_code == 403
        assert operator.administrators() == []
    finally:
        operator.api("PATCH", "/plasma/administrators", json={"grant": [admin]})
    assert session.get(f"{hub.url}/hub/admin", timeout=30).status_code == 200


@pytest.mark.docker
def test_names_without_an_account_and_unknown_ones(operator, hub):
    body = {"grant": ["plasmat-0123"], "revoke": ["plasmat-unknown"]}
    answer = operator.api("PATCH", "/plasma/administrators", json=body)
    assert answer.json()["administrators"] == sorted([hub.admin, "plasmat-0123"])
    assert operator.api("DELETE", "/users/plasmat-0123").status_code == 204
    assert operator.api("GET", "/users/plasmat-unknown").status_code == 404
    assert operator.administrators() == [hub.admin]


@pytest.mark.docker
@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "x",
        {"grant": "anna"},
        {"grant": [1]},
        {"grant": [""]},
        {"revoke": [None]},
        {"admin": ["anna"]},
        {"grant": ["anna"], "revoke": ["anna"]},
        {"grant": ["a/b"]},
    ],
)
def test_other_bodies_change_nothing(operator, hub, body):
    answer = operator.api("PATCH", "/plasma/administrators", json=body)
    assert answer.status_code == 400, answer.text
    assert operator.administrators() == [hub.admin]


@pytest.mark.docker
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_users_may_not_ask_or_say_it(hub, person, method):
    token = {TOKEN_HEADER: f"token {hub.user_token(person.name)}"}
    body = {"grant": [person.name]}
    assert hub.api(method, "/plasma/administrators", headers=token, json=body).status_code == 403
    session, _ = hub.login(person.name, person.password)
    assert session.request(method, f"{hub.url}/hub/api/plasma/administrators", json=body).status_code == 403
    assert requests.request(method, f"{hub.url}/hub/api/plasma/administrators", json=body).status_code == 403
    assert not hub.api("GET", f"/users/{person.name}").json()["admin"]


@pytest.mark.docker
def test_another_sites_page_cannot_use_an_administrators_cookie(hub, accounts):
    admin = accounts.add("admin4")
    hub.add_user(admin.name)
    hub.api("PATCH", f"/users/{admin.name}", json={"admin": True})
    session, _ = hub.login(admin.name, admin.password)
    answer = session.patch(
        f"{hub.url}/hub/api/plasma/administrators",
        data='{"grant": ["plasmat-evil"]}',
        headers={"Origin": "https://elsewhere.example", "Content-Type": "text/plain"},
        timeout=30,
    )
    assert answer.status_code == 403
    assert hub.api("GET", "/users/plasmat-evil").status_code == 404
    hub.api("DELETE", f"/users/{admin.name}")


@pytest.mark.docker
def test_a_renewed_token_ends_the_old_one(docker_host, accounts, tmp_path):
    running = Hub(tmp_path, accounts.add("admin5").name)
    running.start()
    try:
        operator = Operator(running)
        old = {TOKEN_HEADER: f"token {operator.token}"}
        assert running.api("GET", "/user", headers=old).status_code == 200
        running.stop_process("hub")
        (tmp_path / "state" / TOKEN_FILE).chmod(0o644)
        running.start_hub()
        assert operator.api("GET", "/user").json()["name"] == SERVICE
        assert running.api("GET", "/user", headers=old).status_code == 403
    finally:
        running.stop()


@pytest.mark.docker
def test_starts_at_once_agree_on_one_token(tmp_path):
    found = set()
    threads = [threading.Thread(target=lambda: found.add(kept_token(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Which of them wins is all the same; afterwards there is one.
    assert kept_token(tmp_path) in found


@pytest.mark.docker
def test_somebody_with_another_name(hub, accounts, environment):
    """Their rights and tokens go along, their sessions end, and nobody else may do it."""
    person, other = accounts.add("before"), accounts.add("after")
    headers = {TOKEN_HEADER: f"token {(hub.prefix / 'state' / TOKEN_FILE).read_text().strip()}"}
    session, _ = hub.login(person.name, person.password)
    token = hub.user_token(person.name)
    body = {"old": person.name, "new": other.name, "group": False}

    def rename(body, headers=headers):
        return requests.patch(f"{hub.url}/hub/api/plasma/people", json=body, headers=headers, timeout=30)

    for sender in (hub.token, token):
        assert rename(body, {TOKEN_HEADER: f"token {sender}"}).status_code == 403
    for wrong in ({}, {"old": person.name}, {**body, "new": 5}, {**body, "new": person.name}, {**body, "x": 1}):
        assert rename(wrong).status_code == 400
    assert rename({**body, "new": "../x"}).status_code == 400
    assert rename({**body, "old": "nobody-of-this-name"}).status_code == 404
    hub.add_user(other.name)
    assert rename(body).status_code == 409
    hub.api("DELETE", f"/users/{other.name}")
    hub.spawn(person.name, environment)
    assert rename(body).status_code == 409
    hub.stop_server(person.name)
    assert rename(body).json() == {"name": other.name}
    assert hub.api("GET", f"/users/{person.name}").status_code == 404
    answer = hub.api("GET", "/user", headers={TOKEN_HEADER: f"token {token}"})
    assert answer.status_code == 403 or answer.json()["name"] == other.name
    assert "/hub/login" in session.get(f"{hub.url}/hub/home", timeout=30).url
    # And a server of theirs starts.
    assert hub.spawn(other.name, environment).status_code in (201, 202)
    hub.stop_server(other.name)
