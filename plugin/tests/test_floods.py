"""More than a hub can take, from nobody, from a student and from a classroom: it goes on working for the others.

The attacks are those of A5 to A8. Without the protections, and with 1,024 descriptors: the hub was dead for a minute
after 1,100 unfinished requests, and grew by 1.5 GB with eight large ones.
"""

from __future__ import annotations

import contextlib
import re
import resource
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from support_containers import run_in
from support_floods import HOLD, Unfinished, descriptors, log_in_wrongly, post, resident, seconds
from support_hub import Hub, container_name, wait_until
from tljh_plasma import bounds, limits, logins

pytestmark = pytest.mark.docker

MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def flooded(docker_host, environment, accounts, tmp_path_factory):
    """A hub with the descriptors that systemd gives by itself, and a student's server."""
    admin = accounts.add("admin")
    running = Hub(tmp_path_factory.mktemp("floods"), admin.name)
    running.start()
    running.student = accounts.add("floods")
    assert running.spawn(running.student.name, environment).status_code in (201, 202)
    running.container = docker_host.containers.get(container_name(running.student.name))
    running.pid = running.processes["hub"].pid
    _, hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (1024, hard))
    yield running
    running.stop()
    running.remove_containers(docker_host)


@pytest.fixture(scope="module")
def gateway(flooded):
    """The hub's address for containers."""
    (network,) = flooded.container.attrs["NetworkSettings"]["Networks"].values()
    return network["Gateway"]


@pytest.fixture(scope="module")
def person(accounts):
    """Somebody who wants to log in meanwhile."""
    return accounts.add("meanwhile")


def logs_in(hub, person) -> None:
    """They can, within a time that is generous for a busy machine."""
    took, (_, page) = seconds(hub.login, person.name, person.password)
    assert page.status_code == 200, page.text
    assert took < 20


def test_unfinished_requests(flooded, person):
    with Unfinished(flooded.port, 1100):
        wait_until(lambda: "do not come to an end" in flooded.log(), 20, "the oldest make way")
        logs_in(flooded, person)
        wait_until(lambda: descriptors(flooded.pid) < 2 * limits.UNFINISHED, 20, "descriptors")


def test_unused_connections_of_a_server(flooded, gateway, person):
    said = flooded.student.home / "held"
    flooded.container.exec_run(
        ["python3", "-c", HOLD, gateway, str(flooded.hub_port), "1100", str(said)],
        detach=True,
        user=str(flooded.student.uid),
    )
    wait_until(said.exists, 60, "connections")
    # Its server has some of its own.
    assert 0 < int(said.read_text()) <= limits.DIRECT
    logs_in(flooded, person)
    said.unlink()


def test_large_bodies_take_no_memory(flooded, person):
    before = resident(flooded.pid)
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: post(f"{flooded.url}/hub/login", 95 * MEGABYTE), range(8)))
    # The proxy has nobody to send the rest to.
    assert set(statuses) <= {413, 502, 0}
    assert resident(flooded.pid) - before < 64 * MEGABYTE
    logs_in(flooded, person)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Encoding": "gzip"}, {"Content-Type": "multipart/form-data; boundary=b"}, {"Expect": "100-continue"}],
)
def test_bodies_of_every_kind_end_at_the_limit(flooded, headers):
    url = f"{flooded.url}/hub/login"
    for chunked in (False, True):
        assert post(url, limits.SMALL_BODY + 64 * 1024, chunked=chunked, **headers) == 413


def test_every_address_of_the_hub_has_a_limit(flooded, gateway):
    """Whatever is added later: each handler is asked."""
    from jupyterhub import apihandlers, handlers

    patterns = [path for path, *_ in [*handlers.default_handlers, *apihandlers.default_handlers]]
    paths = {re.sub(r"\(\?P<\w+>[^)]*\)|\([^)]*\)", "x", path).rstrip("$").replace("\\", "") for path in patterns}
    assert len(paths) > 50
    before = resident(flooded.pid)
    with requests.Session() as session:
        for path in sorted(paths):
            size = limits.hub_body(f"/hub{path}") + 1
            answer = session.post(f"http://{gateway}:{flooded.hub_port}/hub{path}", data=b"0" * size, timeout=30)
            assert answer.status_code == 413, path
    assert resident(flooded.pid) - before < 64 * MEGABYTE
    assert limits.hub_body("/hub/login") == limits.hub_body("/hub/api/users/x/server") == limits.SMALL_BODY


