"""The templates for teachers: copied, built by the real builder, and started and worked with in a browser."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import secrets
import time

import pytest
import yaml
from playwright.sync_api import expect
from repo2docker.app import Repo2Docker
from repo2docker.buildpacks import PythonBuildPack
from support_builds import Bench
from support_hub import Hub, wait_until
from support_service import Visitor, quoted, service_answers
from tljh_plasma import trust
from tljh_plasma.buildpack.packs import packs
from tljh_plasma.buildpack.plasma_buildpack import PlasmaPython
from tljh_plasma.buildpack.plasma_r import PlasmaR
from tljh_plasma.builds import Builder
from tljh_plasma.builds.local import BASE, BUILDER

from tests.support.browsing import browser as new_browser
from tests.support.browsing import new_page, sign_in
from tests.support.builder_image import local_images
from tests.support.debian import extra_authorities
from tests.support.git_repository import Repository, bridge_address, serve, template
from tests.support.paths import REPOSITORY

TEMPLATES = REPOSITORY / "docs" / "templates"
BUILT = ("python", "r", "vscode")


@pytest.mark.parametrize(
    ("name", "ours", "plain"),
    [
        ("python", PlasmaPython, PythonBuildPack),
        # Its script postBuild says there that nothing brought R.
        ("r", PlasmaR, PythonBuildPack),
        ("bash", PlasmaPython, PythonBuildPack),
        ("vscode", PlasmaPython, PythonBuildPack),
    ],
)
def test_what_repo2docker_takes_a_template_for(name, ours, plain, monkeypatch):
    """With our build packs, and with its own alone."""
    monkeypatch.chdir(TEMPLATES / name)
    for kinds, kind in ((packs(), ours), (Repo2Docker.buildpacks.default(), plain)):
        assert next(one for one in kinds if one(base_image="x").detect()) is kind


class Templates:
    """The images that were built of them, and what each is opened with."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self.opens: dict[str, str] = {}

    def image(self, name: str) -> str:
        return self.bench.image(name)

    def shown(self, name: str) -> str:
        """What people read, which no other test's environment is called."""
        return self.image(name).partition(":")[0]

    def repository(self, name: str) -> Repository:
        """As the documentation has teachers make it; what the template's own text says of pillar counts."""
        made = template(self.bench.served / name, name)
        (text,) = re.findall(r"```yaml\n(.*?)```", (made.path / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        (entry,) = yaml.safe_load(text)["plasma"]["environments"]
        self.opens[name] = entry["opens"]
        return made

    async def build(self, settings, prefix) -> None:
        builder = Builder(self.bench.context, self.bench.manager, dataclasses.replace(settings, prefix=prefix))
        requests = {
            name: self.bench.request(
                self.repository(name), image=self.image(name), name=self.shown(name), memory=2 * 1024**3
            )
            for name in BUILT
        }

        async def follow(name: str) -> None:
            begun = time.monotonic()
            log = "".join([piece async for piece in builder.follow(requests[name].image)])
            row = await self.bench.row(requests[name].image)
            assert row is not None and row.status == "built", log
            print(f"template {name}: built after {time.monotonic() - begun:.0f} s, all at once")

        try:
            for request in requests.values():
                await builder.submit(request)
            await asyncio.gather(*map(follow, requests))
        finally:
            await builder.close()


@pytest.fixture(scope="module")
def templates(docker_host, tmp_path_factory):
    directory = tmp_path_factory.mktemp("templates")
    served = directory / "served"
    served.mkdir()
    local_images()
    with serve(served, bridge_address()) as url, pytest.MonkeyPatch.context() as patch:
        # As on a server whose pillar names the authorities of this machine, if it has any.
        patch.setattr(trust, "own", lambda: [path.read_bytes() for path in extra_authorities()])
        made = Templates(Bench(directory, served, url, docker_host, BUILDER, BASE))
        try:
            asyncio.run(made.build(made.bench.settings(image="local", parallel=3, timeout=900), directory))
            yield made
        finally:
            made.bench.clean()


@pytest.fixture(scope="module")
def site(docker_host, templates, accounts, tmp_path_factory):
    """A hub with these environments, each with what it opens with."""
    boss = accounts.add("boss")
    running = Hub(tmp_path_factory.mktemp("site"), boss.name, {"shared_data": ""})
    running.student = accounts.add("pupil")
    running.visitors.add(running.student.name)
    running.start()
    wait_until(lambda: service_answers(running), 60, "service")
    teacher = Visitor(running, boss.name, boss.password)
    for name, opens in templates.opens.items():
        answer = teacher.call("PATCH", f"api/environments/{quoted(templates.image(name))}", {"opens": opens})
        assert answer.status_code == 200, answer.text
    yield running
    running.stop()
    running.remove_containers(docker_host)


@pytest.fixture(scope="module")
def browser():
    with new_browser() as started:
        yield started


@pytest.fixture
def started(site, templates, browser):
    """Start an environment on the page of the hub, and wait for what it opens with; returns page and directory."""
    with new_page(browser) as page:

        def start(name: str, place: str):
            sign_in(page, site.url, site.student.name, site.student.password)
            page.goto(f"{site.url}/hub/spawn")
            page.get_by_label(templates.shown(name), exact=True).check()
            page.get_by_role("button", name="Start").click()
            page.wait_for_url(re.compile(rf"/user/[^/]+{re.escape(place)}"), timeout=180_000)
            return page, site.student.home / templates.shown(name)

        yield start
    site.stop_server(site.student.name)


def run_notebook(page, kernel: str) -> None:
    """Open the notebook of a course and run all of it."""
    page.goto(f"{page.url.partition('/lab')[0]}/lab/tree/course.ipynb")
    # JupyterLab drops what is run before its kernel is connected; the status bar says when it is.
    expect(page.get_by_role("button", name=f"{kernel} | Idle")).to_be_visible()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


@pytest.mark.docker
@pytest.mark.parametrize(
    ("name", "kernel", "table"), [("python", "Python 3 (ipykernel)", "count"), ("r", "R", "Min.")], ids=["python", "r"]
)
def test_the_notebook_runs_from_its_first_cell_to_its_picture(started, name, kernel, table):
    page, directory = started(name, "/lab")
    run_notebook(page, kernel)
    outputs = page.locator(".jp-Notebook .jp-OutputArea-output")
    expect(outputs.first).to_contain_text("3.875")
    expect(page.locator(".jp-Notebook")).to_contain_text(table)
    # The picture is one of many pixels, and not an error.
    picture = page.locator(".jp-Notebook .jp-OutputArea-output img").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 200
    if name == "r":
        # Where people install packages of their own.
        assert list((directory.parent / "R").glob("*/*")) or list((directory / "R").glob("*/*"))


@pytest.mark.docker
def test_vs_code_opens_a_file_and_a_terminal(started):
    page, directory = started("vscode", "/vscode/")
    page.get_by_role("treeitem", name="first.py").dblclick()
    expect(page.locator(".monaco-editor .view-lines").first).to_contain_text("numbers = [3, 1, 4, 1, 5, 9, 2, 6]")
    page.keyboard.press("Control+Backquote")
    trust_them = page.get_by_role("button", name="Trust Folder & Continue")
    trust_them.click()
    expect(trust_them).to_be_hidden()
    expect(page.locator(".xterm-helper-textarea").first).to_be_attached()
    page.locator(".terminal-wrapper.active").click()
    mark = secrets.token_hex(4)
    page.keyboard.type(f"python first.py > {mark}.txt && mv {mark}.txt {mark}.done")
    page.keyboard.press("Enter")
    wait_until((directory / f"{mark}.done").exists, 60, "the command in the terminal")
    assert (directory / f"{mark}.done").read_text() == "3.875\n"
    # No chat, as the settings in the repository say.
    expect(page.get_by_text("Build with Agent")).to_have_count(0)
