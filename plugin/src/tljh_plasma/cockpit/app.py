"""The service's process: a small web server between the hub's proxy and Cockpit."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

import aiohttp
from jinja2 import Environment, FileSystemLoader
from jupyterhub.log import CoroutineLogFormatter, log_request
from jupyterhub.utils import url_path_join
from tornado import web

from .. import front, theme
from ..limits import SMALL_BODY, LimitedServer
from ..secret_files import kept_secret
from ..service.waiting import Waiting
from ..settings import Settings
from .proxy import RECHECK, CockpitCallback, CockpitHandler

LOG = logging.getLogger("tljh_plasma.cockpit")
# Seconds. An answer may take its time, as a download does; one that says nothing for so long never will.
SILENCE = 3600
CONNECT = 15


def client(socket: str) -> aiohttp.ClientSession:
    """Return what asks Cockpit; to be made within an event loop.

    Args:
        socket: path of its Unix socket.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path=socket, limit=0),
        # Every visitor has cookies of their own, and what is compressed stays so.
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE),
    )


def application(values: Settings, prefix: str, cockpit: aiohttp.ClientSession, recheck: float = RECHECK) -> Any:
    """Return the web application.

    Args:
        values: the settings.
        prefix: path of the service, as the hub says.
        cockpit: what asks Cockpit.
        recheck: seconds between two looks at whether the person at a WebSocket is still an administrator.
    """
    base_url = os.environ.get("JUPYTERHUB_BASE_URL", "/")
    return web.Application(
        [(url_path_join(prefix, "oauth_callback"), CockpitCallback), (f"{prefix}.*", CockpitHandler)],
        log=LOG,
        log_function=log_request,
        cookie_secret=kept_secret(values.state_dir / "plasma-cockpit-cookie.secret"),
        xsrf_cookie_kwargs={"samesite": "Strict", "httponly": True},
        base_url=base_url,
        hub_prefix=url_path_join(base_url, "hub/"),
        service_prefix=prefix,
        plasma_prefix=url_path_join(base_url, "services/plasma/"),
        jinja2_env=Environment(
            loader=FileSystemLoader([str(path) for path in theme.SERVICE_TEMPLATES]), autoescape=True
        ),
        version_hash=theme.version_hash(),
        default_handler_class=CockpitHandler,
        plasma=values,
        cockpit=cockpit,
        recheck=recheck,
        websocket_max_message_size=16 * 1024 * 1024,
    )


def server_of(made: web.Application) -> LimitedServer:
    """Return the web server of the application. Cockpit's pages send no bodies: uploads go through a WebSocket."""
    return LimitedServer(made, body=lambda path: SMALL_BODY, xheaders=True)


def set_up_log() -> None:
    """Write what is worth a line where the hub's log goes. No request's query: a login may be in it."""
    handler = logging.StreamHandler()
    handler.setFormatter(CoroutineLogFormatter(fmt="[%(levelname)1.1s %(asctime)s cockpit] %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    # JupyterHub tells "tornado.application" of every login, with the ids of sessions.
    LOG.setLevel(logging.INFO)


async def serve(values: Settings, waiting: Waiting) -> None:
    """Answer requests until a signal comes.

    Args:
        values: the settings.
        waiting: what listens already.
    """
    front.believe(values.behind)
    cockpit = client(values.cockpit_socket)
    made = application(values, os.environ["JUPYTERHUB_SERVICE_PREFIX"], cockpit)
    server = server_of(made)
    listener = waiting.take_over()
    server.add_socket(listener)
    LOG.info("The way to Cockpit begins at %s:%s", *listener.getsockname())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.stop()
    await server.close_all_connections()
    await cockpit.close()
