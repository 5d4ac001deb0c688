"""Read and change the hub's ``config.yaml``: one locked, validated and atomic write for any number of keys.

Called by Salt's ``tljh_config`` module in a subprocess::

    hub/bin/python3 -m tljh_plasma.config_file    # one JSON object on stdin, one on stdout

    {"action": "show", "path": PATH}                          -> {"config": {...}}
    {"action": "update", "path": PATH, "set": {"limits.memory": "2G"}, "unset": ["a.b"],
     "dry_run": false, "lock_timeout": 30}                    -> what `update` returns
    {"action": "restore", "path": PATH, "text": TEXT or null,
     "lock_timeout": 30}                                      -> {"restored": true}

``set`` may also be a list of pairs ``[[key, value], ...]``, for keys given as lists of strings. The exit code is 0,
or 1 with ``{"error": "<one sentence>"}`` for an expected error. Values travel on stdin because they may be secrets.

The lock is the one of TLJH's own ``tljh-config`` command: ``<path>.lock``, taken with the `filelock` library.

This module must start fast (it runs several times in each apply), so it imports neither jupyterhub nor, before they
are needed, the validation and locking libraries.
"""

from __future__ import annotations

import json
import os
import pathlib
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from . import kept
from .config_yaml import ConfigError, diff, parse, remove, render, same
from .replace import replace, sync_directory

Path = str | os.PathLike[str]
# Dotted, or the names on the way.
Key = str | list[str]

__all__ = ["ConfigError", "load", "main", "restore", "update"]


def load(path: Path) -> dict[str, Any]:
    """Return the content of *path* as plain dicts, lists and scalars; ``{}`` when it is absent or empty.

    Raises `ConfigError` when it is a symbolic link, is not valid YAML or holds no mapping.
    """
    return parse(_read(path)[0] or "", path)[1]


def update(
    path: Path,
    set: Mapping[str, Any] | Iterable[tuple[Key, Any]] | None = None,
    unset: Iterable[Key] = (),
    dry_run: bool = False,
    lock_timeout: float = 30,
) -> dict[str, Any]:
    """Set and unset any number of keys of a configuration file in one write.

    Args:
        path: the file. It is created (mode 0600) when absent.
        set: keys to set: a mapping of dotted keys to values, or pairs of key and value, where the key may be a list. A
            value replaces what was there, mappings included.
        unset: keys to remove. Missing ones are no error; a section left empty goes too, as with ``tljh-config``.
        dry_run: compute and validate everything, write nothing.
        lock_timeout: seconds to wait for the lock.

    Returns:
        ``changed`` (bool), ``changes`` ({dotted key: {"old", "new"}}; None stands for absent), ``diff`` (unified, the
        values of keys that look secret hidden) and ``previous`` (the old text, None if there was no file).

    Raises:
        ConfigError: invalid YAML, a value on the way that is no mapping, an invalid result, a busy lock. Nothing is
            written then.
    """
    path = os.fspath(path)
    wanted, unwanted = _requests(set or {}, unset)
    if dry_run:  # the file is replaced atomically: reading needs no lock, and the directory may not exist yet
        return _change(path, wanted, unwanted, dry_run=True)
    with _locked(path, lock_timeout):
        return _change(path, wanted, unwanted, dry_run=False)


def restore(path: Path, text: str | None, lock_timeout: float = 30) -> dict[str, bool]:
    """Write *text* back to *path* as it is, or remove the file when *text* is None. Returns ``{"restored": True}``."""
    with _locked(path, lock_timeout):
        info = _read(path)[1]
        if text is not None:
            _write(path, text, info)
        elif info:
            os.unlink(path)
            sync_directory(pathlib.Path(path).absolute().parent)
    return {"restored": True}


# --- the change -------------------------------------------------------------------------------------------------


def _change(path: str, wanted: list[tuple[list[str], Any]], unwanted: list[list[str]], dry_run: bool) -> dict[str, Any]:
    previous, info = _read(path)
    text, changes = previous, {}
    tree, before = parse(text or "", path)
    copy = kept.copy_of(path)
    if not before and copy.exists():
        # Gone, with all that was set by hand: it comes back first.
        text = _read(copy)[0]
        tree, before = parse(text or "", copy)
        changes[os.path.basename(path)] = {"old": None, "new": "as the hub last started with it"}
    after = deepcopy(before)
    assigned, removed = [], []
    for keys, value in wanted:
        section, name = _section(after, keys, create=True), keys[-1]
        if name not in section or not same(section[name], value):
            changes[".".join(keys)] = {"old": section.get(name), "new": value}
            assigned.append((keys, value))
            section[name] = deepcopy(value)
    for keys in unwanted:
        section, name = _section(after, keys, create=False), keys[-1]
        if section is not None and name in section:
            changes[".".join(keys)] = {"old": section[name], "new": None}
            removed.append(keys)
            remove(after, keys)
    result = {"changed": bool(changes), "changes": changes, "diff": "", "previous": previous}
    if not changes:
        return result

    from .config_schema import problems  # here, because it takes longer to load than all the rest

    wrong = problems(after)
    if wrong:
        raise ConfigError(f"{path} would not be valid, nothing was written: {'; '.join(wrong[:5])}.")
    new_text = render(text or "", tree, after, assigned, removed, path)
    result["diff"] = diff(previous or "", new_text, path)
    if not dry_run:
        _write(path, new_text, info)
    return result


