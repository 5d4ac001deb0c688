"""The site as an operator runs it: salt-ssh over real SSH, with its own pillar, roster and caches."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

import yaml

from tests.support import paths, salt_ssh
from tests.support.images import cache_key
from tests.support.paths import REPOSITORY

SALT_SSH = pathlib.Path(sys.executable).parent / "salt-ssh"


def thin() -> pathlib.Path:
    """The directory of what salt-ssh sends of Salt, which takes each new controller some seconds to pack."""
    versions = [importlib.metadata.version("salt"), sys.version, (REPOSITORY / "requirements-dev.txt").read_bytes()]
    made = paths.cache_dir() / f"thin-{cache_key(*versions)}" / "thin"
    with paths.lock("thin"):
        if not made.exists():
            pack = "import sys, salt.utils.thin; salt.utils.thin.gen_thin(sys.argv[1])"
            with tempfile.TemporaryDirectory(prefix="thin-", dir=paths.cache_dir()) as scratch:
                subprocess.run([sys.executable, "-c", pack, scratch], check=True)
                shutil.copytree(scratch, made.parent)
    return made


@dataclass
class Result:
    """What one salt-ssh call did."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    target: str

    def of(self, server: str) -> Result:
        """The same call, as one of several servers answered it."""
        return dataclasses.replace(self, target=server)

    @property
    def states(self) -> dict[str, dict]:
        """The returned states by ID; raises with everything salt-ssh said when it returned something else."""
        value = self.value
        if not isinstance(value, dict):
            raise AssertionError(f"salt-ssh returned no states (code {self.returncode}):\n{self.stdout}\n{self.stderr}")
        # Names disambiguate states declared with `names`.
        return {f"{state.get('__id__', key)}|{state.get('name', '')}": state for key, state in value.items()}

    @property
    def value(self):
        """What the called function returned."""
        try:
            answer = json.loads(self.stdout)[self.target]
        except (ValueError, KeyError) as exc:
            raise AssertionError(f"salt-ssh (code {self.returncode}) said:\n{self.stdout}\n{self.stderr}") from exc
        if isinstance(answer, dict) and set(answer) >= {"return", "retcode"}:
            return answer["return"]
        return answer

    @property
    def changed(self) -> dict[str, dict]:
        """The changes by state ID, of states that changed or would change something."""
        return {key: state["changes"] for key, state in self.states.items() if state["changes"]}

    @property
    def predicted(self) -> set[str]:
        """The IDs of states that a dry run says would change something (some of Salt's own give no details)."""
        return {key for key, state in self.states.items() if state["result"] is None}

    @property
    def failed(self) -> dict[str, str]:
        """The comments by state ID, of states that failed."""
        return {key: state["comment"] for key, state in self.states.items() if state["result"] is False}


@dataclass
class Site:
    """
    A controller for one target: a configuration directory of its own beside the repository's tree. ``others`` are in
    its roster, too.
    """

    target: object
    directory: pathlib.Path
    pillar: dict = field(default_factory=dict)
    others: tuple = ()

    def __post_init__(self):
        self.directory = pathlib.Path(self.directory)
        (self.directory / "conf").mkdir(parents=True, exist_ok=True)
        (self.directory / "pillar").mkdir(exist_ok=True)
        master = yaml.safe_load((REPOSITORY / "conf" / "master").read_text(encoding="utf-8"))
        master["root_dir"] = str(self.directory / "salt")
        master["utils_dirs"] = [self._utils_of(REPOSITORY)]
        # The operator's own files in the folder salt/ (add_files).
        master["file_roots"]["base"].append(str(self.directory / "files"))
        master["pillar_roots"] = {"base": [str(self.directory / "pillar")]}
        (self.directory / "conf" / "master").write_text(yaml.safe_dump(master), encoding="utf-8")
        roster = {target.name: target.roster_entry() for target in (self.target, *self.others)}
        (self.directory / "roster").write_text(yaml.safe_dump(roster), encoding="utf-8")
        shutil.copy(REPOSITORY / "pillar" / "top.sls", self.directory / "pillar" / "top.sls")
        shutil.copytree(thin(), self.directory / "salt" / "cache" / "thin", dirs_exist_ok=True)
        self.set_pillar(self.pillar)

    def use_tree(self, directory: pathlib.Path = REPOSITORY) -> None:
        """Take the states and the plugin of another tree (``tests.support.tree``), or those of this one again."""
        path = self.directory / "conf" / "master"
        master = yaml.safe_load(path.read_text(encoding="utf-8"))
        master["file_roots"]["base"][0] = str(pathlib.Path(directory) / "salt")
        master["utils_dirs"] = [self._utils_of(directory)]
        path.write_text(yaml.safe_dump(master), encoding="utf-8")

    def _utils_of(self, tree: pathlib.Path) -> str:
        # Salt takes every path here as one below root_dir.
        return os.path.relpath(pathlib.Path(tree) / "_utils", self.directory / "salt")

    def set_pillar(self, plasma: dict) -> None:
        """Write what the operator would write under `plasma:`."""
        self.pillar = plasma
        self._write_pillar("plasma", plasma)

    def set_server_pillar(self, server: str, plasma: dict) -> None:
        """Write what stands in the server's own file, over that."""
        (self.directory / "pillar" / "servers").mkdir(exist_ok=True)
        self._write_pillar(f"servers/{server.replace('.', '-')}", plasma)

    def _write_pillar(self, name: str, plasma: dict) -> None:
        path = self.directory / "pillar" / f"{name}.sls"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
            yaml.safe_dump({"plasma": plasma}, handle)

    def add_files(self, files: dict[str, pathlib.Path]) -> None:
        """Copy files to where states find them as salt://NAME."""
        for name, source in files.items():
            path = self.directory / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path)

    def command(self, *arguments: str, out: str | None = "json", everybody: bool = False) -> list[str]:
        """The salt-ssh command line for this site: for its target, or for everybody in the roster."""
        return [
            str(SALT_SSH),
            f"--config-dir={self.directory / 'conf'}",
            f"--roster-file={self.directory / 'roster'}",
            *([f"--out={out}"] if out else []),
            *(["--static", "*"] if everybody else [self.target.name]),
            *arguments,
        ]

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        """Start salt-ssh and return its process."""
        return subprocess.Popen(self.command(*arguments), cwd=REPOSITORY, **options)

    def salt_text(self, *arguments: str, **options) -> Result:
        """The same as people see it, without colours."""
        return self.salt("--no-color", *arguments, out=None, **options)

    def salt(self, *arguments: str, timeout: float = 1500, out: str | None = "json", everybody: bool = False) -> Result:
        """Run salt-ssh to its end."""
        started = time.monotonic()
        done = salt_ssh.run(self.command(*arguments, out=out, everybody=everybody), timeout)
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - started, self.target.name)

    def apply(self, *arguments: str, **options) -> Result:
        """``state.apply`` with these arguments."""
        return self.salt("state.apply", *arguments, **options)
