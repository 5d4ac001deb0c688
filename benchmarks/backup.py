"""
What a backup costs: `python -m benchmarks.backup` in the plugin's environment, which has JupyterHub.

A hub of many users is made in a directory: JupyterHub's own database with a running server and tokens for each, and
homes of small files. The backup program of servers makes, verifies and unpacks archives of it. Writes
benchmarks/backup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import HERE, machine, medians, report

PROGRAM = ["/usr/bin/python3", "-I", "-B", str(HERE.parent / "plugin" / "src" / "tljh_plasma" / "backup")]


def make_hub(prefix: Path, users: int) -> int:
    """A hub's directories with the database of so many users; returns its size in bytes."""
    from jupyterhub import orm

    for name in ("config", "state", "plasma"):
        (prefix / name).mkdir(parents=True)
    (prefix / "config" / "config.yaml").write_text("limits:\n  memory: 2G\n")
    path = prefix / "state" / "jupyterhub.sqlite"
    session = orm.new_session_factory(f"sqlite:///{path}")()
    for number in range(users):
        name = f"student{number:05d}"
        user = orm.User(name=name)
        session.add(user)
        server = orm.Server(ip="127.0.0.1", port=8888, base_url=f"/user/{name}/", proto="http")
        state = {"object_id": "0" * 64, "object_name": f"jupyter-{name}", "image": "python-course:2026"}
        session.add(orm.Spawner(name="", user=user, server=server, state=state, user_options={"image": "course"}))
        for kind in ("server", "oauth", "oauth"):
            token = orm.APIToken(user=user, note=kind, hashed=f"sha512:1:{number:016x}:{os.urandom(64).hex()}")
            token.prefix = os.urandom(4).hex()[:4]
            session.add(token)
    session.commit()
    session.close()
    return path.stat().st_size


def make_homes(parent: Path, homes: int, files: int) -> int:
    """Homes of files of 4 kB that do not compress; returns how many files there are."""
    for number in range(homes):
        for folder in range(10):
            directory = parent / f"student{number:05d}" / f"week{folder}"
            directory.mkdir(parents=True)
            for name in range(files // 10):
                (directory / f"notes{name}.bin").write_bytes(os.urandom(4096))
    return homes * (files // 10) * 10


# A process begins with the largest size of the one that started it, so a small one does that.
SMALL = """
import json, resource, subprocess, sys, time
begun = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)
seconds = time.perf_counter() - begun
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, json.loads(done.stdout)]))
"""


class Runs:
    """Calls of the backup program: the seconds of each by the name of its command, and the largest size in MB."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.memory = 0

    def run(self, command: str, *words: str) -> dict[str, Any]:
        """The answer of the program."""
        argv = ["/usr/bin/python3", "-c", SMALL, *PROGRAM, command, *words]
        seconds, memory, answer = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, text=True).stdout)
        if "error" in answer:
            raise SystemExit(answer["error"])
        self.seconds.setdefault(command, []).append(seconds)
        self.memory = max(self.memory, memory)
        return answer


def measure(users: int, homes: int, files: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="plasma-bench-") as folder:
        root = Path(folder)
        database = make_hub(root / "hub", users)
        figures: dict[str, Any] = {"users": users, "database_mb": round(database / 2**20, 1)}
        figures["files_in_homes"] = make_homes(root / "home", homes, files)
        options = [f"--prefix={root / 'hub'}", f"--directory={root / 'backups'}", f"--home-path={root / 'home'}"]
        for name, more in (("hub", []), ("with_homes", ["--homes"])):
            runs = Runs()
            parts = ["--part=config", "--part=state", *(["--part=homes"] if more else [])]
            for number in range(rounds):
                made = runs.run("create", *options, *more)
                seen = runs.run("verify", made["path"])["seen"]
                runs.run("extract", made["path"], f"--into={root / name}{number}", f"--seen={seen}", *parts)
            figures[name] = {key: round(value, 2) for key, value in medians(runs.seconds).items()}
            figures[name] |= {"archive_mb": round(made["bytes"] / 2**20, 1), "memory_mb": runs.memory}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[50, 500, 5000])
    parser.add_argument("--homes", type=int, default=200, help="how many of them have a home with files")
    parser.add_argument("--files", type=int, default=500, help="files in each of these homes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sizes = [measure(users, min(users, options.homes), options.files, options.rounds) for users in options.users]
    report({**machine(), **{f"{figures['users']} users": figures for figures in sizes}}, "backup.json")


if __name__ == "__main__":
    main()
