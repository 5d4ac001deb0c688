"""What the service asks of the hub's API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from .errors import HUB_SILENT, Refused
from .requests import shown

PAGE = 200


class HubClient:
    """A client for the hub's API, with one pool of connections.

    Args:
        url: address of the API.
        token: the service's own token.
    """

    def __init__(self, url: str, token: str) -> None:
        # The hub is on this machine: proxies of the environment are for the internet.
        self._client = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)
        self._token = token

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, token: str = "", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"token {token or self._token}", **options.pop("headers", {})}
        try:
            answer = await self._client.request(method, path, headers=headers, **options)
        except httpx.HTTPError as error:
            raise Refused(503, HUB_SILENT) from error
        if answer.status_code >= 500:
            raise Refused(503, HUB_SILENT)
        return answer

    async def user(self, name: str) -> dict[str, Any] | None:
        """Return somebody with all their servers, stopped ones as well; None when the hub does not know them."""
        answer = await self._ask("GET", f"users/{quote(name, safe='')}", params={"include_stopped_servers": "1"})
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer.json()

    async def active_users(self) -> list[dict[str, Any]]:
        """Return everybody who has a server that runs, starts or stops."""
        users: list[dict[str, Any]] = []
        offset: int | None = 0
        while offset is not None:
            answer = await self._ask(
                "GET",
                "users",
                params={"state": "active", "offset": offset, "limit": PAGE},
                headers={"Accept": "application/jupyterhub-pagination+json"},
            )
            answer.raise_for_status()
            page = answer.json()
            users.extend(page["items"])
            offset = (page["_pagination"]["next"] or {}).get("offset")
        return users

    async def stop_server(self, token: str, user: str, server: str) -> None:
        """Stop a server in the name of the visitor: the hub decides whether they may.

        Args:
            token: the visitor's token.
            user: whose server it is.
            server: its name, empty for the default one.

        Raises:
            Refused: the hub refuses.
        """
        path = f"users/{quote(user, safe='')}/" + (f"servers/{quote(server, safe='')}" if server else "server")
        answer = await self._ask("DELETE", path, token)
        if answer.status_code in (403, 404):
            name = shown(f"{user}/{server}" if server else user)
            raise Refused(answer.status_code, f"There is no server '{name}', or you may not stop it.")
        if answer.is_error:
            raise Refused(409, "The hub could not stop this server now. Please reload the page and try again.")
