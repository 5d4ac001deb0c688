"""The options of conf/master, for Salt in this process."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import yaml

from tests.support.paths import REPOSITORY
from tests.unit.salt_options import minion_options


@functools.cache
def _master() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "conf" / "master").read_text(encoding="utf-8"))


def options(directory: pathlib.Path, **changed: Any) -> dict[str, Any]:
    """A minion's options with the roots, the pillar and the external pillar of conf/master."""
    master = _master()
    roots = {
        key: {env: [str(REPOSITORY / path) for path in paths] for env, paths in master[key].items()}
        for key in ("file_roots", "pillar_roots")
    }
    values = {
        **roots,
        "pillar_dirs": [REPOSITORY / path for path in master["pillar_dirs"]],
        "ext_pillar": master["ext_pillar"],
        **changed,
    }
    return minion_options(pathlib.Path(directory), **values)
