"""A page of a student's server, opened by an administrator: it is on the hub's origin and acts in their browser.

Each attack is played twice by a real browser: on a hub without our protection, where it has to succeed, and on ours.
"""

from __future__ import annotations

import re

import pytest
import requests
from jupyterhub import apihandlers, handlers
from support_hub import Hub
from support_pages import begin
from tljh_plasma import guard, middlewares
from tljh_plasma.service.app import PlasmaService
from tornado import web

from tests.support.browsing import TIMEOUT, sign_in, start_server
from tests.support.browsing import browser as new_browser

pytestmark = pytest.mark.docker

# JupyterHub as it is, with the routes that its proxy makes.
UNPROTECTED = """
c.JupyterHub.tornado_settings = {"headers": {"Referrer-Policy": "same-origin"}}
c.PlasmaProxy.middlewares = {"unused": {"headers": {"frameDeny": True}}}
c.PlasmaProxy.chains = {"user": [], "hub": [], "service": []}
"""


@pytest.fixture(scope="module")
def browser():
    with new_browser() as started:
        yield started


@pytest.fixture(scope="module")
def lesson(hub, browser, accounts, environment):
    """On a hub as servers have it."""
    made = begin(hub, browser, accounts, environment)
    yield made
    made.context.close()
    hub.stop_server(made.student.name)


@pytest.fixture(scope="module")
def unprotected(docker_host, browser, accounts, environment, tmp_path_factory):
    """On a hub without the protection."""
    running = Hub(tmp_path_factory.mktemp("unprotected"), accounts.add("old").name)
    (running.prefix / "config" / "jupyterhub_config.d" / "unprotected.py").write_text(UNPROTECTED)
    running.start()
    made = begin(running, browser, accounts, environment)
    yield made
    made.context.close()
    running.stop()
    running.remove_containers(docker_host)


# What is in pages and answers, and nobody else's page may see.
SECRET = re.compile(r'xsrf_token: "[^"]|name="_xsrf" value="[^"]|name="xsrf" content="[^"]|_xsrf=|"last_activity"')

