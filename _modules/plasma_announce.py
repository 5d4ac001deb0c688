"""
A message on all pages of the hub, and in the running servers of people, without a reload of the hub.

The message is a file of the hub's state directory, which nobody but root can read or write; the plugin reads it at
every page (``tljh_plasma.announcement``).
"""

from __future__ import annotations

import json
import pathlib
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_files
import plasma_hub_installed

__func_alias__ = {"set_": "set"}

FILE = "plasma-announcement.json"
LEVELS = ("info", "warning")
AUDIENCES = ("everyone", "administrators")
LENGTH = 500  # characters; the plugin shows no longer ones


def _path(prefix):
    return pathlib.Path(prefix) / "state" / FILE


def set_(message, level="info", seconds=None, audience="everyone", prefix="/opt/tljh"):
    """
    Show a message on the hub's pages, in the place of the one before.

    message
        One line of text, of 500 characters at most. It is shown as it is: marks of HTML are text, too.
    level
        ``info`` or ``warning``.
    seconds
        How long it is shown; None: until ``clear``.
    audience
        ``everyone``, those too who have not logged in, or ``administrators``.
    prefix
        Where the hub is installed.

    Returns whether anything changed. Raises SaltInvocationError for a message that is none, and CommandExecutionError
    where there is no hub.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_announce.set 'The server restarts at 18:00.' level=warning seconds=3600
    """
    if not isinstance(message, str) or not message.strip() or len(message) > LENGTH or not message.isprintable():
        raise SaltInvocationError(f"The message must be one line of 1 to {LENGTH} characters.")
    if level not in LEVELS or audience not in AUDIENCES:
        raise SaltInvocationError("The level is info or warning, and the audience everyone or administrators.")
    path = _path(prefix)
    until = None if seconds is None else int(time.time() + float(seconds))
    wanted = {"message": message, "level": level, "until": until, "for": audience}
    if show(prefix) == wanted:
        return False
    try:
        plasma_files.write(path, json.dumps(wanted))
    except (FileNotFoundError, NotADirectoryError):
        raise CommandExecutionError(plasma_hub_installed.absent(prefix)) from None
    except OSError as exc:
        raise CommandExecutionError(f"{path} cannot be written: {exc.strerror}.") from exc
    return True


def clear(prefix="/opt/tljh"):
    """
    Take the message away; returns whether there was one.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_announce.clear
    """
    try:
        _path(prefix).unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as exc:
        raise CommandExecutionError(f"{_path(prefix)} cannot be removed: {exc.strerror}.") from exc
    return True


def show(prefix="/opt/tljh"):
    """
    Return the message that is set, ``{"message", "level", "until" (seconds since 1970, or None), "for"}``; None when
    there is none, or when its time is over.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_announce.show
    """
    try:
        found = json.loads(_path(prefix).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not found.get("message"):
        return None
    until = found.get("until")
    return None if isinstance(until, (int, float)) and until <= time.time() else found
