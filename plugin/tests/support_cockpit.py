"""The service "cockpit" between a stand-in for the hub's API and one for Cockpit, all in one thread of their own."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from typing import Any

import requests
from aiohttp import WSMsgType, web
from support_hub import free_port
from tljh_plasma.service.base import HubLogin
from tljh_plasma.settings import Settings
from tornado.httpclient import HTTPRequest
from tornado.netutil import bind_sockets
from tornado.web import create_signed_value
from tornado.websocket import websocket_connect

PREFIX = "/base/services/cockpit/"
BIG = 200 * 1024 * 1024
SCOPE = "access:services!service=cockpit"


class StandIn:
    """The three of them.

    Attributes:
        people: what the hub says of who has which token.
        hub_fails: status with which the hub answers everything, or 0.
        seen: requests that came to Cockpit: (method, path, headers).
        sockets: WebSockets that Cockpit has open.
    """

    def __init__(self, directory: Any, monkeypatch: Any) -> None:
        # Of another hub, whose variables were others.
        HubLogin.clear_instance()
        self.directory = directory
        self.people: dict[str, dict[str, Any]] = {}
        self.hub_fails = 0
        self.seen: list[tuple[str, str, Any]] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.pushed = 0
        self.hub_port, self.port = free_port(), free_port()
        self.host = f"127.0.0.1:{self.port}"
        (directory / "state").mkdir()
        self.socket = str(directory / "cockpit.sock")
        for name, value in {
            "JUPYTERHUB_API_URL": f"http://127.0.0.1:{self.hub_port}/base/hub/api",
            "JUPYTERHUB_API_TOKEN": "service-token",
            "JUPYTERHUB_BASE_URL": "/base/",
            "JUPYTERHUB_CLIENT_ID": "service-cockpit",
            "JUPYTERHUB_SERVICE_NAME": "cockpit",
            "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
            "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([SCOPE]),
            "JUPYTERHUB_OAUTH_SCOPES": json.dumps([SCOPE]),
            "JUPYTERHUB_HOST": "",
        }.items():
            monkeypatch.setenv(name, value)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.cockpit_runs = None
        self.run(self._start())

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in the thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _start(self) -> None:
        from tljh_plasma.cockpit.app import application, client, server_of

        hub = web.Application()
        hub.router.add_get("/base/hub/api/user", self._user)
        self._runners = [web.AppRunner(hub)]
        await self._runners[0].setup()
        await web.TCPSite(self._runners[0], "127.0.0.1", self.hub_port).start()
        await self.start_cockpit()
        values = Settings(prefix=self.directory, cockpit=True, cockpit_socket=self.socket)
        self.client = client(self.socket)
        self.application = application(values, PREFIX, self.client, recheck=0.2)
        self.server = server_of(self.application)
        self.server.add_sockets(bind_sockets(self.port, "127.0.0.1"))

    async def start_cockpit(self) -> None:
        """Let Cockpit listen."""
        cockpit = web.Application()
        cockpit.router.add_route("*", "/{path:.*}", self._cockpit)
        self.cockpit_runs = web.AppRunner(cockpit, shutdown_timeout=0.1)
        await self.cockpit_runs.setup()
        await web.UnixSite(self.cockpit_runs, self.socket).start()

    async def stop_cockpit(self) -> None:
        """Let it stop."""
        await self.cockpit_runs.cleanup()

    def close(self) -> None:
        """End everything."""

        async def end() -> None:
            self.server.stop()
            await self.server.close_all_connections()
            await self.client.close()
            for runner in [*self._runners, self.cockpit_runs]:
                await runner.cleanup()

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        HubLogin.clear_instance()

    # The hub.

    async def _user(self, request: web.Request) -> web.Response:
        if self.hub_fails:
            return web.json_response({}, status=self.hub_fails)
        person = self.people.get(request.headers["Authorization"].partition(" ")[2])
        return web.json_response(person or {}, status=200 if person else 403)

    def person(self, admin: bool, scopes: tuple[str, ...] = (SCOPE,)) -> str:
        """Somebody new; returns their token."""
        token = secrets.token_hex(8)
        self.people[token] = {
            "name": token,
            "admin": admin,
            "kind": "user",
            "groups": [],
            "scopes": list(scopes),
            "session_id": None,
        }
        return token

    # Cockpit.

    async def _cockpit(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path, request.headers.copy()))
        what = request.path.removeprefix(PREFIX)
        if what == "cockpit/socket":
            answer = web.WebSocketResponse(protocols=["cockpit1"], max_msg_size=0)
            await answer.prepare(request)
            self.sockets.append(answer)
            async for message in answer:
                if message.type == WSMsgType.TEXT:
                    await answer.send_str(message.data)
                elif message.type == WSMsgType.BINARY:
                    await answer.send_bytes(message.data)
            return answer
        if what == "refused/socket":
            return web.Response(status=403)
        if what == "big":
            answer = web.StreamResponse(headers={"Content-Length": str(BIG)})
            await answer.prepare(request)
            piece = bytes(1024 * 1024)
            for _ in range(BIG // len(piece)):
                await answer.write(piece)
                self.pushed += len(piece)
            return answer
        if what == "broken":
            answer = web.StreamResponse(headers={"Content-Length": "1000"})
            await answer.prepare(request)
            await answer.write(b"half")
            request.transport.abort()
            return answer
        if what == "login":
            answer = web.json_response({"csrf-token": "x"})
            answer.headers.add("Set-Cookie", "cockpit=dj0yO2s9; Path=/; SameSite=Strict; Secure; HttpOnly")
            answer.headers.add("Set-Cookie", "jupyterhub-session-id=stolen; Path=/")
            return answer
        if what == "denied":
            return web.Response(
                status=401,
                headers=[("WWW-Authenticate", "Basic realm=x"), ("WWW-Authenticate", "X-Conversation 1 eA==")],
            )
        if what == "moved":
            return web.Response(status=302, headers={"Location": f"{PREFIX}elsewhere"})
        if what == "unchanged":
            return web.Response(status=304, headers={"ETag": '"x"'})
        if what == "page":
            root = PREFIX.rstrip("/")
            bases = f'<base href="{root}/$1a/system/index.html"><base href="{root}/">'
            page = f'{bases}<meta name="url-root" content="{root}"><a href="{root}s/">'
            return web.Response(text=page, content_type="text/html")
        if what == "zipped":
            return web.Response(
                body=b"\x1f\x8b not really",
                headers={
                    "Content-Encoding": "gzip",
                    "Content-Type": "text/css",
                    "Cache-Control": "max-age=86400, private",
                    "ETag": '"z"',
                },
            )
        return web.Response(
            text="Cockpit's page",
            content_type="text/html",
            headers={
                "Content-Security-Policy": "default-src 'self'; frame-ancestors 'self'",
                "Referrer-Policy": "no-referrer",
                "X-Frame-Options": "sameorigin",
                "Server": "cockpit-ws",
            },
        )

    # Visitors.

    def cookie(self, token: str) -> str:
        """The cookie that a login at the hub ends with."""
        secret = self.application.settings["cookie_secret"]
        return "service-cockpit=" + create_signed_value(secret, "service-cockpit", token).decode()

    def own(self, token: str) -> str:
        """The visitor's own part of the paths."""
        address = self.get("", token, own=False).headers["Location"]
        return address.removeprefix(PREFIX)

    def get(
        self, path: str = "", token: str = "", method: str = "GET", own: bool = True, **options: Any
    ) -> requests.Response:
        """Ask as a browser does that comes through the proxy; an administrator's knows its own path."""
        if own and self.people.get(token, {}).get("admin") and self.people[token]["scopes"] and not self.hub_fails:
            path = self.own(token) + path
        headers = {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "192.0.2.7",
            "Sec-Fetch-Site": "same-origin",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
            **({"Cookie": self.cookie(token)} if token else {}),
            **options.pop("headers", {}),
        }
        headers = {name: value for name, value in headers.items() if value is not None}
        address = f"http://{self.host}{PREFIX}{path}"
        return requests.request(method, address, headers=headers, timeout=60, allow_redirects=False, **options)

    async def connect(
        self, token: str = "", path: str = "cockpit/socket", own: bool = True, **headers: str | None
    ) -> Any:
        """Open a WebSocket as a page of Cockpit's does."""
        person = self.people.get(token, {})
        if own and person.get("admin") and person["scopes"]:
            path = self.own(token) + path
        sent = {
            "X-Forwarded-Proto": "wss",
            "Origin": f"https://{self.host}",
            "Sec-Fetch-Mode": "websocket",
            "Sec-Fetch-Site": "same-origin",
            **({"Cookie": f"{self.cookie(token)}; cockpit=own"} if token else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        request = HTTPRequest(
            f"ws://{self.host}{PREFIX}{path}",
            headers={name: value for name, value in sent.items() if value is not None},
        )
        return await websocket_connect(request, subprotocols=["cockpit1"])
