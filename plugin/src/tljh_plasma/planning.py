"""The part of the spawner that knows people and environments, and no container engine.

``PlannedSpawner`` offers the environments that somebody may start, checks again what was asked for when a server
starts, by form and by API alike, and tells people how the start goes and why it failed. An engine's spawner is mixed
in below it and says how environments are listed and a plan is run; ``spawner.PlasmaSpawner`` does so for one Docker
host, and a cluster can take its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment as Templates
from jinja2 import PackageLoader
from jupyterhub.utils import url_path_join
from tornado import web
from traitlets import Bool, Integer, Unicode, default
from traitlets.config import LoggingConfigurable

from . import guard, policy, privileged
from .access import AccessError, Store
from .accounts import group_names
from .environments import Environment
from .policy import Permissions, Refusal, ServerPlan

NO_PERMISSIONS = (
    "Nobody can start a server: the hub cannot read who may use which environment. "
    "Please tell the administrator of the hub."
)


NOT_THEIRS = (
    "This account may administer the server itself, so it starts its servers alone: nobody else can start them, "
    "administrators of the hub included."
)


# Names of people, and of servers of theirs that were asked for and did not start yet.
NEVER_STARTED: set[tuple[str, str]] = set()


class StartByLink(Exception):
    """Somebody followed a link to the start page that names an environment."""

    jupyterhub_message = "Please check the chosen environment and press Start."


class StartFailure(Exception):
    """A server could not be started, though it may.

    Attributes:
        status: HTTP status.
        message: one sentence for the person; the details are the text of the exception, for the hub's log.
    """

    def __init__(self, status: int, message: str, reason: str):
        super().__init__(reason)
        self.status = status
        self.message = message


def http_error(status: int, message: str) -> web.HTTPError:
    """Return an HTTP error whose text JupyterHub shows to people, in pages, progress and API answers alike."""
    error = web.HTTPError(status, message)
    error.jupyterhub_message = message
    return error


class PlannedSpawner(LoggingConfigurable):
    """Plans servers; it is put before a spawner of JupyterHub, which brings ``stop`` and ``poll``.

    An engine has to provide ``list_environments`` and ``run_plan``.
    """

    shared_data = Unicode(
        "/srv/data",
        config=True,
        help="Directory of the host that servers see read-only at /srv/data. Empty for none.",
    )

    pids_limit = Integer(
        1024,
        min=16,
        config=True,
        help="Number of processes and threads that a server may have.",
    )

    permissions_file = Unicode(
        config=True,
        help="File with the permissions of environments (see tljh_plasma.access).",
    )

    open_by_default = Bool(
        True,
        config=True,
        help="Whether environments that were given to no group are open to everybody.",
    )

    plan: ServerPlan | None = None

    _templates = Templates(loader=PackageLoader(__package__, "templates"), autoescape=True, extensions=[guard.Nonces])

    @default("default_url")
    def _default_default_url(self) -> str:
        return "/lab"

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        # Options are read when the server is planned; this only tells JupyterHub that they are handled.
        return lambda spawner, options: None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Each start sets these traits for its own environment: keep what was configured.
        self._configured_memory = self.mem_limit
        self._configured_cpu = self.cpu_limit
        self._summary: dict[str, Any] = {}
        self._steps: list[dict[str, Any]] = []
        self._stepped = asyncio.Event()

    async def list_environments(self) -> list[Environment]:
        """Return all environments that the engine has.

        Raises:
            StartFailure: the engine does not answer.
        """
        raise NotImplementedError

    # What the policy is asked with.

    @property
    def default_limits(self) -> policy.Limits:
        """Limits of environments that set none."""
        return policy.default_limits(self._configured_memory, self._configured_cpu, self.pids_limit)

    def read_permissions(self) -> Permissions:
        """Read who may use which environment, as it is said at this moment.

        Raises:
            StartFailure: the file cannot be read. Nobody starts anything then.
        """
        try:
            return Permissions(Store(Path(self.permissions_file)).all(), self.open_by_default)
        except AccessError as error:
            raise StartFailure(503, NO_PERMISSIONS, str(error)) from error

    async def _ask(self, question: Callable[..., Any], *details: Any) -> Any:
        """Ask the policy about the owner of this server, with environments, permissions and groups of this moment.

        Args:
            question: ``policy.permitted`` or ``policy.choose``.
            details: what it is told after the environments.
        """
        found = await self.list_environments()
        permissions = await asyncio.to_thread(self.read_permissions)
        groups = await asyncio.to_thread(group_names, self.user.name)
        return question(found, *details, permissions, groups, self.user.admin)

    async def make_plan(self) -> ServerPlan:
        """Ask the policy about this server, with the accounts, groups, permissions and images of this moment.

        Raises:
            Refusal: the server may not start.
            StartFailure: the engine or the permissions cannot be asked.
        """
        found = await self.list_environments()
        permissions = await asyncio.to_thread(self.read_permissions)
        plan = await asyncio.to_thread(
            policy.plan_server,
            self.user.name,
            self.user_options,
            found,
            permissions,
            self.user.admin,
            self.default_limits,
            self.shared_data,
        )
        for note in plan.notes:
            self.log.warning("Server %s: %s", self._log_name, note)
        return plan

    def get_state(self) -> dict[str, Any]:
        """What is kept in the hub's database while the server runs."""
        return {**super().get_state(), **({"summary": self.summary} if self.summary else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a server that was started before the hub."""
        super().load_state(state)
        self._summary = state.get("summary", {})

    def clear_state(self) -> None:
        """Forget the server that has ended."""
        super().clear_state()
        self.plan = None
        self._summary = {}

    @property
    def summary(self) -> dict[str, Any]:
        """What pages say of the server: name of its environment, memory in bytes, CPUs; empty when none was started."""
        if self.plan is None:
            return self._summary
        limits = self.plan.limits
        return {"name": self.plan.environment.name, "memory": limits.memory, "cpu": limits.cpu}

    def planned(self) -> ServerPlan:
        """Return the plan of the server that is starting or running."""
        if self.plan is None:
            raise RuntimeError("no server was planned")
        return self.plan

    # Choosing an environment.

    async def get_options_form(self) -> str:
        """Return the list of environments to choose from, as HTML."""
        try:
            found = await self._ask(policy.permitted)
        except StartFailure as error:
            self.log.error("Environments cannot be listed: %s", error)
            raise http_error(error.status, error.message) from error
        chosen = self.user_options.get("image")
        if self.handler is not None:
            # A link may name an environment: /hub/spawn?image=...
            chosen = self.handler.get_query_argument("image", chosen)
        if len(found) == 1:
            chosen = found[0].image
        rows = [(environment, policy.limits_of(environment, self.default_limits)) for environment in found]
        return self._templates.get_template("options_form.html").render(
            rows=rows,
            chosen=chosen,
            user=self.user,
            environments_url=url_path_join(self.hub.base_url.removesuffix("hub/"), "services/plasma/environments"),
        )

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return self._read_form

    async def _read_form(self, form: dict[str, list[str]]) -> dict[str, str]:
        """Turn the form's answer into options, after checking it.

        Raises:
            web.HTTPError: with a sentence for the person.
        """
        image = (form.get("image") or [""])[0]
        try:
            await self._ask(policy.choose, image)
        except Refusal as refusal:
            raise http_error(refusal.status, refusal.message) from refusal
        except StartFailure as error:
            self.log.error("Environments cannot be listed: %s", error)
            raise http_error(error.status, error.message) from error
        return {"image": image}

    def options_from_query(self, query_data: dict[str, list[str]]) -> dict[str, str]:
        """Show the form, with the environment of the link chosen, instead of starting the server.

        JupyterHub would start it: any page on the web could then start servers of people who are logged in.

        Raises:
            StartByLink: always; JupyterHub then shows the form with its text.
        """
        raise StartByLink

    # Starting.

    async def start(self) -> Any:
        """Plan the server anew and run it.

        Raises:
            web.HTTPError: with a sentence for the person; the details are in the hub's log.
        """
        self.plan = None
        self._steps = []
        try:
            self.step(10, "Checking your account and the environment")
            await self.check_sender()
            self.plan = await self.make_plan()
            address = await self.run_plan()
            NEVER_STARTED.discard((self.user.name, self.name))
            return address
        except Refusal as refusal:
            self.log.warning("Server %s refused: %s", self._log_name, refusal.reason)
            # JupyterHub has kept what was asked for, to offer it the next time.
            self.user_options = self.orm_spawner.user_options = {}
            raise http_error(refusal.status, refusal.message) from refusal
        except StartFailure as error:
            self.log.error("Server %s failed to start: %s", self._log_name, error)
            raise http_error(error.status, error.message) from error

    async def check_sender(self) -> None:
        """Make sure that an account that may become root starts its servers itself.

        The scopes of everybody else do not reach here (see ``rights``); this is for what does not come by them.

        Raises:
            Refusal: somebody else asks.
        """
        reason = await asyncio.to_thread(privileged.reason, self.user.name)
        sender = getattr(self.handler, "current_user", None)
        if reason and (sender is None or sender.kind != "user" or sender.name != self.user.name):
            asking = getattr(sender, "name", "nobody")
            raise Refusal(403, NOT_THEIRS, f"{asking!r} may not start it for an account that may become root: {reason}")

    async def run_plan(self) -> Any:
        """Run ``self.plan`` until the server answers, and return where it is.

        Raises:
            StartFailure: it could not be run. Nothing of it remains then.
        """
        raise NotImplementedError

    def step(self, progress: int, message: str) -> None:
        """Tell the person how the start goes.

        Args:
            progress: how far it is, in percent.
            message: one phrase.
        """
        self._steps.append({"progress": progress, "message": message})
        self._stepped.set()

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """The steps of the start, from its beginning; JupyterHub stops asking when it is over."""
        told = 0
        while True:
            # Before looking, so that a step in between is not missed.
            self._stepped.clear()
            for event in self._steps[told:]:
                yield event
            told = len(self._steps)
            await self._stepped.wait()
