"""
The environments that the hub has, for people to read and to bring into pillar. What pillar says of them is brought
about by ``plasma_environment_run``.
"""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

import plasma_environment_api
import plasma_environment_plan
import plasma_hub_installed

__func_alias__ = {"list_": "list"}


def list_(prefix="/opt/tljh", output="table"):
    """
    Return the environments that the hub has as a table: image, status, size, how long the build took, the day of the
    last use and how many people have used it, who it came from, groups, repository.

    prefix
        Where the hub is installed.
    output
        ``table``, or ``json`` for data.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_environment.list
    """
    items = _existing(prefix)
    if output == "json":
        return items
    rows = [("IMAGE", "STATUS", "SIZE", "BUILT IN", "LAST USED", "BY", "FROM", "GROUPS", "MADE OF")]
    for item in items:
        commit = f" at {item['commit'][:12]}" if item["commit"] else ""
        size = f"{item['size'] / 1e9:.1f} GB" if item["size"] else ""
        source = item["repo"] or item["reference"]
        status = f"{item['status']}, former image" if item["previous"] else item["status"]
        took = "" if item["build_seconds"] is None else f"{item['build_seconds'] / 60:.1f} min"
        used = (item["last_used"][:10], str(item["used_by"] or ""))
        whose = (item["source"], " ".join(item["groups"]), f"{source}{commit}")
        rows.append((item["image"], status, size, took, *used, *whose))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) if items else "The hub has no environments."


def export(prefix="/opt/tljh"):
    """
    Return the environments that the hub has as pillar has them, for ``--out=yaml``. No credentials are in it: the hub
    keeps none.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh --out=yaml '*' plasma_environment.export
    """
    return plasma_environment_plan.exported(_existing(prefix))


def _existing(prefix):
    items = plasma_environment_api.items(prefix=prefix)
    if items is None:
        raise CommandExecutionError(plasma_hub_installed.absent(prefix, "runs"))
    return items
