"""
A throwaway server for each file of tests, which starts from a snapshot of one that was deployed over SSH as an operator
does it: the tests of deployment (test_deploy.py) begin with a bare one.

PLASMA_TLJH_SOURCE=directory runs everything against the official installer from that source. PLASMA_KEEP=1 leaves the
servers up afterwards, and PLASMA_KEPT=name takes that one, as it is, if it is up already.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests

from tests.support import browsing, builder_image, paths, snapshot
from tests.support.container import ContainerTarget
from tests.support.engine import ensure_engine
from tests.support.environment_image import environment_image, load_into
from tests.support.git_repository import bridge_address
from tests.support.hub import HubUser
from tests.support.images import image_id
from tests.support.shell import wait_for
from tests.support.site import Site
from tests.support.tljh import local_source, stage, tljh_pillar

PROVIDER = "tljh" if os.environ.get("PLASMA_TLJH_SOURCE") else "pypi"


def site_pillar() -> dict:
    """A server that needs nothing but Debian's packages and PyPI: the provider pypi by itself is enough for that."""
    closed = {"docker": {"source": "distro"}, "utils": {"monitor": "none"}} if PROVIDER == "tljh" else {}
    return {
        "hub": tljh_pillar() if PROVIDER == "tljh" else {"provider": "pypi"},
        **closed,
        # Tests that build load it: it is not made anew on each server.
        "builder": {"image": builder_image.TAG},
        "admins": ["teacher"],
        "groups": ["maths"],
        # Where tests serve repositories.
        "network": {"builds": [bridge_address()]},
    }


def fresh_target(name: str) -> ContainerTarget:
    """A server with sshd, a sudo user and nothing else."""
    ensure_engine()
    target = ContainerTarget(name)
    target.down()
    target.up()
    if local_source():
        stage(target)
    return target


@contextlib.contextmanager
def bare_server(name: str) -> Iterator[ContainerTarget]:
    """Such a server, until its tests have run."""
    target = fresh_target(name)
    yield target
    if not os.environ.get("PLASMA_KEEP"):
        target.down()


def snapshot_tag() -> str:
    """The image of a server that has this tree."""
    return snapshot.image_of(site_pillar())


def deploy(target, tmp_path_factory) -> None:
    """Apply the site to a bare server."""
    first = Site(target, tmp_path_factory.mktemp("deploy"), site_pillar()).apply()
    assert not first.failed, "\n".join(f"{key}: {comment}" for key, comment in first.failed.items())


def deployed_image(tmp_path_factory) -> str:
    """The image of a deployed server, which whoever comes first makes."""
    tag = snapshot_tag()
    with paths.lock("snapshot"):
        if not image_id(tag):
            origin = fresh_target("origin")
            deploy(origin, tmp_path_factory)
            snapshot.take(origin, tag)
            origin.down()
    return tag


@pytest.fixture(scope="module")
def target(request, tmp_path_factory):
    """A deployed server of this file's own."""
    ensure_engine()
    target = ContainerTarget(os.environ.get("PLASMA_KEPT") or server_name(request.module))
    if not (os.environ.get("PLASMA_KEPT") and target.is_up()):
        target.down()
        if getattr(request.module, "FROM_SNAPSHOT", True):
            target.snapshot = deployed_image(tmp_path_factory)
        else:
            deploy(fresh_target(target.name), tmp_path_factory)
    target.up()
    wait_for(lambda: hub_answers(target), timeout=120, what=f"the hub of {target.name}")
    yield target
    if not os.environ.get("PLASMA_KEEP"):
        target.down()


def server_name(module) -> str:
    """The host name of the server of a file of tests."""
    return module.__name__.rpartition(".")[2].replace("test_", "e2e-").replace("_", "-")


def hub_answers(target) -> bool:
    """Whether its login page is there."""
    try:
        return requests.get(f"http://{target.host}/hub/login", timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def site(target, tmp_path_factory):
    return Site(target, tmp_path_factory.mktemp("site"), site_pillar())


@dataclass
class Kept:
    """A server whose capabilities are switched on and off again."""

    target: ContainerTarget
    site: Site

    def with_pillar(self, **keys) -> None:
        """Set keys of the pillar over those that every server of the suite has."""
        self.site.set_pillar({**site_pillar(), **keys})


@pytest.fixture(scope="module")
def kept_server(target, site):
    """The same server with what changes its pillar."""
    return Kept(target, site)


@pytest.fixture
def kept(kept_server):
    """That server, with the pillar of the suite at first. Tests leave it with a hub that works."""
    kept_server.with_pillar()
    return kept_server


@pytest.fixture
def pillar(site):
    """Changes to the pillar for one test; what was there comes back afterwards."""
    before = site.pillar
    yield lambda **keys: site.set_pillar({**before, **keys})
    site.set_pillar(before)


@dataclass
class Account:
    """A system user of the server, with what is needed to log in."""

    name: str
    password: str
    uid: int
    gid: int
    home: str


def make_account(target, name: str, *options: str) -> Account:
    """Create a system user with a generated password, which reaches the server through standard input."""
    password = secrets.token_urlsafe(9)
    target.sudo(["useradd", "--create-home", "--shell", "/bin/bash", *options, name])
    target.ssh("sudo chpasswd", input=f"{name}:{password}\n")
    entry = target.ssh(["getent", "passwd", name]).stdout.strip().split(":")
    return Account(name, password, int(entry[2]), int(entry[3]), entry[5])


@pytest.fixture(scope="module")
def course(target) -> str:
    """The name of an environment image on the server."""
    image = environment_image()
    load_into(target, image)
    return image


@pytest.fixture(scope="module")
def plain(target, course) -> str:
    """The same image without limits of its own: those of pillar apply."""
    image = environment_image("plain-course:2026", mem_limit="", cpu_limit="")
    load_into(target, image)
    return image


@pytest.fixture(scope="module")
def ada(target) -> Account:
    # A primary group of another number: what takes the uid for the gid shows.
    target.sudo("groupadd --gid 4200 course-a")
    return make_account(target, "ada", "--gid", "course-a")


@pytest.fixture(scope="module")
def grace(target) -> Account:
    return make_account(target, "grace")


@pytest.fixture(scope="module")
def teacher(target) -> Account:
    """The administrator of the hub that pillar names."""
    return make_account(target, "teacher")


@pytest.fixture(scope="session")
def browser():
    with browsing.browser() as started:
        yield started


@pytest.fixture
def page(browser):
    with browsing.new_page(browser) as page:
        yield page


@pytest.fixture
def visit(browser, url):
    """Pages of people who have signed in, each with a browser session of their own."""
    with contextlib.ExitStack() as pages:

        def _visit(account: Account, **options):
            page = pages.enter_context(browsing.new_page(browser, **options))
            browsing.sign_in(page, url, account.name, account.password)
            return page

        yield _visit


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def url(target) -> str:
    return f"http://{target.host}"


@pytest.fixture
def login(url):
    """Log a person in without a browser."""

    def _login(account: Account) -> HubUser:
        person = HubUser(url, account.name)
        person.login(account.password)
        assert person.logged_in
        return person

    return _login
