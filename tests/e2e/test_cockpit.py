"""Cockpit behind the hub: for administrators, through HTTPS, on a socket that nobody else reaches; and away again."""

from __future__ import annotations

import asyncio
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import expect
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from tests.e2e.conftest import make_account
from tests.support.browsing import new_page, picture, serious_problems, sign_in
from tests.support.environment_image import environment_image, load_into
from tests.support.hub import SCRIPT, HubUser
from tests.support.shell import wait_for

CONF = "/etc/cockpit/cockpit.conf"
OPERATORS = "[WebService]\nLoginTitle = Somebody else's\n"
STATES = {
    "cockpit-prepared",
    "cockpit-packages",
    "cockpit-page",
    "cockpit-offered",
}


def ids(changed) -> set[str]:
    return {key.partition("|")[0] for key in changed}


@pytest.fixture(scope="module")
def certificate(kept_server):
    """A pair that nobody signed, on the server."""
    folder = "/etc/plasma-tests"
    kept_server.target.sudo(
        f"mkdir -p {folder} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 "
        f"-subj /CN=hub.test -addext subjectAltName=DNS:hub.test,IP:{kept_server.target.host} "
        f"-keyout {folder}/key.pem -out {folder}/cert.pem 2>/dev/null && chmod 600 {folder}/key.pem"
    )
    return {"key": f"{folder}/key.pem", "cert": f"{folder}/cert.pem"}


@pytest.fixture(scope="module")
def https(kept_server, certificate):
    """HTTPS with it; afterwards the hub is as it was."""
    target = kept_server.target
    pair = f"{{key: {certificate['key']}, cert: {certificate['cert']}}}"
    done = kept_server.site.salt("tljh_config.apply", f"{{https: {{enabled: true, tls: {pair}}}}}")
    assert done.value["reloaded"] == "proxy"
    yield f"https://{target.host}"
    kept_server.site.salt("tljh_config.apply", "{}", "unset=[https]")


@pytest.fixture(scope="module")
def people(kept_server):
    """An administrator of the hub who may administer the server too, and a student."""
    target, names = kept_server.target, ("teacher", "student")

    def remove():
        for name in names:
            target.sudo(f"pkill -KILL -u {name}; userdel --remove {name} 2>/dev/null || true", check=False)

    remove()
    yield {
        "teacher": make_account(target, "teacher", "--groups", "sudo"),
        "student": make_account(target, "student"),
    }
    remove()


@pytest.fixture(scope="module")
def course(kept_server):
    image = environment_image()
    load_into(kept_server.target, image)
    return image


@pytest.fixture(scope="module")
def offered(kept_server, https, certificate):
    """The state, applied for the first time over a configuration of the operator's: dry run, apply, apply again."""
    target, site = kept_server.target, kept_server.site
    kept_server.with_pillar(https={"tls": certificate}, cockpit={"enabled": True})
    target.sudo(f"mkdir -p /etc/cockpit && cat > {CONF}", input=OPERATORS)
    runs = [site.apply("cockpit", "test=True"), site.apply("cockpit"), site.apply("cockpit")]
    runs.append(site.apply("cockpit", "test=True"))
    yield runs
    site.apply("cockpit.disabled")


def hub_user(url: str, person=None) -> HubUser:
    """A person who is logged in at the hub, or a stranger, who takes any certificate."""
    user = HubUser(url, person.name if person else "")
    # With the environment's bundle of certificates, `verify` would mean nothing.
    user.session.trust_env = user.session.verify = False
    if person:
        user.login(person.password)
        assert user.logged_in
    return user


def test_without_https_it_is_refused_with_the_reason(kept):
    kept.site.salt("tljh_config.apply", "{}", "unset=[https]")
    kept.with_pillar(cockpit={"enabled": True})
    done = kept.site.apply("cockpit")
    assert done.returncode != 0
    assert "plasma.cockpit.enabled" in done.stdout + done.stderr
    assert "needs plasma.https" in done.stdout + done.stderr
    # Pillar asks for HTTPS, and the hub does not have it.
    kept.with_pillar(https={"tls": {"key": "/etc/none.key", "cert": "/etc/none.pem"}}, cockpit={"enabled": True})
    for arguments in (["test=True"], []):
        done = kept.site.apply("cockpit", *arguments)
        assert "needs HTTPS, which is not on" in done.failed["cockpit-allowed|cockpit-allowed"]
        assert done.changed == {}
    assert kept.target.sudo("test -e /etc/systemd/system/cockpit.socket.d/zz-plasma.conf", check=False).returncode


