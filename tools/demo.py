"""
A throwaway server on this machine with the site applied to it over SSH: `make demo`, `make demo-down`.

The server is a container with systemd, sshd and a sudo user, nothing else; what is applied to it is this tree, through
salt-ssh, as on any server. HUB=tljh takes the official installer instead of the embedded provider, from its own sources
or from the directory PLASMA_TLJH_SOURCE.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

from rich.console import Console
from rich.panel import Panel

from tests.support.container import ContainerTarget
from tests.support.engine import ensure_engine
from tests.support.environment_image import environment_image, load_into
from tests.support.images import base_image
from tests.support.paths import state_dir
from tests.support.shell import SupportError
from tests.support.site import Site
from tests.support.tljh import stage, tljh_pillar
from tools.plasma_follow import follow

NAME = "demo"
PROVIDERS = ("pypi", "tljh")
ACCOUNTS = ("teacher", "student")


def demo_pillar(provider: str, passwords: dict[str, str]) -> dict:
    """What an operator would write for this server: the engine of the distribution, no tool from elsewhere."""
    return {
        "hub": tljh_pillar() if provider == "tljh" else {"provider": "pypi"},
        "docker": {"source": "distro"},
        "utils": {"monitor": "none"},
        "users": [
            {"name": name, "password": password, "admin": name == "teacher"} for name, password in passwords.items()
        ],
        # Each `make demo` prints passwords that work.
        "password_policy": "enforce",
    }


class Work(threading.Thread):
    """Runs a function beside the rest and hands over its result or its error."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self.function = function
        self.value = None
        self.error = None
        self.start()

    def run(self):
        try:
            self.value = self.function()
        except Exception as error:  # handed over by result()
            self.error = error

    def result(self):
        self.join()
        if self.error:
            raise self.error
        return self.value


def apply(site: Site, console: Console) -> None:
    """Apply the site, showing its progress through a second connection as an operator would."""
    log = site.directory / "apply.log"
    with log.open("w", encoding="utf-8") as output:
        process = site.start("state.apply", stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        follow(site.target.name, site.target.roster_entry(), 120, console)
        code = process.wait()
    if code:
        console.print(log.read_text(encoding="utf-8")[-6000:], markup=False)
        raise SupportError(f"The apply failed (code {code}); everything it said is in {log}")


def wait_for_url(url: str, timeout: float = 30) -> None:
    """Return when the login page answers from this machine."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(f"{url}/hub/login", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise SupportError(f"{url}/hub/login does not answer: {error}") from error
        time.sleep(0.5)


def up(provider: str, console: Console) -> int:
    """Bring the demo up and say how to use it."""
    started = time.monotonic()
    directory = state_dir() / NAME
    console.print(
        "[bold]Plasma on Salt[/]: a throwaway server on this machine. The first time, its Debian is made too."
    )
    with console.status("Starting a Docker engine for the throwaway server"):
        ensure_engine()
    with console.status("Making the server's Debian (about a minute, once)"):
        base_image()
    with console.status("Booting the server"):
        target = ContainerTarget(NAME).up()
        if provider == "tljh":
            stage(target)
    console.print(f"The server runs at {target.host}; applying the site to it with salt-ssh.")
    environment = Work(environment_image)
    passwords = {name: secrets.token_urlsafe(9) for name in ACCOUNTS}
    site = Site(target, directory, demo_pillar(provider, passwords))
    apply(site, console)
    with console.status("Making an environment that users can start (about a minute, once)"):
        load_into(target, environment.result())
    url = f"http://{target.host}"
    wait_for_url(url)
    lines = [f"[bold]{url}[/]", ""]
    lines += [f"{name:8} password  [bold]{password}[/]" for name, password in passwords.items()]
    lines += [
        "",
        "Log in, start the environment, run a cell: the notebook is then in the user's home on the server.",
        f"From elsewhere: ssh -L 8000:{target.host}:80 <this machine>, then http://localhost:8000",
        "`make demo-down` removes all of it.",
    ]
    console.print(Panel("\n".join(lines), title=f"Ready after {time.monotonic() - started:.0f} s", expand=False))
    return 0


def down(console: Console) -> int:
    """Remove the server, its volumes and what was written for it."""
    ContainerTarget(NAME).down()
    directory = state_dir() / NAME
    subprocess.run(["rm", "-rf", "--", str(directory)], check=True)
    console.print("The demo's server is gone. Its Debian image stays for the next one: `make clean` removes that too.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description="A throwaway server with Plasma on it.")
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--hub", choices=PROVIDERS, default=os.environ.get("HUB") or "pypi")
    arguments = parser.parse_args()
    if arguments.hub not in PROVIDERS:  # argparse does not look at a default
        parser.error(f"HUB is {arguments.hub!r}: it can be {' or '.join(PROVIDERS)}")
    console = Console()
    if os.geteuid() != 0:
        console.print("Making a Debian root needs root: run this as root, or with sudo.")
        return 1
    try:
        return up(arguments.hub, console) if arguments.action == "up" else down(console)
    except SupportError as error:
        console.print(f"[red]{error}[/]", markup=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
