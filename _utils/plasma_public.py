"""
Functions of ``_utils`` that operators may call, too.
"""

from __future__ import annotations

import functools
import types
from typing import Any


def offer(namespace: dict[str, Any], *functions: types.FunctionType) -> None:
    """
    Make imported functions callable as those of an execution module: Salt passes over functions that were defined
    elsewhere, so the module gets copies that say they are its own.

    namespace
        ``globals()`` of the module.
    functions
        Functions that it imported under their own names.
    """
    for function in functions:
        own = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        functools.update_wrapper(own, function)
        vars(own).pop("__wrapped__")
        own.__kwdefaults__ = function.__kwdefaults__
        own.__module__ = namespace["__name__"]
        namespace[function.__name__] = own
