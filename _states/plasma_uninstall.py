"""A server without the hub."""

from __future__ import annotations

import hashlib
import os

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_docker_undo

_SHOWN = 20  # names in one list


def removed(
    name,
    prefix="/opt/tljh",
    options=None,
    users=None,
    home_path="/home",
    source="docker-ce",
    directory="/var/opt/plasma/backups",
):
    """
    There is no hub below the prefix, and nothing of it elsewhere. What people made stays, unless it is named.

    name
        Any description.

    prefix, options, users, home_path, source, directory
        See the execution function ``plasma_uninstall.compare``.

    Changes are ``{what: {"old": [names], "new": None}}``; of what is put aside ``{path: {"old": path, "new": path}}``.

    .. code-block:: yaml

        hub-removed:
          plasma_uninstall.removed:
            - prefix: /opt/tljh
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    arguments = (prefix, options, users or [], home_path, source, directory)
    test = __opts__["test"]
    try:
        found = __salt__[f"plasma_uninstall.{'compare' if test else 'apply'}"](*arguments)
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, comment=str(exc))
        return ret
    ret["changes"] = {what: {"old": _brief(names), "new": None} for what, names in found["removed"].items()}
    ret["changes"].update({path: {"old": path, "new": place} for path, place in found["aside"].items()})
    if not ret["changes"]:
        ret["comment"] = f"Nothing of the hub is installed here.{_left(found['left'])}"
        return ret
    if test:
        ret["result"] = None
    verb = "would be " if test else "was "
    sentences = [f"The hub in {prefix} {verb}removed."]
    if found.get("backup"):
        sentences.append(f"Backup: {found['backup']}.")
    if found["aside"]:
        places = sorted({place.rpartition("/")[0] for place in found["aside"].values()})
        sentences.append(f"Its data {verb.replace('was', 'is')}put aside in {', '.join(places)}.")
    ret["comment"] = f"{' '.join(sentences)}{_left(found['left'])}"
    return ret


def _brief(names):
    more = len(names) - _SHOWN
    return [*names[:_SHOWN], f"and {more} more"] if more > 0 else list(names)


def _left(sentences):
    return f" Left: {'; '.join(f'{number}) {text}' for number, text in enumerate(sentences, 1))}." if sentences else ""


def file_removed(name, sha256=None):
    """
    A file that a state brought is gone. One with other contents is somebody else's and stays.

    name
        Its path.
    sha256
        Its checksum; None: nothing is known of it, and it stays.

    .. code-block:: yaml

        utils-ctop-removed:
          plasma_uninstall.file_removed:
            - name: /usr/local/bin/ctop
            - sha256: 0123...
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"There is no {name}."}
    try:
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW), "rb") as handle:
            found = hashlib.sha256(handle.read()).hexdigest()
    except FileNotFoundError:
        return ret
    except OSError as exc:
        ret["comment"] = f"{name} stays, as it is no file that was installed here ({exc.strerror})."
        return ret
    if found != sha256:
        ret["comment"] = f"{name} stays, as it is not the file that pillar describes: remove it by hand."
        return ret
    ret["changes"] = {name: {"old": found, "new": None}}
    if __opts__["test"]:
        ret.update(result=None, comment=f"{name} would be removed.")
        return ret
    os.unlink(name)
    ret["comment"] = f"{name} was removed."
    return ret


def docker_settings(name, log_driver="journald"):
    """
    The engine's configuration says what it said before the state docker. Engine and containers go on as they are.

    name
        An identifier.
    log_driver
        What the state docker has written.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Nothing in /etc/docker/daemon.json is ours."}
    test = __opts__["test"]
    try:
        changes = (plasma_docker_undo.compare if test else plasma_docker_undo.restore)(log_driver)
    except (CommandExecutionError, OSError) as exc:
        ret.update(result=False, comment=str(exc))
        return ret
    if changes:
        verb = "would say" if test else "says"
        ret["changes"] = changes
        ret["result"] = None if test else True
        ret["comment"] = (
            f"/etc/docker/daemon.json {verb} what it said before; the engine reads it at its next start, which ends "
            "servers that run."
        )
    return ret
