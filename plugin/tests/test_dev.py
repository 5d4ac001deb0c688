"""`make dev`: starts, shows what is changed at once, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
from support_hub import LABEL_USER, free_port, wait_until

from plugin.dev import options
from plugin.dev.watch import Watch

ROOT = Path(__file__).resolve().parents[2]
READY = "Plasma runs at"
AGAIN = "changed: the hub starts again"


class Dev:
    """`make dev` with a state of its own and a copy of the plugin to change.

    Args:
        directory: for both.
        docker_host: address of the engine.
        admin: the administrator.
    """

    def __init__(self, directory: Path, docker_host: str, admin: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.package = directory / "src" / "tljh_plasma"
        shutil.copytree(ROOT / "plugin" / "src", directory / "src", ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {
            **os.environ,
            "DOCKER_HOST": docker_host,
            "PLASMA_STATE_DIR": str(directory / "state"),
            "PLASMA_DEV_ADMIN": admin,
            "PLASMA_DEV_PORT": str(self.port),
            "PYTHONPATH": str(directory / "src"),
        }
        self.said = ""
        self.process: subprocess.Popen | None = None

    def call(self, **variables: str) -> subprocess.CompletedProcess:
        """Run it where it is to end by itself."""
        environment = {**self.environment, **variables}
        return subprocess.run(
            [sys.executable, "-m", "plugin.dev"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )

    def start(self) -> None:
        """Run it until the hub answers."""
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "plugin.dev"],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

        def ready() -> bool:
            assert self.process.poll() is None, self.said[-5000:]
            return READY in self.said

        wait_until(ready, 120, "make dev")

    def _read(self, process: subprocess.Popen) -> None:
        for line in process.stdout:
            self.said += line

    def interrupt(self) -> None:
        """Press Ctrl-C and wait for the end."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0, self.said[-3000:]

    def left(self) -> list[str]:
        """What is left of it: processes that know its state directory, in arguments or variables."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
            if process.name != str(os.getpid()) and str(self.directory).encode() in text:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    def login(self, person) -> tuple[requests.Session, requests.Response]:
        """Log in through the form."""
        session = requests.Session()
        page = session.get(f"{self.url}/hub/login", timeout=30)
        token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)[1]
        form = {"username": person.name, "password": person.password, "_xsrf": token}
        return session, session.post(f"{self.url}/hub/login?next=", data=form, timeout=60)


@pytest.fixture(scope="module")
def teacher(accounts):
    return accounts.add("dev")


@pytest.fixture(scope="module")
def dev(docker_host, environment, teacher, tmp_path_factory):
    running = Dev(tmp_path_factory.mktemp("dev"), os.environ["DOCKER_HOST"], teacher.name)
    yield running
    if running.process and running.process.poll() is None:
        running.process.kill()
        running.process.wait()


def add(path: Path, text: str) -> None:
    """Add a text to a template, in a block that every page has."""
    path.write_text(path.read_text() + "\n" + text + "\n")


@pytest.mark.docker
def test_work_on_the_hub(dev, teacher, environment, docker_host):
    dev.start()
    assert f"administrator  {teacher.name}" in dev.said
    assert "has no password" not in dev.said

    # A second one keeps off.
    second = dev.call(PLASMA_DEV_PORT=str(free_port()))
    assert second.returncode == 1
    assert "make dev runs already" in second.stdout
    taken = dev.call()
    assert taken.returncode == 1
    assert f"Port {dev.port} cannot be used" in taken.stdout
    assert "PLASMA_DEV_PORT=" in taken.stdout

    session, page = dev.login(teacher)
    assert page.url == f"{dev.url}/hub/spawn"
    assert f'value="{environment}"' in page.text
    assert "[D " in dev.said, "the log is a debugger's"

    # A change of a template shows on the next request: of the hub's, the list's and the service's.
    service = f"{dev.url}/services/plasma/environments"
    wait_until(lambda: session.get(service, timeout=30).status_code == 200, 60, "service")
    templates = dev.package / "templates"
    page_template = templates / "hub" / "page.html"
    page_template.write_text(page_template.read_text().replace("· {% endif %}Plasma", "· {% endif %}Changed title"))
    assert "Changed title</title>" in requests.get(f"{dev.url}/hub/login", timeout=30).text
    add(templates / "options_form.html", "<p>Changed list</p>")
    assert "Changed list" in session.get(f"{dev.url}/hub/spawn", timeout=30).text
    base = templates / "service" / "base.html"
    base.write_text(base.read_text().replace("</title>", " (changed)</title>"))
    before = session.get(service, timeout=30).text
    assert "(changed)</title>" in before
    # Browsers keep style sheets under a name that changes with them.
    add(dev.package / "static" / "plasma.css", "/* changed */")
    after = session.get(service, timeout=30).text
    name = re.compile(r'href="([^"]*plasma\.css\?v=[^"]+)"')
    assert name.search(before)[1] != name.search(after)[1]
    assert "/* changed */" in session.get(f"{dev.url}{name.search(after)[1]}", timeout=30).text
    assert AGAIN not in dev.said

    # A server of the administrator's.
    token = re.search(r'action="([^"]*_xsrf=[^"]*)"', page.text)[1].replace("&amp;", "&")
    session.post(f"{dev.url}{token}", data={"image": environment}, timeout=60)
    lab = f"{dev.url}/user/{teacher.name}/lab"
    wait_until(lambda: session.get(lab, timeout=60).url.startswith(lab), 120, "server")

    # A change of code starts the hub again, under a server that goes on.
    with (dev.package / "failures.py").open("a") as file:
        file.write("\n# changed\n")
    wait_until(lambda: AGAIN in dev.said, 60, "restart")
    assert "failures.py changed" in dev.said
    wait_until(lambda: dev.said.count("JupyterHub is now running") == 2, 120, "the hub after a restart")
    status = session.get(f"{dev.url}/user/{teacher.name}/api/status", timeout=30)
    assert status.status_code == 200, status.text[:500]

    # A mistake does not end it.
    with (dev.package / "failures.py").open("a") as file:
        file.write("\ndef mistake(:\n")
    wait_until(lambda: "It starts again when a file changes." in dev.said, 60, "end of the hub")
    (dev.package / "failures.py").write_text((ROOT / "plugin/src/tljh_plasma/failures.py").read_text())
    wait_until(lambda: dev.said.count("JupyterHub is now running") == 3, 120, "the hub after a mistake")

    (server,) = docker_host.containers.list(filters={"label": f"{LABEL_USER}={teacher.name}"})
    (name,) = server.attrs["NetworkSettings"]["Networks"]
    assert name.startswith("plasma-dev-")
    bridge = docker_host.networks.list(names=[name])[0].attrs["Options"]["com.docker.network.bridge.name"]
    assert bridge in rules()
    dev.interrupt()
    assert dev.left() == []
    assert not docker_host.containers.list(all=True, filters={"label": f"{LABEL_USER}={teacher.name}"})
    assert not docker_host.networks.list(names=[name])
    assert bridge not in rules()
    log = (dev.directory / "state" / "dev" / "log" / "hub.log").read_text()
    assert "[D " in log
    assert teacher.password not in log

    # The next run knows what was there.
    dev.start()
    session, page = dev.login(teacher)
    home = session.get(f"{dev.url}/hub/home", timeout=30)
    assert f"Last time: {environment}" in home.text
    dev.interrupt()
    assert dev.left() == []


def rules() -> str:
    """The rules of the firewall, as both kinds of tools show them."""
    shown = ""
    for tool in ("iptables", "iptables-legacy"):
        if shutil.which(tool):
            shown += subprocess.run([tool, "-S"], capture_output=True, text=True, check=False).stdout
    return shown


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(options.DevError, match=f"Port {port} cannot be used .*: stop the program that has it"):
            options.check_port(port)
    options.check_port(port)


@pytest.mark.parametrize("port", ["0", "65536", "eighty", "-1"])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(options.DevError, match="PLASMA_DEV_PORT must be a number from 1 to 65535"):
        options.read({"PLASMA_DEV_PORT": port})


def test_without_root_it_says_why_and_what_still_works(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PLASMA_STATE_DIR", str(tmp_path))
    with pytest.raises(
        options.DevError, match="needs root: .*passwords.*user ids.* 'PLASMA_DEV_UNPRIVILEGED=1 make dev'"
    ):
        options.read({})
    port = str(free_port())
    assert options.read({"PLASMA_DEV_UNPRIVILEGED": "1", "PLASMA_DEV_PORT": port}).port == int(port)


@pytest.mark.parametrize(
    ("environ", "admins"),
    [
        ({"SUDO_USER": "ada"}, ("ada",)),
        ({"SUDO_USER": "ada", "PLASMA_DEV_ADMIN": "grace, linus"}, ("grace", "linus")),
        ({"SUDO_USER": "root"}, ()),
    ],
)
def test_the_administrator_is_who_types_or_who_is_named(environ, admins, monkeypatch, tmp_path):
    monkeypatch.setenv("PLASMA_STATE_DIR", str(tmp_path))
    read = options.read({"PLASMA_DEV_PORT": str(free_port()), **environ})
    assert read.admins == admins


def test_somebody_who_cannot_log_in_is_no_administrator(docker_host, tmp_path):
    dev = Dev(tmp_path, os.environ["DOCKER_HOST"], "games")
    refused = dev.call()
    assert refused.returncode == 1
    assert "games cannot be the administrator" in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr


def test_root_alone_is_nobody_to_administer_a_hub(docker_host, tmp_path):
    refused = Dev(tmp_path, os.environ["DOCKER_HOST"], "").call(SUDO_USER="root")
    assert refused.returncode == 1
    assert "name an account with PLASMA_DEV_ADMIN=" in refused.stdout


def test_changed_files_are_noticed_once(tmp_path):
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "page.html").write_text("1")
    watch = Watch(tmp_path)
    assert watch.changed() == []
    (tmp_path / "page.html").write_text("2")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.py").write_text("1")
    os.utime(tmp_path / "a.py", (1, 1))
    assert watch.changed() == [tmp_path / "a.py", tmp_path / "sub" / "b.py"]
    (tmp_path / "a.py").unlink()
    assert watch.changed() == [tmp_path / "a.py"]
    assert watch.changed() == []
