"""What a class does to the hub: lists of people, logins, servers that start together, many environments."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from .hub_bench import IMAGE, Bench, summary
from .hub_browser import Browser
from .hub_compare import bare
from .hub_latency import Sampler


def addresses(bench: Bench) -> dict[str, str]:
    """The trifles: the API's version and the login page."""
    return {"GET /hub/api/": f"{bench.hub.url}/hub/api/", "login page": f"{bench.hub.url}/hub/login"}


def repeated(call: Callable[[], requests.Response], times: int) -> dict[str, float]:
    """Return how long a request takes, in milliseconds; the first one does not count.

    Args:
        call: makes the request, which must succeed.
        times: how often.
    """
    taken = []
    for _ in range(times + 1):
        begin = time.perf_counter()
        call().raise_for_status()
        taken.append((time.perf_counter() - begin) * 1000)
    return summary(taken[1:])


def idle(bench: Bench, seconds: float) -> dict[str, Any]:
    """Latency of a hub that has nothing else to do."""
    with Sampler(addresses(bench)) as sampler:
        time.sleep(seconds)
    return {"latency_ms": sampler.results()}


def listing(bench: Bench, people: int, times: int) -> dict[str, Any]:
    """A hub that knows many people: the list by API, and the administration page with the list it asks for.

    Args:
        people: how many.
        times: repetitions.
    """
    known = len(bench.hub.api("GET", "/users").json())
    names = [person.name for person in bench.people(people - known)]
    bench.hub.api("POST", "/users", json={"usernames": names}).raise_for_status()
    count = len(bench.hub.api("GET", "/users", params={"limit": 200}).json())
    if count != people:
        raise RuntimeError(f"the hub lists {count} people and not {people}")
    admin = Browser(bench.hub, bench.admin)
    admin.login()

    def page() -> requests.Response:
        shown = admin.session.get(f"{bench.hub.url}/hub/admin", timeout=60)
        shown.raise_for_status()
        token = re.search(r'xsrf_token: "([^"]+)"', shown.text)[1]
        # What its script asks for first.
        return admin.session.get(
            f"{bench.hub.url}/hub/api/users",
            params={"include_stopped_servers": "", "offset": 0, "limit": 50, "_xsrf": token},
            headers={"Accept": "application/jupyterhub-pagination+json"},
            timeout=60,
        )

    return {
        "people": people,
        "api_all_ms": repeated(lambda: bench.hub.api("GET", "/users", params={"limit": 200}), times),
        "admin_page_with_50_ms": repeated(page, times),
    }


def logins(bench: Bench, count: int, seconds: float) -> dict[str, Any]:
    """People who log in one after another, evenly, with the hub's latency meanwhile.

    Args:
        count: how many.
        seconds: in what time.
    """
    browsers = [Browser(bench.hub, person) for person in bench.people(count)]
    taken: list[float] = []
    begin = time.monotonic()
    with Sampler(addresses(bench)) as sampler, ThreadPoolExecutor(count) as pool:
        waiting = []
        for number, browser in enumerate(browsers):
            time.sleep(max(0.0, begin + number * seconds / count - time.monotonic()))
            waiting.append(pool.submit(browser.login))
        for login in waiting:
            taken.append(login.result()["login"] * 1000)
    return {"count": count, "in_s": seconds, "login_ms": summary(taken), "latency_ms": sampler.results()}


def together(bench: Bench, count: int, rounds: int) -> dict[str, Any]:
    """Servers that start at the same moment, each until its person has JupyterLab, with the hub's latency meanwhile.

    In turn with as many containers of the same image without a hub, which show how much of it is the machine's.

    Args:
        count: how many.
        rounds: how often; each with people who have not been there before.
    """
    usable: list[float] = []
    alone: list[float] = []
    sampler = Sampler(addresses(bench))
    for _ in range(rounds):
        browsers = [Browser(bench.hub, person) for person in bench.people(count)]
        for browser in browsers:
            browser.login()
        moment = threading.Barrier(count)

        def start(browser: Browser, moment: threading.Barrier = moment) -> float:
            moment.wait()
            begin = time.perf_counter()
            browser.start(IMAGE)
            browser.open()
            return time.perf_counter() - begin

        with ThreadPoolExecutor(count) as pool:
            with sampler:
                usable += pool.map(start, browsers)
            for browser in browsers:
                browser.stop()
            alone += pool.map(lambda browser: bare(bench, browser.person)["total"], browsers)
    return {
        "count": count,
        "rounds": rounds,
        "usable_s": summary(usable),
        "without_hub_usable_s": summary(alone),
        "latency_ms": sampler.results(),
    }


def environments(bench: Bench, count: int, times: int) -> dict[str, Any]:
    """The pages that list environments, with many of them.

    Args:
        count: how many there are.
        times: repetitions.
    """
    bench.environments(count)
    admin = Browser(bench.hub, bench.admin)
    admin.login()
    service = f"{bench.hub.url}/services/plasma"
    # The first visit logs in at the service.
    page = admin.session.get(f"{service}/environments", timeout=60)
    page.raise_for_status()
    listed = admin.session.get(f"{service}/api/environments", timeout=60).json()["environments"]
    if len(listed) < count:
        raise RuntimeError(f"{len(listed)} environments are listed and not {count}")
    return {
        "environments": len(listed),
        "page_ms": repeated(lambda: admin.session.get(f"{service}/environments", timeout=60), times),
        "api_ms": repeated(lambda: admin.session.get(f"{service}/api/environments", timeout=60), times),
        "permissions_api_ms": repeated(lambda: admin.session.get(f"{service}/api/permissions", timeout=60), times),
        "start_page_ms": repeated(lambda: admin.session.get(f"{bench.hub.url}/hub/spawn", timeout=60), times),
    }
