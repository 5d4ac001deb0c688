"""What the plugin sets in JupyterHub's configuration, under TLJH and without it."""

from __future__ import annotations

import os
import sys
from typing import Any

from tljh_repo2docker import TLJH_R2D_ADMIN_SCOPE
from traitlets.config import LazyConfigValue

from . import domains, front, kept, network, old_ports, operators, routes, settings, theme
from .access import Store
from .secret_files import kept_secret
from .standalone import api_password

SERVICE = "plasma"
COCKPIT = "cockpit"
PREFIX = "TLJH_INSTALL_PREFIX"
# From this length on, a password was made by a program.
RANDOM_PASSWORD = 64
# How a Docker client finds its engine; managed services inherit next to nothing.
DOCKER_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


def landing_page(handler: Any) -> str:
    """Return where a person arrives who asked for no page in particular.

    Somebody with a running server sees all of theirs (the home page); everybody else is taken straight to the list
    of environments to start from.
    """
    from jupyterhub.utils import url_path_join

    user = handler.current_user
    # The login without a "next" in the address, so that the question is asked again after it.
    page = ("home" if user.active else "spawn") if user else "login"
    return url_path_join(handler.hub.base_url, page)


def add_role(c: Any, role: dict[str, Any]) -> None:
    """Add a role to those of the configuration; one of the same name gets the scopes that it lacks.

    Args:
        c: the traitlets ``Config`` object.
        role: as in ``c.JupyterHub.load_roles``.
    """
    for other in _items(c.JupyterHub.load_roles):
        if other.get("name") == role["name"]:
            other["scopes"] = [*other.get("scopes", []), *(s for s in role["scopes"] if s not in other["scopes"])]
            return
    c.JupyterHub.load_roles.append(role)


def _items(value: Any) -> list[Any]:
    """The items of a list of the configuration, which is a list or the record of changes to one."""
    if not isinstance(value, LazyConfigValue):
        return value
    return [*value._prepend, *value._extend]


def _service(values: settings.Settings, name: str, port: int, variables: tuple[str, ...]) -> dict[str, Any]:
    """A service with a process of ours, which has an entry of its own in the navigation."""
    return {
        "name": name,
        "url": f"http://127.0.0.1:{port}",
        "command": [sys.executable, "-m", f"tljh_plasma.{'service' if name == SERVICE else name}"],
        "cwd": str(values.state_dir),
        "environment": {name: os.environ[name] for name in variables if name in os.environ},
        "display": False,
        "oauth_no_confirm": True,
    }


def add_services(c: Any, values: settings.Settings) -> None:
    """Register the service that shows environments, permissions and servers, and the one that leads to Cockpit.

    The first may look at people and their servers. What it changes at the hub it does with the token of whoever visits
    it, so the hub decides: hence the scopes that such a token may have. The second is there where it is wanted and
    HTTPS is on; no role gives access to it: JupyterHub's own role "admin" has that for every service.

    Args:
        c: the traitlets ``Config`` object.
        values: the settings.
    """
    service = _service(values, SERVICE, values.service_port, (PREFIX, *DOCKER_VARIABLES))
    scopes = ["delete:servers", TLJH_R2D_ADMIN_SCOPE]
    c.JupyterHub.services.append({**service, "oauth_client_allowed_scopes": scopes})
    c.JupyterHub.custom_scopes.update({TLJH_R2D_ADMIN_SCOPE: {"description": "Manage environments and permissions"}})
    add_role(c, {"name": "plasma-service", "scopes": ["list:users", "read:servers"], "services": [SERVICE]})
    # "self" is all that JupyterHub's own role "user" has.
    add_role(c, {"name": "user", "scopes": ["self", f"access:services!service={SERVICE}"]})
    if values.cockpit:
        c.JupyterHub.services.append(_service(values, COCKPIT, values.cockpit_port, (PREFIX,)))


def quicken_proxy(c: Any) -> None:
    """Let Traefik check the password of its API in a millisecond, and not in a quarter of a second.

    The hub asks it some three times for each server that starts, and Traefik works through bcrypt each time. That
    protects passwords which people think up; this one is random, as long as a key, and stays on this machine.

    Args:
        c: the traitlets ``Config`` object.
    """
    import bcrypt

    password = c.TraefikProxy.get("traefik_api_password")
    if "traefik_api_hashed_password" in c.TraefikProxy or not isinstance(password, str):
        return
    # 64 are what TLJH and we make; more than 72 are more than bcrypt takes.
    if RANDOM_PASSWORD <= len(password) <= 72:
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4))
        c.TraefikProxy.traefik_api_hashed_password = hashed.decode("ascii")


