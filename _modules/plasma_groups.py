"""
Groups of people: compare what the server has with what pillar wants, and bring it there in one change of the files.

Members are the business of ``plasma_users``. Groups of the system are never touched.
"""

from __future__ import annotations

import grp

from salt.exceptions import CommandExecutionError

import plasma_groups_plan
import plasma_users_observe
import plasma_users_write


def compare(groups, leaving=(), root="/"):
    """
    Return ``{"problems": [str], "changes": {name: {"old", "new"}}}`` that ``apply`` would run into and make.

    groups
        List of entries as the completed pillar has them.

    leaving
        Names of people who are to be removed after this: a group that is the primary group of nobody else waits for
        them, and goes with the next apply.

    root
        Another directory than ``/`` holds the account files: for tests.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_groups.compare '[{name: biology, gid: 2000}]'
    """
    with plasma_users_write.described():
        planned = plasma_groups_plan.plan(plasma_users_observe.accounts(root), groups, leaving)
    return {"problems": planned["problems"], "changes": {} if planned["problems"] else planned["changes"]}


def apply(groups, leaving=(), root="/"):
    """
    Make and remove groups, all in one change of each file.

    groups, leaving, root
        As for ``compare``.

    Returns the changes made, ``{name: {"old", "new"}}``. Raises CommandExecutionError with all the problems, one a
    line, before anything is changed, and when another program keeps the account files for itself.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_groups.apply '[{name: biology}]'
    """
    changes = {}

    def edits(tables):
        planned = plasma_groups_plan.plan(plasma_users_observe.accounts(root, tables), groups, leaving)
        if planned["problems"]:
            raise CommandExecutionError("\n".join(planned["problems"]))
        changes.update(planned["changes"])
        return planned["edits"]

    with plasma_users_write.described(), plasma_users_write.lock(root=root):
        plasma_users_write.change(edits, root=root)
    return changes


def unknown(groups):
    """
    Return those of the groups that no source of this server knows, as a list in the same order.

    groups
        List of names.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_groups.unknown '["students of maths"]'
    """
    missing = []
    for name in groups:
        try:
            grp.getgrnam(name)
        except (KeyError, ValueError):
            missing.append(name)
    return missing


def shadowed(groups):
    """
    Return those of the groups, said to be of a directory, that are this server's own: ``{name: gid}``. The own one is
    what their name means here, and nobody of the directory is in it.

    groups
        List of names.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_groups.shadowed '[biology]'
    """
    rows = plasma_users_observe.accounts()["group"]["rows"]
    return {name: int(rows[name][2]) for name in groups if name in rows}
