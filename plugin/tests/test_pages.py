"""A page of a student's server, opened by an administrator: it is on the hub's origin and acts in their browser.

Each attack is played twice by a real browser: on a hub without our protection, where it has to succeed, and on ours.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests
from jupyterhub import apihandlers, handlers
from support_attacks import ASKED, HEADER_RULES, NEVER, READ, SECRET, SOCKETS, TOOLS, together
from support_cockpit import PREFIX as COCKPIT
from support_cockpit import StandIn
from support_hub import Hub, container_name, wait_until
from support_pages import beginning
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
# Cockpit's service of a test, beside the hub's; it is told that all comes by HTTPS.
ROUTE = f"""
[http.routers.cockpit]
rule = "PathPrefix(`{COCKPIT}`)"
priority = 100000
entryPoints = ["http"]
service = "cockpit"
middlewares = ["cockpit-https"]
[http.middlewares.cockpit-https.headers.customRequestHeaders]
X-Forwarded-Proto = "https"
[[http.services.cockpit.loadBalancer.servers]]
url = "http://{{}}"
"""


@pytest.fixture(scope="module")
def lessons(hub, docker_host, accounts, environment, tmp_path_factory):
    """A student and an administrator on a hub as servers have it, and on one without the protection."""
    bare = Hub(tmp_path_factory.mktemp("unprotected"), accounts.add("old").name)
    (bare.prefix / "config" / "jupyterhub_config.d" / "unprotected.py").write_text(UNPROTECTED)
    try:
        with new_browser() as browser, beginning([hub, bare], browser, accounts, environment) as made:
            yield made
        hub.api("DELETE", f"/users/{made[0].student.name}/server")
    finally:
        bare.stop()
        bare.remove_containers(docker_host)


@pytest.fixture(scope="module")
def lesson(lessons):
    """On the hub as servers have it."""
    return lessons[0]


@pytest.fixture(scope="module")
def unprotected(lessons):
    """On the hub without the protection."""
    return lessons[1]


ISOLATED = "a window, from a page that isolates itself as the hub does"


def test_pages_of_students_read_nothing_of_the_hub(lesson, unprotected):
    # The administrator has been there, for the cache.
    for where in (lesson, unprotected):
        where.open("/hub/home").close()
    for name, found in unprotected.play_all(READ).items():
        assert SECRET.search(found), f"{name}: not even without the protection: {found}"
    found = lesson.play_all({**READ, **NEVER})
    assert found.keys() == READ.keys() | NEVER.keys()
    isolated = lesson.address(headers=("Cross-Origin-Opener-Policy: same-origin",))
    found.update(lesson.play_all({ISOLATED: READ["a window"]}, isolated))
    for name, text in found.items():
        assert not SECRET.search(text), f"{name}: {text}"


def test_what_browsers_fetch_by_themselves_is_no_page(lesson, unprotected):
    """Prefetched and prerendered pages, events, WebSockets and downloads, as the hub's log has them."""
    for where, works in ((unprotected, True), (lesson, False)):
        rules = where.address(type="application/speculationrules+json", body=HEADER_RULES)
        page = where.open(where.address(headers=(f'Speculation-Rules: "{rules}"',)))
        with page.expect_download() as kept:
            page.evaluate(f"() => {{ {TOOLS} {';'.join(ASKED.values())} }}")
        if works:
            assert SECRET.search(Path(kept.value.path()).read_text())
        else:
            assert kept.value.failure()
        for word in ASKED:
            wait_until(lambda where=where, word=word: where.asked(word), 30, f"request by {word}")
            answers = where.asked(word)
            if works:
                assert (200, where.teacher.name) in answers, word
            else:
                assert {(status < 300, name) for status, name in answers} == {(False, "")}, (word, answers)
        if works:
            wait_until(lambda where=where: (200, where.teacher.name) in where.asked("header"), 30, "the header's rules")
        where.leave()
    # Read at all, these would have been asked for before the script ran.
    assert lesson.asked("header") == []


# In a page of its own, without the browser's tests in between.
BY_ITSELF = ("fetch", "XMLHttpRequest", "a window", "a link of another target", "a form of another target")


