"""SSH and the other doors of the host, closed to people of the hub."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError


def closed(name, users=(), groups=(), limits=None, coming=None):
    """
    Nobody comes through SSH, sessions of their own, cron or at, but root, system accounts, those who could become root
    anyway and those who are named here. The last ones have limits, and no way to other people's servers.

    name
        Any description.

    users, groups, limits, coming
        See the execution function ``plasma_ssh.compare``.

    Changes say who loses a door, and what of it was used: ``shut out``.

    .. code-block:: yaml

        ssh-closed:
          plasma_ssh.closed:
            - users: [anna]
            - limits: {memory: 2G, cpu: 2, tasks: 1024}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "SSH is open to those whom pillar names."}
    arguments = (list(users), list(groups), limits, coming)
    try:
        changes = __salt__["plasma_ssh.compare"](*arguments)
        if not changes:
            return ret
        ret["comment"] = _sentence(changes, "would lose" if __opts__["test"] else "lost")
        if __opts__["test"]:
            ret.update(result=None, changes=changes)
            return ret
        ret["changes"] = __salt__["plasma_ssh.apply"](*arguments)
    except CommandExecutionError as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def removed(name):
    """
    The doors are as the server has them without the state ssh.

    name
        Any description.

    .. code-block:: yaml

        ssh-as-before:
          plasma_ssh.removed: []
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "SSH is as the server has it."}
    test = __opts__["test"]
    try:
        changes = __salt__[f"plasma_ssh.{'compare_removed' if test else 'remove'}"]()
    except CommandExecutionError as exc:
        ret.update(result=False, comment=str(exc))
        return ret
    if changes:
        verb = "would be" if test else "is"
        ret.update(result=None if test else True, changes=changes)
        ret["comment"] = f"SSH {verb} open to everybody whom sshd lets in."
    return ret


def _sentence(changes, verb):
    lose = changes.get("shut out", {}).get("new") or []
    if not lose:
        return "SSH is open to those whom pillar names."
    used = [text for text in lose if "(" in text]
    people = f"{len(lose)} account{'' if len(lose) == 1 else 's'} {verb} SSH, sessions, cron and at on the host itself"
    if not used:
        return f"{people}; none of them has used it."
    return f"{people}; of those used until now: {'; '.join(used)}. plasma.ssh.open_to opens it to people and groups."
