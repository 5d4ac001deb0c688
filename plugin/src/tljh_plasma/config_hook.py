"""What the plugin sets in JupyterHub's configuration, under TLJH and without it."""

from __future__ import annotations

from typing import Any

from . import network, settings


def landing_page(handler: Any) -> str:
    """Return where a person arrives who asked for no page in particular.

    Somebody with a running server sees all of theirs (the home page); everybody else is taken straight to the list
    of environments to start from.
    """
    from jupyterhub.utils import url_path_join

    user = handler.current_user
    if user is None:  # noqa: SIM108
        # Without a "next" in the address, so that the question is asked again after the login.
        page = "login"
    else:
        page = "home" if user.active else "spawn"
    return url_path_join(handler.hub.base_url, page)


def configure(c: Any) -> None:
    """Set up authenticator, spawner, network and limits in ``c``.

    Services, roles and scopes belong to whoever made them: nothing here replaces them.

    Args:
        c: the traitlets ``Config`` object.

    Raises:
        SettingsError: config.yaml cannot be used.
        NetworkError: Docker does not answer, or its network is not ours.
    """
    from .auth import PlasmaPAMAuthenticator
    from .spawner import PlasmaSpawner

    values = settings.load()

    # Who gets in.
    c.JupyterHub.authenticator_class = PlasmaPAMAuthenticator
    # A list of allowed users restricts, as it does in TLJH; without one every real user of the system may log in.
    # PlasmaPAMAuthenticator checks the account in both cases.
    c.Authenticator.allow_all = not values.allowed_users

    # Servers.
    c.JupyterHub.spawner_class = PlasmaSpawner
    c.PlasmaSpawner.network_name = network.NETWORK_NAME
    c.PlasmaSpawner.shared_data = values.shared_data
    c.Spawner.mem_limit = values.memory
    c.Spawner.cpu_limit = values.cpu
    c.JupyterHub.allow_named_servers = True
    c.JupyterHub.named_server_limit_per_user = values.named_server_limit
    # Servers outlive the hub: its restart interrupts nobody.
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.redirect_to_server = False
    c.JupyterHub.default_url = landing_page

    # The hub's address for the containers. This overrides the first public address that tljh-repo2docker picks.
    address = network.ensure_network(network.connect())
    c.JupyterHub.hub_ip = address
    c.JupyterHub.hub_connect_ip = address