def test_a_file_that_is_only_written_reads_nothing_of_the_hub(lesson, unprotected):
    """JupyterLab shows files in a sandbox; the student's own server need not."""
    acts = f"async v => {{ {TOOLS} {together({name: READ[name] for name in BY_ITSELF})} }}"
    text = f"<!DOCTYPE html><title>A lesson</title><body><script>found = ({acts})({{}})</script>"
    for where, works in ((unprotected, True), (lesson, False)):
        sandboxed = where.put("evil.html", text)
        where.enter(sandboxed)
        for path, succeeds in ((sandboxed, False), (where.put("open.html", text), works)):
            page = where.open(path)
            assert page.title() == "A lesson"
            for name, found in page.evaluate("() => found").items():
                assert bool(SECRET.search(found)) is succeeds, (path, name, found)
            where.leave()


KERNEL = "00000000-0000-0000-0000-000000000000"


def test_websockets_reach_nothing_that_is_not_the_pages(lesson, docker_host, accounts, environment):
    """A browser sends cookies with them, and says nothing of the page."""
    other = accounts.add("other")
    assert lesson.hub.spawn(other.name, environment).status_code in (201, 202)
    try:
        own = [lesson.address(), f"/user/{lesson.student.name}/api/events/subscribe"]
        theirs = [
            f"/user/{other.name}/{path}"
            for path in ("api/events/subscribe", f"api/kernels/{KERNEL}/channels", "terminals/websocket/1")
        ]
        hubs = ["/hub/", "/hub/api/users", "/hub/api/users?_xsrf=x", "/services/plasma/api/servers"]
        # Where the administrator has been, cookies open them: docs/security.md says so.
        lesson.enter(lesson.put("evil.html", ""))
        found = lesson.play(SOCKETS, paths=own + theirs + hubs)
        assert found == {**dict.fromkeys(own, "opened"), **dict.fromkeys(theirs + hubs, "refused")}
        theirs_log = docker_host.containers.get(container_name(other.name)).logs
        for path in theirs:
            wait_until(lambda path=path: f"403 GET {path}".encode() in theirs_log(), 30, f"request for {path}")
    finally:
        lesson.hub.api("DELETE", f"/users/{other.name}/server")


@pytest.fixture
def cockpit(lesson, tmp_path, monkeypatch):
    made = StandIn(tmp_path, monkeypatch)
    route = lesson.hub.prefix / "state" / "rules" / "cockpit.toml"
    route.write_text(ROUTE.format(made.host))
    try:

        def routed() -> bool:
            """The hub itself knows no such service, and redirects below its own address."""
            answer = requests.get(f"{lesson.hub.url}{COCKPIT}", timeout=5, allow_redirects=False)
            return answer.status_code != 404 and "/hub/base/" not in answer.headers.get("Location", "")

        wait_until(routed, 30, "the route")
        yield made
    finally:
        route.unlink()
        made.close()


# Where a page could learn to what it was redirected.
LEARN = """
    const asked = v.cockpit + 'cockpit/@localhost/system/index.html', seen = [];
    for (const options of [{}, {redirect: 'manual'}, {mode: 'no-cors'}]) {
      try { const answer = await fetch(asked, options); seen.push(answer.url, await answer.text()) }
      catch (error) { seen.push(String(error)) }
    }
    add('iframe', {src: asked});
    const opened = open(asked);
    click({target: 'cockpit', href: asked});
    for (let i = 0; i < 10; i++) {
      await sleep(50);
      for (const find of [() => opened, () => open('', 'cockpit')]) {
        try { const found = find(); seen.push(found.location.href, found.document.documentElement.outerHTML) }
        catch (error) { seen.push(String(error)) }
      }
    }
    seen.push(JSON.stringify(performance.getEntries()), document.cookie, JSON.stringify({...localStorage}));
    return seen.join()"""


