"""What builds of environments are given."""

from __future__ import annotations

import pathlib

from salt.exceptions import CommandExecutionError

import plasma_files

_KEYS = ("http_proxy", "https_proxy", "no_proxy")


def proxy(name, prefix="/opt/tljh"):
    """
    Builds go through the proxy of pillar (``plasma:builder``), read by the state itself: it may have a login, and what
    is an argument of a state is shown by Salt. The hub reads it at each build, from a file of root's.

    name
        Any description.
    prefix
        Where the hub is installed.

    .. code-block:: yaml

        hub-builds-proxy:
          plasma_builds.proxy: []
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Builds have the proxy that pillar names, if any."}
    builder = (__pillar__.get("plasma") or {}).get("builder") or {}
    wanted = {key: builder[key] for key in _KEYS if builder.get(key)}
    path = pathlib.Path(prefix, "plasma", "builds.json")
    try:
        current = plasma_files.read_note(path, "remove it, and apply again") or {}
        if current == wanted:
            return ret
        keys = [key for key in _KEYS if current.get(key) != wanted.get(key)]
        ret["changes"] = {key: {"old": _shown(current, key), "new": _shown(wanted, key)} for key in keys}
        ret["comment"] = "The proxy of builds was changed."
        if __opts__["test"]:
            ret.update(result=None, comment="The proxy of builds would be changed.")
        elif wanted:
            plasma_files.write_note(path, wanted)
        else:
            path.unlink()
    except CommandExecutionError as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    except OSError as exc:
        ret.update(result=False, changes={}, comment=f"{path} cannot be written: {exc.strerror}.")
    return ret


def _shown(values, key):
    """A value without the login that may be in it."""
    scheme, separator, rest = values.get(key, "").rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" or None
