"""Git repositories of environments, and servers for the builder to clone from: git://, and HTTP with a password."""

from __future__ import annotations

import base64
import contextlib
import hmac
import http.server
import ipaddress
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.engine import docker
from tests.support.paths import REPOSITORY
from tests.support.shell import SupportError, kill_group, run, wait_for

NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": "sum",
            "metadata": {},
            "outputs": [],
            "source": ["print(6 * 7)"],
        }
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}
# What somebody's own configuration of Git says must not matter.
ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "Teacher",
    "GIT_AUTHOR_EMAIL": "teacher@example.org",
    "GIT_COMMITTER_NAME": "Teacher",
    "GIT_COMMITTER_EMAIL": "teacher@example.org",
}


def dockerfile(image: str, *instructions: str) -> str:
    """A Dockerfile that puts the repository's files into the home of ``image``; ``instructions`` come before that."""
    lines = [f"FROM {image}", *instructions, "COPY --chown=1000:1000 . /home/jovyan/"]
    return "\n".join(lines) + "\n"


def slow(seconds: int) -> str:
    """An instruction that takes ``seconds``, says a line in each, and is never answered from the engine's cache."""
    mark = secrets.token_hex(4)
    return f"RUN for i in $(seq 1 {seconds}); do echo slow step $i of {mark}; sleep 1; done"


def broken() -> str:
    """An instruction that fails, after saying why."""
    return f"RUN echo the package {secrets.token_hex(4)} does not exist >&2; exit 3"


class Repository:
    """A Git repository with a work tree."""

    def __init__(self, path: Path):
        self.path = path

    def git(self, *args: str) -> str:
        """Output of git in this repository."""
        return run(["git", "-C", self.path, *args], env=ENVIRONMENT).stdout.strip()

    def commit(self, files: Mapping[str, str], message: str = "Change the course") -> str:
        """Write ``files`` (name: text) and commit everything; returns the hash."""
        for name, text in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str, files: Mapping[str, str]) -> str:
        """Commit ``files`` on a new branch and come back; returns the hash."""
        self.git("checkout", "--quiet", "-b", name)
        made = self.commit(files, f"Begin {name}")
        self.git("checkout", "--quiet", "-")
        return made

    def tag(self, name: str) -> None:
        """Give the last commit a tag."""
        self.git("tag", name)


def make_repository(path: Path, recipe: str | None, files: Mapping[str, str] | None = None) -> Repository:
    """
    A new repository in the new directory ``path`` (branch ``main``), with ``recipe`` as its Dockerfile and a notebook.

    ``recipe``: None for no Dockerfile. ``files`` (name: text) are added to the first commit, or take the place of those
    two.
    """
    path.mkdir(parents=True)
    run(["git", "init", "--quiet", "--initial-branch", "main", path], env=ENVIRONMENT)
    repository = Repository(path)
    first = {"course.ipynb": json.dumps(NOTEBOOK, indent=1) + "\n"}
    if recipe is not None:
        first["Dockerfile"] = recipe
    repository.commit({**first, **(files or {})}, "Begin the course")
    return repository


def template(path: Path, name: str, files: Mapping[str, str] | None = None) -> Repository:
    """A repository in the new directory ``path`` that is a copy of a template, with ``files`` in place of its own."""
    shutil.copytree(REPOSITORY / "docs" / "templates" / name, path)
    repository = Repository(path)
    repository.git("init", "--quiet", "--initial-branch", "main")
    repository.commit(files or {})
    return repository


def bridge_address() -> str:
    """Address of this machine that containers on the engine's default network reach."""
    shown = docker("network", "inspect", "bridge", "--format", "{{json .IPAM.Config}}").stdout
    for config in json.loads(shown):
        network = ipaddress.ip_network(config["Subnet"])
        if network.version == 4:
            return config.get("Gateway") or str(network[1])
    raise SupportError("The engine's default network has no IPv4 addresses")


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serve(directory: Path, address: str) -> Iterator[str]:
    """Serve the repositories in ``directory`` with git daemon; gives the address, "git://ADDRESS:PORT"."""
    port = _free_port(address)
    command = ["git", "daemon", "--reuseaddr", "--export-all", f"--base-path={directory}"]
    command += [f"--listen={address}", f"--port={port}", str(directory)]
    with (directory / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **ENVIRONMENT}, start_new_session=True
        )
    try:
        wait_for(lambda: _listens(address, port), timeout=20, what="git daemon", interval=0.05)
        yield f"git://{address}:{port}"
    finally:
        kill_group(process.pid)
        process.wait()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Git's own program for HTTP, git-http-backend, for those who say the password."""

    server: _Server

    def do_GET(self) -> None:
        if not self.server.expected:
            self._run_backend()
            return
        said = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if hmac.compare_digest(said, self.server.expected):
            self._run_backend()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="courses"')
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_POST = do_GET

    def _run_backend(self) -> None:
        path, _, query = self.path.partition("?")
        asked = {
            "GIT_PROJECT_ROOT": str(self.server.directory),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": urllib.parse.unquote(path),
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = {**os.environ, **ENVIRONMENT, **asked, "CONTENT_LENGTH": str(len(body))}
        done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, timeout=60)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, directory: Path, address: str, username: str, password: str):
        super().__init__((address, 0), _Handler)
        self.directory = directory
        self.expected = b"Basic " + base64.b64encode(f"{username}:{password}".encode())


@contextlib.contextmanager
def serve_private(directory: Path, address: str, username: str, password: str) -> Iterator[str]:
    """Serve the repositories in ``directory`` to those with the password; gives the address, "http://ADDRESS:PORT"."""
    with _Server(directory, address, username, password) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{address}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def serve_signed(directory: Path, address: str, key: Path, cert: Path) -> Iterator[int]:
    """Serve the repositories in ``directory`` to everybody over HTTPS with this certificate; gives the port."""
    with _Server(directory, address, "", "") as server:
        server.expected = b""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
