"""
One run of ``plasma.prove``: makes the scene as far as the wanted attacks need it, plays them, and removes everything,
whatever happens.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_lock
import plasma_prove_builds
import plasma_prove_environment
import plasma_prove_pages
import plasma_prove_people
import plasma_prove_requests
import plasma_prove_server
from plasma_prove_scene import DIRECTORY, Attack, Scene

LOCK = "/run/plasma-prove.lock"
SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


def attacks() -> list[Attack]:
    """Return all attacks in the order of playing: what changes the two people, and ends their servers, comes last."""
    modules = (plasma_prove_pages, plasma_prove_server, plasma_prove_requests, plasma_prove_builds)
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Attack)]
    return sorted(found, key=lambda attack: (attack.last, attack.begin is None))


def run(only: str | list[str] | None = None, clean: bool = False, prefix: str = "/opt/tljh") -> dict[str, Any]:
    """
    Play the attacks; see ``plasma.prove``.

    only, clean
        As there.
    prefix
        Where the hub is installed.
    """
    wanted = _wanted(only)
    started = time.monotonic()
    with plasma_lock.hold(LOCK, "Another run of plasma.prove is going on", timeout=0), _orderly_end() as ignore_signals:
        removed = plasma_prove_people.left() + plasma_prove_environment.left()
        problems = _remove(prefix) if removed or clean else []
        played = []
        if not clean:
            if problems:
                raise CommandExecutionError(f"What an earlier run left cannot be removed: {' '.join(problems)}")
            scene = Scene(prefix)
            try:
                scene.make_people()
                played = _play(wanted, scene)
            finally:
                ignore_signals()  # a second Ctrl-C does not interrupt this
                problems = _remove(prefix)
    return {
        "refused": all(attack["refused"] is not False for attack in played) and not problems,
        "attacks": played,
        "problems": problems,
        "removed": removed,
        "seconds": round(time.monotonic() - started, 1),
    }


@contextlib.contextmanager
def _orderly_end() -> Generator[Callable[[], None]]:
    """Leave by an exception when the connection is lost or somebody ends the run, until the yielded function says."""

    def end(number, _):
        raise SystemExit(128 + number)

    def handle(handler):
        main = threading.current_thread() is threading.main_thread()
        return {number: signal.signal(number, handler) for number in SIGNALS if main}

    before = handle(end)
    try:
        yield lambda: handle(signal.SIG_IGN)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _number(name: str) -> int:
    return int(name.partition(".")[0][1:])


def _wanted(only):
    known = attacks()
    if not only:
        return known
    names = [name.strip() for name in only.split(",")] if isinstance(only, str) else list(map(str, only))
    for name in names:
        if not any(name in (attack.name, attack.group) for attack in known):
            listed = ", ".join(sorted((attack.name for attack in known), key=_number))
            # As an invocation error, Salt would show the docstring of a module beside it.
            raise CommandExecutionError(
                f"There is no attack {name!r}: plasma.prove takes numbers, A2 for all of A2, and these names: {listed}."
            )
    return [attack for attack in known if {attack.name, attack.group} & set(names)]


def _play(wanted: list[Attack], scene: Scene) -> list[dict[str, Any]]:
    begun = {attack.name: _try(attack.begin, scene) for attack in wanted if attack.begin}
    played = []
    for attack in wanted:
        started = time.monotonic()
        refused, seen = begun.get(attack.name) or _try(attack.play, scene)
        played.append(
            {
                "attack": attack.name,
                "what": attack.what,
                "expected": attack.expected,
                "seen": seen,
                "refused": refused,
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    return sorted(played, key=lambda attack: _number(attack["attack"]))


def _try(function: Callable[[Scene], Any], scene: Scene) -> Any:
    """Call a part of an attack; what it returned, or that it could not be played."""
    try:
        return function(scene)
    except (CommandExecutionError, OSError, ValueError, KeyError, http.client.HTTPException) as exc:
        return False, f"not played: {str(exc).rstrip('.') or type(exc).__name__}"


def _remove(prefix: str) -> list[str]:
    """Remove all that runs make; what could not be, a list of sentences."""
    problems = plasma_prove_people.remove(plasma_prove_people.left(), prefix=prefix)
    problems += plasma_prove_environment.remove(prefix=prefix)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    return problems
