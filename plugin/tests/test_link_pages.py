"""The way of a course's link: made by a teacher, followed by a student, from the login to the open notebook."""

from __future__ import annotations

import re
import secrets
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import expect
from support_hub import Hub, wait_until
from support_service import Visitor, quoted, service_answers
from tljh_plasma import firewall, network

from tests.support import git_repository
from tests.support.browsing import browser as new_browser
from tests.support.browsing import new_page, sign_in

pytestmark = pytest.mark.docker

COURSE = "algebra"
PLAIN = "plasmat-plain:1"
NO_PULLER = "USER root\nRUN /srv/conda/envs/notebook/bin/pip uninstall --yes nbgitpuller\nUSER jovyan"
NOTES = "".join(f"{number}. of the teacher\n" for number in range(1, 10))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The repository of a course, and the address that servers fetch it from."""
    directory = tmp_path_factory.mktemp("links")
    made = git_repository.make_repository(directory / COURSE, "", {"week 1/notes.md": NOTES})
    with git_repository.serve(directory, git_repository.bridge_address()) as address:
        made.address = f"{address}/{COURSE}"
        yield made


@pytest.fixture(scope="module")
def site(docker_host, accounts, repository, tmp_path_factory):
    """A hub whose servers reach the repository, on a network of its own."""
    name = f"plasmat-{secrets.token_hex(4)}"
    reach = {"name": name, "host_ports": [urlsplit(repository.address).port]}
    boss = accounts.add("boss")
    running = Hub(tmp_path_factory.mktemp("site"), boss.name, {"network": reach, "shared_data": ""})
    running.boss, running.student = boss, accounts.add("reader")
    running.start()
    wait_until(lambda: service_answers(running), 60, "service")
    yield running
    running.stop()
    running.remove_containers(docker_host)
    attrs = network.connect().inspect_network(name)
    docker_host.networks.get(name).remove()
    firewall.remove(attrs)


@pytest.fixture(scope="module")
def teacher(site):
    return Visitor(site, site.boss.name, site.boss.password)


@pytest.fixture(scope="module")
def browser():
    with new_browser() as started:
        yield started


@pytest.fixture(scope="module")
def page(browser):
    """The window of the student, who is not logged in yet."""
    with new_page(browser) as made:
        yield made


@pytest.fixture(scope="module")
def link(site, browser, environment, repository):
    """What the teacher's page makes of the filled-in form."""
    with new_page(browser) as made:
        sign_in(made, site.url, site.boss.name, site.boss.password)
        made.goto(f"{site.url}/services/plasma/environments")
        made.get_by_role("link", name="Make a link").click()
        made.get_by_label("Environment", exact=True).select_option(environment)
        made.get_by_label("Git repository").fill("javascript:alert(1)")
        made.get_by_role("button", name="Make the link").click()
        expect(made.get_by_role("alert")).to_contain_text("must be a URL like https://example.org/teacher/course")
        made.get_by_label("Git repository").fill(repository.address)
        made.get_by_label("Branch").fill("main")
        made.get_by_label("File to open").fill("course.ipynb")
        made.get_by_role("button", name="Make the link").click()
        expect(made.get_by_role("alert")).to_be_hidden()
        made.get_by_role("button", name="Copy").click()
        expect(made.get_by_text("Copied.")).to_be_visible()
        address = made.get_by_label("Link", exact=True).input_value()
        assert made.get_by_role("link", name="Try it").get_attribute("href") == address
    return address


def test_the_link_says_what_it_is_for(link, site, environment, repository):
    parts = urlsplit(link)
    assert f"{parts.scheme}://{parts.netloc}" == site.origin and parts.path == "/hub/spawn"
    assert parse_qs(parts.query) == {
        "image": [environment],
        "repo": [repository.address],
        "branch": ["main"],
        "file": ["course.ipynb"],
        "opens": ["lab"],
    }


def opened(page) -> None:
    """Wait for the course's notebook in JupyterLab."""
    page.wait_for_url(f"**/lab/tree/{COURSE}/course.ipynb**", timeout=120_000)
    expect(page.locator(".jp-Notebook")).to_contain_text("print(6 * 7)")


def test_a_student_comes_from_the_login_to_the_notebook_and_keeps_changes(link, site, page, environment, repository):
    student = site.student
    site.visitors.add(student.name)
    page.goto(link)
    page.get_by_label("Username").fill(student.name)
    page.get_by_label("Password").fill(student.password)
    page.get_by_role("button", name="Sign in").click()
    # Nothing starts by itself: any page on the web could send people here.
    expect(page.get_by_text("Please check the chosen environment and press Start.")).to_be_visible()
    expect(page.get_by_label("plasmat-course", exact=True)).to_be_checked()
    assert site.api("GET", f"/users/{student.name}").json()["servers"] == {}
    page.get_by_role("button", name="Start").click()
    opened(page)

    # Both change the same file, the student at its beginning; the server runs when the link is followed again.
    files = student.home / "plasmat-course" / COURSE
    notes = files / "week 1" / "notes.md"
    notes.write_text(notes.read_text().replace("1. of the teacher", "1. of the student"))
    repository.commit(
        {"week 1/notes.md": NOTES.replace("9. of the teacher", "9. once more"), "week 2/new.md": "New.\n"}
    )
    page.goto(link)
    opened(page)
    assert (files / "week 2" / "new.md").read_text() == "New.\n"
    lines = notes.read_text().splitlines()
    assert (lines[0], lines[1], lines[8]) == ("1. of the student", "2. of the teacher", "9. once more")
    assert notes.stat().st_uid == student.uid


