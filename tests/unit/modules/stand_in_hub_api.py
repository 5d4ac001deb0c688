"""
A hub's API for the tests of ``plasma_hub_api`` and ``plasma_hub_connection``: what JupyterHub 5 answers, with a
plugin's token and its address.
"""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from unittest.mock import create_autospec

import plasma_hub_connection as connection
import plasma_hub_ports as ports
import plasma_listeners as sockets
import tljh_service
import tljh_settings as tljh_config

TOKEN = "0123456789abcdef" * 4


def functions_of_a_hub():
    """What the connection calls, of a hub that runs; ``tljh_config.show`` is to say where."""
    return {
        "plasma_hub_connection.connect": connection.connect,
        "tljh_service.running": create_autospec(tljh_service.running, return_value=True),
        "tljh_service.connection": tljh_service.connection,
        "tljh_settings.show": create_autospec(tljh_config.show, return_value={}),
        "plasma_listeners.listeners": sockets.listeners,
        "plasma_listeners.peer": sockets.peer,
        "plasma_hub_ports.check": create_autospec(ports.check, return_value=None),
    }


def make_prefix(directory):
    """The files of a hub below a prefix, with a token of its operator."""
    (directory / "hub" / "bin").mkdir(parents=True)
    (directory / "hub" / "bin" / "python3").touch()
    (directory / "state").mkdir()
    token = directory / "state" / connection.TOKEN_FILE
    token.touch(0o600)
    token.write_text(TOKEN)
    return directory


class StandInHubApi:
    """
    Answers below ``/hub/api`` on a free port of 127.0.0.1.

    ``people`` is ``{name: {"admin": bool, "servers": {server: looks at it until it is gone}}}``; None for a server
    that never stops. ``asked`` are the requests in order, with decoded paths.
    """

    def __init__(self, people=None, base="/hub/api/"):
        self.people = people or {}
        self.base = base
        self.asked = []
        self.tokens = []
        self.stopping = set()
        self.status = None  # answers everything with this
        self.lock = threading.Lock()
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                with api.lock:
                    api.tokens.append(self.headers.get("Authorization"))
                    status, content = api.handle(self.command, self.path, body, self.headers)
                text = json.dumps(content).encode() if content is not None else b""
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(text)

            do_GET = do_PATCH = do_DELETE = answer  # the names that http.server calls

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def handle(self, method, target, body, headers):
        """(status, content) of the answer."""
        url = urllib.parse.urlsplit(target)
        # Tornado decodes after it has split the path.
        parts = [urllib.parse.unquote(part) for part in url.path.removeprefix(self.base).split("/")]
        self.asked.append((method, *parts, *([body] if body else [])))
        if self.status:
            return self.status, {"status": self.status, "message": "so it is."}
        if not url.path.startswith(self.base):
            return 404, {"message": "not here"}
        if headers.get("Authorization") != f"token {TOKEN}":
            return 403, {"message": "Forbidden"}
        if parts == ["plasma", "administrators"]:
            for admin, key in ((False, "revoke"), (True, "grant")):
                for name in (body or {}).get(key, []):
                    if admin or name in self.people:
                        self.people.setdefault(name, {"servers": {}})["admin"] = admin
            return 200, {"administrators": sorted(name for name, one in self.people.items() if one["admin"])}
        if parts == ["plasma", "people"]:
            if body["old"] not in self.people and body["group"]:
                return 200, {"name": body["new"]}
            if body["new"] in self.people or body["old"] not in self.people:
                return 409, {"message": "so it is not."}
            self.people[body["new"]] = self.people.pop(body["old"])
            return 200, {"name": body["new"]}
        if parts == ["users"]:
            return self.page(dict(urllib.parse.parse_qsl(url.query)), headers)
        name, rest = parts[1], parts[2:]
        if name not in self.people:
            return 404, {"message": "No such user"}
        servers = self.people[name]["servers"]
        if method == "GET":
            for server in [one for who, one in self.stopping if who == name]:
                if servers[server] is not None:
                    servers[server] -= 1
                    if servers[server] <= 0:
                        del servers[server]
                        self.stopping.discard((name, server))
            return 200, self.model(name)
        if not rest:
            if servers:
                return 400, {"message": "the server is in the process of stopping, please wait."}
            del self.people[name]
            return 204, None
        server = rest[1] if rest[0] == "servers" else ""
        if server not in servers:
            return 404, {"message": "no such server"}
        if servers[server] == 0:
            del servers[server]
            return 204, None
        self.stopping.add((name, server))
        return 202, None

    def model(self, name):
        person = self.people[name]
        servers = {
            server: {"name": server, "pending": "stop" if (name, server) in self.stopping else None}
            for server in person["servers"]
        }
        return {"kind": "user", "name": name, "admin": person["admin"], "servers": servers, "last_activity": "now"}

    def page(self, query, headers):
        """JupyterHub lists 50 users where nobody asks for more, and says whether there are others only on demand."""
        if headers.get("Accept") != "application/jupyterhub-pagination+json":
            return 200, [self.model(name) for name in list(self.people)[:50]]
        offset, limit = int(query.get("offset", 0)), min(int(query.get("limit", 50)), 200)
        names = list(self.people)
        more = {"offset": offset + limit, "limit": limit} if offset + limit < len(names) else None
        return 200, {
            "items": [self.model(name) for name in names[offset : offset + limit]],
            "_pagination": {"offset": offset, "limit": limit, "total": len(names), "next": more},
        }
