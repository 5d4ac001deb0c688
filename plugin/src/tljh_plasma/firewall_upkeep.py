"""Looks after the rules of the users' network, from the first server of a hub on, whether or not any runs later."""

from __future__ import annotations

import logging
import threading

import docker
import requests

from . import firewall, network, old_ports
from .reach import Reach

# Seconds between two looks: how long what is flushed stays open.
INTERVAL = 10

log = logging.getLogger("tornado.application")  # JupyterHub's own log follows it

_lock = threading.Lock()
_followed: tuple[str, int, Reach] | None = None
_thread: threading.Thread | None = None


def follow(name: str, hub_port: int, reach: Reach) -> None:
    """Look after a network from now on, in a thread of this process. May be repeated.

    Args: as for ``firewall.ensure``.
    """
    global _followed, _thread
    with _lock:
        _followed = (name, hub_port, reach)
        if _thread is None:
            _thread = threading.Thread(target=_run, name="firewall", daemon=True)
            _thread.start()


def _run() -> None:
    client = None
    pause = threading.Event()
    while True:
        with _lock:
            followed = _followed
        try:
            client = client or network.connect()
            if followed:
                name, hub_port, reach = followed
                firewall.ensure(client, name, hub_port, reach=reach)
                old_ports.ensure()
        except (
            firewall.FirewallError,
            network.NetworkError,
            docker.errors.DockerException,
            requests.exceptions.RequestException,
        ) as error:
            log.error("Firewall: %s", error)
        pause.wait(INTERVAL)
