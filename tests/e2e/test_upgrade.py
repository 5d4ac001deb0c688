"""Upgrades with a way back: between two releases of JupyterHub, with new versions that do not work, and cut off."""

from __future__ import annotations

import json
import subprocess
import threading
import time

import pytest
import requests

from tests.e2e.conftest import PROVIDER, make_account
from tests.e2e.test_interruptions import KILL, POINTS, cut, running
from tests.support.environment_image import environment_image, load_into
from tests.support.hub import HubUser
from tests.support.paths import REPOSITORY
from tests.support.shell import wait_for
from tests.support.tree import Tree, requirement

# It puts directories of the hub aside, and one of an image's layer cannot be renamed.
FROM_SNAPSHOT = False

MESSAGE = "The platform is being upgraded."
OLDER = REPOSITORY / "tests/support/files/older-hub.txt"
# A role with a scope that does not exist: JupyterHub finds that after it has migrated its database.
BROKEN_ROLE = "\n    c.JupyterHub.load_roles.append({'name': 'broken', 'scopes': ['no:such:scope']})\n"
PERMISSION = "import sqlite3; d = sqlite3.connect('/opt/tljh/state/plasma.sqlite'); "


def ids(found) -> set[str]:
    return {key.partition("|")[0] for key in found}


class Upgraded:
    """The server with a person whose server runs, and what has to survive."""

    def __init__(self, kept, directory):
        self.target, self.site, self.directory = kept.target, kept.site, directory
        self.url = f"http://{kept.target.host}"
        self.target.sudo("userdel --remove traveller 2>/dev/null || true")
        account = make_account(self.target, "traveller")
        image = environment_image()
        load_into(self.target, image)
        self.person = HubUser(self.url, account.name)
        self.person.login(account.password)
        if not self.person.server():
            self.person.start(image)
        self.token = self.person.api("POST", "/users/traveller/tokens", json={"note": "kept"}).json()["token"]
        self.python(PERMISSION + "d.execute(\"REPLACE INTO permissions VALUES ('x:1', 'maths')\"); d.commit()")
        self.container = self.container_id()

    def tree(self, name: str) -> Tree:
        return Tree(self.directory / name)

    def python(self, code: str) -> str:
        return self.target.ssh("sudo python3 -", input=code).stdout

    def container_id(self) -> str:
        return self.target.sudo("docker ps --quiet --no-trunc --filter name=jupyter-traveller").stdout.strip()

    def versions(self) -> dict:
        return self.site.salt("plasma_hub.packages").value

    def check(self, version: str) -> None:
        """The hub is of this version, and everything of everybody is still there."""
        assert self.versions()["jupyterhub"] == version
        found = requests.get(f"{self.url}/hub/api/user", headers={"Authorization": f"token {self.token}"}, timeout=30)
        assert found.json()["name"] == "traveller"
        assert self.container_id() == self.container
        assert self.person.server()["ready"]
        assert "started" in self.person.status()
        assert self.python(PERMISSION + "print(list(d.execute('SELECT * FROM permissions')))").strip().count("x:1") == 1
        assert MESSAGE not in self.login_page()
        assert self.target.sudo("ls /opt/tljh/plasma").stdout.split().count("upgrade") == 0

    def login_page(self) -> str:
        try:
            return requests.get(f"{self.url}/hub/login", timeout=10).text
        except requests.RequestException:
            return ""

    def revision(self) -> str:
        code = "import sqlite3; d = sqlite3.connect('/opt/tljh/state/jupyterhub.sqlite'); "
        return self.python(code + "print(d.execute('SELECT version_num FROM alembic_version').fetchone()[0])").strip()

    def health(self) -> dict:
        return self.site.salt("plasma_upgrade.health").value


@pytest.fixture(scope="module")
def server(kept_server, tmp_path_factory):
    kept_server.with_pillar()
    directory = tmp_path_factory.mktemp("trees")
    older = Tree(directory / "older")
    older.lock(OLDER.read_text(encoding="utf-8"))
    older.plugin_version("0.0.1")
    kept_server.site.use_tree(older.directory)
    first = kept_server.site.apply("tljh")
    assert not first.failed, first.failed
    found = Upgraded(kept_server, directory)
    yield found
    kept_server.site.use_tree()
    kept_server.target.sudo("systemctl reset-failed jupyterhub traefik")
    assert not kept_server.site.apply("tljh").failed
    found.person.stop()
    kept_server.target.sudo("userdel --remove traveller", check=False)


@pytest.fixture
def samples(server):
    """Login pages as they come while a test goes on."""
    found, ended = [], threading.Event()

    def look():
        while not ended.is_set():
            found.append(server.login_page())
            time.sleep(0.5)

    thread = threading.Thread(target=look)
    thread.start()
    yield found
    ended.set()
    thread.join()