def test_pages_of_students_get_nothing_of_cockpit(lesson, cockpit):
    """Its WebSocket does everything that Cockpit can."""
    admin = cockpit.person(admin=True)
    name, _, value = cockpit.cookie(admin).partition("=")
    lesson.context.add_cookies([{"name": name, "value": value, "url": f"{lesson.hub.url}{COCKPIT}"}])
    own, others = cockpit.own(admin), cockpit.own(cockpit.person(admin=True))
    guesses = [f"{COCKPIT}{begins}cockpit/socket" for begins in ("", others, "~0/", "~/", "./", "%7E0/")]
    found = lesson.play(SOCKETS, paths=guesses, protocols=["cockpit1"])
    assert found == dict.fromkeys(guesses, "refused")
    assert cockpit.seen == []
    found = lesson.play(LEARN, cockpit=COCKPIT)
    assert own.strip("/") not in found
    page = lesson.open(f"{COCKPIT}cockpit/@localhost/system/index.html")
    assert own in page.url
    page.goto(f"{lesson.hub.url}{lesson.address()}")
    assert own.strip("/") not in page.evaluate(f"() => {{ {BEFORE} }}")
    # The windows did get there, for the person.
    wait_until(lambda: any(path.endswith("index.html") for _, path, _ in cockpit.seen), 30, "a window at Cockpit")
    # Without the secret of the path, it would be open.
    known = f"{COCKPIT}{own}cockpit/socket"
    assert lesson.play(SOCKETS, paths=[known], protocols=["cockpit1"]) == {known: "opened"}


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
        const register = async scope => {
          try { return (await navigator.serviceWorker.register(v.worker, {scope})).scope }
          catch (error) { return String(error) }
        };
        return await Promise.all(v.scopes.map(register))"""
    scopes = ["/", "/hub/", "/services/", "/user/"]
    for where, works in ((unprotected, True), (lesson, False)):
        worker = where.address("worker.js", ("Service-Worker-Allowed: /",), type="text/javascript", body="//")
        for scope, found in zip(scopes, where.play(script, worker=worker, scopes=scopes), strict=True):
            assert (found == f"{where.hub.origin}{scope}") is works, found
    # Its own path stays its own.
    worker = lesson.address("worker.js", type="text/javascript", body="//")
    own = f"/user/{lesson.student.name}/evil/"
    assert lesson.play(script, worker=worker, scopes=[own]) == [f"{lesson.hub.origin}{own}"]
    # At the server's own path, without the slash at its end, it would be for the servers of everybody.
    for where, works in ((unprotected, True), (lesson, False)):
        worker = f"/user/{where.student.name}?type=text/javascript&body=//"
        (found,) = where.play(script, worker=worker, scopes=["/user/"])
        assert (found == f"{where.hub.origin}/user/") is works, found
    # Which leads to the server, as it did before.
    answer = requests.get(f"{lesson.hub.url}/user/{lesson.student.name}?x=y", timeout=30, allow_redirects=False)
    assert answer.headers["Location"] == f"{lesson.hub.url}/user/{lesson.student.name}/?x=y"


# Where the visitor was before, in the same window.
BEFORE = "return JSON.stringify([navigation.entries().map(one => one.url), navigation.activation.from?.url])"


def test_a_page_does_not_learn_where_the_visitor_was(lesson, unprotected):
    for where, works in ((unprotected, True), (lesson, False)):
        page = where.open("/hub/token?asked=history")
        page.goto(f"{where.hub.url}/services/plasma/servers?asked=history")
        page.goto(f"{where.hub.url}{where.address()}")
        found = page.evaluate(f"() => {{ {BEFORE} }}")
        assert ("token?asked=history" in found) is works, found
        where.leave()
    # The service's headers are its own.
    assert "asked=history" not in found


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
        where.leave()


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
          const ways = [
            [{}, ''], [{'X-XSRFToken': 'x'}, ''], [{}, '?_xsrf=x'],
            [{Authorization: 'token x', 'X-XSRFToken': 'x'}, ''],
          ];
          await Promise.all(ways.map(async ([headers, query]) => {
            const answer = await fetch(path + query, {
              method, headers: {'Content-Type': 'application/json', ...headers}, body: '{"admin": true}',
              referrer: '/hub/home', referrerPolicy: 'unsafe-url',
            });
            found.push([method, path, answer.status, answer.url, await answer.text()]);
          }));
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
    # The engine may be given a minute by the service, and another test removes a large image meanwhile.
    problem = page.locator("#problem:visible")
    page.locator("#rows").get_by_text("plasmat-course").or_(problem).first.wait_for(timeout=2 * TIMEOUT)
    assert problem.all_inner_texts() == []
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
