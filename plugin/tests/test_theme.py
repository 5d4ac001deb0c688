"""The look of the hub's pages, and the headers that go with them, on a real hub."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
import requests
from jinja2 import nodes
from jupyterhub._data import DATA_FILES_PATH
from support_hub import Hub, wait_until
from tljh_plasma import announcement, theme
from tljh_plasma.access import Store
from tljh_plasma.settings import Settings
from traitlets.config import Config

pytestmark = pytest.mark.docker

STOCK = Path(DATA_FILES_PATH) / "templates"
OURS = sorted((theme.TEMPLATES / "hub").glob("*.html"))
MONITORING = "https://monitoring.example.org/"
STUDENT_NAV = {"Home": "hub/home", "Servers": "services/plasma/servers", "Token": "hub/token"}
STUDENT_NAV["Password"] = "hub/password"
ADMIN_NAV = {
    "Home": "hub/home",
    "Environments": "services/plasma/environments",
    "Permissions": "services/plasma/permissions",
    "Servers": "services/plasma/servers",
    "Admin": "hub/admin",
    "Token": "hub/token",
    "Password": "hub/password",
    "tests-shown": "services/tests-shown/",
}
EVIL = '<script>alert("x")</script><b>bold</b>'


class Page(HTMLParser):
    """What a page has: its elements, its title and the links of its navigation."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.title = ""
        self.nav: dict[str, str] = {}
        self.current = ""
        self._open: list[str] = []
        self._link: dict | None = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        self._open.append(tag)
        if tag == "a" and "nav-link" in attributes.get("class", ""):
            self._link = attributes

    def handle_endtag(self, tag):
        if tag == "a":
            self._link = None

    def handle_data(self, data):
        if self._open and self._open[-1] == "title" and not self.title:
            self.title = data.strip()
        if self._link is not None and data.strip():
            self.nav[data.strip()] = self._link["href"]
            if self._link.get("aria-current") == "page":
                self.current = data.strip()

    def all(self, tag: str) -> list[dict]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def site(docker_host, environment, accounts, tmp_path_factory):
    """A hub under a path, with a link to monitoring and a service that others have added."""
    admin = accounts.add("themeadmin")
    running = Hub(
        tmp_path_factory.mktemp("theme"), admin.name, plasma={"monitoring_url": MONITORING}, base_url="/some/where/"
    )
    (running.prefix / "config" / "jupyterhub_config.d" / "shown.py").write_text(
        "c.JupyterHub.services.append({'name': 'tests-shown', 'url': 'http://127.0.0.1:9'})\n"
    )
    running.start()
    running.person = {"admin": admin, "student": accounts.add("themestudent")}
    yield running
    running.stop()


@pytest.fixture(scope="module")
def sessions(site):
    """Both roles, logged in as browsers are."""
    found = {}
    for role, person in site.person.items():
        found[role], answer = site.login(person.name, person.password)
        assert answer.status_code == 200
    return found


def get(site, session, path: str, status: int = 200) -> tuple[requests.Response, Page]:
    answer = session.get(f"{site.url}{path}", timeout=60)
    assert answer.status_code == status, answer.text
    return answer, Page(answer.text)


def check_page(site, answer, page) -> None:
    """Check what holds for every page of the hub."""
    assert page.title.endswith("Plasma")
    assert not page.title.startswith("·")
    assert "Plasma" in answer.text
    # For keyboards and screen readers.
    assert [main["id"] for main in page.all("main")] == ["main"]
    assert len(page.all("h1")) == 1
    assert page.all("html")[0]["lang"] == "en"
    assert any(link.get("href") == "#main" for link in page.all("a"))
    assert [toggle for toggle in page.all("button") if toggle.get("id") == "dark-theme-toggle"]
    assert not [attributes for _, attributes in page.elements if int(attributes.get("tabindex") or 0) > 0]
    assert not [image for image in page.all("img") if "alt" not in image]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    # The page depends on nothing but the hub.
    assert "--plasma-accent" in answer.text
    assert not [link for link in page.all("link") if "services/plasma" in link["href"]]
    check_headers(answer)
    # Scripts are JupyterHub's and ours: those of the template, and files of the hub.
    scripts = re.search(r"script-src ([^;,]*)", answer.headers["Content-Security-Policy"])[1].split()
    assert len(scripts) == 2 and scripts[1].endswith("/hub/static/")
    assert {f"'nonce-{script.get('nonce')}'" for script in page.all("script")} == {scripts[0]}


