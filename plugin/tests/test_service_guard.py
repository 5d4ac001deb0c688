"""Who is let in: every handler of the service, asked by everybody who must not get an answer."""

from __future__ import annotations

import re
import stat
import subprocess
import sys

import pytest
import requests
from support_service import PREFIX, STATIC_FILE, Visitor, quoted
from tljh_plasma.service.app import PlasmaService
from tljh_plasma.service.base import HEADERS, Guarded
from tljh_plasma.settings import Settings

pytestmark = pytest.mark.docker

CHANGING = ("POST", "PUT", "PATCH", "DELETE")
PUBLIC = {"oauth_callback", STATIC_FILE, "push/plasmat-guarded%3A1"}
EVIL = "https://evil.example.org"


def handlers() -> dict[str, type]:
    """All handlers of the service, by a path below its prefix that leads to them."""
    service = PlasmaService(service_prefix=PREFIX, plasma=Settings())
    found = {}
    for pattern, handler, *_ in service.init_handlers():
        path = (
            pattern.removeprefix(PREFIX).replace("static/(.*)", STATIC_FILE).replace("([^/]+)", "plasmat-guarded%3A1")
        )
        assert "(" not in path
        found[path] = handler
    return found


def implemented(handler: type) -> list[str]:
    """The state-changing methods that a handler has."""
    base = Guarded._unimplemented_method
    return [method for method in CHANGING if getattr(handler, method.lower()) is not base]


def with_token(url: str, token: str) -> requests.Response:
    """What a program gets that has somebody's token."""
    return requests.get(url, headers={"Authorization": f"token {token}"}, timeout=30)


ALL = handlers()
STATE_CHANGING = [(method, path) for path, handler in ALL.items() for method in implemented(handler)]


def test_list_of_handlers_is_what_it_should_be():
    assert set(STATE_CHANGING) == {
        ("POST", "api/environments"),
        ("PATCH", "api/environments/plasmat-guarded%3A1"),
        ("DELETE", "api/environments/plasmat-guarded%3A1"),
        ("POST", "api/environments/plasmat-guarded%3A1/build"),
        ("POST", "api/environments/plasmat-guarded%3A1/archive"),
        ("POST", "api/environments/plasmat-guarded%3A1/webhook"),
        ("DELETE", "api/environments/plasmat-guarded%3A1/webhook"),
        ("POST", "push/plasmat-guarded%3A1"),
        ("POST", "api/links"),
        ("PUT", "api/permissions"),
        ("DELETE", "api/servers/plasmat-guarded%3A1"),
        ("DELETE", "api/servers/plasmat-guarded%3A1/plasmat-guarded%3A1"),
    }
    assert {path for path, handler in ALL.items() if handler.public} == PUBLIC
    for path, handler in ALL.items():
        assert issubclass(handler, Guarded), path
        assert not handler.__module__.startswith("tljh_repo2docker"), path
        # Nobody between ours and Tornado's has another idea of the check.
        assert handler.check_xsrf_cookie is Guarded.check_xsrf_cookie, path
        assert handler._check_origin is Guarded._check_origin and handler._check_xsrf is Guarded._check_xsrf, path


@pytest.fixture(scope="module", autouse=True)
def guarded(images):
    """The environment that the attacks are after."""
    return images("plasmat-guarded:1", "Guarded")


def body_of(method: str, path: str) -> dict | None:
    """A body that the handler would accept."""
    if path == "api/permissions":
        return {"environments": {"plasmat-guarded:1": []}}
    if path == "api/links":
        return {"image": "plasmat-guarded:1"}
    if path == "api/environments":
        return {"repo": "git://192.0.2.1/never", "name": "plasmat-never"}
    return None if method == "DELETE" else {}


