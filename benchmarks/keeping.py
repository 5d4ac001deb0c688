"""
What keeping a server costs: `make bench-keeping`.

One throwaway server gets the site twice: with what every server has, and with HTTPS, Cockpit, backups and pruning
switched on as well. No-op applies of both alternate with bare pings, so that a noisy machine disturbs all alike.
Medians are reported; writes benchmarks/keeping.json.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import tempfile

from benchmarks.report import machine, report
from benchmarks.run import PILLAR, connections, timed
from tests.support.acme import make_certificate
from tests.support.container import ContainerTarget
from tests.support.engine import ensure_engine
from tests.support.images import base_image
from tests.support.site import Site

RESULTS = pathlib.Path(__file__).with_name("keeping.json")
NAME = "hub.example.org"


def everything(directory: str) -> dict:
    """The pillar of a server with all that can be switched on in a container (quotas need a kernel of their own)."""
    return {
        **PILLAR,
        "https": {"domains": [NAME], "tls": {"key": f"{directory}/bench.key", "cert": f"{directory}/bench.pem"}},
        "cockpit": {"enabled": True},
        "backup": {"schedule": "*-*-* 03:30:00"},
        "docker": {"source": "distro", "prune": {"enabled": True}},
        "users": [
            {"name": f"student{number:02d}", "password": f"Right-horse-battery-{number}"} for number in range(30)
        ],
    }


def put_pair(target: ContainerTarget, folder: pathlib.Path) -> str:
    """A certificate with its key on the server; returns their directory."""
    make_certificate(folder, "bench", domains=[NAME])
    place = "/etc/ssl/plasma"
    target.sudo(f"install -d {place}")
    target.sudo(f"install -d -o {target.user} /srv/pair")
    for file in folder.glob("bench.*"):
        target.copy_to(file, "/srv/pair/")
    target.sudo(f"sh -c 'cp /srv/pair/* {place}/ && chown -R root: {place}'")
    return place


def measure(rounds: int) -> dict:
    target = ContainerTarget("bench-keeping")
    target.down()
    base_image()
    try:
        target.up()
        with tempfile.TemporaryDirectory() as folder:
            return _measure(target, pathlib.Path(folder), rounds)
    finally:
        target.down()


def _measure(target: ContainerTarget, folder: pathlib.Path, rounds: int) -> dict:
    (folder / "pair").mkdir()
    full = everything(put_pair(target, folder / "pair"))
    site = Site(target, folder / "site", PILLAR)
    timed(site, "test.ping")
    found = {"first_apply_s": timed(site, "state.apply")}
    series = {name: [] for name in ("ping", "no_op_site", "status")}
    for _ in range(rounds):
        series["ping"].append(timed(site, "test.ping"))
        series["no_op_site"].append(timed(site, "state.apply"))
        series["status"].append(site.salt("plasma.status").seconds)
    found |= {f"plain_{name}_s": statistics.median(values) for name, values in series.items()}

    site.set_pillar(full)
    found["https_on_s"] = timed(site, "state.apply", "https")
    found["all_on_s"] = timed(site, "state.apply")
    series = {name: [] for name in ("ping", "no_op_site", "status", "predict")}
    for _ in range(rounds):
        series["ping"].append(timed(site, "test.ping"))
        done = site.apply()
        if done.failed or done.changed:
            raise SystemExit(f"not a no-op: {done.failed or done.changed}")
        series["no_op_site"].append(done.seconds)
        series["predict"].append(timed(site, "state.apply", "test=True"))
        series["status"].append(site.salt("plasma.status").seconds)
    found |= {f"full_{name}_s": statistics.median(values) for name, values in series.items()}
    found["full_states"] = len(done.states)
    found["full_states_ms"] = sum(state.get("duration") or 0 for state in done.states.values())
    found["full_over_ping"] = statistics.median(
        apply / ping for apply, ping in zip(series["no_op_site"], series["ping"], strict=True)
    )
    found["full_round_trips"] = connections(site, "state.apply")
    found["ping_round_trips"] = connections(site, "test.ping")
    found["backup_s"] = statistics.median(timed(site, "state.apply", "backup.now") for _ in range(rounds))
    found["upgrade_nothing_new_s"] = timed(site, "state.apply", "upgrade")
    found["uninstall_s"] = timed(site, "state.apply", "uninstall")
    found["install_again_s"] = timed(site, "state.apply")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each timed call (default: %(default)s)")
    arguments = parser.parse_args()
    ensure_engine()
    report({**machine(), **measure(arguments.rounds)}, RESULTS, "Keeping a server")
    return 0


if __name__ == "__main__":
    sys.exit(main())
