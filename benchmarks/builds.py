"""
What builds of environments cost on the base that a server makes itself: `make bench-builds`.

The builder of the service, with the real repo2docker and engine and the real index. Writes benchmarks/builds.json.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import benchmarks

sys.path.insert(0, str(benchmarks.HERE.parent / "plugin" / "tests"))

import docker
from support_builds import Bench
from tljh_plasma import trust
from tljh_plasma.builds import Builder, BuildRequest
from tljh_plasma.builds.local import BASE

from tests.support import builder_image, engine, git_repository
from tests.support.debian import extra_authorities

PACKAGES = "numpy\npandas\nmatplotlib\nscipy\njupyterlab\n"
MORE = "seaborn\n"
TEMPLATES = ("python", "r", "vscode")


def unlike(name: str, mark: str) -> dict[str, str]:
    """Files of a template that are other ones for the engine, which has no step of them then."""
    folder = git_repository.REPOSITORY / "docs" / "templates" / name
    # Of R's script, only what it installs is a part of the first step.
    file, line = (
        ("install.R", f'if (FALSE) install.packages("x{mark}")') if name == "r" else ("requirements.txt", f"# {mark}")
    )
    return {file: f"{line}\n{(folder / file).read_text(encoding='utf-8')}"}


async def seconds_of(bench: Bench, builder: Builder, request: BuildRequest) -> float:
    begun = time.monotonic()
    row = await bench.build(builder, request)
    if row.status != "built":
        raise SystemExit(row.log)
    return time.monotonic() - begun


async def measure_templates(bench: Bench, builder: Builder, rounds: int) -> dict[str, Any]:
    series: dict[str, list[float]] = {name: [] for name in TEMPLATES}
    for number in range(rounds + 1):
        for name, values in series.items():
            files = unlike(name, f"{bench.prefix[-6:]}{number}")
            repository = git_repository.template(bench.served / f"{name}{number}", name, files)
            seconds = await seconds_of(bench, builder, bench.request(repository, image=bench.image(name)))
            print(f"{number} template {name}: {seconds:.1f} s", flush=True)
            # The first round is for what all environments share, such as R.
            if number:
                values.append(seconds)
    sizes = {name: bench.client.images.get(bench.image(name)).attrs["Size"] for name in TEMPLATES}
    shared = bench.client.images.get(BASE).attrs["Size"]
    return {
        f"template {name}": {**benchmarks.summary(values), "mb_beside_the_base": round((sizes[name] - shared) / 1e6)}
        for name, values in series.items()
    }


async def measure(bench: Bench, prefix: Path, rounds: int) -> dict[str, Any]:
    settings = dataclasses.replace(bench.settings(image="local", timeout=1200), prefix=prefix)
    builder = Builder(bench.context, bench.manager, settings)
    series: dict[str, list[float]] = {"cold": [], "one package more": [], "notebooks alone": []}
    try:
        for number in range(rounds + 1):
            # A comment makes it another file for the engine, which has no step of it then.
            packages = f"# {bench.prefix} {number}\n{PACKAGES}"
            files = {"requirements.txt": packages}
            repository = git_repository.make_repository(bench.served / f"bench{number}", None, files)
            request = bench.request(repository, image=bench.image(f"bench{number}"))
            changes: dict[str, dict[str, str]] = {
                "cold": {},
                "one package more": {"requirements.txt": packages + MORE},
                "notebooks alone": {"course.ipynb": "{}\n"},
            }
            for name, files in changes.items():
                repository.commit(files)
                seconds = await seconds_of(bench, builder, request)
                print(f"{number} {name}: {seconds:.1f} s", flush=True)
                # The first round is for what all environments share.
                if number:
                    series[name].append(seconds)
        templates = await measure_templates(bench, builder, min(rounds, 3))
    finally:
        await builder.close()
    size = bench.client.images.get(bench.image("bench1")).attrs["Size"]
    shared = bench.client.images.get(BASE).attrs["Size"]
    return {
        **{name: benchmarks.summary(values) for name, values in series.items()},
        **templates,
        "base_mb": round(shared / 1e6),
        "environment_mb_beside_it": round((size - shared) / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    host = engine.ensure_engine()
    builder_image.local_images()
    # As on a server whose pillar names the authorities of this machine, if it has any.
    trust.own = lambda: [path.read_bytes() for path in extra_authorities()]
    with tempfile.TemporaryDirectory(prefix="plasma-bench-") as folder:
        served = Path(folder, "served")
        served.mkdir()
        with git_repository.serve(served, git_repository.bridge_address()) as url:
            client = docker.DockerClient(base_url=host, version="auto")
            bench = Bench(Path(folder), served, url, client, builder_image.LOCAL, BASE)
            try:
                figures = asyncio.run(measure(bench, Path(folder), rounds))
            finally:
                bench.clean()
    benchmarks.report({**benchmarks.machine(), **figures}, "builds.json")


if __name__ == "__main__":
    main()
