"""What a class does to the hub: lists of people, logins, servers that start together, many environments."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from benchmarks import summary
from benchmarks.hub_bench import Bench, Latency, Person, log_in, open_lab, repeated, start_server
from benchmarks.hub_compare import bare


def idle(bench: Bench, seconds: float) -> dict[str, Any]:
    """Latency of a hub that has nothing else to do."""
    latency = Latency(bench.hub)
    with latency.measured():
        time.sleep(seconds)
    return {"latency_ms": latency.results()}


def administrator(bench: Bench) -> Callable[..., requests.Response]:
    """A function that gets a path of the hub as its administrator, who is logged in; the answer must be good."""
    session = log_in(bench.hub, bench.admin)

    def get(path: str, **options: Any) -> requests.Response:
        response = session.get(f"{bench.hub.url}/{path}", timeout=60, **options)
        response.raise_for_status()
        return response

    return get


def listing(bench: Bench, people: int, times: int) -> dict[str, Any]:
    """A hub that knows many people: the list by API, and the administration page with the list it asks for."""
    known = len(bench.hub.api("GET", "/users").json())
    names = [person.name for person in bench.people(people - known)]
    bench.hub.api("POST", "/users", json={"usernames": names}).raise_for_status()
    count = len(bench.hub.api("GET", "/users", params={"limit": 200}).json())
    if count != people:
        raise RuntimeError(f"the hub lists {count} people and not {people}")
    get = administrator(bench)

    def page() -> requests.Response:
        token = get("hub/admin").text.partition('xsrf_token: "')[2].partition('"')[0]
        # What its script asks for first.
        return get(
            "hub/api/users",
            params={"include_stopped_servers": "", "offset": 0, "limit": 50, "_xsrf": token},
            headers={"Accept": "application/jupyterhub-pagination+json"},
        )

    return {
        "people": people,
        "api_all_ms": repeated(lambda: bench.hub.api("GET", "/users", params={"limit": 200}), times),
        "admin_page_with_50_ms": repeated(page, times),
    }


def logins(bench: Bench, count: int, seconds: float) -> dict[str, Any]:
    """People who log in one after another, evenly in so many seconds, with the hub's latency meanwhile."""
    latency = Latency(bench.hub)
    people = bench.people(count)
    first = time.monotonic()

    def log_in_at(number: int) -> float:
        time.sleep(max(0.0, first + number * seconds / count - time.monotonic()))
        begin = time.perf_counter()
        log_in(bench.hub, people[number])
        return (time.perf_counter() - begin) * 1000

    with latency.measured(), ThreadPoolExecutor(count) as pool:
        taken = list(pool.map(log_in_at, range(count)))
    return {"count": count, "in_s": seconds, "login_ms": summary(taken), "latency_ms": latency.results()}


def together(bench: Bench, count: int, rounds: int) -> dict[str, Any]:
    """
    Servers that start at the same moment, each until its person has JupyterLab, with the hub's latency meanwhile. Each
    round is with people who have not been there before.

    In turn with as many containers of the same image without a hub, which show how much of it is the machine's.
    """
    usable: list[float] = []
    alone: list[float] = []
    latency = Latency(bench.hub)
    moment = threading.Barrier(count)

    def start(session: requests.Session, person: Person) -> float:
        moment.wait()
        begin = time.perf_counter()
        start_server(bench.hub, person.name)
        open_lab(bench.hub, session, person.name)
        return time.perf_counter() - begin

    for _ in range(rounds):
        people = bench.people(count)
        sessions = [log_in(bench.hub, person) for person in people]
        with ThreadPoolExecutor(count) as pool:
            with latency.measured():
                usable += pool.map(start, sessions, people)
            for person in people:
                bench.hub.stop_server(person.name)
            alone += pool.map(lambda person: bare(bench, person)["total"], people)
    return {
        "count": count,
        "rounds": rounds,
        "usable_s": summary(usable),
        "without_hub_usable_s": summary(alone),
        "latency_ms": latency.results(),
    }


def environments(bench: Bench, count: int, times: int) -> dict[str, Any]:
    """The pages that list environments, with so many of them."""
    bench.environments(count)
    get = administrator(bench)
    # The first visit logs in at the service.
    get("services/plasma/environments")
    listed = get("services/plasma/api/environments").json()["environments"]
    if len(listed) < count:
        raise RuntimeError(f"{len(listed)} environments are listed and not {count}")
    pages = {
        "page_ms": "services/plasma/environments",
        "api_ms": "services/plasma/api/environments",
        "permissions_api_ms": "services/plasma/api/permissions",
        "start_page_ms": "hub/spawn",
    }
    return {
        "environments": len(listed),
        **{name: repeated(lambda path=path: get(path), times) for name, path in pages.items()},
    }