# Scripts that return whatever they can get hold of.
READ = {
    "fetch": "return await (await fetch('/hub/token')).text()",
    "fetch with the referrer of a page of the hub": """
        return await (await fetch('/hub/token', {referrer: '/hub/home', referrerPolicy: 'unsafe-url'})).text()""",
    "fetch of the login page": "return await (await fetch('/hub/login')).text()",
    "fetch without cookies": "return await (await fetch('/hub/login', {credentials: 'omit'})).text()",
    "fetch of an error": "return await (await fetch('/hub/no-such-page')).text()",
    "fetch of an error of the OAuth pages": """
        return await (await fetch('/hub/api/oauth2/authorize?client_id=x', {headers: {'X-XSRFToken': 'x'}})).text()""",
    "fetch by way of a redirect": "return await (await fetch(v.redirect)).text()",
    "fetch of the API, which JupyterHub takes for a picture": """
        return await (await fetch('/hub/api/users', {mode: 'no-cors'})).text()""",
    "XMLHttpRequest": """
        return await new Promise(resolve => {
          const asked = new XMLHttpRequest();
          asked.open('GET', '/hub/home');
          asked.onload = () => resolve(asked.responseText);
          asked.send();
        })""",
    "the cache": """
        return await (await fetch('/hub/home', {cache: 'force-cache'})).text()""",
    "a window": """
        const opened = open('/hub/token');
        for (let i = 0; i < 40 && !opened.closed; i++) {
          await sleep(50);
          try {
            if (opened.location.pathname === '/hub/token' && opened.document.readyState === 'complete') {
              return opened.document.documentElement.outerHTML;
            }
          } catch (error) { return String(error) }
        }
        return 'lost'""",
    "a window that gets there by itself": """
        const opened = open(location.href);
        await new Promise(resolve => { opened.onload = resolve });
        opened.location = '/hub/token';
        for (let i = 0; i < 40 && !opened.closed; i++) {
          await sleep(50);
          try {
            if (opened.location.pathname === '/hub/token' && opened.document.readyState === 'complete') {
              return opened.document.documentElement.outerHTML;
            }
          } catch (error) { return String(error) }
        }
        return 'lost'""",
}
# What JupyterHub or the browser refuses as it is, and is to go on refusing; headers of the student's own may help.
NEVER = {
    "a frame": """
        return await new Promise(resolve => {
          const frame = document.createElement('iframe');
          frame.src = '/hub/token';
          frame.onload = () => { try { resolve(frame.contentDocument.documentElement.outerHTML) }
                                 catch (error) { resolve(String(error)) } };
          document.documentElement.append(frame);
        })""",
    "a frame of the student's that moves on": """
        const frame = document.createElement('iframe');
        frame.src = location.href;
        document.documentElement.append(frame);
        await new Promise(resolve => { frame.onload = resolve });
        const arrived = new Promise(resolve => { frame.onload = resolve });
        frame.contentWindow.location = '/hub/token';
        await arrived;
        try { return frame.contentDocument.documentElement.outerHTML } catch (error) { return String(error) }""",
    "an object": """
        const object = document.createElement('object');
        object.data = '/hub/token';
        object.type = 'text/html';
        const over = new Promise(resolve => { object.onload = object.onerror = resolve });
        document.documentElement.append(object);
        await over;
        try { return object.contentDocument.documentElement.outerHTML } catch (error) { return String(error) }""",
    "cookies, at an address that is not the page's": "history.pushState({}, '', '/hub/home'); return document.cookie",
    "a window, from a page that isolates itself as the hub does": READ["a window"],
    "cookies": "return document.cookie",
    "cookies of the service": "history.pushState({}, '', '/services/plasma/servers'); return document.cookie",
    "a style sheet": """
        const link = document.createElement('link');
        Object.assign(link, {rel: 'stylesheet', href: '/hub/token'});
        const over = new Promise(resolve => { link.onload = link.onerror = resolve });
        document.head.append(link);
        await over;
        try { return [...link.sheet.cssRules].map(rule => rule.cssText).join() } catch (error) { return String(error) }
        """,
    "a module": """
        try { return JSON.stringify((await import('/hub/api/users', {with: {type: 'json'}})).default) }
        catch (error) { return String(error) }""",
    "fetch of the API": "return await (await fetch('/hub/api/users')).text()",
    "fetch of the API with a made-up token": """
        return await (await fetch('/hub/api/users?_xsrf=x', {headers: {'X-XSRFToken': 'x'}})).text()""",
    "fetch of the API with a made-up login": """
        return await (await fetch('/hub/api/users', {headers: {Authorization: 'token x', 'X-XSRFToken': 'x'}})).text()
        """,
    "fetch of the service": "return await (await fetch('/services/plasma/api/servers')).text()",
    "fetch of the service with a made-up token": """
        return await (await fetch('/services/plasma/api/servers', {headers: {'X-XSRFToken': 'x'}})).text()""",
    "events": """
        return await new Promise(resolve => {
          const source = new EventSource(`/hub/api/users/${v.student}/server/progress`);
          source.onmessage = event => resolve('"last_activity"' + event.data);
          source.onerror = () => { source.close(); resolve('') };
        })""",
    "a prefetched page": """
        const link = document.createElement('link');
        Object.assign(link, {rel: 'prefetch', href: '/hub/home'});
        const over = new Promise(resolve => { link.onload = link.onerror = resolve });
        document.head.append(link);
        await over;
        return await (await fetch('/hub/home', {cache: 'force-cache'})).text()""",
}


PAGES = {"a window, from a page that isolates itself as the hub does": ("Cross-Origin-Opener-Policy: same-origin",)}


def got(lesson, name: str, script: str) -> str:
    page = lesson.address(headers=PAGES.get(name, ()))
    if name == "the cache":
        # The administrator has been there.
        lesson.open("/hub/home").close()
    return lesson.play(script, page, redirect=lesson.address(to="/hub/token"))


