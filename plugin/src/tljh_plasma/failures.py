"""Why a server did not start: one sentence that its owner can act on, and the details for the hub's log."""

from __future__ import annotations

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
# Exit code of what ended by SIGKILL.
KILLED = 128 + 9
FULL_SIGNS = ("No space left on device", "Disk quota exceeded", "disk quota is used up")


def of_docker(error: Exception) -> StartFailure:
    """Return what to say when a call to Docker failed.

    Args:
        error: an exception of docker-py or requests.
    """
    if isinstance(error, docker.errors.ImageNotFound):
        return StartFailure(404, GONE, f"image gone: {error}")
    if isinstance(error, docker.errors.APIError):
        if "no space left on device" in str(error).lower():
            return StartFailure(507, HOST_FULL, f"Docker has no space left: {error}")
        return StartFailure(500, NOT_STARTED, f"Docker refused: {error}")
    return StartFailure(503, SILENT, f"Docker does not answer: {error}")


def of_files(error: Exception, plan: ServerPlan) -> StartFailure:
    """Return what to say when the files that a container needs could not be written.

    Args:
        error: an ``OSError``, or an ``UnusableImage``.
        plan: what was to be run.
    """
    if isinstance(error, OSError):
        return StartFailure(500, NOT_STARTED, f"The files of the container cannot be written: {error}")
    return StartFailure(500, BROKEN.format(name=plan.environment.name, what=str(error)), f"image refused: {error}")


def of_container(state: dict[str, Any], log: str, plan: ServerPlan) -> StartFailure:
    """Return what to say when a container ended before its server answered.

    Args:
        state: the container's ``State``, as Docker describes it.
        log: the end of what it wrote.
        plan: what was run.
    """
    code = state.get("ExitCode")
    # Some engines do not tell (20.10 with the first version of cgroups); nobody else kills a server that starts.
    out_of_memory = state.get("OOMKilled") or code == KILLED
    reason = f"its container ended with code {code}{', out of memory' if out_of_memory else ''}:\n{log}"
    if out_of_memory:
        gigabytes = f"{plan.limits.memory / 1024**3:.2g}"
        message = (
            f"The server needed more than its {gigabytes} GB of memory while it started. "
            "Please choose another environment, or ask an administrator to give this one more memory."
        )
        return StartFailure(507, message, reason)
    if any(sign in log for sign in FULL_SIGNS):
        return StartFailure(507, QUOTA_FULL, reason)
    if code == 127:
        message = BROKEN.format(name=plan.environment.name, what="there is no jupyterhub-singleuser in it")
        return StartFailure(500, message, reason)
    message = BROKEN.format(name=plan.environment.name, what=f"its server ended at once, with code {code}")
    return StartFailure(500, message, reason)


def of_silence(seconds: float, log: str) -> StartFailure:
    """Return what to say when a server runs but does not answer.

    Args:
        seconds: how long was waited.
        log: the end of what its container wrote.
    """
    message = (
        f"The server did not answer within {seconds:g} seconds. "
        "Please try again in a moment, and tell the administrator of the hub if it happens again."
    )
    return StartFailure(504, message, f"no answer within {seconds:g} seconds:\n{log}")