def test_it_is_set_up_as_predicted_and_then_left_alone(offered):
    predicted, first, second, after = offered
    assert first.failed == {}
    assert ids(predicted.predicted) == ids(first.changed) == STATES
    assert second.failed == {}
    assert second.changed == {}
    assert after.predicted == set()


def test_nothing_but_the_hub_reaches_it(kept_server, offered, people):
    target = kept_server.target
    listening = target.sudo("ss --listening --tcp --numeric --no-header --processes").stdout
    assert ":9090" not in listening
    assert "cockpit" not in listening
    with socket.socket() as attempt:
        attempt.settimeout(10)
        assert attempt.connect_ex((target.host, 9090)) != 0
    connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/plasma-cockpit.sock')"
    assert target.sudo(["python3", "-c", connect], check=False).returncode == 0
    refused = target.sudo(["runuser", "-u", "student", "--", "python3", "-c", connect], check=False)
    assert "PermissionError" in refused.stderr
    # No one but root can stand in for the hub's service while it is down.
    listener = target.sudo(
        ["ss", "--no-header", "--listening", "--tcp", "--numeric", "--extended", "sport = :301"]
    ).stdout
    assert "127.0.0.1:301" in listener
    assert "uid:" not in listener  # it is root's
    assert kept_server.site.salt("plasma_cockpit.health").value["problem"] is None
    assert kept_server.site.salt("plasma_cockpit.health").value["running"] is True


PATHS = ("", "cockpit/login", "cockpit/@localhost/plasma/index.html", "cockpit/static/login.css", "ping")


def test_students_and_strangers_get_nothing(https, offered, people):
    student, stranger = hub_user(https, people["student"]).session, hub_user(https).session
    for path in PATHS:
        address = f"{https}/services/cockpit/{path}"
        assert student.get(address, timeout=30).status_code == 403, path
        answer = stranger.get(address, timeout=30)
        assert "/hub/login" in answer.url
        for session in (student, stranger):
            answer = session.get(address, headers=SCRIPT, timeout=30, allow_redirects=False)
            assert answer.status_code == 403, path
    for session in (student, stranger):
        assert "/services/cockpit/" not in session.get(f"{https}/hub/home", timeout=30).text
        assert refused_websocket(https, session) == 403