def check_headers(answer) -> None:
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "origin"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("role", "path", "status", "current"),
    [
        ("student", "/hub/home", 200, "Home"),
        ("student", "/hub/spawn", 200, "Home"),
        ("student", "/hub/token", 200, "Token"),
        ("student", "/hub/password", 200, "Password"),
        ("student", "/hub/admin", 403, ""),
        ("student", "/hub/nowhere", 404, ""),
        ("student", "/hub/error/503", 200, ""),
        ("student", "/hub/accept-share?code=x", 404, ""),
        ("admin", "/hub/home", 200, "Home"),
        ("admin", "/hub/spawn", 200, "Home"),
        ("admin", "/hub/token", 200, "Token"),
        ("admin", "/hub/admin", 200, "Admin"),
    ],
)
def test_pages_of_people_who_are_logged_in(site, sessions, role, path, status, current):
    answer, page = get(site, sessions[role], path, status)
    check_page(site, answer, page)
    base = "/some/where/"
    expected = {text: base + path for text, path in (ADMIN_NAV if role == "admin" else STUDENT_NAV).items()}
    if role == "admin":
        expected["Monitoring"] = MONITORING
    assert page.nav == expected
    assert page.current == current
    assert site.person[role].name in answer.text
    assert [link for link in page.all("a") if link.get("id") == "logout" and link["href"] == f"{base}hub/logout"]


def test_pages_of_people_who_are_not_logged_in(site):
    answer, page = get(site, requests.Session(), "/hub/login")
    check_page(site, answer, page)
    assert page.nav == {}
    assert not [link for link in page.all("a") if link.get("id") in ("login", "logout")]
    labels = {label["for"] for label in page.all("label")}
    assert labels == {"username_input", "password_input"}
    answer, page = get(site, requests.Session(), "/hub/nowhere", 404)
    check_page(site, answer, page)
    # JupyterHub 6 leaves the words to us.
    assert re.search(r"<title>(Not Found|Error 404) \S+ Plasma</title>", answer.text)
    assert [link for link in page.all("a") if link.get("id") == "login"]


def test_a_wrong_password_is_answered_on_the_login_page(site):
    _, answer = site.login(site.person["student"].name, "wrong")
    check_page(site, answer, Page(answer.text))
    assert re.search(r'role="alert">\s*Invalid username or password', answer.text)


def test_everything_that_pages_load_is_there(site, sessions):
    _, page = get(site, sessions["student"], "/hub/home")
    addresses = [script["src"] for script in page.all("script") if "src" in script]
    addresses += [link["href"] for link in page.all("link")] + [image["src"] for image in page.all("img")]
    assert len(addresses) > 5
    for address in addresses:
        answer = requests.get(f"{site.origin}{address}", timeout=30)
        assert answer.status_code == 200, address
    logo = requests.get(f"{site.url}/hub/logo", timeout=30)
    assert logo.headers["Content-Type"] == "image/svg+xml"
    assert logo.content == theme.LOGO.read_bytes()


def test_headers_of_other_answers(site):
    redirect = requests.get(f"{site.url}/hub/", allow_redirects=False, timeout=30)
    assert redirect.status_code == 302
    check_headers(redirect)
    # JupyterHub's own, stricter policy for its API is not replaced.
    for answer in (site.api("GET", "/"), site.api("GET", "/users/nobody")):
        check_headers(answer)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_home_says_how_many_named_servers_there_may_be(site, sessions):
    answer, _ = get(site, sessions["student"], "/hub/home")
    text = " ".join(answer.text.split())
    assert "You may have 2 of them beside the default server; you have none." in text
    assert 'class="new-server-btn' in answer.text


