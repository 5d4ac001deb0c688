"""
Attacks of ``plasma.prove`` that keep the hub busy: connections that say nothing or never end (A5), and wrong passwords
(A7). They come from addresses of the loopback network, as from many clients, and last for seconds; while each goes on,
the second person logs in from another address.
"""

from __future__ import annotations

import contextlib
import resource
import threading
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_prove_floods"

CONNECTIONS = 1100
SLOWED = 5  # seconds that a login may take meanwhile
QUEUE, GUESSES = 96, 25  # wrong passwords at once, and from one address for one account
LATER = 2  # seconds by which wrong passwords of others may delay a right one: their limit is one, and a moment
LONG = 2_000_000  # characters of a password


def __virtual__():
    return __virtualname__


def attacks():
    """
    Return the attacks of this module, see ``plasma_prove_run``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_floods.attacks
    """
    return [
        {
            "name": "A5.bodies",
            "what": f"{CONNECTIONS:,} logins whose bodies never come, from nobody",
            "expected": f"another one goes on, within {SLOWED} s",
            "play": _unfinished,
        },
        {
            "name": "A5.idle",
            "what": f"{CONNECTIONS:,} connections from a server to the hub's API that say nothing",
            "expected": f"logins go on, within {SLOWED} s",
            "play": _idle,
        },
        {
            "name": "A7.queue",
            "what": f"{QUEUE} wrong passwords at once from 12 addresses",
            "expected": f"a right one is at most {LATER} s later",
            "play": _queue,
        },
        {
            "name": "A7.guess",
            "what": "Somebody guesses a password",
            "expected": f"told to stop before {GUESSES}",
            "play": _guess,
        },
        {
            "name": "A7.long",
            "what": f"A password of {LONG:,} characters",
            "expected": "refused unread",
            "play": _long,
        },
    ]


def _login(scene, source):
    """A right login from another address: ``(seconds, answer)``."""
    begun = time.monotonic()
    answer = scene.visitor(source).sign_in(scene.b["name"], scene.b["password"])
    return time.monotonic() - begun, answer


def _went_on(scene, source, what):
    seconds, answer = _login(scene, source)
    if answer.status != 302:
        return False, f"{what}: a right login failed, {scene.said(answer)} after {seconds:.1f} s"
    return seconds < SLOWED, f"{what}: a login took {seconds:.1f} s"


def _unfinished(scene):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 400
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    try:
        with contextlib.ExitStack() as held:
            opened = 0
            for number in range(CONNECTIONS):
                # Half of them from one address.
                visitor = scene.visitor(f"127.66.5.{1 if number % 2 else 2 + number % 200}")
                head = (
                    f"POST {visitor.base}hub/login HTTP/1.1",
                    f"Host: {visitor.origin_host}",
                    "Content-Type: application/x-www-form-urlencoded",
                    "Content-Length: 10000",
                    "",
                    "username=",
                )
                try:
                    connection = held.enter_context(contextlib.closing(visitor.socket()))
                    connection.sendall("\r\n".join(head).encode())
                except OSError:
                    continue
                opened += 1
            time.sleep(1)  # for the proxy to hand them on
            return _went_on(scene, "127.66.6.1", f"{opened:,} open")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, wanted) if soft < wanted else hard))


def _idle(scene):
    agent = scene.agent(scene.a)
    host, port = agent("identity")["hub"]
    opened = agent("hold", host=host, port=port, number=CONNECTIONS, seconds=30, timeout=90)
    try:
        return _went_on(scene, "127.66.6.2", f"{opened:,} opened")
    finally:
        agent("release")


def _queue(scene):
    usual, answer = _login(scene, "127.66.6.3")
    if answer.status != 302:
        raise CommandExecutionError(f"a throwaway person cannot log in ({scene.said(answer)})")
    visitors = [scene.visitor(f"127.66.7.{number + 1}") for number in range(12)]
    for visitor in visitors:
        visitor.open("hub/login")
    # Made here: what runs in a thread knows nothing of Salt.
    threads = [
        threading.Thread(target=visitor.submit, args=(f"plasma-prove-nobody-{number}", "wrong"), daemon=True)
        for number in range(QUEUE // len(visitors))
        for visitor in visitors
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    seconds, answer = _login(scene, "127.66.6.3")
    for thread in threads:
        thread.join(timeout=90)
    if answer.status != 302:
        return False, f"a right login failed, {scene.said(answer)} after {seconds:.1f} s"
    return seconds - usual < LATER, f"{seconds:.1f} s, {usual:.1f} s without"


def _guess(scene):
    visitor, statuses = scene.visitor("127.66.9.1"), []
    visitor.open("hub/login")

    def guess():
        statuses.append(visitor.submit(scene.a["name"], "wrong").status)

    for _ in range(0, GUESSES, 5):
        threads = [threading.Thread(target=guess) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=90)
        if 429 in statuses:
            return True, f"status 429 after {statuses.count(403)}"
    return False, f"{len(statuses)} were tried, status {', '.join(sorted({str(status) for status in statuses}))}"


def _long(scene):
    visitor = scene.visitor("127.66.9.2")
    visitor.open("hub/login")
    answer = visitor.submit(scene.a["name"], "x" * LONG)
    return answer.status in (0, 400, 413), f"{scene.said(answer)} after {answer.seconds:.1f} s"