def test_pages_of_students_read_nothing_of_the_hub(lesson, unprotected):
    for name, script in READ.items():
        assert SECRET.search(got(unprotected, name, script)), f"{name}: not even without the protection"
        found = got(lesson, name, script)
        assert not SECRET.search(found), f"{name}: {found}"
    for name, script in NEVER.items():
        found = got(lesson, name, script)
        assert not SECRET.search(found), f"{name}: {found}"


# A1 of issue 13: from a visit to an administrator's token, and to an administrator more.
A1 = """
    const page = await (await fetch('/hub/token')).text();
    const token = (page.match(/xsrf_token: "([^"]+)"/) || [])[1] || 'x';
    const ask = async (method, path, body) => (await fetch(`/hub/api/users/${path}`, {
      method, headers: {'X-XSRFToken': token, 'Content-Type': 'application/json'}, body: JSON.stringify(body),
      referrer: '/hub/token', referrerPolicy: 'unsafe-url',
    })).status;
    return [await ask('POST', `${v.teacher}/tokens`, {}), await ask('PATCH', v.student, {admin: true})]"""


def test_a_visit_makes_nobody_an_administrator(lesson, unprotected):
    assert unprotected.play(A1) == [201, 200]
    before = lesson.people()
    assert lesson.play(A1) == [403, 403]
    assert lesson.people() == before


def test_a_service_worker_is_for_its_own_path(lesson, unprotected):
    script = """
        try { return (await navigator.serviceWorker.register(v.worker, {scope: v.scope})).scope }
        catch (error) { return String(error) }"""
    headers = ("Service-Worker-Allowed: /",)
    for scope in ("/", "/hub/", "/services/", "/user/"):
        for where, works in ((unprotected, True), (lesson, False)):
            worker = where.address("worker.js", headers, type="text/javascript", body="//")
            found = where.play(script, worker=worker, scope=scope)
            assert (found == f"{where.hub.origin}{scope}") is works, found
    # Its own path stays its own.
    worker = lesson.address("worker.js", type="text/javascript", body="//")
    own = f"/user/{lesson.student.name}/evil/"
    assert lesson.play(script, worker=worker, scope=own) == f"{lesson.hub.origin}{own}"


def test_headers_that_reach_beyond_a_path_are_taken_away(lesson, unprotected):
    headers = tuple(f"{name}: x" for name in middlewares.BEYOND_A_PATH)
    for where, works in ((unprotected, True), (lesson, False)):
        answer = requests.get(f"{where.hub.url}{where.address(headers=(*headers, 'X-Own: kept'))}", timeout=30)
        assert answer.headers["X-Own"] == "kept"
        for name in middlewares.BEYOND_A_PATH:
            assert (name in answer.headers) is works, name


def test_windows_have_no_hold_of_each_other(lesson, unprotected):
    """The other way: a page of the hub from which the student's is opened."""
    for where, works in ((unprotected, True), (lesson, False)):
        page = where.open("/hub/home")
        with page.expect_popup() as opened:
            page.evaluate("address => { open(address) }", where.address())
        opened.value.wait_for_load_state()
        found = opened.value.evaluate(
            "() => { try { return opener.document.documentElement.outerHTML } catch (error) { return String(error) } }"
        )
        assert bool(SECRET.search(found)) is works, found
        for other in where.context.pages:
            other.close()


# Everything that changes something, as the programs say themselves.
CHANGING = ("POST", "PUT", "PATCH", "DELETE")


def filled(pattern: str, student: str) -> str:
    """A path that a pattern of Tornado's accepts."""
    return re.sub(r"\((?:[^()]|\([^()]*\))*\)", student, pattern).replace("?", "").replace("\\", "")


def endpoints(student: str) -> list[tuple[str, str]]:
    """Method and path of all that the hub and its service do at somebody's request."""
    found = []
    service = PlasmaService(base_url="/", service_prefix="/services/plasma/").init_handlers()
    of_hub = [(f"/hub{rule[0]}", *rule[1:]) for rule in (*handlers.default_handlers, *apihandlers.default_handlers)]
    for pattern, handler, *_ in [*of_hub, *service]:
        for method in CHANGING:
            if getattr(handler, method.lower()) is not getattr(web.RequestHandler, method.lower()):
                found.append((method, filled(pattern, student)))
    return found