def test_a_failed_start_is_explained_with_a_way_back(site, sessions, environment):
    person = site.person["student"]
    assert site.spawn(person.name, "nosuch:1").status_code == 400
    answer, page = get(site, sessions["student"], f"/hub/spawn-pending/{person.name}", 400)
    check_page(site, answer, page)
    alert = re.search(r'role="alert">(.*?)</div>', answer.text, re.DOTALL)
    assert "Please choose one from the list." in alert[1]
    start = next(link for link in page.all("a") if link.get("id") == "start")
    assert start["href"].rstrip("/") == f"/some/where/hub/spawn/{person.name}"


def test_what_people_write_stays_text(site, sessions, images):
    image = images("plasmat-theme:1", EVIL)
    Store(site.prefix / "state" / "plasma.sqlite").set_description(image, f"A description {EVIL}")
    answer, page = get(site, sessions["student"], "/hub/spawn")
    check_page(site, answer, page)
    assert EVIL not in answer.text
    assert "<b>bold" not in answer.text
    assert "A description &lt;script&gt;" in answer.text
    person = site.person["student"]
    name = "a%3Cb%3Ebold"
    refused, _ = get(site, sessions["student"], f"/hub/spawn-pending/{person.name}/{name}", 404)
    assert "a<b>bold" not in refused.text
    assert "a&lt;b&gt;bold" in refused.text


def test_a_name_in_the_navigation_is_text():
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(theme.TEMPLATES), autoescape=True)
    navigation = environment.get_template("shared/nav.html").module.navigation
    html = navigation("home", "/hub/", "/services/plasma/", user=EVIL, others=[{"name": EVIL, "href": '"><b>'}])
    assert "<script>" not in html
    assert "<b>" not in html


# What an upgrade of JupyterHub could take away.


def blocks(path: Path) -> set[str]:
    return {block.name for block in jinja2.Environment().parse(path.read_text()).find_all(nodes.Block)}


def parents(path: Path) -> list[Path]:
    """The templates that a template of ours extends, to the last."""
    tree = jinja2.Environment().parse(path.read_text())
    names = [extends.template.value for extends in tree.find_all(nodes.Extends)]
    if not names:
        return []
    name = names[0]
    parent = STOCK / name.removeprefix("templates/")
    if not name.startswith("templates/") and (theme.TEMPLATES / "hub" / name).exists():
        parent = theme.TEMPLATES / "hub" / name
    return [parent, *parents(parent)]


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_blocks_that_we_fill_are_jupyterhubs(path):
    chain = parents(path)
    assert any(parent.parent == STOCK for parent in chain)
    assert blocks(path) <= set().union(*(blocks(parent) for parent in chain))


def test_every_page_of_jupyterhub_has_our_look():
    assert {path.name for path in STOCK.glob("*.html")} <= {path.name for path in OURS}


def test_login_uses_fields_that_jupyterhub_has():
    text = (theme.TEMPLATES / "hub" / "login.html").read_text()
    used = set(re.findall(r"self\.(\w+)\(\)", text))
    assert used == {"username_input", "password_input", "otp_input", "login_terms"}
    assert used <= blocks(STOCK / "login.html")


@pytest.mark.parametrize(
    ("page", "script", "hooks"),
    [
        (
            "home.html",
            Path(DATA_FILES_PATH) / "static" / "js" / "home.js",
            "#start #stop .new-server-btn .new-server-name .stop-server .start-server .delete-server .server-link "
            ".time-col home-server-row server-name",
        ),
        (
            "spawn_pending.html",
            STOCK / "spawn_pending.html",
            "#progress-bar #progress-message #progress-log #progress-details #sr-progress",
        ),
        ("stop_pending.html", STOCK / "stop_pending.html", "#refresh"),
        ("login.html", STOCK / "login.html", "insecure-login-warning feedback-container feedback-widget"),
    ],
)
def test_what_jupyterhubs_scripts_look_for_is_there(page, script, hooks):
    ours, theirs = (theme.TEMPLATES / "hub" / page).read_text(), script.read_text()
    for hook in hooks.split():
        assert hook in theirs, hook
        assert hook.lstrip("#.") in ours, hook