def test_long_addresses_and_heads(flooded):
    assert requests.get(f"{flooded.url}/hub/login?next={'x' * 9000}", timeout=30).status_code == 414
    many = {f"X-{number}": "x" * 1000 for number in range(100)}
    assert requests.get(f"{flooded.url}/hub/login", headers=many, timeout=30).status_code >= 400


def test_wrong_passwords_hold_up_nobody(flooded, person, accounts):
    """200 of them, for one account and for made-up ones: 68 s of waiting, once."""
    victim = accounts.add("victim")
    names = [victim.name] * 100 + [f"nobody-{number}" for number in range(100)]
    statuses: list[int] = []
    attack = threading.Thread(target=lambda: statuses.extend(log_in_wrongly(flooded.url, names, 50)))
    attack.start()
    try:
        logs_in(flooded, person)
    finally:
        attack.join()
    assert statuses.count(429) >= 100 - logins.PAIR
    # From elsewhere the victim is let in.
    code, said = run_in(
        flooded.container, "python3", "-c", ELSEWHERE, f"http://{hub_address(flooded)}", victim.name, victim.password
    )
    assert (code, said.strip()) == (0, "302")


ELSEWHERE = """
import http.cookiejar, re, sys, urllib.error, urllib.parse, urllib.request as r
from concurrent.futures import ThreadPoolExecutor
class Stay(r.HTTPRedirectHandler):
    def redirect_request(self, *args): return None
opener = r.build_opener(r.HTTPCookieProcessor(http.cookiejar.CookieJar()), Stay)
url, name, *passwords = sys.argv[1:]
token = re.search('name="_xsrf" value="([^"]+)"', opener.open(url + "/hub/login").read().decode())[1]
def log_in(number):
    form = urllib.parse.urlencode({"username": name, "password": passwords[number], "_xsrf": token}).encode()
    # A new client each time, as they would have us believe.
    sent = {"X-Real-Ip": "192.0.2.%d" % number, "X-Forwarded-For": "192.0.2.%d" % number}
    try:
        return opener.open(r.Request(url + "/hub/login", form, sent)).status
    except urllib.error.HTTPError as error:
        return error.code
print(*ThreadPoolExecutor(20).map(log_in, range(len(passwords))))
"""


def hub_address(hub) -> str:
    (network,) = hub.container.attrs["NetworkSettings"]["Networks"].values()
    return f"{network['Gateway']}:{hub.hub_port}"


def test_nobody_chooses_the_address_that_counts(flooded):
    """Neither at the proxy nor, from a server, at the hub itself."""
    tries = logins.PAIR + 1
    wrong = ["wrong"] * tries
    code, said = run_in(
        flooded.container, "python3", "-c", ELSEWHERE, f"http://{hub_address(flooded)}", "nobody-direct", *wrong
    )
    assert (code, sorted(said.split())) == (0, ["403"] * logins.PAIR + ["429"])
    # Fewer tries, where so many of this address were wrong in the tests before.
    statuses = log_in_wrongly(flooded.url, ["nobody-proxied"] * tries, tries)
    assert set(statuses) == {403, 429} and statuses.count(403) <= logins.PAIR


def test_the_api_takes_no_more_guesses(flooded, accounts):
    """Tokens can be had for a password, which is looked at in the same way."""
    victim = accounts.add("guessed")
    flooded.add_user(victim.name)
    url = f"{flooded.url}/hub/api/users/{victim.name}/tokens"

    def guess(password: str) -> int:
        body = {"auth": {"username": victim.name, "password": password}}
        return requests.post(url, json=body, timeout=60).status_code

    assert guess(victim.password) == 201
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(guess, ["wrong"] * (logins.PAIR + 1))) == {403}
    assert guess(victim.password) == 403
    assert guess("x" * 5000) == 403
    assert flooded.api("POST", f"/users/{victim.name}/tokens", json={"auth": [1]}).status_code == 201


