"""What builds of environments are given."""

from __future__ import annotations

import os
import pathlib

from salt.exceptions import CommandExecutionError

import plasma_builder_images
import plasma_builder_profile
import plasma_files

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_KEYS = (*_PROXIES, "index")


def proxy(name, prefix="/opt/tljh"):
    """
    Builds go through the proxy of pillar (``plasma:builder``) and take its package index, read by the state itself: a
    proxy may have a login, and what is an argument of a state is shown by Salt. The hub reads it at each build, from a
    file of root's.

    name
        Any description.
    prefix
        Where the hub is installed.

    .. code-block:: yaml

        hub-builds-proxy:
          plasma_builds.proxy: []
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Builds have what pillar says of the outside."}
    builder = (__pillar__.get("plasma") or {}).get("builder") or {}
    wanted = {key: builder[key] for key in _KEYS if builder.get(key)}
    path = pathlib.Path(prefix, "plasma", "builds.json")
    try:
        current = plasma_files.read_note(path, "remove it, and apply again") or {}
        if current == wanted:
            return ret
        keys = [key for key in _KEYS if current.get(key) != wanted.get(key)]
        ret["changes"] = {key: {"old": _shown(current, key), "new": _shown(wanted, key)} for key in keys}
        ret["comment"] = "How builds reach the outside was changed."
        if __opts__["test"]:
            ret.update(result=None, comment="How builds reach the outside would be changed.")
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


def images(name, recipe):
    """
    The images that builds begin with are on this server, made here of this recipe, of the server's own release and its
    mirrors. Nothing is done while they are. A proxy and an index for them are read from pillar by the state itself.

    name
        Any description.
    recipe
        Its folder on the file server.

    .. code-block:: yaml

        builder-images:
          plasma_builds.images:
            - recipe: salt://builder/files
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The images that builds begin with are here."}
    plasma = __pillar__.get("plasma") or {}
    builder, sources = plasma.get("builder") or {}, (plasma.get("hub") or {}).get("sources") or {}
    proxy = {key: value for key in _PROXIES if (value := builder.get(key) or sources.get(key))}
    try:
        paths = [pathlib.Path(path) for path in __salt__["cp.cache_dir"](recipe)]
        if not paths:
            ret.update(result=False, comment=f"{recipe} is not on the file server.")
            return ret
        top = os.path.commonpath(paths)
        files = {str(path.relative_to(top)): path.read_bytes() for path in paths}
        if __opts__["test"]:
            ret["changes"] = plasma_builder_images.compare(files)
        else:
            ret["changes"] = plasma_builder_images.make(
                files, proxy, sources.get("pip_index_url") or builder.get("index")
            )
    except (CommandExecutionError, OSError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
        return ret
    if ret["changes"]:
        what = ", ".join(ret["changes"])
        ret["comment"] = f"{what} would be made." if __opts__["test"] else f"{what} were made."
        ret["result"] = None if __opts__["test"] else True
    return ret


def images_removed(name):
    """
    The images that builds begin with are gone. Environments that were made of them keep their layers.

    name
        Any description.

    .. code-block:: yaml

        builder-images:
          plasma_builds.images_removed: []
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The images that builds begin with are not here."}
    try:
        present = plasma_builder_images.present()
        ret["changes"] = {image: {"old": "here", "new": None} for image in present}
        if present and __opts__["test"]:
            ret.update(result=None, comment="The images that builds begin with would be removed.")
        elif present:
            plasma_builder_images.remove()
            ret["comment"] = "The images that builds begin with were removed."
    except CommandExecutionError as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def profile(name, source):
    """
    Where AppArmor is in force, it knows the profile of builds.

    name
        Any description.
    source
        The profile on the file server.

    .. code-block:: yaml

        builder-profile:
          plasma_builds.profile:
            - source: salt://builder/plasma-build.apparmor
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "AppArmor has what it needs for builds."}
    try:
        text = __salt__["cp.get_file_str"](source)
        if not text:
            ret.update(result=False, comment=f"{source} is not on the file server.")
            return ret
        ret["changes"] = plasma_builder_profile.compare(text)
        if ret["changes"] and __opts__["test"]:
            ret.update(result=None, comment="The profile of builds would be loaded.")
        elif ret["changes"]:
            plasma_builder_profile.load(text)
            ret["comment"] = "The profile of builds was loaded."
    except (CommandExecutionError, OSError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def profile_removed(name):
    """
    AppArmor does not know the profile of builds.

    name
        Any description.

    .. code-block:: yaml

        builder-profile:
          plasma_builds.profile_removed: []
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The profile of builds is not here."}
    try:
        if plasma_builder_profile.present():
            ret["changes"] = {"profile": {"old": "here", "new": None}}
            if __opts__["test"]:
                ret.update(result=None, comment="The profile of builds would be removed.")
            else:
                plasma_builder_profile.remove()
                ret["comment"] = "The profile of builds was removed."
    except (CommandExecutionError, OSError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret
