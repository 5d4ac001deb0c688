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
import shutil
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.panel import Panel

from tests.support import builder_image
from tests.support.container import ContainerTarget
from tests.support.engine import ensure_engine
from tests.support.environment_image import environment_image, load_into
from tests.support.images import base_image
from tests.support.paths import state_dir
from tests.support.shell import SupportError, wait_for
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
        # Its environment is brought: what builds begin with is not made for it.
        "builder": {"image": builder_image.TAG},
        "users": [
            {"name": name, "password": password, "admin": name == "teacher"} for name, password in passwords.items()
        ],
        # Each `make demo` prints passwords that work.
        "password_policy": "enforce",
    }


def apply(site: Site, target: ContainerTarget, console: Console) -> None:
    """Apply the site, showing its progress through a second connection as an operator would."""
    log = site.directory / "apply.log"
    with log.open("w", encoding="utf-8") as output:
        process = site.start("state.apply", stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        follow(target.name, target.roster_entry(), 120, console)
        code = process.wait()
    if code:
        console.print(log.read_text(encoding="utf-8")[-6000:], markup=False)
        raise SupportError(f"The apply failed (code {code}); everything it said is in {log}")


def answers(url: str) -> bool:
    """Whether the login page comes to this machine."""
    try:
        with urllib.request.urlopen(f"{url}/hub/login", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def up(provider: str, console: Console) -> int:
    """Bring the demo up and say how to use it."""
    started = time.monotonic()
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
    passwords = {name: secrets.token_urlsafe(9) for name in ACCOUNTS}
    with ThreadPoolExecutor() as pool:
        environment = pool.submit(environment_image)
        apply(Site(target, state_dir() / NAME, demo_pillar(provider, passwords)), target, console)
        with console.status("Making an environment that users can start (about a minute, once)"):
            load_into(target, environment.result())
    url = f"http://{target.host}"
    wait_for(lambda: answers(url), timeout=30, what=f"the login page at {url}/hub/login")
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
    if (state_dir() / NAME).exists():
        shutil.rmtree(state_dir() / NAME)
    console.print("The demo's server is gone. Its Debian image stays for the next one: `make clean` removes that too.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description="A throwaway server with Plasma on it.")
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--hub", choices=PROVIDERS, help="the hub's provider (default: HUB of the environment)")
    # As an argument the variable is checked, which argparse does not do with a default.
    arguments = parser.parse_args([f"--hub={os.environ.get('HUB') or 'pypi'}", *sys.argv[1:]])
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
