"""
One throwaway server for the whole suite, deployed over SSH as an operator does it.

PLASMA_TLJH_SOURCE=directory runs everything against the official installer from that source. PLASMA_KEEP=1 leaves the
servers up afterwards.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support import browsing
from tests.support.container import ContainerTarget
from tests.support.engine import ensure_engine
from tests.support.environment_image import environment_image, load_into
from tests.support.git_repository import bridge_address
from tests.support.hub import HubUser
from tests.support.site import Result, Site
from tests.support.tljh import local_source, stage, tljh_pillar

PROVIDER = "tljh" if os.environ.get("PLASMA_TLJH_SOURCE") else "pypi"


def site_pillar() -> dict:
    """A server that needs nothing but Debian's packages and PyPI."""
    return {
        "hub": tljh_pillar() if PROVIDER == "tljh" else {"provider": "pypi"},
        "docker": {"source": "distro"},
        "utils": {"monitor": "none"},
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


@pytest.fixture(scope="session")
def target():
    target = fresh_target("e2e")
    yield target
    if not os.environ.get("PLASMA_KEEP"):
        target.down()


@pytest.fixture(scope="session")
def site(target, tmp_path_factory):
    return Site(target, tmp_path_factory.mktemp("site"), site_pillar())


@dataclass
class Kept:
    """A second server, for what lasts years: its capabilities are switched on and off again."""

    target: ContainerTarget
    site: Site

    def with_pillar(self, **keys) -> None:
        """Set keys of the pillar over those that every server of the suite has."""
        self.site.set_pillar({**site_pillar(), **keys})


@contextlib.contextmanager
def deployed(name: str, tmp_path_factory) -> Iterator[Kept]:
    """A server of its own, deployed once. PLASMA_KEPT=name takes that one, as it is, if it is up already."""
    name = os.environ.get("PLASMA_KEPT", name)
    target = ContainerTarget(name)
    ensure_engine()
    if not (os.environ.get("PLASMA_KEPT") and target.is_up()):
        target = fresh_target(name)
    else:
        target.up()
    server = Kept(target, Site(target, tmp_path_factory.mktemp(name), site_pillar()))
    first = server.site.apply()
    assert not first.failed, "\n".join(f"{key}: {comment}" for key, comment in first.failed.items())
    yield server
    if not os.environ.get("PLASMA_KEEP"):
        target.down()


@pytest.fixture(scope="session")
def kept_server(tmp_path_factory):
    """One server for all of `kept`."""
    with deployed("kept", tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def courses_server(tmp_path_factory):
    """One server for environments, whose tests run beside those of the others."""
    with deployed("courses", tmp_path_factory) as server:
        yield server


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
class Deployment:
    """The first runs of the site on a bare server."""

    predicted: Result
    first: Result
    second: Result
    after: Result


@pytest.fixture(scope="session")
def deployment(site) -> Deployment:
    """A dry run, the first apply, the second, and a dry run after them."""
    predicted = site.apply("test=True")
    first = site.apply()
    assert not first.failed, "\n".join(f"{key}: {comment}" for key, comment in first.failed.items())
    return Deployment(predicted, first, site.apply(), site.apply("test=True"))


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


@pytest.fixture(scope="session")
def course(target, deployment) -> str:
    """The name of an environment image on the server."""
    image = environment_image()
    load_into(target, image)
    return image


@pytest.fixture(scope="session")
def plain(target, course) -> str:
    """The same image without limits of its own: those of pillar apply."""
    image = environment_image("plain-course:2026", mem_limit="", cpu_limit="")
    load_into(target, image)
    return image


@pytest.fixture(scope="session")
def ada(target, deployment) -> Account:
    # A primary group of another number: what takes the uid for the gid shows.
    target.sudo("groupadd --gid 4200 course-a")
    return make_account(target, "ada", "--gid", "course-a")


@pytest.fixture(scope="session")
def grace(target, deployment) -> Account:
    return make_account(target, "grace")


@pytest.fixture(scope="session")
def teacher(target, deployment) -> Account:
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


@pytest.fixture(scope="session")
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
