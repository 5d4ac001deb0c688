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
import pathlib
import platform
import statistics
import subprocess
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
RESULTS = pathlib.Path(__file__).with_name("backup.json")
PROGRAM = ["/usr/bin/python3", "-I", "-B", str(REPOSITORY / "plugin" / "src" / "tljh_plasma" / "backup")]


def make_hub(prefix: pathlib.Path, users: int) -> int:
    """A hub's directories with the database of so many users; returns its size in bytes."""
    from jupyterhub import orm

    for name in ("config", "state", "plasma"):
        (prefix / name).mkdir(parents=True)
    (prefix / "config" / "config.yaml").write_text("limits:\n  memory: 2G\n")
    path = prefix / "state" / "jupyterhub.sqlite"
    session = orm.new_session_factory(f"sqlite:///{path}")()
    for number in range(users):
        user = orm.User(name=f"student{number:05d}")
        session.add(user)
        server = orm.Server(ip="127.0.0.1", port=8888, base_url=f"/user/student{number:05d}/", proto="http")
        state = {"object_id": "0" * 64, "object_name": f"jupyter-student{number:05d}", "image": "python-course:2026"}
        session.add(orm.Spawner(name="", user=user, server=server, state=state, user_options={"image": "course"}))
        for kind in ("server", "oauth", "oauth"):
            token = orm.APIToken(user=user, note=kind, hashed=f"sha512:1:{number:016x}:{os.urandom(64).hex()}")
            token.prefix = os.urandom(4).hex()[:4]
            session.add(token)
    session.commit()
    session.close()
    return path.stat().st_size


def make_homes(place: pathlib.Path, homes: int, files: int) -> int:
    """Homes of files of 4 kB that do not compress; returns how many files there are."""
    for number in range(homes):
        for folder in range(10):
            directory = place / f"student{number:05d}" / f"week{folder}"
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


def run(*words: str) -> tuple[float, int, dict]:
    """Seconds, the largest resident size in MB, and the answer of one call of the program."""
    done = subprocess.run(["/usr/bin/python3", "-c", SMALL, *PROGRAM, *words], stdout=subprocess.PIPE, text=True)
    seconds, largest, answer = json.loads(done.stdout)
    if "error" in answer:
        raise SystemExit(answer["error"])
    return seconds, largest, answer


def measure(users: int, homes: int, files: int, rounds: int) -> dict:
    with tempfile.TemporaryDirectory(prefix="plasma-bench-") as folder:
        root = pathlib.Path(folder)
        database = make_hub(root / "hub", users)
        count = make_homes(root / "home", homes, files)
        words = ["--prefix", str(root / "hub"), "--directory", str(root / "backups"), "--home-path", str(root / "home")]
        found: dict = {"users": users, "database_mb": round(database / 2**20, 1), "files_in_homes": count}
        for name, more in (("hub", []), ("with_homes", ["--homes"])):
            times: dict[str, list[float]] = {"create": [], "verify": [], "extract": []}
            memory = 0
            for number in range(rounds):
                seconds, largest, made = run("create", *words, *more)
                times["create"].append(seconds)
                memory = max(memory, largest)
                seconds, largest, about = run("verify", made["path"])
                times["verify"].append(seconds)
                memory = max(memory, largest)
                parts = [f"--part={part}" for part in ("config", "state", *(["homes"] if more else []))]
                into = str(root / f"{name}{number}")
                seconds, largest, _ = run("extract", made["path"], "--into", into, "--seen", about["seen"], *parts)
                times["extract"].append(seconds)
                memory = max(memory, largest)
            found[name] = {f"{key}_s": round(statistics.median(values), 2) for key, values in times.items()}
            found[name].update(archive_mb=round(made["bytes"] / 2**20, 1), memory_mb=memory)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--users", type=int, nargs="+", default=[50, 500, 5000])
    parser.add_argument("--homes", type=int, default=200, help="how many of them have a home with files")
    parser.add_argument("--files", type=int, default=500, help="files in each of these homes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results = [measure(users, min(users, options.homes), options.files, options.rounds) for users in options.users]
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    RESULTS.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
