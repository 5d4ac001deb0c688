"""The part of the spawner that knows people and environments, and no container engine.

``PlannedSpawner`` offers the environments that somebody may start, checks again what was asked for when a server
starts, by form and by API alike, and tells people how the start goes and why it failed. An engine's spawner is mixed
in below it and says how environments are listed and a plan is run; ``spawner.PlasmaSpawner`` does so for one Docker
host, and a cluster can take its place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment as Templates
from jinja2 import PackageLoader
from jupyterhub.utils import url_path_join
from tornado import web
from traitlets import Bool, Instance, Integer, Unicode, default
from traitlets.config import LoggingConfigurable

from . import guard, homes, policy, privileged, starts
from .access import AccessError, Store
from .accounts import AccountError, group_names
from .environments import Environment
from .hub_rules import APPLICATIONS
from .policy import Permissions, Refusal, ServerPlan
from .servers import Servers

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

    # As HTML: JupyterHub puts "Error:" before a plain message. See templates/hub/spawn.html.
    jupyterhub_html_message = "Please check the chosen environment and press Start."


class StartFailure(Refusal):
    """A server could not be started, though it may. The text of the exception is its reason, for the hub's log."""

    def __str__(self) -> str:
        return self.reason


def http_error(status: int, message: str) -> web.HTTPError:
    """Return an HTTP error whose text JupyterHub shows to people, in pages, progress and API answers alike."""
    error = web.HTTPError(status, message)
    error.jupyterhub_message = message
    return error