def test_pages_of_students_change_nothing(lesson):
    asked = endpoints(lesson.student.name)
    assert len(asked) > 40
    assert {"/hub/api/shutdown", "/hub/login", "/services/plasma/api/permissions"} <= {path for _, path in asked}
    before = lesson.people()
    script = """
        const found = [];
        const forms = ['application/x-www-form-urlencoded', 'text/plain'];
        for (const [method, path] of v.asked) {
          for (const [headers, query] of [
            [{}, ''], [{'X-XSRFToken': 'x'}, ''], [{}, '?_xsrf=x'],
            [{Authorization: 'token x', 'X-XSRFToken': 'x'}, ''],
          ]) {
            const answer = await fetch(path + query, {
              method, headers: {'Content-Type': 'application/json', ...headers}, body: '{"admin": true}',
              referrer: '/hub/home', referrerPolicy: 'unsafe-url',
            });
            found.push([method, path, answer.status, answer.url, await answer.text()]);
          }
          if (method !== 'POST') continue;
          await fetch(path, {method, mode: 'no-cors', body: 'x=y'});
          navigator.sendBeacon(path, 'x=y');
          for (const kind of forms) {
            const form = document.createElement('form');
            Object.assign(form, {method: 'post', action: path, enctype: kind, target: 'sink'});
            document.body.append(form);
            form.submit();
          }
        }
        return found"""
    page = lesson.address(body="<!DOCTYPE html><iframe name=sink></iframe>")
    for method, path, status, address, text in lesson.play(script, page, asked=asked):
        assert not SECRET.search(text), (method, path, text)
        assert status >= 400, (method, path, status, address, text)
    assert lesson.people() == before


def test_the_pages_of_the_hub_go_on_working(lesson):
    """Their scripts run under the policy, and their requests have the token."""
    page = lesson.context.new_page()
    page.set_default_timeout(TIMEOUT)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    for path in (
        "/hub/home",
        "/services/plasma/servers",
        "/services/plasma/environments",
        "/services/plasma/permissions",
    ):
        page.goto(f"{lesson.hub.url}{path}")
        page.wait_for_load_state("networkidle")
    page.get_by_text("plasmat-course").first.wait_for()
    page.goto(f"{lesson.hub.url}/hub/admin")
    page.get_by_text(lesson.student.name).first.wait_for()
    page.goto(f"{lesson.hub.url}/hub/token")
    page.get_by_role("button", name="Request new API token").click()
    page.locator("#token-result").wait_for()
    assert len(page.locator("#token-result").inner_text()) > 20
    # With the events of the start, up to JupyterLab.
    start_server(page, lesson.hub.url, "plasmat-course")
    page.close()
    lesson.hub.stop_server(lesson.teacher.name)
    assert not [text for text in said if "Content Security Policy" in text and "/hub/" in text], said


def test_a_login_that_a_page_puts_in_the_place_of_the_visitors_ends_the_session(lesson, unprotected):
    """What the administrator did after that, they did as the student, and did not notice."""
    for where, works in ((unprotected, True), (lesson, False)):
        session, _ = where.hub.login(where.student.name, where.student.password)
        login = next(cookie.value for cookie in session.cookies if cookie.name == "jupyterhub-hub-login")
        where.play("document.cookie = `jupyterhub-hub-login=${v.login}; path=/hub`", login=login)
        page = where.open("/hub/home")
        assert (where.student.name in page.content()) is works
        if not works:
            assert guard.TOSSED.split(":")[0] in page.content()
            # The cookies are gone, and a login is one again.
            sign_in(page, where.hub.url, where.teacher.name, where.teacher.password)
            page.goto(f"{where.hub.url}/hub/home")
            assert where.teacher.name in page.content()
        page.close()
