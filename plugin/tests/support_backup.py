"""The backup program as servers run it: a directory, the system's Python, nothing else."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import tarfile
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[1] / "src" / "tljh_plasma" / "backup"
COMMAND = ["/usr/bin/python3", "-I", "-B", str(PROGRAM)]


class World:
    """A hub with its data, homes, and a place for archives."""

    def __init__(self, root: Path):
        self.root, self.prefix, self.homes, self.place = root, root / "hub", root / "home", root / "backups"
        for folder in ("config/jupyterhub_config.d", "state/rules", "plasma"):
            (self.prefix / folder).mkdir(parents=True)
        (self.prefix / "config/config.yaml").write_text("limits:\n  memory: 1G\n")
        (self.prefix / "state/jupyterhub_cookie_secret").write_text("secret")
        (self.prefix / "state/jupyterhub_cookie_secret").chmod(0o600)
        (self.prefix / "state/rules/rules.toml").write_text("of the proxy")
        (self.prefix / "plasma/receipt.json").write_text('{"provider": "pypi"}')
        with self.database() as database:
            database.execute("create table users (name)")
            database.execute("insert into users values ('ada')")
        (self.homes / "ada").mkdir(parents=True)
        (self.homes / "ada/notes.txt").write_text("hers")

    def database(self):
        return sqlite3.connect(self.prefix / "state/jupyterhub.sqlite")

    def run(self, *words, **options):
        """The answer of one call, and nothing else on its output."""
        done = subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=120, **options)
        assert "Traceback" not in done.stderr, done.stderr
        answer = json.loads(done.stdout)
        assert done.returncode == int(isinstance(answer, dict) and "error" in answer)
        return answer

    def words(self, *more):
        return ["create", "--prefix", self.prefix, "--directory", self.place, "--home-path", self.homes, *more]

    def create(self, *more, **options):
        return self.run(*self.words(*more), **options)

    def archive(self, *more) -> Path:
        return Path(self.create(*more)["path"])

    def names(self):
        return sorted(os.listdir(self.place)) if self.place.exists() else []


def rewrite(path: Path, change) -> Path:
    """A copy of an archive in which `change` took a list of (TarInfo, content) and returned another."""
    with tarfile.open(path) as tar:
        members = [(info, tar.extractfile(info).read() if info.isreg() else None) for info in tar]
    new = path.with_name(path.name.replace("manual", "changed"))
    with tarfile.open(new, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, content in change(members):
            if content is not None:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if content is not None else None)
    return new
