"""
A hub for the tests of ``tljh_config`` and ``tljh_service`` on a machine without systemd.

Real: the hub's environment (a venv with the plugin's source), config.yaml, the processes, the HTTP(S) server that
answers ``/hub/api``. Stands in: ``systemctl`` and ``journalctl``, executables on PATH which keep the two units in a
JSON file and behave as systemd was seen to: new invocation ids, ``Requires=``, restart counters, failed units.
"""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import os
import pathlib
import ssl
import stat
import sys
import sysconfig
import threading
import time
import venv

import plasma_run
import tljh_service
from tests.support.paths import REPOSITORY

HUB, PROXY = "jupyterhub.service", "traefik.service"

SYSTEMCTL = """#!{python} -IS
import fcntl, json, os, sys, time

STATE, CONFIG = {state!r}, {config!r}
lock = open(STATE + ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
state = json.load(open(STATE))
units = state["units"]
words = [word for word in sys.argv[1:] if not word.startswith("-")]
state["calls"].append(sys.argv[1:])


def start(name):
    unit = units[name]
    try:
        text = open(CONFIG).read()
    except OSError:
        text = ""
    poisoned = any(word in text for word in state["poison"].get(name, ()))
    way = state["when_poisoned"] if poisoned else "start"
    state["count"] += 1
    unit.update(InvocationID=f"id{{state['count']}}", NRestarts="0", Result="success", Job="0", way=way)
    unit["ActiveEnterTimestampMonotonic"] = str(int(time.monotonic() * 1e6))
    unit.update(ActiveState="active", SubState="running")
    if way == "fail":
        unit.update(ActiveState="failed", SubState="failed", Result="exit-code")
    if way == "hang":
        unit.update(ActiveState="activating", SubState="start-pre")


if state["broken"]:
    sys.exit("System has not been booted with systemd as init system (PID 1). Can't operate.")
if words[0] == "show":
    for name in words[1:]:
        unit = units[name]
        if unit["way"] == "crash":
            unit["NRestarts"] = str(int(unit["NRestarts"]) + 1)
            unit.update(ActiveState="activating", SubState="auto-restart", Result="exit-code")
        print("".join(f"{{key}}={{value}}\\n" for key, value in unit.items() if key != "way"))
elif words[0] == "restart" and not state["idle"]:
    for name in words[1:]:
        if name == {proxy!r}:
            was = units[{hub!r}]["ActiveState"]
            start(name)
            if units[name]["ActiveState"] == "failed":
                units[{hub!r}].update(ActiveState="inactive", SubState="dead")
            elif was not in ("inactive", "failed"):
                start({hub!r})
        else:
            if units[{proxy!r}]["ActiveState"] in ("inactive", "failed"):
                start({proxy!r})
            if units[{proxy!r}]["ActiveState"] != "failed":
                start(name)
elif words[0] == "stop":
    for name in [*words[1:], *([{hub!r}] if {proxy!r} in words else [])]:
        units[name].update(ActiveState="inactive", SubState="dead", way="start")
elif words[0] == "reset-failed":
    for unit in units.values():
        if unit["ActiveState"] == "failed":
            unit.update(ActiveState="inactive", SubState="dead", Result="success")
elif words[0] != "restart":
    sys.exit(f"not known here: {{words}}")
json.dump(state, open(STATE + ".new", "w"))
os.replace(STATE + ".new", STATE)
"""

JOURNALCTL = """#!{python} -IS
import sys
unit = [word for word in sys.argv if word.startswith("--unit=")][0][len("--unit="):]
print("\\n".join(f"\\x1b[33m{{unit}}\\x1b[0m line {{number}}" for number in range(100)))
"""


