"""A teacher and a class, in a real browser: an environment from a repository to the notebook and back."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import make_account
from tests.support.browsing import (
    PHONE,
    new_page,
    open_notebook,
    overflow,
    picture,
    run_cell,
    serious_problems,
    sign_in,
    start_server,
    use_theme,
)
from tests.support.builder_image import builder_image
from tests.support.environment_image import load_into
from tests.support.git_repository import bridge_address, broken, dockerfile, make_repository, serve

NAME = "statistics"


@pytest.fixture(scope="module")
def student(target):
    """A member of the class, by a supplementary group."""
    target.sudo("groupadd --force maths")
    return make_account(target, "noether", "--groups", "maths")


@pytest.fixture(scope="module")
def outsider(target):
    return make_account(target, "visitor")


@pytest.fixture(scope="module")
def repositories(target, course, tmp_path_factory):
    """The address of two repositories, and a builder on the server that has no registry to take it from."""
    load_into(target, builder_image())
    directory = tmp_path_factory.mktemp("repositories")
    make_repository(directory / NAME, dockerfile(course), {"lesson.md": "# Means and medians\n"})
    make_repository(directory / "unfinished", dockerfile(course, broken()))
    with serve(directory, bridge_address()) as address:
        yield address


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))


def add_environment(page, url, repository, **fields):
    page.goto(f"{url}/services/plasma/environments")
    page.get_by_role("button", name="Add environment").click()
    page.get_by_label("Repository", exact=True).fill(repository)
    for label, text in fields.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(text)


@pytest.fixture(scope="module")
def built(repositories, browser, url, teacher, student, pictures):
    """The environment, built through the page while its log was watched."""
    with new_page(browser) as page:
        sign_in(page, url, teacher.name, teacher.password)
        add_environment(
            page, url, f"{repositories}/{NAME}", Memory_in_GB="1.5", CPUs="1", Description="Means, medians and more"
        )
        assert serious_problems(page) == []
        picture(page, "environment-add", pictures)
        page.get_by_role("button", name="Add and build").click()
        log = page.get_by_role("dialog", name=f"Build log of {NAME}")
        expect(log.get_by_role("region")).to_contain_text("Cloning into")
        picture(page, "environment-building", pictures)
        expect(log.get_by_text("Built", exact=True)).to_be_visible(timeout=180_000)
        assert serious_problems(page) == []
        picture(page, "environment-log", pictures)
        log.get_by_role("button", name="Close").last.click()
        expect(row(page, NAME)).to_contain_text("Built")
        expect(row(page, NAME)).to_contain_text("1.5 GB")
        picture(page, "environments", pictures)
    return f"{NAME}:HEAD"


def test_a_failed_build_keeps_its_log_and_offers_nothing(visit, url, teacher, repositories, pictures):
    page = visit(teacher)
    add_environment(page, url, f"{repositories}/unfinished")
    page.get_by_role("button", name="Add and build").click()
    log = page.get_by_role("dialog", name="Build log of unfinished")
    expect(log.get_by_text("Failed", exact=True)).to_be_visible(timeout=180_000)
    page.reload()
    expect(row(page, "unfinished")).to_contain_text("Failed")
    page.get_by_role("button", name="Log of unfinished").click()
    expect(log.get_by_role("region")).to_contain_text("does not exist")
    picture(page, "environment-failed", pictures)
    page.goto(f"{url}/hub/spawn")
    expect(page.get_by_label("unfinished", exact=True)).to_have_count(0)
    page.goto(f"{url}/services/plasma/environments")
    page.get_by_role("button", name="Remove unfinished").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(row(page, "unfinished")).to_have_count(0)


def test_a_mistake_in_the_form_is_shown_where_it_was_made(visit, url, teacher):
    page = visit(teacher)
    add_environment(page, url, "not an address", Memory_in_GB="a lot")
    page.get_by_role("button", name="Add and build").click()
    memory = page.get_by_label("Memory in GB", exact=True)
    expect(memory).to_have_attribute("aria-invalid", "true")
    # What the browser cannot tell is checked by the service, and shown in the same way.
    memory.fill("1")
    page.get_by_role("button", name="Add and build").click()
    expect(page.get_by_label("Repository", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(memory).not_to_have_attribute("aria-invalid", "true")
    assert serious_problems(page) == []


def test_an_environment_is_granted_to_a_group(visit, url, built, teacher, student, outsider, pictures):
    for person, count in ((student, 1), (outsider, 1)):
        page = visit(person)
        page.goto(f"{url}/hub/spawn")
        expect(page.get_by_label(NAME, exact=True)).to_have_count(count)
    page = visit(teacher)
    page.goto(f"{url}/services/plasma/permissions")
    card = page.get_by_role("article", name=NAME)
    card.get_by_label("maths").check()
    expect(card.get_by_text("Not saved yet.")).to_be_visible()
    picture(page, "permissions", pictures)
    page.get_by_role("button", name="Save").click()
    expect(card.get_by_text("Not saved yet.")).to_be_hidden()
    page.reload()
    expect(page.get_by_role("article", name=NAME).get_by_label("maths")).to_be_checked()
    for person, count in ((student, 1), (outsider, 0)):
        page = visit(person)
        page.goto(f"{url}/hub/spawn")
        expect(page.get_by_label(NAME, exact=True)).to_have_count(count)
        if person is student:
            picture(page, "spawn", pictures)


def test_a_student_starts_it_and_it_cannot_be_removed_meanwhile(visit, url, built, teacher, student, pictures):
    page = visit(student)
    start_server(page, url, NAME)
    expect(page.locator("#jp-top-panel")).to_contain_text(NAME)
    expect(page.locator(".jp-DirListing")).to_contain_text("lesson.md")
    open_notebook(page)
    run_cell(page, "import statistics, os; print('median', statistics.median([1, 2, 30]), os.getcwd())")
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text(f"median 2 {student.home}/{NAME}")
    picture(page, "jupyterlab", pictures)

    admin = visit(teacher)
    admin.goto(f"{url}/services/plasma/environments")
    expect(row(admin, NAME)).to_contain_text(student.name)
    admin.get_by_role("button", name=f"Remove {NAME}").click()
    dialog = admin.get_by_role("dialog")
    dialog.get_by_role("button", name="Remove").click()
    expect(dialog.get_by_role("alert")).to_contain_text(student.name)
    assert serious_problems(admin) == []
    picture(admin, "environment-in-use", pictures)
    dialog.get_by_role("button", name="Cancel").click()

    admin.goto(f"{url}/services/plasma/servers")
    expect(row(admin, student.name)).to_contain_text(NAME)
    picture(admin, "servers", pictures)
    page.goto(f"{url}/hub/home")
    expect(page.get_by_text("Running").first).to_be_visible()
    picture(page, "home", pictures)
    page.get_by_role("button", name="Stop my server").click()
    expect(page.get_by_role("button", name="Start my server")).to_be_visible()


def test_more_named_servers_than_allowed_are_refused_in_words(visit, url, built, student, login, pictures):
    person = login(student)
    for server in ("one", "two"):
        person.start(built, server)
    page = visit(student)
    page.goto(f"{url}/hub/home")
    expect(page.get_by_text("delete one before you add another")).to_be_visible()
    picture(page, "home-named-servers", pictures)
    page.goto(f"{url}/hub/spawn/{student.name}/three")
    expect(page.get_by_text("has 2 named servers already")).to_be_visible()
    picture(page, "named-servers-limit", pictures)
    for server in ("one", "two"):
        person.stop(server)


def test_an_environment_is_rebuilt_and_removed(visit, url, built, teacher, student):
    page = visit(teacher)
    page.goto(f"{url}/services/plasma/environments")
    page.get_by_role("button", name=f"Rebuild {NAME}").click()
    page.locator("#edit-submit").click()
    log = page.get_by_role("dialog", name=f"Build log of {NAME}")
    expect(log.get_by_text("Built", exact=True)).to_be_visible(timeout=180_000)
    log.get_by_role("button", name="Close").last.click()
    # The image of before is one click away, and so is the newest.
    for button, of, marks in (("Go back", "to the former image", 1), ("Use the newest", "image", 0)):
        page.get_by_role("button", name=f"{button} {of} of {NAME}").click()
        page.get_by_role("dialog").get_by_role("button", name=button).click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_text("The former image is in use: ")).to_have_count(marks)
    expect(row(page, NAME)).to_contain_text(re.compile(r"GB, built in \d+ s.*Used .*, by one person", re.DOTALL))
    # Given up, it is built again with one click.
    page.get_by_role("button", name=f"Archive {NAME}").click()
    page.get_by_role("dialog").get_by_role("button", name="Archive").click()
    expect(row(page, NAME)).to_contain_text("It has no image")
    assert serious_problems(page) == []
    page.get_by_role("button", name=f"Build again {NAME}").click()
    expect(log.get_by_text("Built", exact=True)).to_be_visible(timeout=180_000)
    log.get_by_role("button", name="Close").last.click()
    page.get_by_role("button", name=f"Webhook of {NAME}").click()
    webhook = page.get_by_role("dialog", name=f"Webhook of {NAME}")
    webhook.get_by_role("button", name="Make a webhook").click()
    expect(webhook.get_by_label("Address")).to_have_value(
        re.compile(rf"^{re.escape(url)}/services/plasma/push/{NAME}%3A")
    )
    expect(webhook.get_by_label("Secret")).to_have_value(re.compile(r"^[\w-]{43}$"))
    assert serious_problems(page) == []
    webhook.get_by_role("button", name="Close").last.click()
    page.get_by_role("button", name=f"Webhook of {NAME}").click()
    expect(webhook.get_by_role("button", name="Make another one")).to_be_visible()
    expect(page.locator("#webhook-secret")).to_have_value("")
    webhook.get_by_role("button", name="Remove the webhook").click()
    expect(webhook.get_by_role("button", name="Make a webhook")).to_be_visible()
    webhook.get_by_role("button", name="Close").last.click()
    page.get_by_role("button", name=f"Remove {NAME}").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(row(page, NAME)).to_have_count(0)
    student_page = visit(student)
    student_page.goto(f"{url}/hub/spawn")
    expect(student_page.get_by_label(NAME, exact=True)).to_have_count(0)
    page.goto(f"{url}/services/plasma/permissions")
    expect(page.get_by_role("article", name="python-course")).to_be_visible()
    expect(page.get_by_role("article", name=NAME)).to_have_count(0)


PAGES = {
    "login": "/hub/login",
    "home": "/hub/home",
    "spawn": "/hub/spawn",
    "token": "/hub/token",
    "password": "/hub/password",
    "admin": "/hub/admin",
    "not-found": "/hub/nothing-here",
    "environments": "/services/plasma/environments",
    "links": "/services/plasma/links",
    "permissions": "/services/plasma/permissions",
    "servers": "/services/plasma/servers",
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_keeps_people_out(visit, url, page, teacher, course, theme, pictures):
    """axe-core finds nothing serious, in light and in dark."""
    admin = visit(teacher)
    problems = []
    for name, path in PAGES.items():
        shown = page if name == "login" else admin
        shown.goto(f"{url}{path}")
        use_theme(shown, theme)
        shown.wait_for_load_state("networkidle")
        problems += serious_problems(shown)
        picture(shown, f"{name}-{theme}", pictures)
    assert problems == []


def test_pages_fit_on_a_phone(visit, url, teacher, course, pictures):
    page = visit(teacher, viewport=PHONE, has_touch=True)
    too_wide = {}
    for name, path in PAGES.items():
        page.goto(f"{url}{path}")
        page.wait_for_load_state("networkidle")
        if overflow(page) > 0:
            too_wide[name] = overflow(page)
        picture(page, f"{name}-phone", pictures)
    assert too_wide == {}


def test_the_pages_work_with_the_keyboard_alone(page, url, teacher, course):
    page.goto(f"{url}/hub/login")
    page.get_by_label("Username").focus()
    page.keyboard.type(teacher.name)
    page.keyboard.press("Tab")
    page.keyboard.type(teacher.password)
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/spawn**")
    page.goto(f"{url}/services/plasma/environments")
    expect(page.get_by_role("row").nth(1)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_role("button", name="Add environment").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Add environment")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Add environment")).to_be_focused()