def _requests(wanted: Any, unwanted: Any) -> tuple[list[tuple[list[str], Any]], list[list[str]]]:
    """Normalise what is asked for: a list of (keys, value) and a list of keys."""
    pairs = [(_keys(key), value) for key, value in (wanted.items() if isinstance(wanted, dict) else wanted)]
    unwanted = [_keys(key) for key in ([unwanted] if isinstance(unwanted, str) else unwanted or ())]
    for number, (keys, _) in enumerate(pairs):
        for other in [pair[0] for pair in pairs[:number]] + unwanted:
            length = min(len(keys), len(other))
            if keys[:length] == other[:length]:
                raise ConfigError(f"The keys {'.'.join(keys)} and {'.'.join(other)} contradict each other.")
    return pairs, unwanted


def _keys(key: Key) -> list[str]:
    keys = key.split(".") if isinstance(key, str) else list(key)
    if not all(keys):
        raise ConfigError(f"{key!r} is not a key: write names separated by dots, as in limits.memory.")
    return keys


def _section(config: dict[str, Any], keys: list[str], create: bool) -> dict[str, Any] | None:
    """The mapping that holds the last of *keys*. Missing ones are created, or None is returned."""
    for depth, part in enumerate(keys[:-1], 1):
        if config.get(part) is None:  # `limits:` with nothing behind it is an empty section
            if not create:
                return None
            config[part] = {}
        config = config[part]
        if not isinstance(config, dict):
            raise ConfigError(
                f"{'.'.join(keys)} cannot be changed: {'.'.join(keys[:depth])} holds a single value or a list, "
                "not a section with keys; correct the file by hand."
            )
    return config


# --- the file ---------------------------------------------------------------------------------------------------


@contextmanager
def _locked(path: Path, timeout: float) -> Iterator[None]:
    from filelock import FileLock, Timeout

    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
    try:
        with FileLock(f"{path}.lock", timeout=timeout):
            yield
    except Timeout:
        raise ConfigError(
            f"Another program held the lock {path}.lock for {timeout:g} seconds, nothing was changed; try again."
        ) from None


def _read(path: Path) -> tuple[str | None, os.stat_result | None]:
    """Return the text and the status of the file, both None when it does not exist."""
    if os.path.islink(path):
        # Replacing the link would separate it from its target, and following it may lead anywhere.
        raise ConfigError(f"{path} is a symbolic link, which is not followed; put the file itself there.")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, None
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        os.close(descriptor)
        raise ConfigError(f"{path} is not a regular file.")
    with open(descriptor, "rb") as file:
        content = file.read()
    try:
        return content.decode(), info
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path} is not valid YAML, nothing was changed (line {line}): it is not UTF-8.") from None


def _write(path: Path, text: str, info: os.stat_result | None) -> None:
    """Replace *path* atomically, keeping mode and owner. Called with the lock held: what others left can go."""
    path = pathlib.Path(path).absolute()
    for left in path.parent.glob(f".{path.name}.*.new"):
        left.unlink()
    replace(path, text, like=info)


# --- the command ------------------------------------------------------------------------------------------------

_ACTIONS = {"show": lambda path: {"config": load(path)}, "update": update, "restore": restore}


def main() -> int:
    """Read a request on stdin, write the answer on stdout, return the exit code."""
    # jsonschema loads these when they are there, as they are beside JupyterHub, for checks of formats that are not
    # used here. The first compiles grammars for more than a second. None makes importing them fail in this process.
    for unused in ("rfc3987_syntax", "isoduration", "rfc3986_validator"):
        sys.modules.setdefault(unused, None)
    request = json.loads(sys.stdin.buffer.read())
    try:
        result, code = _ACTIONS[request.pop("action")](**request), 0
    except ConfigError as error:
        result, code = {"error": str(error)}, 1
    except OSError as error:
        result, code = {"error": f"{error.filename or request.get('path')}: {error.strerror or error}."}, 1
    print(json.dumps(result, default=str))
    return code


if __name__ == "__main__":
    sys.exit(main())
