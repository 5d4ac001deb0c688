"""A person at the hub with a real browser: signs in, uses JupyterLab; checks and pictures of its pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.paths import REPOSITORY
from tests.support.shell import ensure_packages

CHROMIUM = Path(__file__).parent / "files" / "chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
TIMEOUT = 60_000
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
SERIOUS = ("serious", "critical")


@contextmanager
def browser() -> Iterator[Browser]:
    """Debian's chromium without a window. Playwright runs once in a process: see ``another``."""
    ensure_packages(["chromium-headless-shell", "python3-seccomp"])
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@contextmanager
def another(running: Browser, *arguments: str) -> Iterator[Browser]:
    """One more chromium, with arguments of its own."""
    started = running.browser_type.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *arguments])
    yield started
    started.close()


@contextmanager
def new_page(started: Browser, **options) -> Iterator[Page]:
    """A page of a visitor of their own; ``options`` as for Playwright's new_context."""
    context = started.new_context(**{"viewport": DESKTOP, **options})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    expect.set_options(timeout=TIMEOUT)
    yield page
    context.close()


def sign_in(page: Page, url: str, name: str, password: str) -> None:
    """Log in through the form; returns on the page that follows."""
    page.goto(f"{url}/hub/login")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda address: "/login" not in address)


def start_server(page: Page, url: str, environment: str) -> None:
    """Choose an environment on the start page and wait for its JupyterLab."""
    page.goto(f"{url}/hub/spawn")
    page.get_by_label(environment, exact=True).check()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/user/*/lab**", timeout=120_000)
    wait_for_lab(page)


def wait_for_lab(page: Page) -> None:
    """Wait for JupyterLab's launcher."""
    page.locator(".jp-LauncherCard").first.wait_for()


def open_notebook(page: Page) -> None:
    """A new notebook from the launcher, whose kernel answers."""
    page.locator(".jp-LauncherCard", has_text="Python 3").first.click()
    # JupyterLab drops what is run before its kernel is connected; the status bar says when it is.
    expect(page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible()


def run_cell(page: Page, code: str) -> None:
    """Type code into the last cell of the open notebook and run it."""
    cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").last
    cell.click()
    page.keyboard.insert_text(code)
    page.keyboard.press("Shift+Enter")


def serious_problems(page: Page) -> list[str]:
    """What axe-core finds on the page that keeps people out, one line for each element."""
    # The plugin's tests use a browser without it.
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{urlsplit(page.url).path}: {rule['id']} ({rule['impact']}): {node['html'][:200]}"
        for rule in found
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]


def use_theme(page: Page, theme: str) -> None:
    """Switch the pages to "light" or "dark", as the button in their corner does."""
    page.evaluate("theme => localStorage.setItem('jupyterhub-bs-theme', theme)", theme)
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-bs-theme", theme)


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return page.evaluate("() => document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth")


def picture(page: Page, name: str, directory: Path) -> None:
    """
    Take a picture of the page.

    With PLASMA_SCREENSHOTS=1 it becomes the documentation's (docs/_static/NAME.png), else it goes to ``directory``.
    """
    if os.environ.get("PLASMA_SCREENSHOTS") == "1":
        directory = REPOSITORY / "docs" / "_static"
    directory.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=directory / f"{name}.png", animations="disabled")