class Clock:
    """The time that ``tljh_service`` slept, and a little for each look at it: a busy machine reaches no deadline."""

    def __init__(self):
        self.now = 0.0
        self._due = []

    def monotonic(self):
        self.now += 0.01
        return self.now

    def after(self, seconds, action):
        """Call *action* in the first sleep that ends *seconds* or more from now."""
        self._due.append((self.now + seconds, action))

    def sleep(self, seconds):
        time.sleep(seconds)
        self.now += seconds
        for when, action in [*self._due]:
            if when <= self.now:
                self._due.remove((when, action))
                action()


class StandInHub:
    """A server with a hub below *directory*; ``prefix`` is what the modules take."""

    def __init__(self, directory, monkeypatch):
        self.prefix = directory / "tljh"
        self.programs = directory / "bin"
        self.programs.mkdir()
        self.config_file = self.prefix / "config" / "config.yaml"
        self._state = directory / "units.json"
        self._servers = []
        names = {"python": sys.executable, "state": str(self._state), "config": str(self.config_file)}
        self.program(self.programs / "systemctl", SYSTEMCTL.format(**names, hub=HUB, proxy=PROXY))
        self.program(self.programs / "journalctl", JOURNALCTL.format(**names))
        self.clock = Clock()
        monkeypatch.setattr(tljh_service, "time", self.clock)
        monkeypatch.setattr(plasma_run, "PATH", f"{self.programs}{os.pathsep}{plasma_run.PATH}")
        unit = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "SubState": "running",
            "Result": "success",
            "NRestarts": "0",
            "Job": "0",
            "ActiveEnterTimestampMonotonic": str(int(time.monotonic() * 1e6)),
            "way": "start",
        }
        self._save(
            {
                "units": {name: {"Id": name, **unit, "InvocationID": f"first-{name}"} for name in (PROXY, HUB)},
                "poison": {},
                "when_poisoned": "fail",
                "idle": False,
                "broken": False,
                "count": 0,
                "calls": [],
            }
        )

    # --- the environment and its files

    def install(self):
        """Make the hub's environment, with the plugin of this tree."""
        venv.EnvBuilder(symlinks=True).create(self.prefix / "hub")
        packages = next((self.prefix / "hub" / "lib").glob("python3*/site-packages"))
        paths = [str(REPOSITORY / "plugin" / "src"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        (packages / "plugin.pth").write_text("".join(f"{path}\n" for path in paths))

    def write(self, text):
        self.config_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.config_file.write_text(text)

    @staticmethod
    def program(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    @property
    def note(self):
        return self.config_file.parent / ".reload-pending"

    # --- the units

    def _load(self):
        return json.loads(self._state.read_text())

    def _save(self, state):
        new = self._state.with_suffix(".tmp")
        new.write_text(json.dumps(state))
        new.replace(self._state)

    def unit(self, name, **properties):
        """Change properties of a unit; returns all of them."""
        state = self._load()
        state["units"][name].update(properties)
        self._save(state)
        return state["units"][name]

    def set(self, **values):
        self._save({**self._load(), **values})

    def calls(self, verb):
        """The units for which systemctl was called with this verb, in order."""
        return [call[-1] for call in self._load()["calls"] if call[0] == verb]

    def active(self):
        return all(unit["ActiveState"] == "active" for unit in self._load()["units"].values())

    # --- its answers

    def serve(self, path="/hub/api", secure=False, redirect=None, body=None):
        """Answer on a free port of 127.0.0.1 while both units are active; returns the port."""
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # the name that http.server calls
                if redirect:
                    self.send_response(308)
                    self.send_header("Location", redirect)
                elif not hub.active():
                    self.send_response(502)
                else:
                    self.send_response(200 if self.path == path else 404)
                content = b"" if redirect else (body or b'{"version": "5.5.4"}')
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(_certificate(self.prefix.parent / "self-signed.pem"))
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self._servers.append(server)
        return server.server_address[1]

    def close(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()


def _certificate(path: pathlib.Path):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub.example")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now - datetime.timedelta(days=1))  # expired: nothing about it is checked
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    path.chmod(stat.S_IRUSR)
    return path
