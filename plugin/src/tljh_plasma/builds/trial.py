"""A server of a new image, started before anybody gets the image: where none starts, the former image stays in use.

It is started as the spawner starts servers of people, by somebody who has no account, with a home in memory, on the
builds' network. Nobody has decided yet to trust what it runs, so directories of the host are there and empty. A server
asks the hub before it listens, so a stand-in for the hub runs beside it, in its container; where the image has no
Python for that, a server that asks for the hub has come far enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import Any
from uuid import UUID

import aiohttp
import docker
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

from .. import container_files, image_look, network, policy, settings, writable
from .. import environments as envs
from ..accounts import Account, Group
from ..failures import is_out_of_memory
from . import images
from .cause import cause
from .container import ENGINE_ERRORS, PATIENCE, to_its_end
from .images import BuildFailed
from .log import BuildLog

# Whose servers they are: of nobody. The id is no person's, and no container's whose users have ids of their own.
NAME = "plasma-trial"
UID = 64900
HOME = f"/home/{NAME}"
PREFIX = f"/user/{NAME}/"
EMPTY = "size=1m,nr_inodes=16,mode=0755"
PORT = 8888
# Of the stand-in.
HUB_PORT = 15303
# Seconds until a server has to answer: more than twice as long as people wait.
LIMIT = 300
INTERVAL = 0.2
LINES = 40
# What servers of all releases say when the hub does not answer.
ASKS = "my Hub at"
MISSING = (f"{policy.COMMAND}: not found", f"{policy.COMMAND}: command not found")
_NOT = "The image is built, but no server starts from it:"

# What it says in place of the error that it has just met.
ECHO = "Failed to import default single-user server"

# A hub for servers: it says yes to everything.
STAND_IN = """
import http.server

class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET

    def log_message(self, *args):
        pass

http.server.HTTPServer(("127.0.0.1", %d), Hub).serve_forever()
"""
# With the server's own Python, or another one.
BESIDE = """
line=
program=$(command -v "$1") && IFS= read -r line <"$program"
for python in "${line#"#!"}" python3 python; do
    case $python in *python*) command -v "$python" >/dev/null || continue ;; *) continue ;; esac
    "$python" -c "$0" 2>/dev/null &
    break
