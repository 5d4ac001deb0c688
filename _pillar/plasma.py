"""
External pillar of this site: validates the `plasma` namespace, completes it with its defaults and the people of CSV
files, and makes hashes of passwords, all on the controller.

What is wrong stops the run before a server is touched, with one line for each problem. The schema is in
`plasma_schema/`, its reference page in `docs/reference/pillar.md`.

Values from the command line (`salt-ssh ... state.apply pillar='{...}'`) are checked here too, but Salt lays them over
the completed pillar once more afterwards, as they were written: a password given there is not removed.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import traceback
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_PACKAGE = "plasma_schema"
# Salt loads this file by a path that may be relative to a directory the process leaves later.
_HOME = Path(__file__).resolve().with_name(_PACKAGE)


def schema(module: str) -> Any:
    """
    A module of the package beside this file, such as `check`.

    Salt adds `_pillar` to `sys.path` only while it loads this file; naming the package's place leaves `sys.path`
    alone and cannot find another package of the same name.
    """
    loaded = sys.modules.get(_PACKAGE)
    if loaded is None or list(loaded.__path__) != [str(_HOME)]:
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]
        spec = importlib.util.spec_from_file_location(
            _PACKAGE, _HOME / "__init__.py", submodule_search_locations=[str(_HOME)]
        )
        assert spec and spec.loader
        package = importlib.util.module_from_spec(spec)
        sys.modules[_PACKAGE] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{_PACKAGE}.{module}")


def ext_pillar(minion_id: str, pillar: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """
    Validate and complete the pillar of one server.

    minion_id
        Its name in the roster.
    pillar
        What the files in `pillar/` gave for it.

    What it looks up besides (CSV files, keys, the cache of hashes) is where the controller's configuration says.

    Returns {"plasma": completed}, or {"_errors": lines, "plasma": None}: Salt runs no state then, shows the lines and
    ends with an exit code other than 0.
    """
    # Salt goes on without an external pillar that cannot be imported, and would send the pillar as it is, passwords
    # included. So nothing outside the standard library is imported above, and every failure here is an answer.
    opts = globals().get("__opts__") or {}
    try:
        # Before anything that needs pydantic: a file that cannot be read says so without it.
        files = schema("sls_file")
        read = files.take(pillar)
        completed, problems = {}, files.mistakes(read) or files.unmatched(minion_id, read, pillar, opts)
        if problems is None:
            return {}
        if not problems:
            completed, problems = schema("check").check(pillar, opts)
            # Values of the command line are in no file.
            if not any(str(word).startswith("pillar=") for word in opts.get("argv") or []):
                problems = files.located(problems, read)
        if not problems:
            schema("turns").wait(minion_id, opts)
    except ImportError as exc:
        completed, problems = (
            {},
            [
                f"The pillar cannot be checked: {exc.name or 'a module'} is missing in the Python that runs Salt "
                f"({sys.executable}). Install the packages of pyproject.toml there."
            ],
        )
    except Exception as exc:  # pylint: disable=broad-except
        # Neither the message nor the values: they may hold a password.
        log.error("The check of the pillar failed:\n%s", "".join(traceback.format_tb(exc.__traceback__)))
        completed, problems = {}, [f"The pillar cannot be checked: {type(exc).__name__} (the log says where)."]
    # Taken away, and not only overlaid by the result: Salt may be told to merge lists (pillar_merge_lists).
    pillar.pop("plasma", None)
    if problems:
        return {"_errors": problems, "plasma": None}
    return {"plasma": completed}
