"""The targets that were brought up from this state directory, whichever process did it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import container, engine, paths
from tests.support.container import ContainerTarget
from tests.support.shell import SupportError
from tests.support.target import Target
from tests.support.vm import VMTarget

KINDS: dict[str, type[Target]] = {"container": ContainerTarget, "vm": VMTarget}


def make(kind: str, name: str, **options) -> Target:
    """The target ``name`` of ``kind``, as recorded or new; it is not brought up."""
    recorded = load(name)
    if recorded is None:
        return KINDS[kind](name, **options)
    if recorded.kind != kind:
        raise SupportError(f"There is a target {name!r} of kind {recorded.kind}: take it down or choose another name")
    return recorded


def load(name: str) -> Target | None:
    """The recorded target ``name``, or None."""
    file = paths.targets_dir() / f"{name}.json"
    return _read(file) if file.exists() else None


def load_all() -> list[Target]:
    """Every recorded target, by name."""
    return [_read(file) for file in sorted(paths.targets_dir().glob("*.json"))]


def _read(file: Path) -> Target:
    fields = json.loads(file.read_text())
    if fields.get("key"):
        fields["key"] = Path(fields["key"])
    return KINDS[fields["kind"]](**fields)


def down_all() -> list[str]:
    """Take down every target made from this state directory; returns their names."""
    names = []
    for target in load_all():
        target.down()
        names.append(target.name)
    # Without an engine there is no container, and none is started only to see that.
    for name in container.leftovers() if engine.running_host() else []:
        prefix, suffix = "plasma-", f"-{paths.state_id()}"
        target = ContainerTarget(name.removeprefix(prefix).removesuffix(suffix))
        target.down()
        names.append(target.name)
    return names
