"""The schema as Salt sees it: through `_pillar/plasma.py`, and through Salt's own pillar compiler."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import salt._logging.impl
import salt.config
import salt.pillar
import salt.utils.yaml

REPOSITORY = Path(__file__).resolve().parents[3]
# Salt keeps what is logged before its logging is set up, and prints it at exit to a stream pytest has closed by then.
salt._logging.impl.shutdown_temp_handler()
# Stands where a password stands; no test may see it come out anywhere.
MARKER = "Marker-7f3a9c"


def readable(line: str) -> bool:
    """Whether what a line shows is what it is: nothing that only looks like something else, or like nothing."""
    return line.isprintable() and all(char.isascii() or "\u00c0" <= char <= "\u017f" for char in line)


def load_external_pillar(root: Path = REPOSITORY) -> Any:
    """`_pillar/plasma.py`, by its path, as a module that no loader touched."""
    spec = importlib.util.spec_from_file_location("plasma_external_pillar", root / "_pillar" / "plasma.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def external_pillar() -> Any:
    return load_external_pillar()


@pytest.fixture(scope="session")
def complete(external_pillar: Any) -> Callable[..., dict[str, Any]]:
    """Completes a valid `plasma` mapping, given as data or as YAML; fails with the problems when it is not valid."""

    def run(plasma: Any = None) -> dict[str, Any]:
        answer = external_pillar.ext_pillar("server", as_pillar(plasma))
        assert "_errors" not in answer, "\n".join(answer["_errors"])
        assert set(answer) == {"plasma"}
        return answer["plasma"]

    return run


@pytest.fixture(scope="session")
def problems(external_pillar: Any) -> Callable[..., list[str]]:
    """The lines for an invalid `plasma` mapping, given as data or as YAML."""

    def run(plasma: Any) -> list[str]:
        answer = external_pillar.ext_pillar("server", as_pillar(plasma))
        assert set(answer) == {"_errors", "plasma"}, f"accepted: {json.dumps(answer)}"
        assert answer["plasma"] is None
        for line in answer["_errors"]:
            assert readable(line), repr(line)
            assert line.startswith(("plasma", "... and")), line
            assert "pydantic" not in line and "Traceback" not in line, line
            assert MARKER not in line
        return answer["_errors"]

    return run


@pytest.fixture(scope="session")
def problem(problems: Callable[..., list[str]]) -> Callable[..., str]:
    """The only line for a `plasma` mapping with one thing wrong."""

    def run(plasma: Any) -> str:
        lines = problems(plasma)
        assert len(lines) == 1, "\n".join(lines)
        return lines[0]

    return run


def as_pillar(plasma: Any) -> dict[str, Any]:
    """YAML goes through Salt's own loader, whose idea of dates and keys differs from PyYAML's."""
    return {"plasma": salt.utils.yaml.safe_load(plasma) if isinstance(plasma, str) else plasma}


class Site:
    """A copy of `pillar/` with the repository's own configuration, compiled as salt-ssh compiles it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("conf", "pillar"):
            shutil.copytree(REPOSITORY / name, root / name)
        for name in ("_pillar", "_renderers"):
            (root / name).symlink_to(REPOSITORY / name)
        self.pillar = root / "pillar"

    def own_schema(self) -> Path:
        """A copy of the schema in the place of the link to it, for tests that change it; returns its directory."""
        copied = self.root / "_pillar"
        copied.unlink()
        shutil.copytree(REPOSITORY / "_pillar", copied, ignore=shutil.ignore_patterns("__pycache__"))
        return copied / "plasma_schema"

    def options(self) -> dict[str, Any]:
        # salt.config.client_config is what salt-ssh reads its configuration with.
        options = salt.config.client_config(str(self.root / "conf" / "master"))
        options["file_client"] = "local"
        options["cachedir"] = str(self.root / "cache")
        return options

    def compile(
        self, minion_id: str = "server", override: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        return salt.pillar.Pillar(
            {**self.options(), **options}, {"id": minion_id}, minion_id, "base", pillar_override=override
        ).compile_pillar()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    root = tmp_path / "repository"
    root.mkdir()
    made = Site(root)
    # Relative paths of conf/master count from where salt-ssh is called.
    monkeypatch.chdir(root)
    return made
