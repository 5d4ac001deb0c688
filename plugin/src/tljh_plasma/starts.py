"""What is told in JupyterLab about the server's start: safe mode, and what the entrypoint could not do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .disk_quota import Notice
from .environments import Environment

# Of the form to start a server, and of the API.
SAFE_MODE = "safe_mode"
# What the entrypoint says begins with this. The person can write such lines, too, which only they read.
SIGN = "plasma: "
# Bytes of the log that are read, and what is told of it.
BEGINNING = 64 * 1024
MOST_LINES = 5
LONGEST_LINE = 400


def asked_for_safe_mode(options: Any) -> bool:
    """Whether a person wants their server without what the home brings.

    Args:
        options: what was asked for, by form or by API.
    """
    return isinstance(options, Mapping) and options.get(SAFE_MODE) is True


def safe_mode(environment: Environment) -> Notice:
    """Return what is told in a server that runs in safe mode.

    Args:
        environment: what was started.
    """
    text = (
        "It runs without the packages in ~/.local and without the settings in "
        f"~/{environment.directory}/.jupyter: with them it ended at once, or you asked for that. Mostly a package of "
        "pip install --user is the reason. Move them out of the way in a terminal (mv ~/.local ~/.local-old), then "
        "stop and start the server."
    )
    return Notice("warning", "This server runs in safe mode", text)


def missing_directories(missing: Iterable[str]) -> Notice:
    """Return what is told of directories that should be there; why they are not is the administrator's business.

    Args:
        missing: a sentence each, which begins with where the directory should be.
    """
    names = ", ".join(sentence.partition(" ")[0] for sentence in missing)
    return Notice("warning", "A directory is missing", f"{names}: please tell the administrator of the hub.")


def beginning_of_log(client: Any, container: str) -> str:
    """Return the beginning of what a container wrote to stderr.

    Args:
        client: a docker-py API client.
        container: its id.
    """
    # All of it is a few megabytes at most: the engine keeps no more.
    return client.logs(container, stdout=False, stderr=True)[:BEGINNING].decode(errors="replace")


def complaints(log: str) -> Notice | None:
    """Return what is told of a start at which something went wrong, or None.

    Args:
        log: the beginning of what the container wrote.
    """
    lines = [line.removeprefix(SIGN) for line in log.splitlines() if line.startswith(SIGN)]
    plain = ["".join(char if char.isprintable() else " " for char in line)[:LONGEST_LINE] for line in lines]
    if not plain:
        return None
    more = f" ... and {len(plain) - MOST_LINES} more." if len(plain) > MOST_LINES else ""
    return Notice("warning", "Not everything went well at the start", " ".join(plain[:MOST_LINES]) + more)
