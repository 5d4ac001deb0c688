"""Why a server did not start: one sentence that its owner can act on, and the details for the hub's log."""

from __future__ import annotations

import re
from typing import Any

import docker

from .planning import StartFailure
from .policy import ServerPlan

NOT_STARTED = (
    "The server could not be started because of a problem with its container. "
    "Please try again, and tell the administrator of the hub if it happens again."
)
GONE = "This environment no longer exists. Please choose another one, or ask an administrator of the hub."
SILENT = "The server cannot be started: Docker does not answer. Please tell the administrator of the hub."
HOST_FULL = "The server cannot be started: the disk of the hub is full. Please tell the administrator of the hub."
UNPROTECTED = (
    "The server cannot be started, because the hub could not shield itself from it. "
    "Please tell the administrator of the hub."
)
QUOTA_FULL = (
    "Your disk space is used up, and this environment cannot start without some. "
    "Delete files you no longer need from another environment, or ask the administrator of the hub."
)
BROKEN = (
    "The environment {name!r} cannot start: {what}. Please choose another one, and tell whoever looks after it that "
    "its repository has to be mended and built anew."
)
OUT_OF_MEMORY = (
    "The server needed more than its {gigabytes:.2g} GB of memory while it started. "
    "Please choose another environment, or ask an administrator to give this one more memory."
)
UNANSWERED = (
    "The server did not answer within {seconds:g} seconds. "
    "Please try again in a moment, and tell the administrator of the hub if it happens again."
)
NO_GPU_YET = (
    "The server cannot be started: Docker cannot give it a GPU. Please choose an environment without one, "
    "and tell the administrator of the hub."
)
# What Docker says, of several releases, where the toolkit is not set up or finds no driver (see the state gpu).
GPU_SIGNS = re.compile(
    "could not select device driver|unknown (or invalid )?runtime|nvidia-(container|cdi)", re.IGNORECASE
)
# Exit code of what ended by SIGKILL.
KILLED = 128 + 9
FULL_SIGNS = ("No space left on device", "Disk quota exceeded", "disk quota is used up")


class EndedAtOnce(StartFailure):
    """A server ended in its start, and neither memory nor disk is the reason: perhaps what is in the home is."""


def is_out_of_memory(state: dict[str, Any]) -> bool:
    """Whether a container that ended did so for want of memory.

    Args:
        state: the container's ``State``, as Docker describes it.
    """
    # Some engines do not tell (20.10 with the first version of cgroups). Nobody else kills a server: an engine that
    # stops one does so by SIGTERM, first, and the hub does not look any more.
    return bool(state.get("OOMKilled")) or state.get("ExitCode") == KILLED


def of_docker(error: Exception) -> StartFailure:
    """Return what to say when a call to Docker failed.

    Args:
        error: an exception of docker-py or requests.
    """
    if isinstance(error, docker.errors.ImageNotFound):
        return StartFailure(404, GONE, f"image gone: {error}")
    if not isinstance(error, docker.errors.APIError):
        return StartFailure(503, SILENT, f"Docker does not answer: {error}")
    if "no space left on device" in str(error).lower():
        return StartFailure(507, HOST_FULL, f"Docker has no space left: {error}")
    if GPU_SIGNS.search(str(error)):
        return StartFailure(503, NO_GPU_YET, f"Docker gives no GPU, see `state.apply gpu`: {error}")
    return StartFailure(500, NOT_STARTED, f"Docker refused: {error}")


def of_container(state: dict[str, Any], log: str, plan: ServerPlan) -> StartFailure:
    """Return what to say when a container ended before its server answered.

    Args:
        state: the container's ``State``, as Docker describes it.
        log: the end of what it wrote.
        plan: what was run.
    """
    code = state.get("ExitCode")
    out_of_memory = is_out_of_memory(state)
    reason = f"its container ended with code {code}{', out of memory' if out_of_memory else ''}:\n{log}"
    if out_of_memory:
        return StartFailure(507, OUT_OF_MEMORY.format(gigabytes=plan.limits.memory / 1024**3), reason)
    if any(sign in log for sign in FULL_SIGNS):
        return StartFailure(507, QUOTA_FULL, reason)
    missing = "there is no jupyterhub-singleuser in it"
    what = missing if code == 127 else f"its server ended at once, with code {code}"
    return EndedAtOnce(500, BROKEN.format(name=plan.environment.name, what=what), reason)


def of_silence(seconds: float, log: str) -> StartFailure:
    """Return what to say when a server runs but does not answer.

    Args:
        seconds: how long was waited.
        log: the end of what its container wrote.
    """
    return StartFailure(504, UNANSWERED.format(seconds=seconds), f"no answer within {seconds:g} seconds:\n{log}")
