"""The permissions page and its API: which groups may start which environments."""

from __future__ import annotations

from .environments import AdministratorsApi
from .requests import Permissions


class PermissionsApi(AdministratorsApi):
    """``api/permissions``"""

    async def get(self) -> None:
        """List environments with their groups, and the groups there are."""
        groups = await self.operations.groups()
        self.write_json(
            {
                "default": "open" if self.settings["plasma"].open_by_default else "closed",
                "groups": [group.as_json() for group in groups.values()],
                "environments": await self.catalog.permissions_as_json(),
            }
        )

    async def put(self) -> None:
        """Replace the groups of the named environments."""
        body = self.read_body(Permissions)
        await self.operations.permit(body.environments)
        self.log.info("%s changes who may use %s", self.visitor_name, ", ".join(sorted(body.environments)))
        self.write_json({"environments": {image: sorted(set(names)) for image, names in body.environments.items()}})
