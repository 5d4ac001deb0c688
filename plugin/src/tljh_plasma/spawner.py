"""The spawner for one Docker host: runs the server that the policy planned in a container."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import docker
from docker.types import Mount
from jupyterhub.traitlets import Command
from traitlets import Bool, Instance, Integer, List, Unicode, default

from . import container_files, failures, firewall, firewall_upkeep, gpus, image_look, notices, policy, starts, writable
from . import environments as envs
from .environments import Environment
from .network import DOCKER_ERRORS
from .planning import PlannedSpawner, StartFailure, http_error
from .reach import INTERNET, Reach
from .settings import DEFAULT_NETWORK_NAME
from .watched import WatchedSpawner

# Seconds between two looks whether a server answers: it is what a person waits for.
POLL_INTERVAL = 0.1
# Seconds for which a look at the firewall holds: a class starts its servers together.
FIREWALL_MAX_AGE = 2


class PlasmaSpawner(WatchedSpawner):
    """One container per server, which never runs anything as root.

    The container runs as the person's uid and gid from its first process on, without capabilities and without a way
    to gain privileges. The hub itself writes nothing into homes: directories are made inside, by the person.

    Defaults are trait defaults rather than configuration, so that ``c.Spawner`` and ``c.DockerSpawner`` can change
    them as usual.
    """

    files_dir = Unicode(
        config=True, help="Directory of the host for files that are mounted into containers, which is root's."
    )
    reach = Instance(
        Reach,
        args=(INTERNET.allow, INTERNET.host_ports),
        config=True,
        help="What servers reach beside the internet and the hub (see plasma.network).",
    )

    activity_interval = Integer(
        300, min=5, config=True, help="Seconds between two reports of a server that it is in use (see standalone)."
    )

    reserved_gpus = List(Integer(), config=True, help="Numbers of GPUs that no server gets (see plasma.gpu.reserved).")

    # Traits of DockerSpawner and Spawner with other defaults.
    network_name = Unicode(DEFAULT_NETWORK_NAME, config=True)
    use_internal_ip = Bool(True, config=True)
    remove = Bool(True, config=True)
    pull_policy = Unicode("never", config=True)
    cmd = Command([policy.COMMAND], config=True)
    args = List(Unicode(), list(policy.ARGUMENTS), config=True)
    start_timeout = Integer(120, config=True)
    http_timeout = Integer(60, config=True)

    # Shared by all spawners: what is known of images, and threads for calls to Docker, several at a time, so that one
    # slow start does not hold up everybody else.
    _looks = image_look.Looks()
    executor = ThreadPoolExecutor(8, thread_name_prefix="docker")
    _local = threading.local()
    _gpu_turn = asyncio.Lock()

    @default("files_dir")
    def _default_files_dir(self) -> str:
        return container_files.default_base()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._planned_mounts: list[Mount] = []
        self._safe = False
        self._gpus: list[str] = []
        # Each start sets these traits: keep what was configured.
        self._configured_create = self.extra_create_kwargs
        self._configured_host = self.extra_host_config

    @property
    def client(self) -> docker.APIClient:
        """This thread's Docker client: requests' sessions are not made to be shared between threads."""
        if not hasattr(self._local, "client"):
            kwargs = {"version": "auto", **docker.utils.kwargs_from_env(), **self.client_kwargs}
            self._local.client = docker.APIClient(**kwargs)
        return self._local.client

    async def in_thread(self, function: Any, *args: Any) -> Any:
        """Call ``function(client, *args)`` in a thread."""
        return await asyncio.wrap_future(self.executor.submit(lambda: function(self.client, *args)))

    async def list_environments(self) -> list[Environment]:
        """Return all environments that the engine has; raises StartFailure when it does not answer."""
        try:
            images = await self.docker("images", filters={"label": [envs.LABEL_REF], "dangling": False})
        except DOCKER_ERRORS as error:
            raise StartFailure(503, failures.SILENT, f"Docker does not list its images: {error}") from error
        return envs.from_images(images)

    async def check_allowed(self, image: str) -> str:
        """Allow the planned image and nothing else, whatever ``allowed_images`` says."""
        if self.plan is None or image != self.plan.environment.image:
            raise http_error(403, "This environment is not open to you.")
        return image

    # Starting.

    async def run_plan(self) -> tuple[str, int]:
        """Run the planned server in a new container, and return its address once it answers.

        Raises:
            StartFailure: it could not be run; the container is removed.
        """
        # The answer of an earlier start, should this one fail before there is a container.
        self.object_id = ""
        try:
            # A reload of the host's firewall may have dropped the rules. Without them nobody starts.
            reach = await asyncio.to_thread(self.reach.resolved)
            await self.in_thread(firewall.ensure, self.network_name, self.hub.port, FIREWALL_MAX_AGE, reach)
            self._look_after_the_firewall()
            if await self.get_object():
                # Of a hub whose database is lost. Now, as its files go with it.
                await self.remove_object()
                self.object_id = ""
            self.forget_the_end()
            return await self._run()
        except firewall.FirewallError as error:
            raise StartFailure(503, failures.UNPROTECTED, str(error)) from error
        except DOCKER_ERRORS as error:
            # Where the image of this moment's list is gone there is no container to remove either.
            await self._discard()
            raise failures.of_docker(error) from error
        except BaseException:
            # Among others the start timeout, which cancels us.
            await self._discard()
            raise

    async def _run(self) -> tuple[str, int]:
        """Run the planned server; one that ends at once is tried a second time, without what the home brings."""
        self.told = {}
        self._safe = starts.asked_for_safe_mode(self.user_options)
        try:
            return await self._run_container()
        except failures.EndedAtOnce as failure:
            if self._safe:
                raise
            self.log.warning("Server %s starts again in safe mode: %s", self._log_name, failure.reason)
            await self._discard()
            self.step(30, "It ended at once: starting again in safe mode, without packages and settings of your home")
            self._safe = True
            return await self._run_container()

    async def _run_container(self) -> tuple[str, int]:
        """Make a container and wait for its server."""
        await self._prepare()
        self.step(25, "Creating your container")
        run = self._run_with_gpus if self.plan.environment.gpus else super(PlannedSpawner, self).start
        address = await run()
        await self._wait_until_it_answers(*address)
        if self._safe:
            self.log.warning("Server %s runs in safe mode", self._log_name)
            self.told["safe mode"] = starts.safe_mode(self.plan.environment)
        if complaints := starts.complaints(await self.in_thread(starts.beginning_of_log, self.object_id)):
            self.log.warning("Server %s: %s", self._log_name, complaints.text)
            self.told["start"] = complaints
        if self.plan.missing:
            self.told["directories"] = starts.missing_directories(self.plan.missing)
        if self.told:
            await self.tell(logging.WARNING)
        return address

    async def _run_with_gpus(self) -> tuple[str, int]:
        """Run the container with GPUs that no other one has. Such servers start one after another: what one has taken
        is seen by the next when its container runs.

        Raises:
            StartFailure: there are not enough free ones.
        """
        plan = self.plan
        async with self._gpu_turn:
            self._gpus = await self.in_thread(gpus.choose, plan.environment.gpus, self.reserved_gpus, plan.account.name)
            self.extra_create_kwargs["labels"][policy.LABEL_GPUS] = ",".join(self._gpus)
            self.extra_host_config = {**self.extra_host_config, **gpus.host_config(self._gpus)}
            self.log.info("Server %s gets the GPUs %s", self._log_name, ", ".join(self._gpus))
            return await super(PlannedSpawner, self).start()

    async def _configured(self, value: Any) -> dict[str, Any]:
        """Return an administrator's extra arguments, which may be a function of the spawner."""
        value = self._eval_if_callable(value)
        if inspect.isawaitable(value):
            value = await value
        return copy.deepcopy(dict(value or {}))

    async def _prepare(self) -> None:
        """Write the container's files, and turn the plan into what DockerSpawner passes to Docker.

        Raises:
            StartFailure: files cannot be written, or the image would lead files of root's into the home.
        """
        plan = self.plan
        self._gpus = []
        create = await self._configured(self._configured_create)
        host = await self._configured(self._configured_host)
        self._planned_mounts = [container_files.bind(plan.account.home, plan.account.real_home, read_only=False)]
        if plan.shared_data:
            self._planned_mounts.append(container_files.bind(policy.SHARED_DATA_TARGET, plan.shared_data))
        self._planned_mounts += [container_files.bind(one.target, one.source, not one.writable) for one in plan.volumes]
        if directory := await self.tell(logging.WARNING):
            self._planned_mounts.append(container_files.bind(notices.TARGET, directory))

        mounted = [*(mount["Target"] for mount in self.mount_binds), *self.volume_mount_points, *host.get("tmpfs", {})]
        targets = [*image_look.ALWAYS, str(container_files.OURS), *mounted, *writable.tmpfs(plan, {}, mounted)]
        image = await self.in_thread(self._looks.into, plan.environment.image_id, targets)
        try:
            image_look.check(targets, image, plan.account.home)
        except image_look.LedAstray as error:
            message = failures.BROKEN.format(name=plan.environment.name, what="its links or volumes lead into homes")
            raise StartFailure(500, message, f"image {plan.environment.image}: {error}") from error
        try:
            files = await asyncio.to_thread(
                container_files.write, self.files_dir, self.container_name, image, plan.account
            )
        except OSError as error:
            reason = f"The files of the container cannot be written: {error}"
            raise StartFailure(500, failures.NOT_STARTED, reason) from error
        self._planned_mounts += [container_files.bind(target, source) for target, source in files.items()]
        mounted += files
        tmpfs = writable.tmpfs(plan, image.volumes, mounted)
        self._planned_mounts += writable.volumes(plan, image, [*tmpfs, *mounted])
        # What is mounted upon comes first.
        self._planned_mounts.sort(key=lambda mount: mount["Target"])

        self.mem_limit = plan.limits.memory
        self.cpu_limit = plan.limits.cpu
        labels = {
            # For administrators' tools; names of containers are not made to be read back.
            policy.LABEL_USER: plan.account.name,
            policy.LABEL_SERVER: self.name,
            policy.LABEL_ENVIRONMENT: plan.environment.image,
        }
        self.extra_create_kwargs = {
            **create,
            "user": plan.user,
            # The entrypoint changes to the environment's directory, which may not exist yet.
            "working_dir": "/",
            "entrypoint": list(policy.ENTRYPOINT_COMMAND),
            "labels": {**create.get("labels", {}), **labels},
        }
        self.extra_host_config = writable.host_config(plan, tmpfs, host)

    async def start_object(self) -> None:
        """Start the created container."""
        self.step(40, f"Starting {self.plan.environment.name}")
        await super().start_object()

    async def remove_object(self) -> None:
        """Remove the container and its files, also one that runs: it may be of a hub whose database is lost."""
        if self.told:
            self.told = {}
            await self.tell(logging.DEBUG)
        await self.in_thread(writable.remove_container, self.object_id)
        await asyncio.to_thread(container_files.forget, self.files_dir, self.container_name)

    async def _wait_until_it_answers(self, ip: str, port: int) -> None:
        """Wait for the server, which JupyterHub would do too, but without seeing why it ends and less often."""
        self.step(60, "Waiting for JupyterLab; the first start of an environment copies its files")
        end = time.monotonic() + self.http_timeout
        look = 0.0
        while True:
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(ip, port), 1)
            except (OSError, asyncio.TimeoutError):
                pass
            else:
                writer.close()
                self.step(90, "Opening JupyterLab")
                return
            now = time.monotonic()
            if now >= look:
                look = now + 5 * POLL_INTERVAL
                state = (await self.docker("inspect_container", self.object_id))["State"]
                if not state["Running"]:
                    raise failures.of_container(state, await self._last_words(), self.plan)
            if now >= end:
                raise failures.of_silence(self.http_timeout, await self._last_words())
            await asyncio.sleep(POLL_INTERVAL)

    async def _last_words(self) -> str:
        """The end of what the container wrote."""
        text = await self.docker("logs", self.object_id, stdout=True, stderr=True, tail=40)
        return text.decode(errors="replace").strip()

    async def poll(self) -> Any:
        """Return None while the server runs; the container of one that ended by itself is removed."""
        status = await super().poll()
        if status is None:
            self._look_after_the_firewall()
            await self.tell(logging.DEBUG)
        elif self.object_id and self.remove:
            await self.explain_the_end()
            await self.remove_object()
            self.object_id = ""
        return status

    def _look_after_the_firewall(self) -> None:
        """See to it that what runs is shut out again after a reload of the host's firewall, also where nobody starts a
        server, and reaches the hub again after a restart of it that changed its process or its port."""
        firewall_upkeep.follow(self.network_name, self.hub.port, self.reach)

    async def _discard(self) -> None:
        """Remove the container of a start that failed: Docker keeps those that never ran."""
        if self.object_id:
            try:
                await self.remove_object()
            except DOCKER_ERRORS as error:
                self.log.debug("Container %s not removed: %s", self.object_id[:12], error)
            self.object_id = ""

    # What DockerSpawner asks for while it creates the container.

    @property
    def mount_binds(self) -> list[Mount]:
        """Mounts of the configuration and of the plan, our files, the notices, and volumes that the image fills."""
        return [*super().mount_binds, *self._planned_mounts]

    def get_env(self) -> dict[str, Any]:
        """Return the variables of the container, among them those that images of Jupyter's docker-stacks know."""
        ours = {
            "PLASMA_RUNTIME_DIR": policy.RUNTIME_DIR,
            "PLASMA_SAFE_MODE": "1" if self._safe else "",
            "JUPYTERHUB_ACTIVITY_INTERVAL": self.activity_interval,
        }
        if self._gpus:
            ours[gpus.VARIABLE] = ",".join(self._gpus)
        env = super().get_env()
        extras = self.plan.extras.variables(urlsplit(env["JUPYTERHUB_API_URL"]).hostname or "")
        trusts = container_files.trusts(self.files_dir)
        # An image may ask for all of them, and where NVIDIA's runtime is the engine's default one would get them.
        return {
            gpus.VARIABLE: gpus.NOTHING,
            **trusts,
            **extras,
            **env,
            **self.plan.identity,
            **self.plan.variables,
            **ours,
        }

    def template_namespace(self) -> dict[str, str]:
        """Return names for the container's name template; "Lab" and "lab" are two servers and get two containers."""
        return {**super().template_namespace(), "servername": self.escape(self.name)}