def run(coroutine):
    """Run it to its end in a thread of its own: in this one, Playwright's loop is running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result(180)


async def open_websocket(url: str, session: requests.Session):
    """Cockpit's own WebSocket, as a page of the hub's origin opens it."""
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in session.cookies)
    page = await asyncio.to_thread(session.get, f"{url}/services/cockpit/", timeout=30)
    # A page of Cockpit's is at a path of the visitor's own; nobody else is told one.
    own = re.match("/services/cockpit/(~[0-9a-f]+/)?", urlsplit(page.url).path)
    root = own[0] if own and page.status_code == 200 else "/services/cockpit/"
    address = f"wss://{urlsplit(url).netloc}{root}cockpit/socket"
    request = HTTPRequest(address, headers={"Origin": url, "Cookie": cookies}, validate_cert=False)
    return await asyncio.wait_for(websocket_connect(request, subprotocols=["cockpit1"]), 30)


def refused_websocket(url: str, session: requests.Session) -> int:
    """The status with which it is refused."""
    with pytest.raises(HTTPClientError) as refused:
        run(open_websocket(url, session))
    return refused.value.code


async def until_closed(connection) -> None:
    while await connection.read_message() is not None:
        pass


def test_an_administrator_sees_the_servers_of_users(kept_server, https, offered, people, course, browser, pictures):
    student = hub_user(https, people["student"])
    if student.server():
        student.stop()
    student.start(course)
    teacher = people["teacher"]
    with new_page(browser, ignore_https_errors=True) as page:
        sign_in(page, https, teacher.name, teacher.password)
        page.goto(f"{https}/services/plasma/servers")
        monitoring = page.get_by_role("navigation").get_by_role("link", name="Monitoring")
        assert monitoring.get_attribute("href") == "/services/cockpit/"
        monitoring.click()
        page.get_by_label("User name").fill(teacher.name)
        page.locator("#login-password-input").fill(teacher.password)
        page.get_by_role("button", name="Log in").click()
        overview = page.frame_locator("iframe[name='cockpit1:localhost/system']")
        expect(overview.get_by_text("Usage", exact=True)).to_be_visible()
        picture(page, "cockpit-overview", pictures)
        # Cockpit's cookie goes to Cockpit and to nobody else, above all not to user servers.
        cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
        assert re.fullmatch("/services/cockpit/~[0-9a-f]{40}/", cookies["cockpit"]["path"])
        assert cookies["cockpit"]["secure"]
        assert cookies["cockpit"]["httpOnly"]
        assert cookies["cockpit"]["sameSite"] == "Strict"

        page.get_by_role("link", name="User servers").click()
        servers = page.frame_locator("iframe[name='cockpit1:localhost/plasma']")
        administer(page, teacher)
        row = servers.get_by_role("row").filter(has_text="student")
        expect(row).to_contain_text(course)
        expect(row).to_contain_text("running")
        expect(row).to_contain_text("MiB")
        picture(page, "cockpit-servers", pictures)
        page.goto(f"{https}/services/cockpit/cockpit/@localhost/plasma/index.html")
        assert serious_problems(page) == []
        page.get_by_role("button", name="Stop the server of student").click()
        page.get_by_role("button", name="Stop", exact=True).click()
        expect(page.get_by_role("row").filter(has_text="student")).to_have_count(0)
    wait_for(lambda: not student.server(), timeout=120, what="the hub to notice")


def administer(page, person) -> None:
    """Turn on administrative access."""
    page.get_by_role("button", name="Limited access").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label(f"Password for {person.name}").fill(person.password)
    dialog.get_by_role("button", name="Authenticate").click()
    expect(dialog).to_be_hidden()


def test_a_revoked_administrator_is_out_at_once(kept_server, https, offered, people, certificate):
    site, session = kept_server.site, hub_user(https, people["teacher"]).session
    assert session.get(f"{https}/services/cockpit/", timeout=30).status_code == 200
    other = {"https": {"tls": certificate}, "cockpit": {"enabled": True}}

    async def revoked_while_connected():
        kept_server.with_pillar(**other, admins=["somebody"])
        connection = await open_websocket(https, session)
        # By the hub's page, which takes no restart of the hub.
        done = await asyncio.to_thread(site.salt, "plasma_hub_api.set_admin", "[teacher]", "False")
        assert done.returncode == 0, done.stdout
        await asyncio.wait_for(until_closed(connection), 60)

    run(revoked_while_connected())
    try:
        for path in PATHS:
            answer = session.get(f"{https}/services/cockpit/{path}", headers=SCRIPT, timeout=30)
            assert answer.status_code == 403, path
        assert refused_websocket(https, session) == 403
    finally:
        kept_server.with_pillar(**other)
        site.apply("admins")


def test_disabled_takes_it_away_and_brings_back_what_was_there(kept_server, https, offered, people):
    target, site = kept_server.target, kept_server.site
    predicted, done, again = site.apply("cockpit.disabled", "test=True"), site.apply("cockpit.disabled"), None
    assert done.failed == {}
    assert predicted.changed == done.changed
    again = site.apply("cockpit.disabled")
    assert again.changed == {}
    assert target.sudo(["cat", CONF]).stdout == OPERATORS
    assert "cockpit" not in target.sudo("ls /etc/systemd/system").stdout
    assert (
        target.sudo("dpkg-query --show --showformat='${db:Status-Status}' cockpit-ws", check=False).stdout
        != "installed"
    )
    session = hub_user(https, people["teacher"]).session
    assert "/services/cockpit/" not in session.get(f"{https}/services/plasma/servers", timeout=30).text
    assert session.get(f"{https}/services/cockpit/", timeout=30).status_code == 404
    target.sudo(["rm", CONF])