def test_one_release_becomes_the_next(server, samples):
    server.check("5.3.0")
    current = requirement(REPOSITORY / "plugin/requirements.txt", "jupyterhub").split()[0].partition("==")[2]
    server.site.use_tree()
    predicted = server.site.apply("upgrade", "test=True")
    said = predicted.states["upgrade-prepared|/opt/tljh"]["comment"]
    assert f"jupyterhub 5.3.0 -> {current}" in said
    assert "tljh-plasma 0.0.1 -> " in said
    assert "Major" not in said.replace("Major versions change: the Plasma plugin", "")
    server.check("5.3.0")

    result = server.site.apply("upgrade")
    assert not result.failed, result.failed
    assert ids(result.changed) == ids(predicted.predicted) >= {"upgrade-prepared", "hub-installed", "upgrade-settled"}
    change = result.changed["upgrade-settled|/opt/tljh"]
    assert change["jupyterhub"] == {"old": "5.3.0", "new": current}
    assert change["tljh-plasma"]["old"] == "0.0.1"
    server.check(current)
    # An archive, or a copy where the older release makes none.
    data = result.states["upgrade-settled|/opt/tljh"]["comment"].rpartition("of before is in ")[2].rstrip(".")
    assert server.target.sudo(f"stat --format %a {data}").stdout.strip() in ("600", "700")
    # Everybody was told while it went on, those too who had not logged in.
    assert [text for text in samples if MESSAGE in text]
    assert samples[0] and MESSAGE not in samples[0]
    health = server.health()
    assert (health["open"], health["last"]["status"], health["problem"]) == (None, "done", None)
    again = server.site.apply("upgrade")
    assert (again.returncode, again.changed) == (0, {})
    assert server.site.apply("upgrade", "test=True").predicted == set()


@pytest.fixture
def current(server):
    """The versions of this tree, once more where a test has left others."""
    yield server.versions()["jupyterhub"]
    server.site.use_tree()
    mended = server.site.apply("upgrade")
    assert not mended.failed, mended.failed


def raises_at_import(tree):
    tree.append("plugin/src/tljh_plasma/__init__.py", "\nraise RuntimeError('made to fail')\n")
    return "made to fail"


def has_a_wrong_hash(tree):
    """Its packages cannot be installed: one of them is not what it should be."""
    tree.lock("escapism==1.0.1 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    tree.plugin_version("9.9.9")
    return "escapism"


def answers_with_errors(tree):
    """The hub starts, and its API answers; people get no login page."""
    path = "plugin/src/tljh_plasma/templates/hub/login.html"
    tree.edit(path, "<h1>Sign in to Plasma</h1>", "<h1>{{ there.is.no.such.thing }}</h1>")
    return "the login page /hub/login answers with HTTP status 500"


def migrates_and_dies(tree):
    """JupyterHub 6, whose database has other tables, with a configuration that ends it after the migration."""
    tree.lock(requirement(tree.directory / "plugin/next/requirements.txt", "jupyterhub"))
    tree.plugin_version("9.9.9")
    tree.edit("plugin/src/tljh_plasma/config_hook.py", "    store.upgrade()\n", "    store.upgrade()\n" + BROKEN_ROLE)
    return "no:such:scope"


BROKEN = [raises_at_import, has_a_wrong_hash, answers_with_errors, migrates_and_dies]
if PROVIDER == "tljh":
    # The official installer checks no hashes.
    BROKEN.remove(has_a_wrong_hash)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_version_that_does_not_come_up_is_undone(server, current, broken):
    before, revision = server.versions(), server.revision()
    tree = server.tree(broken.__name__)
    reason = broken(tree)
    server.site.use_tree(tree.directory)
    if broken is migrates_and_dies:
        predicted = server.site.apply("upgrade", "test=True")
        assert "Major versions change: JupyterHub 5 -> 6" in predicted.states["upgrade-prepared|/opt/tljh"]["comment"]

    result = server.site.apply("upgrade")
    assert result.returncode != 0
    comment = result.failed["upgrade-settled|/opt/tljh"]
    assert "failed and was undone; JupyterHub " + current in comment
    assert reason in comment
    assert server.versions() == before
    assert server.revision() == revision
    server.check(current)
    if broken is migrates_and_dies:
        # The new version had really changed the data, and that is put aside, too.
        assert "Put back: state/jupyterhub.sqlite" in comment
        kept = comment.rpartition("made of them is in ")[2].split()[0].rstrip(".")
        look = f"import sqlite3; d = sqlite3.connect('{kept}/state/jupyterhub.sqlite'); "
        migrated = server.python(look + "print(d.execute('SELECT version_num FROM alembic_version').fetchone()[0])")
        assert migrated.strip() != revision
    health = server.health()
    assert (health["open"], health["last"]["status"], health["problem"]) == (None, "rolled-back", None)


def start_upgrade_and_kill(server, tree, point="packages"):
    """Kill everything on the server in the middle of an upgrade."""
    server.site.use_tree(tree.directory)
    log = server.site.directory / "upgrade.log"
    with log.open("w", encoding="utf-8") as output:
        process = server.site.start(
            "state.apply", "upgrade", stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    wait_for(
        lambda: running(server.target, POINTS[point]) or process.poll() is not None,
        timeout=300,
        what=point,
        interval=0.05,
    )
    assert process.poll() is None, log.read_text(encoding="utf-8")
    try:
        server.target.sudo(KILL)
    finally:
        cut(process)


@pytest.mark.skipif(PROVIDER == "tljh", reason="the official installer is at another point then")
def test_an_upgrade_that_was_killed_is_finished_or_undone(server, current):
    tree = server.tree("killed")
    tree.lock(requirement(OLDER, "jupyterhub-idle-culler"))
    tree.plugin_version("0.0.2")
    before = server.versions()

    start_upgrade_and_kill(server, tree)
    health = server.health()
    assert health["open"]["status"] == "open"
    assert "state.apply upgrade" in health["problem"]
    undone = server.site.salt("plasma_upgrade.roll_back")
    assert f"JupyterHub {current}" in undone.value["comment"]
    assert server.versions() == before
    server.check(current)

    start_upgrade_and_kill(server, tree)
    # Without the net: the state tljh alone finishes it, and ends what was begun.
    finished = server.site.apply("tljh")
    assert not finished.failed, finished.failed
    assert finished.changed["upgrade-settled|/opt/tljh"]["tljh-plasma"]["new"] == "0.0.2"
    server.check(current)
    assert json.dumps(server.health()["last"]).count("done") == 1
