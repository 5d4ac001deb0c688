"""The servers page and its API: everybody sees their own servers, administrators all that run."""

from __future__ import annotations

from typing import Any

from jupyterhub.services.auth import check_scopes

from .base import ApiHandler


def state_of(server: dict[str, Any]) -> str:
    """Return what a server does: "running", "starting", "stopping" or "stopped".

    Args:
        server: as the hub's API describes it.
    """
    if server["pending"] == "stop":
        return "stopping"
    if server["pending"]:
        return "starting"
    return "running" if server["ready"] else "stopped"


class ServersApi(ApiHandler):
    """``GET api/servers``"""

    async def get(self) -> None:
        """List servers."""
        hub = self.settings["hub"]
        me = self.current_user
        users = {user["name"]: user for user in await hub.active_users()} if self.is_administrator else {}
        # Last, with stopped servers too.
        if me.get("kind") == "user" and (own := await hub.user(me["name"])):
            users[own["name"]] = own
        limits = await self.settings["catalog"].limits()
        servers = [
            self._describe(user["name"], server, limits)
            for user in users.values()
            for name, server in (user.get("servers") or {}).items()
            # A default server that does not run is no more than the possibility of one.
            if name or state_of(server) != "stopped"
        ]
        servers.sort(key=lambda server: (server["user"], server["server"]))
        self.write_json({"servers": servers})

    def _describe(self, user: str, server: dict[str, Any], limits: dict[str, tuple[str, int, float]]) -> dict[str, Any]:
        image = str((server.get("user_options") or {}).get("image") or "")
        name, memory, cpu = limits.get(image, (image, None, None))
        state = state_of(server)
        return {
            "user": user,
            "server": server["name"],
            "environment": name,
            "image": image,
            "started": server["started"] if state != "stopped" else None,
            "last_activity": server["last_activity"],
            "state": state,
            "memory": memory,
            "cpu": cpu,
            "url": server["url"],
            "may_stop": state in ("running", "starting") and self._may_stop(user),
        }

    def _may_stop(self, user: str) -> bool:
        """Whether the hub would let the visitor stop somebody's servers."""
        return bool(check_scopes({f"delete:servers!user={user}"}, set(self.current_user["scopes"])))


class ServerApi(ApiHandler):
    """``DELETE api/servers/USER`` and ``DELETE api/servers/USER/SERVER``"""

    async def delete(self, user: str, server: str = "") -> None:
        """Stop a server, if the hub lets the visitor."""
        await self.settings["hub"].stop_server(self.hub_auth.get_token(self), user, server)
        self.log.info("%s stops the server %s/%s", self.current_user["name"], user, server)
        self.write_json({"user": user, "server": server}, 202)