def test_a_class_logs_in_at_once(flooded, accounts):
    """From one address, also after an attack from it."""
    people = [accounts.add(f"class{number}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        pages = list(pool.map(lambda one: flooded.login(one.name, one.password)[1], people))
    assert [page.status_code for page in pages] == [200] * len(people)


def test_a_long_password_is_not_looked_at(flooded, person):
    took, (_, page) = seconds(flooded.login, person.name, "x" * 8000)
    assert page.status_code == 403
    assert flooded.login(person.name, "x" * 2_000_000)[1].status_code == 413
    assert "(8000" not in flooded.log()


def test_refused_starts_leave_nothing_behind(flooded, person):
    flooded.add_user(person.name)
    token = {"Authorization": f"token {flooded.user_token(person.name)}"}
    path = f"/users/{person.name}/server"
    large = flooded.api("POST", path, json={"image": "x" * 40 * MEGABYTE}, headers=token)
    assert large.status_code in (413, 502)
    refused = flooded.api("POST", path, json={"image": "none:1", "more": "x" * 10_000}, headers=token)
    assert refused.status_code >= 400
    known = flooded.api("GET", f"/users/{person.name}?include_stopped_servers=1").text
    assert "xxxx" not in known and "none:1" not in known
    assert (person.name, "{}") in in_database(
        flooded, "select users.name, user_options from spawners join users on users.id = user_id"
    )


def in_database(hub, query: str) -> list[tuple]:
    """What the hub's database says."""
    with contextlib.closing(sqlite3.connect(hub.prefix / "state" / "jupyterhub.sqlite")) as database:
        return database.execute(query).fetchall()


def test_tokens_are_few_and_small(flooded, person):
    flooded.add_user(person.name)
    path = f"/users/{person.name}/tokens"
    token = {"Authorization": f"token {flooded.user_token(person.name)}"}
    assert flooded.api("POST", path, json={"note": "x" * 100_000}, headers=token).status_code == 413
    long = flooded.api("POST", path, json={"note": "x" * (bounds.NOTE + 1)}, headers=token)
    assert (long.status_code, long.json()["message"]) == (400, "note has 501 characters, and may have 500.")
    many = flooded.api("POST", path, json={"scopes": ["self"] * 1000}, headers=token)
    assert many.status_code == 400
    statuses = [flooded.api("POST", path, json={"note": "one"}, headers=token).status_code for _ in range(110)]
    assert statuses[:50] == [201] * 50
    assert statuses[-1] == 400
    assert len(flooded.api("GET", path).json()["api_tokens"]) <= bounds.TOKENS + 1
    # Expired ones make no difference, and a stranger is not told.
    assert flooded.api("POST", f"/users/{flooded.admin}/tokens", json={}, headers=token).status_code == 403
    # Another one where one has gone.
    first = flooded.api("GET", path).json()["api_tokens"][0]["id"]
    assert flooded.api("DELETE", f"{path}/{first}").status_code == 204
    assert flooded.api("POST", path, json={"note": "one"}, headers=token).status_code == 201


def test_logins_at_servers_are_not_kept_for_ever(flooded):
    """Each of them is a code and a token."""
    student = flooded.student
    session, _ = flooded.login(student.name, student.password)
    url = f"{flooded.url}/user/{student.name}/lab"
    for _ in range(bounds.CODES + 5):
        opened = session.get(url, timeout=60, allow_redirects=False)
        session.get(requests.compat.urljoin(flooded.url, opened.headers["Location"]), timeout=60, allow_redirects=False)
    ((count,),) = in_database(flooded, "select count(*) from oauth_codes")
    assert 0 < count <= bounds.CODES
