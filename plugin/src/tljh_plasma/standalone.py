"""Plasma on plain JupyterHub and Traefik, without TLJH.

It reads the keys of TLJH's config.yaml and means the same by them, so that a server can be managed in one way
whichever of the two runs on it. It is not a second TLJH: users, authenticators and the user environment are not its
business.

``python -m tljh_plasma.standalone traefik`` renders the proxy's configuration and is run before the proxy starts, and
``python -m tljh_plasma.standalone files`` before the one of TLJH, which is rendered by its own tools and completed;
``python -m tljh_plasma.standalone hub`` becomes the hub.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import settings
from .hub_keys import API_PORT
from .secret_files import kept_secret
from .settings import Settings, SettingsError

# TLJH's defaults for the keys we read.
DEFAULTS: dict[str, Any] = {
    "base_url": "/",
    "users": {"allowed": [], "banned": [], "admin": []},
    "http": {"address": "", "port": 80},
    "https": {
        "enabled": False,
        "address": "",
        "port": 443,
        "tls": {"cert": "", "key": ""},
        "letsencrypt": {"email": "", "domains": [], "staging": False, "acme_server": ""},
    },
    "traefik_api": {"ip": "127.0.0.1", "port": API_PORT, "username": "api_admin", "password": ""},
    "services": {
        "cull": {
            "enabled": True,
            "timeout": 600,
            "every": 60,
            "concurrency": 5,
            "users": False,
            "max_age": 0,
            "remove_named_servers": False,
        }
    },
}


def merge(base: dict[str, Any], extra: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return ``base`` with ``extra`` laid over it, key by key; neither is changed.

    A null in ``extra`` keeps the default: that is how people empty a key in YAML.

    Raises:
        SettingsError: a mapping meets something else.
    """
    result = copy.deepcopy(base)
    for key, value in extra.items():
        where = f"{path}{key}"
        if isinstance(result.get(key), dict):
            if value is None:
                continue
            if not isinstance(value, dict):
                raise SettingsError(f"config.yaml: {where} must be a mapping, not {value!r}.")
            result[key] = merge(result[key], value, f"{where}.")
        elif value is not None or key not in result:
            result[key] = copy.deepcopy(value)
    return result


def defaulted(config: dict[str, Any]) -> dict[str, Any]:
    """Return config.yaml with TLJH's defaults, and the proxy's API at a port that is root's.

    Raises:
        SettingsError: a key of config.yaml cannot be used.
    """
    result = merge(DEFAULTS, config)
    result["traefik_api"]["port"] = settings.inner_port("traefik_api.port", result["traefik_api"]["port"], API_PORT)
    return result


def api_password(state_dir: Path) -> str:
    """Return the password of Traefik's API, kept in ``traefik-api.secret``."""
    return kept_secret(state_dir / "traefik-api.secret")


def culler(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the idle culler as (service, role), from ``services.cull``.

    The role holds the few scopes the culler needs instead of full administration.
    """
    cull = config["services"]["cull"]
    command = [
        sys.executable,
        "-m",
        "jupyterhub_idle_culler",
        f"--timeout={int(cull['timeout'])}",
        f"--cull-every={int(cull['every'])}",
        f"--concurrency={int(cull['concurrency'])}",
        f"--max-age={int(cull['max_age'])}",
    ]
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    if cull["users"]:
        command.append("--cull-users")
        scopes.append("admin:users")
    if cull["remove_named_servers"]:
        command.append("--remove-named-servers")
    service = {"name": "cull-idle", "command": command}
    role = {"name": "plasma-cull-idle", "scopes": scopes, "services": ["cull-idle"]}
    return service, role


def apply(c: Any, values: Settings) -> None:
    """Set in ``c`` what TLJH would set from the same config.yaml.

    Args:
        c: the traitlets ``Config`` object.
        values: the settings.

    Raises:
        SettingsError: a key of config.yaml cannot be used.
    """
    config = defaulted(values.config)
    state = values.state_dir

    c.JupyterHub.base_url = config["base_url"]
    c.JupyterHub.db_url = f"sqlite:///{state / 'jupyterhub.sqlite'}"

    users = config["users"]
    c.Authenticator.allowed_users = {str(name) for name in users["allowed"]}
    c.Authenticator.blocked_users = {str(name) for name in users["banned"]}
    c.Authenticator.admin_users = {str(name) for name in users["admin"]}

    # auth.<Class>.<trait>: as in TLJH. auth.type is not read, Plasma logs in through PAM.
    for name, traits in settings.section(config, "auth").items():
        if name[:1].isupper() and isinstance(traits, dict):
            for trait, value in traits.items():
                if value is not None:
                    c[name][trait] = value

    # Traefik runs as a unit of its own, so that it outlives the hub.
    api = config["traefik_api"]
    c.JupyterHub.proxy_class = "traefik_file"
    c.TraefikProxy.should_start = False
    c.TraefikFileProviderProxy.dynamic_config_file = str(state / "rules" / "rules.toml")
    c.TraefikProxy.traefik_api_url = f"http://{api['ip']}:{api['port']}"
    c.TraefikProxy.traefik_api_username = api["username"]
    c.TraefikProxy.traefik_api_password = api["password"] or api_password(state)
    c.TraefikProxy.traefik_entrypoint = "https" if config["https"]["enabled"] else "http"

    # Plain lists: a plugin that iterates over the unset trait would get a LazyConfigValue.
    c.JupyterHub.services = []
    c.JupyterHub.load_roles = []
    if config["services"]["cull"]["enabled"]:
        service, role = culler(config)
        c.JupyterHub.services.append(service)
        c.JupyterHub.load_roles.append(role)


def configure(c: Any, hook: Callable[[Any], None]) -> list[Path]:
    """Do for plain JupyterHub what TLJH's jupyterhub_config.py does.

    Args:
        c: the traitlets ``Config`` object.
        hook: the plugin's hook.

    Returns:
        The files of jupyterhub_config.d, to be loaded last, in order.
    """
    values = settings.load()
    apply(c, values)
    hook(c)
    return sorted((values.config_dir / "jupyterhub_config.d").glob("*.py"))


def main(arguments: list[str] | None = None) -> int:
    """Command line: ``python -m tljh_plasma.standalone {traefik,files,hub}``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["hub"]:
        # The configuration's path holds the version of Python: only Python itself knows it.
        config = str(Path(__file__).with_name("standalone_config.py"))
        # As TLJH does: the database follows the hub's version; nothing happens when it is up to date.
        os.execv(sys.executable, [sys.executable, "-m", "jupyterhub", "-f", config, "--upgrade-db"])
    if arguments not in (["traefik"], ["files"]):
        print("usage: python -m tljh_plasma.standalone {traefik,files,hub}", file=sys.stderr)
        return 2
    from . import traefik

    try:
        (traefik.render if arguments == ["traefik"] else traefik.complete)(settings.load())
    except (SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
