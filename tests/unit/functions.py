"""Stand-ins for functions of the product, by the names that Salt would give them."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import salt.modules.cmdmod as cmdmod

import plasma_run
from tests.support.paths import REPOSITORY

UTILS = {path.stem for path in (REPOSITORY / "_utils").glob("*.py")}


def replace(monkeypatch, functions: dict[str, Callable]) -> None:
    """
    Put stand-ins into the modules of ``_utils``; those of others are for ``__salt__``, where they are already.

    functions
        ``{"plasma_doors.read": stand-in}``. It is looked up at every call, so tests may change the mapping later. The
        one of ``cmd.run_all``, which returns what Salt's does, stands for ``plasma_run.run``.
    """
    for name, function in functions.items():
        module, _, attribute = name.partition(".")
        if name == "cmd.run_all" and function is not cmdmod.run_all:
            monkeypatch.setattr(plasma_run, "run", functools.partial(_run, functions))
        elif module in UTILS:
            stand_in = functools.partial(_call, functions, name)
            monkeypatch.setattr(importlib.import_module(module), attribute, stand_in)


def _call(functions, name, *arguments, **options):
    return functions[name](*arguments, **options)


def _run(functions, command, **options):
    done = functions["cmd.run_all"](command, **options)
    output = (done.get(stream, "").rstrip() for stream in ("stdout", "stderr"))
    return plasma_run.Result(done["retcode"], *output, command)
