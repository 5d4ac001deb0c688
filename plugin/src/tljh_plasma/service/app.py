"""The service's process: tljh-repo2docker's application with handlers of our own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from jinja2 import Environment, FileSystemLoader
from jupyterhub.log import log_request
from jupyterhub.utils import url_path_join
from sqlalchemy import create_engine
from tljh_repo2docker import dbutil
from tljh_repo2docker.app import TljhRepo2Docker
from tornado import web
from traitlets import Instance, default

from .. import front, guard, theme
from .. import settings as plasma_settings
from ..access import AccessError, Store
from ..builds import Builder, BuildRefused
from ..limits import SMALL_BODY, LimitedServer
from ..secret_files import kept_secret
from .base import MAX_BODY, CallbackHandler, Guarded, NotFoundHandler, Page, RootHandler, StaticHandler
from .catalog import Catalog
from .engine import Engine
from .environments import ArchiveApi, BuildApi, EnvironmentApi, EnvironmentsApi, LinksApi, LogApi, TailApi
from .hub import HubClient
from .operations import Operations
from .permissions import PermissionsApi
from .pushes import Pushes, PushHandler, WebhookApi
from .servers import ServerApi, ServersApi
from .waiting import Waiting

# JupyterHub tells "tornado.application" of every login, with the ids of sessions.
LOGGERS = {"tornado.access": logging.INFO, "tornado.application": logging.WARNING, "tornado.general": logging.INFO}


class PlasmaService(TljhRepo2Docker):
    """The service "plasma"."""

    name = "tljh-plasma"
    description = __doc__ or ""
    # Everything is in config.yaml.
    aliases = {}
    flags = {}

    plasma = Instance(plasma_settings.Settings)
    waiting = Instance(Waiting, help="What listens already.")

    @default("plasma")
    def _default_plasma(self) -> plasma_settings.Settings:
        return plasma_settings.load()

    @default("db_url")
    def _default_db_url(self) -> str:
        return f"sqlite:///{self.plasma.environments_database}"

    @default("cookie_secret_file")
    def _default_cookie_secret_file(self) -> str:
        return str(self.plasma.state_dir / "plasma-service-cookie.secret")

    @default("log_level")
    def _default_log_level(self) -> int:
        return logging.INFO

    def initialize(self, argv: list[str] | None = None) -> None:
        """Take no configuration from the command line."""
        super().initialize([])
        for name, level in LOGGERS.items():
            logger = logging.getLogger(name)
            logger.parent = self.log
            logger.setLevel(level)

    def load_config_file(self, *args: Any, **kwargs: Any) -> None:
        """Read no configuration file: tljh-repo2docker would run one from the current directory."""

    def init_db(self) -> None:
        """Make the database, or bring it to the tables of this release; an old one is copied first."""
        path = self.plasma.environments_database
        engine = create_engine(dbutil.async_to_sync_url(self.db_url))
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        engine.dispose()
        head = ScriptDirectory(str(dbutil.ALEMBIC_DIR)).get_current_head()
        if current not in (None, head):
            dbutil.backup_db_file(str(path), log=self.log)
            dbutil.upgrade(dbutil.sync_to_async_url(self.db_url))
        super().init_db()
        for made in path.parent.glob(f"{path.name}*"):
            made.chmod(0o600)

    def _load_cookie_secret(self) -> bytes:
        """Return the secret of cookies.

        tljh-repo2docker keeps random bytes and strips them when it reads them: one secret in twenty begins or ends with
        what counts as a space, and is made anew at every start, which logs everybody out.
        """
        return kept_secret(Path(self.cookie_secret_file)).encode("ascii")

    def _note_build(self, image: str, seconds: float) -> None:
        try:
            Store(self.plasma.database).note_build(image, seconds)
        except AccessError as error:
            self.log.warning("How long the build of %s took cannot be noted: %s", image, error)

    def init_settings(self) -> dict[str, Any]:
        """Return Tornado's settings."""
        inherited = super().init_settings()
        engine = Engine()
        store = Store(self.plasma.database)
        builder = Builder(self.db_context, self.image_db_manager, self.plasma, self.log, self._note_build)
        catalog = Catalog(engine, store, builder, self.db_context, self.plasma)
        operations = Operations(catalog, self.plasma)
        return {
            "log": self.log,
            "log_function": log_request,
            "cookie_secret": inherited["cookie_secret"],
            # Seen by our pages alone.
            # No script reads it: pages have the token in them.
            "xsrf_cookie_kwargs": {"samesite": "Strict", "httponly": True},
            "transforms": [guard.of_service(self.base_url, self.service_prefix)],
            "base_url": self.base_url,
            "hub_prefix": inherited["hub_prefix"],
            "service_prefix": self.service_prefix,
            "jinja2_env": Environment(
                loader=FileSystemLoader([str(path) for path in theme.SERVICE_TEMPLATES]), autoescape=True
            ),
            "version_hash": theme.version_hash(),
            "default_handler_class": NotFoundHandler,
            "plasma": self.plasma,
            "engine": engine,
            "catalog": catalog,
            "builder": builder,
            "operations": operations,
            "pushes": Pushes(operations, self.log),
            "hub": HubClient(os.environ["JUPYTERHUB_API_URL"], os.environ["JUPYTERHUB_API_TOKEN"]),
        }

    def init_handlers(self) -> list[tuple[Any, ...]]:
        """Return all handlers there are. None of tljh-repo2docker's: they check neither origin nor XSRF token.

        Raises:
            TypeError: a handler does not start from ours, and so would not check them either.
        """
        one = "([^/]+)"
        handlers = [
            ("", RootHandler),
            ("oauth_callback", CallbackHandler),
            ("static/(.*)", StaticHandler, {"path": str(theme.STATIC)}),
            ("environments", Page, {"name": "environments"}),
            ("links", Page, {"name": "links"}),
            ("permissions", Page, {"name": "permissions"}),
            ("servers", Page, {"name": "servers", "administrators": False}),
            ("api/environments", EnvironmentsApi),
            (f"api/environments/{one}", EnvironmentApi),
            (f"api/environments/{one}/build", BuildApi),
            (f"api/environments/{one}/archive", ArchiveApi),
            (f"api/environments/{one}/webhook", WebhookApi),
            (f"push/{one}", PushHandler),
            (f"api/environments/{one}/log", LogApi),
            (f"api/environments/{one}/log/tail", TailApi),
            ("api/links", LinksApi),
            ("api/permissions", PermissionsApi),
            ("api/servers", ServersApi),
            (f"api/servers/{one}", ServerApi),
            (f"api/servers/{one}/{one}", ServerApi),
        ]
        for _, handler, *_ in handlers:
            if not issubclass(handler, Guarded):
                raise TypeError(f"{handler} is not a subclass of {Guarded}")
        return [(url_path_join(self.service_prefix, path), *rest) for path, *rest in handlers]

    def start(self) -> None:
        """Run until the hub ends us."""
        self.init_db()
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Answer requests until a signal comes."""
        settings = self.init_settings()
        front.believe(self.plasma.behind)
        application = web.Application(self.init_handlers(), **settings)
        # A little more, so that a body a little too large is answered with our own sentence.
        server = LimitedServer(application, body=lambda path: MAX_BODY + SMALL_BODY, xheaders=True)
        listener = self.waiting.take_over()
        server.add_socket(listener)
        self.log.info("Plasma's service listens on %s:%s", *listener.getsockname())
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            await settings["builder"].resume()
        except BuildRefused as error:
            # It is tried again whenever somebody looks.
            self.log.error("%s", error)
        await stop.wait()
        server.stop()
        await server.close_all_connections()
        await settings["pushes"].close()
        await settings["builder"].close()
        await settings["hub"].close()
        await settings["engine"].close()