done
exec "$@"
"""


def name_of(uid: UUID) -> str:
    """Return the name of the container in which the image of a build is tried."""
    return f"{NAME}-{uid}"


async def start(
    engine: Docker, image: str, uid: UUID, values: settings.Settings, network_name: str, log: BuildLog
) -> None:
    """Start a server of the unpublished image of an environment, wait until it answers, and remove it.

    Args:
        engine: the engine.
        image: the final name of the image.
        uid: id of the environment's row.
        values: the hub's settings: the limits of servers, and what they are like.
        network_name: the builds' network, which is protected.
        log: is told what happens, and what the server has written where it does not start.

    Raises:
        BuildFailed: no server starts.
        DockerError: the engine refuses, or has been away too long.
    """
    patience = PATIENCE
    while True:
        try:
            plan = await _plan(engine, image, values)
            return await _Trial(engine, plan, name_of(uid), network_name, log).run()
        except ENGINE_ERRORS as error:
            # An engine that was upgraded meanwhile has ended the server.
            patience -= 1
            if patience < 0 or (isinstance(error, DockerError) and error.status != images.NO_CONNECTION):
                raise
            await asyncio.sleep(1)


async def forget(uid: UUID) -> None:
    """Remove the container that a service left which was killed meanwhile."""
    await asyncio.to_thread(_remove, name_of(uid))


async def _plan(engine: Docker, image: str, values: settings.Settings) -> policy.ServerPlan:
    """Return what is decided about the server: what would be about somebody in no group."""
    found: dict[str, Any] = await engine.images.inspect(images.build_tag(image))
    described = {"Id": found["Id"], "RepoTags": [image], "Labels": found["Config"].get("Labels")}
    environments = envs.from_images([described])
    if not environments:
        raise BuildFailed("The image has lost the labels of an environment, so nobody could start it.")
    account = Account(NAME, UID, Group(NAME, UID), (), HOME, HOME)
    defaults = policy.default_limits(values.memory, values.cpu, policy.PROCESSES)
    extras = values.servers.of(frozenset(), environments[0].name)
    limits = policy.limits_of(environments[0], defaults)
    return policy.ServerPlan(account, environments[0], limits, values.shared_data, extras=extras)


class _Trial:
    """One start."""

    def __init__(self, engine: Docker, plan: policy.ServerPlan, name: str, network_name: str, log: BuildLog):
        self._engine, self._plan, self._name, self._log = engine, plan, name, log
        self._network_name = network_name

    async def run(self) -> None:
        """Start, wait and remove."""
        try:
            container = self._engine.containers.container(await to_its_end(asyncio.to_thread(self._make)))
            self._log.say("A server of the new image is tried.")
            begun = time.monotonic()
            await container.start()
            if await self._wait(container, begun + LIMIT):
                self._log.say(f"It answers after {time.monotonic() - begun:.0f} seconds.")
            else:
                self._log.say("It starts, as far as that can be seen without a hub.")
        finally:
            await asyncio.to_thread(_remove, self._name)

    # In a thread: what the spawner does before it starts a container.

    def _make(self) -> str:
        try:
            _remove(self._name)
            with contextlib.closing(network.connect(timeout=0)) as client:
                return self._create(client)
        except docker.errors.APIError as error:
            raise BuildFailed(f"{_NOT} Docker refuses its container: {' '.join(str(error).split())}") from error
        except (network.NetworkError, *network.DOCKER_ERRORS) as error:
            raise ConnectionError(str(error)) from error
        except image_look.LedAstray as error:
            raise BuildFailed(f"{_NOT} {error}. Leave out the link or the volume.") from error

    def _create(self, client: docker.APIClient) -> str:
        plan = self._plan
        shared = [policy.SHARED_DATA_TARGET] if plan.shared_data else []
        memory = dict.fromkeys([*(one.target for one in plan.extras.volumes), *shared], EMPTY)
        memory[HOME] = writable.home_in_memory(plan)
        mounted = list(memory)
        targets = [*image_look.ALWAYS, str(container_files.OURS), *mounted, *writable.tmpfs(plan, {}, mounted)]
        image = image_look.Looks().into(client, plan.environment.image_id, targets)
        image_look.check(targets, image, HOME)
        base = container_files.default_base()
        files = container_files.write(base, self._name, image, plan.account)
        mounted += files
        tmpfs = writable.tmpfs(plan, image.volumes, mounted)
        binds = [container_files.bind(target, source) for target, source in files.items()]
        binds += writable.volumes(plan, image, [*tmpfs, *mounted])
        host = writable.host_config(plan, {**tmpfs, **memory}, {})
        host |= {"mem_limit": plan.limits.memory, "nano_cpus": int(plan.limits.cpu * 1e9)}
        made = client.create_container(
            plan.environment.image_id,
            name=self._name,
            entrypoint=list(policy.ENTRYPOINT_COMMAND),
            command=["/bin/sh", "-c", BESIDE, STAND_IN % HUB_PORT, policy.COMMAND, *policy.ARGUMENTS],
            user=plan.user,
            working_dir="/",
            environment={**container_files.trusts(base), **self._variables()},
            host_config=client.create_host_config(
                network_mode=self._network_name, mounts=sorted(binds, key=lambda mount: mount["Target"]), **host
            ),
        )
        return made["Id"]

    def _variables(self) -> dict[str, Any]:
        """What a server is told: by JupyterHub, and by us."""
        plan, token = self._plan, secrets.token_hex(16)
        hub = f"http://127.0.0.1:{HUB_PORT}/hub/api"
        scopes = f'["access:servers!server={NAME}/"]'
        told = {
            **dict.fromkeys(("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"), token),
            "JUPYTERHUB_API_URL": hub,
            "JUPYTERHUB_ACTIVITY_URL": f"{hub}/users/{NAME}/activity",
            "JUPYTERHUB_CLIENT_ID": f"jupyterhub-user-{NAME}",
            **dict.fromkeys(("JUPYTERHUB_HOST", "JUPYTERHUB_SERVER_NAME"), ""),
            "JUPYTERHUB_BASE_URL": "/",
            "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{PREFIX}oauth_callback",
            **dict.fromkeys(("JUPYTERHUB_OAUTH_SCOPES", "JUPYTERHUB_OAUTH_ACCESS_SCOPES"), scopes),
            "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": "[]",
            "JUPYTERHUB_USER": NAME,
            "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
            "JUPYTERHUB_SERVICE_URL": f"http://0.0.0.0:{PORT}{PREFIX}",
            "JUPYTERHUB_DEFAULT_URL": "/lab",
            "MEM_LIMIT": plan.limits.memory,
            "CPU_LIMIT": plan.limits.cpu,
            "PLASMA_RUNTIME_DIR": policy.RUNTIME_DIR,
        }
        return {**plan.extras.variables("127.0.0.1"), **told, **plan.identity, **plan.variables}

    # Waiting.

    async def _wait(self, container: DockerContainer, end: float) -> bool:
        """Return whether the server answers; otherwise it has come as far as it can."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            while True:
                described = await container.show()
                state = described["State"]
                if not state["Running"]:
                    await self._explain(container, state)
                    return False
                addresses = [one["IPAddress"] for one in described["NetworkSettings"]["Networks"].values()]
                if await _answers(session, addresses):
                    return True
                if time.monotonic() > end:
                    await self._told(container)
                    minutes = LIMIT // 60
                    raise BuildFailed(f"{_NOT} it has not answered after {minutes} minutes: see the lines above.")
                await asyncio.sleep(INTERVAL)

    async def _told(self, container: DockerContainer) -> str:
        """Copy the end of what the server has written to the log."""
        lines = await container.log(stdout=True, stderr=True, tail=LINES)
        text = "".join(lines)
        if ASKS not in text:
            self._log.feed(text)
            self._log.flush()
        return text

    async def _explain(self, container: DockerContainer, state: dict[str, Any]) -> None:
        text = await self._told(container)
        if ASKS in text:
            return  # there is no Python for the stand-in: nothing was in its way before that
        if is_out_of_memory(state):
            raise BuildFailed(
                f"{_NOT} it needs more than its {self._plan.limits.memory / 1024**3:.2g} GB of memory. Give the "
                "environment more, and build it again."
            )
        if any(words in text for words in MISSING):
            raise BuildFailed(
                f"{_NOT} there is no {policy.COMMAND} in it. Let the repository install the package jupyterhub, and "
                "build it again."
            )
        lines = [line.strip() for line in text.splitlines() if ECHO not in line]
        missing = [line for line in lines if line.endswith("not found")]
        why = (
            cause("\n".join(lines))
            or "".join(missing[-1:])
            or f"it ends at once, with exit code {state['ExitCode']}, and the lines above say why"
        )
        raise BuildFailed(f"{_NOT} {why}.")


async def _answers(session: aiohttp.ClientSession, addresses: list[str]) -> bool:
    for address in filter(None, addresses):
        with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError):
            async with session.get(f"http://{address}:{PORT}{PREFIX}api", allow_redirects=False) as answer:
                # What JupyterHub waits for.
                return answer.status < 500
    return False


def _remove(name: str) -> None:
    """Remove the container of a trial, and its files; one that is gone is none."""
    errors = (network.NetworkError, *network.DOCKER_ERRORS)
    with contextlib.suppress(*errors), contextlib.closing(network.connect(timeout=0)) as client:
        writable.remove_container(client, name)
    container_files.forget(container_files.default_base(), name)