def use_own_proxy(c: Any) -> None:
    """Let the hub write Traefik's routes with our middlewares; a proxy that somebody else chose is left alone.

    Args:
        c: the traitlets ``Config`` object.
    """
    from .proxy import PlasmaProxy

    if c.JupyterHub.get("proxy_class") == "traefik_file":
        c.JupyterHub.proxy_class = PlasmaProxy


def keep_secrets(c: Any, values: settings.Settings) -> None:
    """Have good secrets where files of them were lost: JupyterHub would not start, or Traefik let it in no more.

    Args:
        c: the traitlets ``Config`` object.
        values: the settings.
    """
    cookies = values.state_dir / "jupyterhub_cookie_secret"
    kept_secret(cookies)
    c.JupyterHub.cookie_secret_file = str(cookies)
    password = api_password(values.state_dir)
    if not settings.section(values.config, "traefik_api").get("password"):
        c.TraefikProxy.traefik_api_password = password


def find_proxy_api(c: Any, values: settings.Settings) -> None:
    """Look for Traefik's API where the proxy that runs has it: in what it was started with.

    config.yaml may say another port since. TLJH's hub does not read that one at all.

    Args:
        c: the traitlets ``Config`` object.
        values: the settings.
    """
    import toml

    try:
        static = toml.loads((values.state_dir / "traefik.toml").read_text(encoding="utf-8"))
        address = static["entryPoints"]["auth_api"]["address"]
    except (OSError, UnicodeDecodeError, toml.TomlDecodeError, KeyError, TypeError):
        return
    c.TraefikProxy.traefik_api_url = f"http://{address}"


def configure(c: Any) -> None:
    """Set up authenticator, spawner, service, network and look in ``c``.

    Services, roles and scopes belong to whoever made them: nothing here replaces them.

    Args:
        c: the traitlets ``Config`` object.

    Raises:
        SettingsError: config.yaml cannot be used.
        AccessError: the file with the permissions cannot be used.
        NetworkError: Docker does not answer, or its network is not ours.
    """
    from . import rights
    from .auth import PlasmaPAMAuthenticator
    from .spawner import PlasmaSpawner

    values = settings.load()
    store = Store(values.database)
    store.upgrade()
    add_services(c, values)
    add_role(c, operators.register(c, values.state_dir))

    front.believe(values.behind)
    # Who may do what to whom.
    rights.install(rights.Entering.of(values.enter_servers))

    # Who gets in.
    c.JupyterHub.authenticator_class = PlasmaPAMAuthenticator
    # A list of allowed users restricts, as it does in TLJH; without one every real user of the system may log in.
    # PlasmaPAMAuthenticator checks the account in both cases.
    c.Authenticator.allow_all = not values.allowed_users

    c.PlasmaPAMAuthenticator.admin_groups = set(values.admin_groups)
    c.PlasmaPAMAuthenticator.home_path = c.PlasmaSpawner.home_path = values.homes

    # Servers.
    c.JupyterHub.spawner_class = PlasmaSpawner
    c.PlasmaSpawner.network_name = values.network_name
    c.PlasmaSpawner.reach = values.server_reach
    c.PlasmaSpawner.permissions_file = str(values.database)
    c.PlasmaSpawner.open_by_default = values.open_by_default
    c.PlasmaSpawner.shared_data = values.shared_data
    c.PlasmaSpawner.servers = values.servers
    c.PlasmaSpawner.reserved_gpus = list(values.gpu_reserved)
    c.PlasmaSpawner.activity_interval = values.activity_interval
    c.Spawner.mem_limit = values.memory
    c.Spawner.cpu_limit = values.cpu
    c.JupyterHub.allow_named_servers = True
    c.JupyterHub.named_server_limit_per_user = values.named_server_limit
    # Servers outlive the hub: its restart interrupts nobody.
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.redirect_to_server = False
    c.JupyterHub.default_url = landing_page

    # The hub's address for the containers. This overrides the first public address that tljh-repo2docker picks.
    client = network.connect()
    address = network.ensure_network(client, values.network_name)
    c.JupyterHub.hub_ip = address
    c.JupyterHub.hub_connect_ip = address
    c.JupyterHub.hub_port = settings.HUB_PORT

    keep_secrets(c, values)
    find_proxy_api(c, values)
    quicken_proxy(c)
    use_own_proxy(c)
    domains.apply(c, values)
    # Before the routes that tell of it are forgotten.
    old_ports.follow(client, values, address)
    routes.prepare(values.state_dir / "rules" / "rules.toml", "https" if values.https else "http")
    theme.apply(c, values)
    # The hub can work with them.
    if values.config:
        kept.keep(values.config_file)
    store.keep()
