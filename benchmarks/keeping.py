"""
What keeping a server costs: `make bench-keeping`.

One throwaway server gets the site twice: with what every server has, and with HTTPS, Cockpit, backups and pruning
switched on as well. No-op applies of both alternate with bare pings, so that a noisy machine disturbs all alike.
Medians are reported; writes benchmarks/keeping.json.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks import alternating, machine, median_ratio, medians, report
from benchmarks.servers import PILLAR, connections, throwaway, timed
from tests.support.acme import make_certificate
from tests.support.container import ContainerTarget
from tests.support.site import Site

NAME = "hub.example.org"
CERTIFICATES = "/etc/ssl/plasma"
# All that can be switched on in a container: quotas need a kernel of their own.
EVERYTHING = {
    **PILLAR,
    "https": {"domains": [NAME], "tls": {"key": f"{CERTIFICATES}/bench.key", "cert": f"{CERTIFICATES}/bench.pem"}},
    "cockpit": {"enabled": True},
    "backup": {"schedule": "*-*-* 03:30:00"},
    "docker": {"source": "distro", "prune": {"enabled": True}},
    "users": [{"name": f"student{number:02d}", "password": f"Right-horse-battery-{number}"} for number in range(30)],
}


def put_certificate(target: ContainerTarget, folder: Path) -> None:
    """A certificate with its key on the server."""
    make_certificate(folder, "bench", domains=[NAME])
    target.sudo(f"install -d {CERTIFICATES} && install -d -o {target.user} /srv/pair")
    for file in folder.glob("bench.*"):
        target.copy_to(file, "/srv/pair/")
    target.sudo(f"cp /srv/pair/* {CERTIFICATES}/ && chown -R root: {CERTIFICATES}")


def no_op(site: Site) -> float:
    done = site.apply()
    if done.failed or done.changed:
        raise SystemExit(f"not a no-op: {done.failed or done.changed}")
    return done.seconds


def measure(target: ContainerTarget, folder: Path, rounds: int) -> dict[str, Any]:
    (folder / "pair").mkdir()
    put_certificate(target, folder / "pair")
    site = Site(target, folder / "site", PILLAR)
    timed(site, "test.ping")
    found: dict[str, Any] = {"first_apply_s": timed(site, "state.apply")}
    calls = {
        "ping": lambda: timed(site, "test.ping"),
        "no_op_site": lambda: no_op(site),
        "status": lambda: site.salt("plasma.status").seconds,
    }
    found |= medians(alternating(calls, rounds), "plain_")
    site.set_pillar(EVERYTHING)
    found["https_on_s"] = timed(site, "state.apply", "https")
    found["all_on_s"] = timed(site, "state.apply")
    series = alternating({**calls, "predict": lambda: timed(site, "state.apply", "test=True")}, rounds)
    states = site.apply().states
    return {
        **found,
        **medians(series, "full_"),
        "full_states": len(states),
        "full_states_ms": sum(state.get("duration") or 0 for state in states.values()),
        "full_over_ping": median_ratio(series["no_op_site"], series["ping"]),
        "full_round_trips": connections(site, "state.apply"),
        "ping_round_trips": connections(site, "test.ping"),
        "backup_s": statistics.median(timed(site, "state.apply", "backup.now") for _ in range(rounds)),
        "upgrade_nothing_new_s": timed(site, "state.apply", "upgrade"),
        "uninstall_s": timed(site, "state.apply", "uninstall"),
        "install_again_s": timed(site, "state.apply"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each timed call (default: %(default)s)")
    rounds = parser.parse_args().rounds
    target = ContainerTarget("bench-keeping")
    with throwaway(target) as folder:
        report({**machine(), **measure(target, folder, rounds)}, "keeping.json")


if __name__ == "__main__":
    main()
