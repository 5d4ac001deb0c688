"""The spawner: runs the server that the policy planned in a Docker container."""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import requests
from docker.types import Mount
from dockerspawner import DockerSpawner, SystemUserSpawner
from jinja2 import Environment as Templates
from jinja2 import PackageLoader
from tornado import web
from traitlets import Integer, Unicode, default

from . import environments as envs
from . import policy
from .container_files import ContainerFiles
from .environments import Environment
from .network import NETWORK_NAME
from .policy import Refusal, ServerPlan

DOCKER_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)
DOCKER_SILENT = "The server cannot be started: Docker does not answer. Please tell the administrator of the hub."
NOT_STARTED = (
    "The server could not be started because of a problem with its container. "
    "Please try again, and tell the administrator of the hub if it happens again."
)


class StartByLink(Exception):
    """Somebody followed a link to the start page that names an environment."""

    jupyterhub_message = "Please check the chosen environment and press Start."


def http_error(status: int, message: str) -> web.HTTPError:
    """Return an HTTP error whose text JupyterHub shows to people, in pages, progress and API answers alike."""
    error = web.HTTPError(status, message)
    error.jupyterhub_message = message
    return error


class PlasmaSpawner(SystemUserSpawner):
    """One container per server, which never runs anything as root.

    The container runs as the person's uid and gid from its first process on, without capabilities and without a way
    to gain privileges. The hub itself writes nothing into homes: directories are made inside, by the person.

    Defaults are trait defaults rather than configuration, so that ``c.Spawner`` and ``c.DockerSpawner`` can change
    them as usual.
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

    # One for all: account files of images.
    _container_files = ContainerFiles()
    _templates = Templates(loader=PackageLoader(__package__, "templates"), autoescape=True)
    _local = threading.local()

    plan: ServerPlan | None = None

    @default("network_name")
    def _default_network_name(self) -> str:
        return NETWORK_NAME

    @default("use_internal_ip")
    def _default_use_internal_ip(self) -> bool:
        return True

    @default("remove")
    def _default_remove(self) -> bool:
        return True

    @default("pull_policy")
    def _default_pull_policy(self) -> str:
        return "never"

    @default("cmd")
    def _default_cmd(self) -> list[str]:
        return ["jupyterhub-singleuser"]

    @default("default_url")
    def _default_default_url(self) -> str:
        return "/lab"

    @default("start_timeout")
    def _default_start_timeout(self) -> int:
        return 120

    @default("http_timeout")
    def _default_http_timeout(self) -> int:
        return 60

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        # Options are read when the server is planned; this only tells JupyterHub that they are handled.
        return lambda spawner, options: None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Each start sets these traits for its own environment: keep what was configured.
        self._configured_memory = self.mem_limit
        self._configured_cpu = self.cpu_limit
        self._configured_create = self.extra_create_kwargs
        self._configured_host = self.extra_host_config

    # Engine: several calls at a time, so that one slow start does not hold up everybody else.

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Threads for calls to Docker, shared by all spawners."""
        cls = PlasmaSpawner
        if cls._executor is None:
            cls._executor = ThreadPoolExecutor(8, thread_name_prefix="docker")
        return cls._executor

    @property
    def client(self) -> docker.APIClient:
        """This thread's Docker client: requests' sessions are not made to be shared between threads."""
        client = getattr(self._local, "client", None)
        if client is None:
            kwargs: dict[str, Any] = {"version": "auto", **docker.utils.kwargs_from_env()}
            if self.tls_config:
                kwargs["tls"] = docker.tls.TLSConfig(**self.tls_config)
            kwargs.update(self.client_kwargs)
            client = self._local.client = docker.APIClient(**kwargs)
        return client

    async def in_thread(self, function: Any, *args: Any) -> Any:
        """Call ``function(client, *args)`` in a thread."""
        return await asyncio.wrap_future(self.executor.submit(lambda: function(self.client, *args)))

    async def list_environments(self) -> list[Environment]:
        """Return all environments that the engine has."""
        images = await self.in_thread(
            lambda client: client.images(filters={"label": [envs.LABEL_REF], "dangling": False})
        )
        return envs.from_images(images)

    # Choosing an environment.

    @property
    def default_limits(self) -> policy.Limits:
        """Limits of environments that set none."""
        return policy.default_limits(self._configured_memory, self._configured_cpu, self.pids_limit)

    async def get_options_form(self) -> str:
        """Return the list of environments to choose from, as HTML."""
        try:
            found = policy.permitted(await self.list_environments(), self.user.name)
        except DOCKER_ERRORS as error:
            self.log.error("Environments cannot be listed: %s", error)
            raise http_error(503, DOCKER_SILENT) from error
        chosen = self.user_options.get("image")
        if self.handler is not None:
            # A link may name an environment: /hub/spawn?image=...
            chosen = self.handler.get_query_argument("image", chosen)
        if len(found) == 1:
            chosen = found[0].image
        rows = [(environment, policy.limits_of(environment, self.default_limits)) for environment in found]
        return self._templates.get_template("options_form.html").render(rows=rows, chosen=chosen, user=self.user)

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return self._read_form

    async def _read_form(self, form: dict[str, list[str]]) -> dict[str, str]:
        """Turn the form's answer into options, after checking it.

        Raises:
            web.HTTPError: 400, with a sentence for the person.
        """
        image = (form.get("image") or [""])[0]
        try:
            envs.find(policy.permitted(await self.list_environments(), self.user.name), image)
        except envs.UnknownEnvironment as error:
            raise http_error(400, str(error)) from error
        except DOCKER_ERRORS as error:
            self.log.error("Environments cannot be listed: %s", error)
            raise http_error(503, DOCKER_SILENT) from error
        return {"image": image}

    def options_from_query(self, query_data: dict[str, list[str]]) -> dict[str, str]:
        """Show the form, with the environment of the link chosen, instead of starting the server.

        JupyterHub would start it: any page on the web could then start servers of people who are logged in.

        Raises:
            StartByLink: always; JupyterHub then shows the form with its text.
        """
        raise StartByLink

    async def check_allowed(self, image: str) -> str:
        """Allow the planned image and nothing else, whatever ``allowed_images`` says."""
        if self.plan is None or image != self.plan.environment.image:
            raise http_error(403, "This environment is not open to you.")
        return image

    # Starting.

    async def start(self) -> Any:
        """Plan the server anew and run it.

        Raises:
            web.HTTPError: with a sentence for the person; the details are in the hub's log.
        """
        self.plan = None
        # The answer of an earlier start, should this one fail before there is a container.
        self.object_id = ""
        try:
            self.plan = plan = await self.make_plan()
            await self._apply(plan)
            return await super().start()
        except Refusal as refusal:
            self.log.warning("Server %s refused: %s", self._log_name, refusal.reason)
            raise http_error(refusal.status, refusal.message) from refusal
        except docker.errors.ImageNotFound as error:
            self.log.error("Server %s: image gone: %s", self._log_name, error)
            raise http_error(
                404, "This environment no longer exists. Please choose another one, or ask an administrator of the hub."
            ) from error
        except docker.errors.APIError as error:
            self.log.error("Server %s: Docker refused: %s", self._log_name, error)
            await self._discard()
            raise http_error(500, NOT_STARTED) from error
        except DOCKER_ERRORS as error:
            self.log.error("Server %s: Docker does not answer: %s", self._log_name, error)
            raise http_error(503, DOCKER_SILENT) from error
        except BaseException:
            # Among others the start timeout, which cancels us.
            await self._discard()
            raise

    async def make_plan(self) -> ServerPlan:
        """Ask the policy about this server, with the accounts and images of this moment."""
        found = await self.list_environments()
        plan = await asyncio.to_thread(
            policy.plan_server, self.user.name, self.user_options, found, self.default_limits, self.shared_data
        )
        for note in plan.notes:
            self.log.warning("Server %s: %s", self._log_name, note)
        return plan

    async def _configured(self, value: Any) -> dict[str, Any]:
        """Return an administrator's extra arguments, which may be a function of the spawner."""
        value = self._eval_if_callable(value)
        if inspect.isawaitable(value):
            value = await value
        return copy.deepcopy(dict(value or {}))

    async def _apply(self, plan: ServerPlan) -> None:
        """Turn the plan into what DockerSpawner passes to Docker."""
        self.user_id = plan.account.uid
        self.group_id = plan.account.group.gid
        self.run_as_root = False
        self.mem_limit = plan.limits.memory
        self.cpu_limit = plan.limits.cpu
        self.extra_create_kwargs = {
            **await self._configured(self._configured_create),
            "user": plan.user,
            # The entrypoint changes to the environment's directory, which may not exist yet.
            "working_dir": "/",
            "entrypoint": [policy.ENTRYPOINT],
        }
        host = await self._configured(self._configured_host)
        host.update(
            # We remove containers ourselves: those that the engine is to remove end when it restarts, also with
            # live-restore (seen with Docker 20.10).
            auto_remove=False,
            cap_drop=["ALL"],
            # Whatever set-user-id program a person brings along gains nothing.
            security_opt=[*host.get("security_opt", []), "no-new-privileges"],
            pids_limit=plan.limits.pids,
            # Memory and swap together: no swap.
            memswap_limit=plan.limits.memory,
            # Reaps orphans, and keeps process 1 from ending when a child is killed.
            init=True,
            group_add=[str(group.gid) for group in plan.account.groups],
            tmpfs={
                **host.get("tmpfs", {}),
                policy.RUNTIME_DIR: f"size=16m,mode=0700,uid={plan.account.uid},gid={plan.account.group.gid}",
            },
        )
        self.extra_host_config = host

    async def start_object(self) -> None:
        """Put account files and entrypoint into the created container, then start it."""
        plan = self._planned()
        await self.in_thread(
            self._container_files.install, self.object_id, plan.environment.image_id, plan.account, policy.ENTRYPOINT
        )
        await super().start_object()

    async def poll(self) -> Any:
        """Return None while the server runs; the container of one that ended by itself is removed."""
        status = await super().poll()
        if status is not None and self.object_id and self.remove:
            await self.remove_object()
            self.object_id = ""
        return status

    async def _discard(self) -> None:
        """Remove the container of a start that failed: Docker keeps those that never ran."""
        if not self.object_id:
            return
        try:
            await self.docker("remove_container", self.object_id, v=True, force=True)
        except DOCKER_ERRORS as error:
            self.log.debug("Container %s not removed: %s", self.object_id[:12], error)
        self.object_id = ""

    def _planned(self) -> ServerPlan:
        if self.plan is None:
            raise RuntimeError("no server was planned")
        return self.plan

    # What DockerSpawner asks for while it creates the container.

    @property
    def homedir(self) -> str:
        """Home in the container: the same path as on the host."""
        return self._planned().account.home

    @property
    def host_homedir(self) -> str:
        """Home on the host."""
        return self._planned().account.real_home

    @property
    def volume_mount_points(self) -> list[str]:
        """Volumes of the configuration; homes are mounts (see ``mount_binds``)."""
        return DockerSpawner.volume_mount_points.fget(self)

    @property
    def volume_binds(self) -> dict[str, Any]:
        """Volumes of the configuration; homes are mounts (see ``mount_binds``)."""
        return DockerSpawner.volume_binds.fget(self)

    @property
    def mount_binds(self) -> list[Mount]:
        """Mounts of the configuration and of the plan.

        Mounts and not volumes: for those Docker would make a missing source directory, as root.
        """
        planned = [
            Mount(mount.target, mount.source, type="bind", read_only=mount.read_only, propagation="rprivate")
            for mount in self._planned().mounts
        ]
        return [*super().mount_binds, *planned]

    def get_env(self) -> dict[str, Any]:
        """Variables of the container."""
        env = super().get_env()
        env.update(self._planned().variables, PLASMA_RUNTIME_DIR=policy.RUNTIME_DIR)
        return env

    def template_namespace(self) -> dict[str, str]:
        """Names for the container's name template; "Lab" and "lab" are two servers and get two containers."""
        names = super().template_namespace()
        names["servername"] = self.escape(self.name)
        return names
