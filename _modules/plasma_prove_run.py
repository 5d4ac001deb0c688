"""
One run of ``plasma.prove``: makes the scene as far as the wanted attacks need it, plays them, and removes everything,
whatever happens. An attack is a dict of a module in ATTACKS with ``name``, ``what``, ``expected`` and ``play``, a
function that gets the scene and returns ``(whether it was refused, what was seen)``: None when this server has not what
is attacked. One that raises could not be played, and counts as not refused. ``begin``, if there is one, is called with
the scene before the first attack.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import threading
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_prove_run"

# In the order of playing: what changes the two people comes last.
ATTACKS = ("pages", "container", "inputs", "floods", "host", "rights", "sessions")
DIRECTORY = "/run/plasma-prove"  # root's, in memory: keys of a run, and its lock
LOCK = "/run/plasma-prove.lock"
LOG = "plasma-prove"


def __virtual__():
    return __virtualname__


def attacks():
    """
    Return the names of all attacks, sorted by number.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_run.attacks
    """
    return [attack["name"] for attack in sorted(_attacks(), key=_number)]


@contextlib.contextmanager
def _alone():
    """Hold the lock of a run, which is a file with its pid; raises where another one is going on."""
    going_on = CommandExecutionError("Another run of plasma.prove is going on: let it finish.")
    with open(os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that has just ended took the file away.
            if os.stat(LOCK).st_ino != os.fstat(lock.fileno()).st_ino:
                raise going_on
        except OSError:
            raise going_on from None
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        try:
            yield
        finally:
            os.unlink(LOCK)


def _attacks():
    return [attack for module in ATTACKS for attack in __salt__[f"plasma_prove_{module}.attacks"]()]


def _number(attack):
    number, _, _ = attack["name"].partition(".")
    return int(number[1:])


def run(only=None, clean=False, prefix="/opt/tljh"):
    """
    Play the attacks; see ``plasma.prove``.

    only, clean
        As there.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_run.run only=A2
    """
    wanted = _wanted(only)
    started = time.monotonic()
    with _alone(), _Signals() as signals:
        removed = __salt__["plasma_prove_people.left"]() + __salt__["plasma_prove_environment.left"]()
        problems = _remove(prefix) if removed or clean else []
        found = []
        if not clean:
            if problems:
                raise CommandExecutionError(f"What an earlier run left cannot be removed: {' '.join(problems)}")
            scene = _Scene(prefix)
            try:
                scene.people()
                found = _play(wanted, scene)
            finally:
                # The end of a run is not interrupted by a second Ctrl-C.
                signals.ignore()
                problems = _remove(prefix)
    return {
        "refused": all(one["refused"] is not False for one in found) and not problems,
        "attacks": found,
        "problems": problems,
        "removed": removed,
        "seconds": round(time.monotonic() - started, 1),
    }


def _wanted(only):
    known = sorted(_attacks(), key=lambda attack: attack.get("last", False))
    if not only:
        return known
    names = [name.strip() for name in only.split(",")] if isinstance(only, str) else [str(name) for name in only]
    for name in names:
        if not any(name in (attack["name"], attack["name"].partition(".")[0]) for attack in known):
            listed = ", ".join(attack["name"] for attack in sorted(known, key=_number))
            # As an invocation error, Salt would show the docstring of this module beside it.
            raise CommandExecutionError(
                f"There is no attack {name!r}: plasma.prove takes numbers, A2 for all of A2, and these names: {listed}."
            )
    return [attack for attack in known if {attack["name"], attack["name"].partition(".")[0]} & set(names)]


def _play(wanted, scene):
    broken = {
        attack["name"]: seen for attack in wanted if "begin" in attack and (seen := _tried(attack["begin"], scene)[1])
    }
    found = []
    for attack in wanted:
        begun = time.monotonic()
        seen = broken.get(attack["name"])
        refused, seen = (False, seen) if seen else _tried(attack["play"], scene)
        one = {"attack": attack["name"], "what": attack["what"], "expected": attack["expected"]}
        found.append({**one, "seen": seen, "refused": refused, "seconds": round(time.monotonic() - begun, 1)})
    return sorted(found, key=_by_name)


def _tried(function, scene):
    """Call a part of an attack; what it returned, or that it could not be played."""
    try:
        return function(scene) or (None, "")
    except (CommandExecutionError, OSError, ValueError, KeyError, http.client.HTTPException) as exc:
        return False, f"not played: {str(exc).rstrip('.') or type(exc).__name__}"


def _by_name(one):
    return int(re.match(r"A(\d+)", one["attack"])[1])


def _remove(prefix):
    """Remove all that runs make; what could not be, a list of sentences."""
    problems = __salt__["plasma_prove_people.remove"](__salt__["plasma_prove_people.left"](), prefix=prefix)
    problems += __salt__["plasma_prove_environment.remove"](prefix=prefix)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    return problems


class _Signals:
    """Ends a run in an orderly way when the connection is lost or somebody ends it."""

    NUMBERS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)

    def __enter__(self):
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._end) for number in self.NUMBERS}
        return self

    def _end(self, number, _):
        raise SystemExit(128 + number)

    def ignore(self):
        for number in self.before:
            signal.signal(number, signal.SIG_IGN)

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


class _Scene:
    """The two people, their browsers and servers; made when an attack asks for them."""

    def __init__(self, prefix):
        self.prefix, self.tag = prefix, secrets.token_hex(3)
        self.where = __salt__["plasma_prove_browser.place"](prefix)
        if __salt__["plasma_hub_connection.connect"](prefix) is None:
            raise CommandExecutionError(f"No hub with the Plasma plugin runs in {prefix}: apply the state tljh.")
        users = __salt__["plasma_hub_sockets.listeners"](self.where["address"], self.where["port"])
        if users != [0]:
            raise CommandExecutionError(
                f"Port {self.where['port']} is not that of a proxy of root's: nothing is tried."
            )
        allowed = (__salt__["tljh_config.get"]("users.allowed", prefix=prefix)) or []
        if allowed:
            raise CommandExecutionError(
                "The hub lets in nobody but the people named in users.allowed of its config.yaml, so throwaway people "
                "cannot log in: plasma.prove needs a hub that people with accounts on the server may use."
            )
        self.key, self.image, self._browsers, self._agents, self.notes = secrets.token_hex(16), None, {}, {}, {}
        self.directory = DIRECTORY

    def people(self):
        """Make the two people."""
        os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
        self.a, self.b = __salt__["plasma_prove_people.make"](self.tag)

    def visitor(self, source="127.0.0.1"):
        """Somebody without a session."""
        return __salt__["plasma_prove_browser.visitor"](self.where, source)

    def said(self, answer):
        """An answer in a few words."""
        return __salt__["plasma_prove_browser.said"](answer)

    def session(self, person, source="127.0.0.1"):
        """A new session of somebody."""
        visitor = self.visitor(source)
        answer = visitor.sign_in(person["name"], person["password"])
        if answer.status != 302:
            raise CommandExecutionError(f"a throwaway person cannot log in ({self.said(answer)})")
        visitor.open("hub/home")
        return visitor

    def browser(self, person):
        """The session of somebody, the same one each time."""
        if person["name"] not in self._browsers:
            self._browsers[person["name"]] = self.session(person)
        return self._browsers[person["name"]]

    @property
    def hostile(self):
        """The headers that the program in the container sends with each page."""
        return __salt__["plasma_prove_environment.hostile"]()

    def make_image(self):
        """Make the environment, and return its name."""
        if not self.image:
            groups = [self.a["name"], self.b["name"]]
            self.image = __salt__["plasma_prove_environment.make"](
                self.tag, groups, self.a["uid"], self.key, prefix=self.prefix
            )
        return self.image

    def agent(self, person):
        """The program in somebody's container: a function that has it do something and returns what came of it."""
        name = person["name"]
        if name in self._agents and not self._agents[name].alive():
            self.stop(person)
        if name not in self._agents:
            self.browser(person).start(name, self.make_image())
            address = __salt__["plasma_prove_environment.container"](name)
            if not address:
                raise CommandExecutionError("the throwaway server has no address")
            self._agents[name] = _Agent(address, self.key)
        return self._agents[name]

    def stop(self, person):
        """Stop somebody's server, if it runs."""
        self._agents.pop(person["name"], None)
        __salt__["plasma_hub_connection.connect"](self.prefix).ask(
            "DELETE", f"users/{person['name']}/server", also=(202, 400, 404)
        )
        end = time.monotonic() + 30
        while __salt__["plasma_prove_environment.container"](person["name"]) and time.monotonic() < end:
            time.sleep(0.2)

    def admin(self, admin=True):
        """The browser of the second person, who is an administrator from now on, or none any more."""
        __salt__["plasma_hub_api.set_admin"]([self.b["name"]], admin, prefix=self.prefix)
        return self.browser(self.b)


class _Agent:
    """Asks the program in a container, past the proxy."""

    def __init__(self, address, key):
        self.address, self.key = address, key

    def alive(self):
        """Whether it answers: a container may have ended of an attack."""
        try:
            return bool(self("identity", timeout=5))
        except (OSError, http.client.HTTPException, CommandExecutionError):
            return False

    def __call__(self, function, timeout=60, **arguments):
        connection = http.client.HTTPConnection(self.address, 8888, timeout=timeout)
        try:
            body = json.dumps({"do": function, "with": arguments})
            connection.request("POST", "/", body, {"X-Plasma-Prove": self.key})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise CommandExecutionError(f"the program in the container failed at {function}")
        return json.loads(content)
