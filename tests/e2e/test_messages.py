"""What people over their disk quota or out of memory see, in a real browser; the kernel's answers are stand-ins."""

from __future__ import annotations

import json
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.e2e.conftest import make_account
from tests.support.browsing import (
    PHONE,
    new_page,
    overflow,
    picture,
    serious_problems,
    sign_in,
    start_server,
    use_theme,
    wait_for_lab,
)

GB = 1024**3
USAGE = "/opt/tljh/state/tests-usage.json"
CONFIG = "/opt/tljh/config/jupyterhub_config.d/tests_usage.py"
STAND_IN = f"""
import json
from pathlib import Path
from tljh_plasma import disk_quota, memory

memory.killed = lambda path: json.loads(Path({USAGE!r}).read_text()).get("killed", 0)

def read(uid, directory):
    known = json.loads(Path({USAGE!r}).read_text()).get(str(uid))
    return known and disk_quota.Usage(*(disk_quota.Amount(*amount) for amount in known))

disk_quota.read = read
c.Spawner.poll_interval = 1
"""

# What JupyterLab does when somebody chooses its dark theme in the menu.
DARK = """async () => {
  const config = JSON.parse(document.getElementById("jupyter-config-data").textContent);
  const answer = await fetch(`${config.baseUrl}lab/api/settings/@jupyterlab/apputils-extension:themes`, {
    method: "PUT",
    headers: { "X-XSRFToken": document.cookie.match(/_xsrf=([^;]*)/)[1], "Content-Type": "application/json" },
    body: JSON.stringify({ raw: JSON.stringify({ theme: "JupyterLab Dark" }) }),
  });
  if (!answer.ok) throw new Error(answer.status);
}"""


@pytest.fixture(scope="module")
def hoarder(target):
    return make_account(target, "hoarder")


@pytest.fixture(scope="module")
def uses(site, target, hoarder):
    """Sets how much the hoarder uses, in GB; 10 is their soft limit and 12 their hard one."""

    def use(gigabytes, killed=0):
        space = [int(gigabytes * GB), 10 * GB, 12 * GB, int(time.time()) + 6 * 86400]
        text = json.dumps({str(hoarder.uid): [space, [7]], "killed": killed} if gigabytes else {})
        target.ssh(f"sudo tee {USAGE} >/dev/null", input=text)

    use(0)
    target.ssh(f"sudo tee {CONFIG} >/dev/null", input=STAND_IN)
    assert site.salt("tljh_config.reload", "hub", "timeout=60").returncode == 0
    yield use
    target.sudo(f"rm -f {CONFIG} {USAGE}")
    assert site.salt("tljh_config.reload", "hub", "timeout=60").returncode == 0


def problems(page):
    """What axe-core finds in the notice, its contrast included."""
    return [(rule["id"], rule["impact"]) for rule in Axe().run(page, context="#plasma-notice").response["violations"]]


def test_jupyterlab_shows_a_notice_until_it_is_dismissed(uses, page, url, hoarder, course, pictures):
    notice = page.locator("#plasma-notice")
    sign_in(page, url, hoarder.name, hoarder.password)
    start_server(page, url, "python-course")
    expect(notice).to_be_empty()

    uses(11)
    time.sleep(3)  # the hub looks every second here
    page.reload()
    wait_for_lab(page)
    expect(notice).to_contain_text("You use 11 GB of disk space; your limit is 10 GB.")
    expect(notice).to_have_attribute("role", "status")
    assert problems(page) == []
    picture(page, "quota-notice", pictures)

    page.keyboard.press("Escape")
    notice.get_by_role("button", name="Dismiss this notice").press("Enter")
    expect(notice).to_be_empty()
    page.reload()
    wait_for_lab(page)
    page.wait_for_timeout(1000)
    expect(notice).to_be_empty()

    # It comes back when it becomes worse, in the dark as well.
    uses(12)
    time.sleep(3)
    page.evaluate(DARK)
    page.reload()
    page.locator("body[data-jp-theme-light=false] .jp-LauncherCard").first.wait_for()
    expect(notice).to_contain_text("You cannot save any more")
    expect(notice).to_have_attribute("role", "alert")
    assert problems(page) == []

    # What is this server's alone comes first, without a reload, and hides nothing.
    uses(12, killed=2)
    expect(notice).to_contain_text("Your server ran out of memory (2 times)", timeout=60_000)
    expect(notice).to_contain_text("had used all of its 2 GB of memory")
    notice.get_by_role("button", name="Dismiss this notice").press("Enter")
    expect(notice).to_contain_text("You cannot save any more")


def test_the_hubs_pages_show_it_too(uses, browser, url, hoarder):
    with new_page(browser, viewport=PHONE) as page:
        uses(11)
        sign_in(page, url, hoarder.name, hoarder.password)
        for theme in ("light", "dark"):
            page.goto(f"{url}/hub/home")
            use_theme(page, theme)
            expect(page.locator("#plasma-notice")).to_contain_text("Until ")
            assert overflow(page) == 0
            assert serious_problems(page) == []


def test_nothing_is_said_to_others_and_when_all_is_well(uses, visit, url, hoarder, ada):
    uses(11)
    page = visit(ada)
    page.goto(f"{url}/hub/home")
    expect(page.locator("#plasma-notice")).to_have_count(0)
    uses(9)
    page = visit(hoarder)
    page.goto(f"{url}/hub/home")
    expect(page.locator("#plasma-notice")).to_have_count(0)
