"""The spawner for one Docker host: runs the server that the policy planned in a container."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import requests
from docker.types import Mount
from dockerspawner import DockerSpawner, SystemUserSpawner
from traitlets import Instance, Unicode, default

from . import container_files, failures, firewall, firewall_upkeep, image_links, notices, policy, writable
from . import environments as envs
from .accounts import find_entry
from .container_files import ContainerFiles
from .environments import Environment
from .planning import PlannedSpawner, StartFailure, http_error
from .reach import INTERNET, Reach
from .settings import DEFAULT_NETWORK_NAME

DOCKER_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)
# Seconds between two looks whether a server answers: it is what a person waits for.
POLL_INTERVAL = 0.1
# Seconds for which a look at the firewall holds: a class starts its servers together.
FIREWALL_MAX_AGE = 2


class PlasmaSpawner(PlannedSpawner, SystemUserSpawner):
    """One container per server, which never runs anything as root.

    The container runs as the person's uid and gid from its first process on, without capabilities and without a way
    to gain privileges. The hub itself writes nothing into homes: directories are made inside, by the person.

    Defaults are trait defaults rather than configuration, so that ``c.Spawner`` and ``c.DockerSpawner`` can change
    them as usual.
    """

    notices_dir = Unicode(
        "/run/plasma/notices",
        config=True,
        help="Directory of the host for what people are told in JupyterLab, which is root's. Empty for nothing.",
    )

    files_dir = Unicode(
        config=True, help="Directory of the host for files that are mounted into containers, which is root's."
    )

    reach = Instance(
        Reach,
        args=(INTERNET.allow, INTERNET.host_ports),
        config=True,
        help="What servers reach beside the internet and the hub (see plasma.network).",
    )

    # One for all: account files of images.
    _container_files = ContainerFiles()
    _image_links = image_links.ImageLinks()
    _local = threading.local()

    @default("files_dir")
    def _default_files_dir(self) -> str:
        # A developer's hub is not root.
        return "/run/plasma/servers" if os.geteuid() == 0 else f"{tempfile.gettempdir()}/plasma-{os.geteuid()}"

    @default("network_name")
    def _default_network_name(self) -> str:
        return DEFAULT_NETWORK_NAME

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

    @default("args")
    def _default_args(self) -> list[str]:
        # Seconds for which a server remembers whom the hub lets in: five minutes after a logout are too many. The other
        # one is for images with jupyter-resource-usage; others do not know the setting and ignore it.
        return ["--HubAuth.cache_max_age=60", "--ResourceUseDisplay.track_cpu_percent=True"]

    @default("start_timeout")
    def _default_start_timeout(self) -> int:
        return 120

    @default("http_timeout")
    def _default_http_timeout(self) -> int:
        return 60

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._notices: str | None = None
        self._files: dict[str, str] = {}
        self._volumes: list[str] = []
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
        """Return all environments that the engine has.

        Raises:
            StartFailure: Docker does not answer.
        """
        try:
            images = await self.in_thread(
                lambda client: client.images(filters={"label": [envs.LABEL_REF], "dangling": False})
            )
        except DOCKER_ERRORS as error:
            raise StartFailure(503, failures.SILENT, f"Docker does not list its images: {error}") from error
        return envs.from_images(images)

    async def check_allowed(self, image: str) -> str:
        """Allow the planned image and nothing else, whatever ``allowed_images`` says."""
        if self.plan is None or image != self.plan.environment.image:
            raise http_error(403, "This environment is not open to you.")
        return image

    # Starting.

    async def run_plan(self) -> Any:
        """Run the planned server in a new container, and return its address once it answers.

        Raises:
            StartFailure: it could not be run; the container is removed.
        """
        # The answer of an earlier start, should this one fail before there is a container.
        self.object_id = ""
        try:
            # A reload of the host's firewall may have dropped the rules. Without them nobody starts.
            await self.in_thread(firewall.ensure, self.network_name, self.hub.port, FIREWALL_MAX_AGE, self.reach)
            self._look_after_the_firewall()
            self._notices = await asyncio.to_thread(self._refresh_notices, logging.WARNING)
            if await self.get_object():
                # Of a hub whose database is lost. Now, as its files go with it.
                await self.remove_object()
                self.object_id = ""
            image = await self._write_files(self.planned())
            await self._apply(self.planned(), image)
            await self._check_links([path for path, _ in image.volumes])
            self.step(25, "Creating your container")
            address = await super(PlannedSpawner, self).start()
            await self._wait_until_it_answers(*address)
            return address
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

    async def _configured(self, value: Any) -> dict[str, Any]:
        """Return an administrator's extra arguments, which may be a function of the spawner."""
        value = self._eval_if_callable(value)
        if inspect.isawaitable(value):
            value = await value
        return copy.deepcopy(dict(value or {}))

    async def _write_files(self, plan: policy.ServerPlan) -> container_files.ImageFiles:
        """Write the files that are mounted into the container, and return what matters of its image.

        Raises:
            StartFailure: they cannot be written.
        """
        image = await self.in_thread(self._container_files.of_image, plan.environment.image_id)
        try:
            self._files = await asyncio.to_thread(
                self._container_files.write, self.files_dir, self.container_name, image, plan.account
            )
        except OSError as error:
            reason = f"The files of the container cannot be written: {error}"
            raise StartFailure(500, failures.NOT_STARTED, reason) from error
        return image

    async def _apply(self, plan: policy.ServerPlan, image: container_files.ImageFiles) -> None:
        """Turn the plan into what DockerSpawner passes to Docker."""
        self.user_id = plan.account.uid
        self.group_id = plan.account.group.gid
        self.run_as_root = False
        self.mem_limit = plan.limits.memory
        self.cpu_limit = plan.limits.cpu
        create = await self._configured(self._configured_create)
        self.extra_create_kwargs = {
            **create,
            "user": plan.user,
            # The entrypoint changes to the environment's directory, which may not exist yet.
            "working_dir": "/",
            # By its interpreter: directories like /run are often mounted so that nothing in them can be executed.
            "entrypoint": ["/bin/sh", policy.ENTRYPOINT],
            # For administrators' tools; names of containers are not made to be read back.
            "labels": {
                **create.get("labels", {}),
                policy.LABEL_USER: plan.account.name,
                policy.LABEL_SERVER: self.name,
                policy.LABEL_ENVIRONMENT: plan.environment.image,
            },
        }
        host = await self._configured(self._configured_host)
        self._volumes = []
        mounted = [*(mount["Target"] for mount in self.mount_binds), *self.volume_mount_points, *host.get("tmpfs", {})]
        places = writable.tmpfs(plan, image.volumes, mounted)
        self._volumes = writable.read_only(image.volumes, places, mounted)
        host.update(
            # We remove containers ourselves: those that the engine is to remove end when it restarts, also with
            # live-restore (seen with Docker 20.10).
            auto_remove=False,
            # The engine's disk is everybody's, and nothing limits what one container writes there.
            read_only=True,
            cap_drop=["ALL"],
            # Whatever set-user-id program a person brings along gains nothing.
            security_opt=[*host.get("security_opt", []), "no-new-privileges"],
            pids_limit=plan.limits.pids,
            # Memory and swap together: no swap.
            memswap_limit=plan.limits.memory,
            # Reaps orphans, and keeps process 1 from ending when a child is killed.
            init=True,
            group_add=[str(group.gid) for group in plan.account.groups],
            # On the host's disk: what a server writes to its output would be kept without limit.
            log_config={"Type": "local", "Config": {"max-size": "5m", "max-file": "2"}},
            tmpfs={**places, **host.get("tmpfs", {}), policy.RUNTIME_DIR: places[policy.RUNTIME_DIR]},
        )
        self.extra_host_config = host

    async def _check_links(self, own: list[str]) -> None:
        """Make sure that the image leads nothing that the engine makes as root into the home.

        Args:
            own: where the image itself wants volumes.

        Raises:
            StartFailure: it does.
        """
        plan = self.planned()
        home = plan.account.home
        mounts = [mount["Target"] for mount in self.mount_binds]
        volumes = [volume["bind"] for volume in self.volume_binds.values()]
        places = [*image_links.ALWAYS, *mounts, *volumes, *self.extra_host_config.get("tmpfs", ())]
        links = await self.in_thread(self._image_links.of, plan.environment.image_id, [*places, *own])
        try:
            image_links.check(places, own, home, links)
        except image_links.LedAstray as error:
            message = failures.BROKEN.format(name=plan.environment.name, what="its links or volumes lead into homes")
            raise StartFailure(500, message, f"image {plan.environment.image}: {error}") from error

    async def start_object(self) -> None:
        """Start the created container."""
        self.step(40, f"Starting {self.planned().environment.name}")
        await super().start_object()

    async def remove_object(self) -> None:
        """Remove the container and its files, also one that runs: it may be of a hub whose database is lost."""
        volumes = await self.in_thread(container_files.volumes_of, self.object_id, writable.VOLUME)
        try:
            await self.docker("remove_container", self.object_id, v=True, force=True)
        except docker.errors.APIError as error:
            # Gone, or somebody else is removing it.
            if error.status_code not in (404, 409):
                raise
        await self.in_thread(container_files.remove_volumes, volumes)
        await asyncio.to_thread(container_files.forget, self.files_dir, self.container_name)

    async def _wait_until_it_answers(self, ip: str, port: int) -> None:
        """Wait for the server, which JupyterHub would do too, but without seeing why it ends and less often.

        Raises:
            StartFailure: it ended, or did not answer in time.
        """
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
                    raise failures.of_container(state, await self._last_words(), self.planned())
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
            await asyncio.to_thread(self._refresh_notices, logging.DEBUG)
        if status is not None and self.object_id and self.remove:
            await self.remove_object()
            self.object_id = ""
        return status

    def _look_after_the_firewall(self) -> None:
        """See to it that what runs is shut out again after a reload of the host's firewall, also where nobody starts a
        server, and reaches the hub again after a restart of it that changed its process or its port."""
        firewall_upkeep.follow(self.network_name, self.hub.port, self.reach)

    def _refresh_notices(self, level: int) -> str | None:
        """Bring what the person is told up to date; the directory to mount, None when there is none.

        Args:
            level: at which a failure is logged.
        """
        if not self.notices_dir:
            return None
        try:
            return notices.refresh(self.notices_dir, self.user.name, find_entry(self.user.name).pw_uid)
        except Exception as error:
            # Nobody's server waits for this, whatever it is.
            self.log.log(level, "Server %s has no notices: %s", self._log_name, error)
            return None

    async def _discard(self) -> None:
        """Remove the container of a start that failed: Docker keeps those that never ran."""
        if not self.object_id:
            return
        try:
            volumes = await self.in_thread(container_files.volumes_of, self.object_id, writable.VOLUME)
            await self.docker("remove_container", self.object_id, v=True, force=True)
            await self.in_thread(container_files.remove_volumes, volumes)
            await asyncio.to_thread(container_files.forget, self.files_dir, self.container_name)
        except DOCKER_ERRORS as error:
            self.log.debug("Container %s not removed: %s", self.object_id[:12], error)
        self.object_id = ""

    # What DockerSpawner asks for while it creates the container.

    @property
    def homedir(self) -> str:
        """Home in the container: the same path as on the host."""
        return self.planned().account.home

    @property
    def host_homedir(self) -> str:
        """Home on the host."""
        return self.planned().account.real_home

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
        """Mounts of the configuration and of the plan, our files, the notices, and volumes that the image fills.

        Mounts and not volumes: for those Docker would make a missing source directory, as root.
        """
        planned = [
            Mount(mount.target, mount.source, type="bind", read_only=mount.read_only, propagation="rprivate")
            for mount in self.planned().mounts
        ]
        ours = {**self._files, **({notices.TARGET: self._notices} if self._notices else {})}
        for target, source in ours.items():
            planned.append(Mount(target, source, type="bind", read_only=True, propagation="rprivate"))
        for target in self._volumes:
            name = writable.volume_name(self.planned().environment.image_id, target)
            planned.append(Mount(target, name, type="volume", read_only=True))
        return [*super().mount_binds, *planned]

    def get_env(self) -> dict[str, Any]:
        """Variables of the container."""
        env = super().get_env()
        env.update(self.planned().variables, PLASMA_RUNTIME_DIR=policy.RUNTIME_DIR)
        return env

    def template_namespace(self) -> dict[str, str]:
        """Names for the container's name template; "Lab" and "lab" are two servers and get two containers."""
        names = super().template_namespace()
        names["servername"] = self.escape(self.name)
        return names