def follow(site, session, path: str = "/hub/spawn", **values: str):
    """Follow a link as a browser does, and no further."""
    headers = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}
    return session.get(f"{site.url}{path}?{urlencode(values)}", headers=headers, allow_redirects=False, timeout=60)


def test_links_lead_into_ones_own_server_or_nowhere(site, page, teacher, environment, repository):
    """With a server that runs, JupyterHub would go on at once to what the address says."""
    student = site.student
    session, _ = site.login(student.name, student.password)
    own = f"/user/{student.name}/"
    for values, place in (
        ({}, own),
        ({"opens": "rstudio"}, f"{own}rstudio/"),
        ({"opens": "/voila/render/a.ipynb", "next": "/hub/token"}, f"{own}voila/render/a.ipynb"),
        ({"repo": repository.address}, f"{own}git-pull"),
    ):
        answer = follow(site, session, image=environment, **values)
        assert answer.status_code == 302, answer.text
        assert urlsplit(answer.headers["Location"])[:3] == ("", "", place)
    for values in (
        *({"opens": text} for text in ("javascript:alert(1)", "//evil.example.org", "/../bob/lab", "/lab\nX: y")),
        *({"opens": text} for text in ("/lab?next=//evil.example.org", "/" + "x" * 1000)),
        *({"repo": text} for text in ("javascript:alert(1)", "//evil.example.org/a", "https://a:b@example.org/c")),
        {"repo": repository.address, "branch": "--upload-pack=id"},
        {"repo": repository.address, "file": "../../bob/secret.ipynb"},
        {"repo": repository.address, "file": "a.ipynb", "opens": "rstudio"},
    ):
        answer = follow(site, session, image=environment, **values)
        assert answer.status_code == 400 and "Location" not in answer.headers, values
        assert re.search(r"of a link|[Aa] link (?:opens|can name)", answer.text), answer.text
        refused = teacher.call("POST", "api/links", {"image": environment, **values})
        assert refused.status_code == 400 and refused.json()["message"].endswith("."), values
    # An administrator, with somebody else's server.
    answer = follow(site, teacher.session, f"/hub/spawn/{student.name}", image=environment, opens="lab")
    assert answer.status_code == 400 and "in one&#39;s own server" in answer.text
    assert teacher.call("POST", "api/links", {"image": "plasmat-gone:1"}).status_code == 404


def test_an_environment_that_does_not_go_with_the_link_is_named(site, page, teacher, images, environment, repository):
    student = site.student
    images(PLAIN, "plasmat-plain", commands=NO_PULLER)
    # Files open with what the environment opens with.
    path = f"api/environments/{quoted(PLAIN)}"
    assert teacher.call("PATCH", path, {"opens": "/hub"}).status_code == 200
    assert teacher.call("PATCH", path, {"opens": "//evil"}).status_code == 400
    assert teacher.call("PATCH", path, {"opens": "/webapp/"}).status_code == 200
    assert teacher.environments()[PLAIN]["opens"] == "/webapp/"
    asked = {"image": PLAIN, "repo": repository.address}
    refused = teacher.call("POST", "api/links", {**asked, "file": "course.ipynb"})
    assert refused.status_code == 400 and "with lab or notebook alone" in refused.json()["message"]
    made = teacher.call("POST", "api/links", asked).json()["path"]
    assert parse_qs(urlsplit(made).query)["opens"] == ["/webapp/"]

    page.goto(f"{site.url}{made}")
    expect(page.locator("#main")).to_contain_text(
        f"The server runs the environment 'plasmat-course', and this link is for '{PLAIN}'. Stop the server at Home"
    )
    site.stop_server(student.name)
    page.goto(f"{site.url}{made}")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("This environment has no nbgitpuller")).to_be_visible(timeout=120_000)
    # Without a link, people are where the environment says.
    page.goto(f"{site.url}/user/{student.name}/")
    expect(page.get_by_text("an application of its own")).to_be_visible()
    assert urlsplit(page.url).path == f"/user/{student.name}/webapp/"
    # The next one opens as the hub does.
    site.stop_server(student.name)
    assert site.spawn(student.name, environment).status_code in (201, 202)
    page.goto(f"{site.url}/user/{student.name}/")
    page.wait_for_url(f"**/user/{student.name}/lab**")
    page.goto(f"{site.url}/hub/spawn?image=plasmat-gone:1")
    expect(page.locator("#main")).to_contain_text("this link is for 'plasmat-gone:1'")