# The configuration.


def test_what_others_configured_stays():
    c = Config()
    c.JupyterHub.template_paths = ["/theirs"]
    c.JupyterHub.template_vars = {"announcement": "Hello"}
    c.JupyterHub.logo_file = "/theirs.png"
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0, "headers": {"referrer-policy": "no-referrer", "X-A": "b"}}
    theme.apply(c, Settings(monitoring_url="/cockpit/"))
    assert c.JupyterHub.template_paths == [*map(str, theme.HUB_TEMPLATES), "/theirs"]
    assert c.JupyterHub.template_vars["announcement"] == "Hello"
    assert c.JupyterHub.template_vars["plasma_monitoring_url"] == "/cockpit/"
    assert c.JupyterHub.logo_file == "/theirs.png"
    settings = c.JupyterHub.tornado_settings
    assert settings["slow_spawn_timeout"] == 0
    assert settings["headers"] == {
        **{name: value for name, value in theme.HEADERS.items() if name != "Referrer-Policy"},
        "referrer-policy": "no-referrer",
        "X-A": "b",
    }


def test_what_others_add_later_comes_first():
    c = Config()
    theme.apply(c, Settings())
    c.JupyterHub.template_paths.insert(0, "/theirs")
    assert c.JupyterHub.template_paths.get_value([str(STOCK)]) == [
        "/theirs",
        *map(str, theme.HUB_TEMPLATES),
        str(STOCK),
    ]
    assert c.JupyterHub.tornado_settings["headers"] == theme.HEADERS
    assert c.JupyterHub.logo_file == str(theme.LOGO)


# What the operator tells everybody.


@pytest.mark.parametrize("audience", ["everyone", "administrators"])
def test_announcements_are_on_every_page_at_once(site, sessions, audience):
    path = site.prefix / "state" / announcement.FILE
    # The service starts a little after the hub.
    service = f"{site.url}/services/plasma/servers"
    wait_until(lambda: sessions["admin"].get(service, timeout=60).status_code == 200, 30, "the service")
    paths = ["/hub/login", "/hub/home", "/hub/token", "/hub/nowhere", "/services/plasma/servers"]
    try:
        path.write_text(json.dumps({"message": f"Told: {EVIL}", "level": "warning", "until": None, "for": audience}))
        path.chmod(0o600)
        for role, session in {**sessions, "nobody": requests.Session()}.items():
            for place in paths if role != "nobody" else paths[:1]:
                # Somebody who has logged in is sent on from the login page.
                answer = session.get(f"{site.url}{place}", timeout=60)
                page = Page(answer.text)
                shown = [element for element in page.all("aside") if element.get("id") == "plasma-announcement"]
                assert len(shown) == (audience == "everyone" or role == "admin"), (role, place)
                assert EVIL not in answer.text
                assert ("Told: &lt;script&gt;alert(" in answer.text) == bool(shown)
    finally:
        path.unlink()
    assert "plasma-announcement" not in sessions["admin"].get(f"{site.url}/hub/home", timeout=60).text


# Scripts and pages of the service.


def test_scripts_make_no_markup_of_text():
    scripts = sorted(theme.STATIC.glob("*.js"))
    assert len(scripts) > 5
    for script in scripts:
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script.read_text()
        )
        assert found == [], script.name
        for imported in re.findall(r'from "\./([^"]+)"', script.read_text()):
            assert (theme.STATIC / imported).is_file(), f"{script.name}: {imported}"


@pytest.mark.parametrize("name", ["environments", "links", "permissions", "servers", "error"])
def test_pages_of_the_service_have_no_inline_script(name):
    # Their policy allows none, and a browser would leave it out.
    text = "".join((theme.TEMPLATES / "service" / f"{page}.html").read_text() for page in ("base", name))
    assert not re.search(r"<script(?![^>]* src=)", text)
    assert not re.search(r"\son[a-z]+\s*=", text)