ATTACKS = {
    "another site": {"Origin": EVIL},
    "another site, without Origin": {"Origin": None, "Sec-Fetch-Site": "cross-site"},
    "another site that says same-origin": {"Origin": EVIL, "Sec-Fetch-Site": None},
    "another port of this host": {"Origin": "http://127.0.0.1:1"},
    "another host of this site": {"Sec-Fetch-Site": "same-site"},
    "a sandboxed frame": {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    "a sandboxed frame of ours": {"Origin": "null"},
    "a websocket": {"Sec-Fetch-Mode": "websocket", "X-XSRFToken": None},
    "no token": {"X-XSRFToken": None},
    "no token, a navigation": {"X-XSRFToken": None, "Sec-Fetch-Mode": "navigate"},
    "an empty token": {"X-XSRFToken": ""},
    "a wrong token": {"X-XSRFToken": "MnwxOjB8"},
    "nothing that says where from": {"Origin": None, "Sec-Fetch-Site": None, "Sec-Fetch-Mode": None},
    "the cookie alone": {"Origin": None, "Sec-Fetch-Site": None, "Sec-Fetch-Mode": None, "X-XSRFToken": None},
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(("method", "path"), STATE_CHANGING)
def test_6_cookies_of_an_administrator_change_nothing(method, path, attack, teacher):
    """Cookie-only cross-origin requests changed the permissions and started builds."""
    answer = teacher.call(method, path, body_of(method, path), ATTACKS[attack])
    assert answer.status_code == 403, (answer.status_code, answer.text)
    message = answer.json()["message"]
    assert "nothing was done" in message or "not logged in" in message
    environments = teacher.environments()
    assert "plasmat-never:HEAD" not in environments
    assert environments["plasmat-guarded:1"]["status"] == "built"


@pytest.mark.parametrize(("method", "path"), STATE_CHANGING)
def test_6_tokens_of_others_are_no_tokens(method, path, teacher, learner):
    """A token that somebody got for themselves, sent with an administrator's cookies."""
    for headers in ({"X-XSRFToken": learner.xsrf}, {"X-XSRFToken": None}):
        answer = teacher.call(method, path, body_of(method, path), headers)
        assert answer.status_code == 403, answer.text
    answer = teacher.call(method, path, None, {"X-XSRFToken": None}, data={"_xsrf": learner.xsrf, "environments": "{}"})
    assert answer.status_code == 403, answer.text


@pytest.mark.parametrize("method", CHANGING)
@pytest.mark.parametrize("path", ALL)
def test_every_address_refuses_every_method_of_another_site(method, path, teacher):
    answer = teacher.call(method, path, headers={"Origin": EVIL, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403, answer.text
    if method not in implemented(ALL[path]):
        # Scripts ask the API alone: for whatever else they are not logged in.
        assert teacher.call(method, path).status_code == (405 if path.startswith("api/") or ALL[path].public else 403)


@pytest.mark.parametrize(("method", "path"), STATE_CHANGING)
def test_forms_of_another_site_do_nothing(method, path, teacher):
    """What a browser sends without asking first."""
    bodies = {
        "text/plain": '{"environments": {}}',
        "application/x-www-form-urlencoded": "environments=x",
        "multipart/form-data; boundary=x": '--x\r\nContent-Disposition: form-data; name="repo"\r\n\r\ny\r\n--x--\r\n',
    }
    for kind, body in bodies.items():
        headers = {"Content-Type": kind, "Origin": EVIL, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        answer = teacher.call(method, path, headers={**headers, "X-XSRFToken": None}, data=body)
        assert answer.status_code == 403, answer.text


@pytest.mark.parametrize(("method", "path"), STATE_CHANGING)
def test_nobody_is_nobody(method, path, service_hub):
    url = f"{service_hub.url}{PREFIX}{path}"
    same = {"Origin": service_hub.origin, "Sec-Fetch-Site": "same-origin"}
    forged = {"Cookie": "service-plasma=2|1:0|10:1|14:service-plasma|4:eHh4|0; _xsrf=x", "X-XSRFToken": "x"}
    for headers in ({}, same, {**same, **forged}, {"Authorization": "token 0123456789abcdef"}):
        answer = requests.request(method, url, json=body_of(method, path), headers=headers, timeout=30)
        assert answer.status_code == 403, answer.text
        assert answer.json()["status"] == 403


@pytest.mark.parametrize("path", [path for path, handler in ALL.items() if not handler.public])
def test_nothing_is_shown_without_a_login(path, service_hub):
    url = f"{service_hub.url}{PREFIX}{path}"
    answer = requests.get(url, timeout=30, allow_redirects=False)
    if path.startswith("api/"):
        assert answer.status_code in (403, 405), answer.text
        assert set(answer.json()) == {"status", "message"}
    else:
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("/hub/api/oauth2/authorize?client_id=service-plasma")
    # A script of another page of this host, a user's server for instance, is not sent anywhere.
    headers = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    assert requests.get(url, headers=headers, timeout=30, allow_redirects=False).status_code in (403, 405)


@pytest.mark.parametrize("path", [path for path in ALL if path.startswith("api/") and "servers" not in path])
def test_students_are_told_that_they_may_not(path, learner):
    for method in ("GET", *implemented(ALL[path])):
        answer = learner.call(method, path, body_of(method, path) if method != "GET" else None)
        assert answer.status_code == 403, answer.text
        assert answer.json()["message"] == "Only administrators of the hub may do this."


def test_students_see_a_sentence_on_the_pages_of_administrators(learner, teacher):
    for page in ("environments", "links", "permissions"):
        answer = learner.open(page)
        assert answer.status_code == 403
        assert "Only administrators of the hub may do this." in answer.text
        assert teacher.open(page).status_code == 200
    assert learner.open("servers").status_code == 200
    assert learner.open("").url.endswith("/servers")
    assert teacher.open("").url.endswith("/environments")
    assert "Permissions" not in learner.page.text
    assert "/cockpit/" in teacher.page.text and "/cockpit/" not in learner.page.text


def test_19_scopes_and_roles_of_others_are_still_there(service_hub, manager):
    """Custom scopes and roles of the configuration were replaced."""
    token = service_hub.user_token(manager.name)
    scopes = requests.get(f"{service_hub.url}/hub/api/user", headers={"Authorization": f"token {token}"}).json()[
        "scopes"
    ]
    assert "custom:others:read" in scopes
    assert "custom:tljh_repo2docker:admin" in scopes
    assert f"servers!user={manager.name}" in scopes, "what everybody may do at JupyterHub"


def test_somebody_with_the_scope_manages_environments_and_not_the_hub(manager, teacher, learner):
    assert "plasmat-guarded:1" in manager.environments()
    assert manager.call("PUT", "api/permissions", {"environments": {}}).status_code == 200
    assert 'href="/hub/admin"' in teacher.page.text
    assert 'href="/hub/admin"' not in manager.page.text
    answer = manager.call("DELETE", f"api/servers/{quoted(learner.name)}")
    assert answer.status_code in (403, 404), answer.text


def test_rights_that_are_taken_away_count_at_once(service_hub, accounts):
    person = accounts.add("fickle")
    visitor = Visitor(service_hub, person.name, person.password)
    token = service_hub.user_token(person.name)

    def ask() -> list[int]:
        by_token = requests.get(
            f"{visitor.url}api/environments", headers={"Authorization": f"token {token}"}, timeout=30
        )
        return [visitor.call("GET", "api/environments").status_code, by_token.status_code]

    assert ask() == [403, 403]
    service_hub.api("PATCH", f"/users/{person.name}", json={"admin": True}).raise_for_status()
    assert ask() == [200, 200]
    assert visitor.open("environments").status_code == 200
    service_hub.api("PATCH", f"/users/{person.name}", json={"admin": False}).raise_for_status()
    assert ask() == [403, 403]
    assert visitor.open("permissions").status_code == 403

    # Somebody who is no more.
    service_hub.api("DELETE", f"/users/{person.name}").raise_for_status()
    assert ask() == [403, 403]
    assert visitor.call("GET", "api/servers").status_code == 403
    assert visitor.open("servers", allow_redirects=False).status_code == 302


def test_logging_out_ends_the_session_here_too(service_hub, accounts):
    person = accounts.add("leaving")
    visitor = Visitor(service_hub, person.name, person.password)
    assert visitor.call("GET", "api/servers").status_code == 200
    cookies = visitor.session.cookies.copy()
    visitor.session.get(f"{service_hub.url}/hub/logout", timeout=30)
    visitor.session.cookies.update(cookies)
    assert visitor.call("GET", "api/servers").status_code == 403


def test_tokens_need_no_xsrf_token_and_give_no_more_than_their_owner_has(service_hub, teacher, learner):
    def ask(name: str, **headers: str) -> requests.Response:
        headers = {"Authorization": f"token {service_hub.user_token(name)}", **headers}
        body = {"environments": {}}
        return requests.put(f"{teacher.url}api/permissions", json=body, headers=headers, timeout=30)

    assert ask(teacher.name).status_code == 200
    assert ask(learner.name).status_code == 403
    # No page can send the header, but one that could is another site still.
    assert ask(teacher.name, Origin=EVIL).status_code == 403
    # Nothing is taken from the address.
    token = service_hub.user_token(teacher.name)
    assert requests.get(f"{teacher.url}api/environments?token={token}", timeout=30).status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("GET", "environments"), ("GET", "api/environments"), ("GET", "no-such-page"), ("GET", "api/nothing")],
        *[("GET", STATIC_FILE), ("GET", "static/../app.py"), ("GET", ""), ("GET", "oauth_callback")],
        *[("POST", "api/environments"), ("DELETE", "environments"), ("GET", "api/environments/x/log"), ("PUT", "x")],
    ],
)
def test_every_answer_has_the_security_headers(method, path, teacher):
    answer = teacher.call(method, path)
    assert answer.status_code < 500
    for name, value in HEADERS.items():
        if name != "Cache-Control" or not path.startswith("static/"):
            assert answer.headers[name] == value, name
    assert "Tornado" not in answer.headers.get("Server", "")


def test_content_security_policy_allows_no_scripts_in_pages():
    policy = HEADERS["Content-Security-Policy"]
    assert "script-src" not in policy and "default-src 'self';" in policy
    for directive in ("frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'", "object-src 'none'"):
        assert directive in policy


@pytest.mark.parametrize("page", ["environments", "links", "permissions", "servers", "no-such-page"])
def test_pages_have_no_scripts_of_their_own(page, teacher):
    text = teacher.open(page).text
    scripts = re.findall(r"<script\b([^>]*)>(.*?)</script>", text, re.DOTALL)
    assert scripts
    for attributes, content in scripts:
        assert "src=" in attributes and not content.strip()
    assert not re.search(r"\son[a-z]+\s*=", text)


def test_static_files_are_kept_under_the_name_of_their_content(teacher):
    assert "no-cache" in teacher.call("GET", STATIC_FILE).headers["Cache-Control"]
    assert "max-age" in teacher.call("GET", f"{STATIC_FILE}?v=1").headers["Cache-Control"]
    for path in ("static/../service/app.py", "static/%2e%2e/service/app.py", "static//etc/passwd", "static/"):
        assert teacher.call("GET", path).status_code in (403, 404)


@pytest.mark.parametrize("path", ["<script>alert(1)</script>", "%3Cimg%20src=x%20onerror=alert(1)%3E", "a?b=<b>x</b>"])
def test_errors_repeat_nothing(path, teacher):
    page = teacher.open(path)
    assert page.status_code == 404
    for answer in (page, teacher.call("DELETE", f"api/environments/{quoted(path)}")):
        assert "Traceback" not in answer.text and ".py" not in answer.text
    for markup in ("<script>alert", "<img src=x", "<b>x"):
        assert markup not in page.text
    answer = teacher.call("DELETE", f"api/environments/{quoted(path)}")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["status"] == 404


def test_bodies_have_to_be_json_and_not_too_large(teacher):
    for options in ({"data": "{}"}, {"data": {"repo": "x"}}, {"files": {"repo": "x"}}):
        assert teacher.call("POST", "api/environments", **options).status_code == 415
    headers = {"Content-Type": "application/json"}
    answer = teacher.call("PUT", "api/permissions", headers=headers, data=b" " * (1024 * 1024 + 1))
    assert answer.status_code == 413
    assert answer.json()["message"] == "The request is too large."
    # Whatever the address, and before anybody asks who sends it.
    for path in ALL:
        url = f"http://127.0.0.1:{teacher.hub.service_port}{PREFIX}{path}"
        assert requests.post(url, data=b"0" * (1024 * 1024 + 32 * 1024), timeout=30).status_code == 413, path
    for body in (b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"environments": NaN}'):
        answer = teacher.call("PUT", "api/permissions", headers=headers, data=body)
        assert answer.status_code == 400, body[:20]
        assert answer.json()["message"].startswith("The request's body")


@pytest.mark.parametrize(
    "path", ["//evil.example.org/", "//evil.example.org/services/plasma/servers", "/\\evil.example.org"]
)
def test_login_leads_to_no_other_site(path, service_hub, teacher):
    """Straight at the service's port, where no proxy has a say in what an address may be."""
    origin = f"http://127.0.0.1:{service_hub.service_port}"
    request = requests.Request("GET", origin).prepare()
    request.url = f"{origin}{path}"
    answer = requests.Session().send(request, allow_redirects=False, timeout=30)
    assert answer.status_code == 404
    assert "Location" not in answer.headers
    for query in ("code=x&state=y", "error=x&error_description=<b>y</b>", "code=x", "", f"code=x&state={EVIL}"):
        answer = teacher.open(f"oauth_callback?{query}&next={EVIL}", allow_redirects=False)
        assert answer.status_code in (302, 400, 403)
        if answer.status_code != 302:
            assert "The login could not be completed." in answer.text
        assert "evil" not in answer.headers.get("Location", "") and "<b>y" not in answer.text


def test_18_files_are_made_where_they_belong_and_are_nobody_elses(service_hub, tmp_path):
    """SQLite in the current directory, created at import; a configuration file there was run."""
    state = service_hub.prefix / "state"
    made = [*state.glob("tljh_repo2docker.sqlite*"), *state.glob("plasma*")]
    assert len(made) >= 3
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert not (state / "trapped").exists()
    assert not (state / "tljh_repo2docker_cookie_secret").exists()
    subprocess.run([sys.executable, "-c", "import tljh_plasma.service.app"], cwd=tmp_path, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_log_holds_no_secrets(service_hub, teacher, accounts):
    person = accounts.add("quiet")
    visitor = Visitor(service_hub, person.name, person.password)
    token = service_hub.user_token(person.name)
    requests.get(f"{visitor.url}servers?token={token}", timeout=30)
    visitor.call("GET", f"api/servers?_xsrf={visitor.xsrf}", headers={"X-XSRFToken": None})
    log = "\n".join(line for line in service_hub.log().splitlines() if "tornado" in line or "PlasmaService" in line)
    assert "/services/plasma/api/servers" in log
    for secret in (token, visitor.xsrf, person.password, visitor.session.cookies.get("jupyterhub-session-id")):
        assert secret and secret not in log