class PlannedSpawner(LoggingConfigurable):
    """Plans servers; it is put before a spawner of JupyterHub, which brings ``stop`` and ``poll``.

    An engine has to provide ``list_environments``, which returns all environments that the engine has, and
    ``run_plan``, which runs ``self.plan`` until the server answers, returns where it is, and leaves nothing behind
    when it fails. Both raise StartFailure.
    """

    shared_data = Unicode(
        "/srv/data", config=True, help="Directory of the host that servers see read-only at /srv/data. Empty for none."
    )
    pids_limit = Integer(
        policy.PROCESSES, min=16, config=True, help="Number of processes and threads that a server may have."
    )
    servers = Instance(
        Servers, args=(), config=True, help="Time zone, variables, proxy and directories of servers (plasma.servers)."
    )
    home_path = Unicode(
        "/home", config=True, help="Directory below which homes of a directory's people are made, beside /home."
    )
    permissions_file = Unicode(config=True, help="File with the permissions of environments (see tljh_plasma.access).")
    open_by_default = Bool(
        True, config=True, help="Whether environments that were given to no group are open to everybody."
    )
    default_url = Unicode("/lab", config=True)

    plan: ServerPlan | None = None

    _templates = Templates(loader=PackageLoader(__package__, "templates"), autoescape=True, extensions=[guard.Nonces])

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        # Options are read when the server is planned; this only tells JupyterHub that they are handled.
        return lambda spawner, options: None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Each start sets these traits for its own environment: keep what was configured.
        self._configured_url = self.default_url
        self.default_limits = policy.default_limits(self.mem_limit, self.cpu_limit, self.pids_limit)
        self._summary: dict[str, Any] = {}
        self._steps: list[dict[str, Any]] = []
        self._stepped = asyncio.Event()

    def read_permissions(self) -> Permissions:
        """Read who may use which environment, as it is said at this moment.

        Raises:
            StartFailure: the file cannot be read. Nobody starts anything then.
        """
        try:
            return Permissions(Store(Path(self.permissions_file)).all(), self.open_by_default)
        except AccessError as error:
            raise StartFailure(503, NO_PERMISSIONS, str(error)) from error

    async def _policy_data(self) -> tuple[list[Environment], Permissions, frozenset[str], bool]:
        """Return what the policy decides by, as it is at this moment."""
        environments: list[Environment] = await self.list_environments()
        permissions = await asyncio.to_thread(self.read_permissions)
        groups = await asyncio.to_thread(group_names, self.user.name, permissions.groups)
        return environments, permissions, groups, self.user.admin

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Tell the person why something does not go, and the log the details."""
        try:
            yield
        except StartFailure as failure:
            self.log.error("%s: %s", what, failure.reason)
            raise http_error(failure.status, failure.message) from failure
        except Refusal as refusal:
            self.log.warning("Server %s refused: %s", self._log_name, refusal.reason)
            raise http_error(refusal.status, refusal.message) from refusal

    def get_state(self) -> dict[str, Any]:
        """Return what is kept in the hub's database while the server runs."""
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
        """What pages say of the server: name of its environment, memory in bytes, CPUs, GPUs; empty before a start."""
        if self.plan is None:
            return self._summary
        limits = self.plan.limits
        name, gpus = self.plan.environment.name, self.plan.environment.gpus
        return {"name": name, "memory": limits.memory, "cpu": limits.cpu, "gpus": gpus}

    # Choosing an environment.

    async def get_options_form(self) -> str:
        """Return the list of environments to choose from, as HTML."""
        with self._telling("Environments cannot be listed"):
            environments = policy.permitted(*await self._policy_data())
        chosen = self.user_options.get("image")
        if self.handler is not None:
            # A link may name an environment: /hub/spawn?image=...
            chosen = self.handler.get_query_argument("image", chosen)
        if len(environments) == 1:
            chosen = environments[0].image
        return self._templates.get_template("options_form.html").render(
            rows=[(environment, policy.limits_of(environment, self.default_limits)) for environment in environments],
            chosen=chosen,
            user=self.user,
            environments_url=url_path_join(self.hub.base_url.removesuffix("hub/"), "services/plasma/environments"),
        )

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return self._read_form

    async def _read_form(self, form: dict[str, list[str]]) -> dict[str, Any]:
        """Turn the form's answer into options, after checking it; raises web.HTTPError with a sentence."""
        image = (form.get("image") or [""])[0]
        with self._telling("Environments cannot be listed"):
            environments, *person = await self._policy_data()
            policy.choose(environments, image, *person)
        return {"image": image, **({starts.SAFE_MODE: True} if form.get(starts.SAFE_MODE) else {})}

    async def options_from_query(self, query_data: dict[str, list[str]]) -> dict[str, str]:
        """Show the form, with the environment of the link chosen, instead of starting the server.

        JupyterHub would start it: any page on the web could then start servers of people who are logged in.

        Raises:
            StartByLink: JupyterHub then shows the form with its text.
            web.HTTPError: the person may not start that environment, or there is none; the form is shown, too.
        """
        if "image" in query_data:
            await self._read_form(query_data)
        raise StartByLink

    # Starting.

    async def start(self) -> Any:
        """Plan the server anew, with the accounts, groups, permissions and images of this moment, and run it.

        Raises:
            web.HTTPError: with a sentence for the person; the details are in the hub's log.
        """
        self.plan = None
        self._steps = []
        with self._telling(f"Server {self._log_name} failed to start"):
            self.step(10, "Checking your account and the environment")
            try:
                await self._check_sender()
                environments, permissions, _, admin = await self._policy_data()
                self.plan = await asyncio.to_thread(self._planned, environments, permissions, admin)
                for note in filter(None, (self.plan.note, *self.plan.missing)):
                    self.log.warning("Server %s: %s", self._log_name, note)
                opens = self.plan.environment.opens
                self.default_url = APPLICATIONS.get(opens, opens) or self._configured_url
                address = await self.run_plan()
            except StartFailure:
                raise
            except Refusal:
                # JupyterHub has kept what was asked for, to offer it the next time.
                self.user_options = self.orm_spawner.user_options = {}
                raise
            NEVER_STARTED.discard((self.user.name, self.name))
            await self._note_use()
            return address

    async def stop(self, now: bool = False) -> None:
        """Stop the server; its environment was in use until then."""
        await super().stop(now=now)  # ty: ignore[unresolved-attribute] # the engine's spawner has it
        await self._note_use()

    async def _note_use(self) -> None:
        image = str((self.user_options or {}).get("image") or "")
        try:
            if image:
                await asyncio.to_thread(Store(Path(self.permissions_file)).note_use, image, self.user.name)
        except AccessError as error:
            # For people to look at: nobody's server waits for it.
            self.log.warning("Server %s: its use cannot be noted: %s", self._log_name, error)

    def _planned(self, environments: list[Environment], permissions: Permissions, admin: bool) -> ServerPlan:
        name, options, limits = self.user.name, self.user_options, self.default_limits
        try:
            # Somebody else may start the first server of somebody who never came.
            homes.ensure(name, [self.home_path])
        except AccountError as error:
            raise Refusal(403, error.message, error.reason) from error
        shared, servers = self.shared_data, self.servers
        return policy.plan_server(name, options, environments, permissions, admin, limits, shared, servers)

    async def _check_sender(self) -> None:
        """Make sure that an account that may become root starts its servers itself.

        The scopes of everybody else do not reach here (see ``rights``); this is for what does not come by them.
        """
        reason = await asyncio.to_thread(privileged.reason, self.user.name)
        sender = getattr(self.handler, "current_user", None)
        if reason and (sender is None or sender.kind != "user" or sender.name != self.user.name):
            asking = getattr(sender, "name", "nobody")
            raise Refusal(403, NOT_THEIRS, f"{asking!r} may not start it for an account that may become root: {reason}")

    def step(self, progress: int, message: str) -> None:
        """Tell the person how the start goes.

        Args:
            progress: how far it is, in percent.
            message: one phrase.
        """
        self._steps.append({"progress": progress, "message": message})
        self._stepped.set()

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the steps of the start, from its beginning; JupyterHub stops asking when it is over."""
        told = 0
        while True:
            # Before looking, so that a step in between is not missed.
            self._stepped.clear()
            for event in self._steps[told:]:
                yield event
            told = len(self._steps)
            await self._stepped.wait()
