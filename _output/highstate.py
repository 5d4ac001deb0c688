"""
How a run of states looks on a terminal: as Salt shows it, and at the end what failed, first the one to mend. What was
not tried because of that is a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import salt.output.highstate as stock
import salt.utils.color

# Salt's words for a state that was not tried (salt/state.py).
_REQUISITE = "One or more requisite failed: "
# Lines of one comment that are shown again: of a log, the end says most.
_HEAD, _END = 2, 6


def output(data: Any, **kwargs: Any) -> str:
    """
    Return the text for ``{server: {state: result}}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' state.apply --out=highstate
    """
    stock.__opts__ = __opts__  # ty: ignore[missing-attribute] # the loader's, which loads this file alone
    if not isinstance(data, dict) or not data or not all(_is_run(run) for run in data.values()):
        return stock.output(data, **kwargs)
    colours = salt.utils.color.get_colors(__opts__.get("color"), __opts__.get("color_theme"))
    return "\n".join("\n".join(_shown(server, run, colours, kwargs)) for server, run in data.items())


def _is_run(run: Any) -> bool:
    return isinstance(run, dict) and all(isinstance(one, dict) and "__run_num__" in one for one in run.values())


def _shown(server: str, run: dict[str, Any], colours: dict[str, Any], options: dict[str, Any]) -> Iterator[str]:
    left_out = {tag for tag, state in run.items() if _missed(state)}
    kept = {tag: state for tag, state in run.items() if tag not in left_out}
    # Salt leaves out what succeeded and changed nothing, with what it has to say.
    quiet = [state for state in kept.values() if state.get("warnings") and state["result"] and not state["changes"]]
    told = [f"  ! {_name(state)}: {warning}" for state in quiet for warning in state["warnings"]]
    yield stock.output({server: kept}, **options)
    if told and not __opts__.get("state_verbose"):
        yield f"\n{colours['YELLOW']}To know about {server}:{colours['ENDC']}"
        yield from told
    yield from _failures(server, _causes(run), len(left_out), colours)


def _failures(server: str, causes: list[dict[str, Any]], missed: int, colours: dict[str, Any]) -> Iterator[str]:
    if not causes:
        return
    red, end = colours["RED"], colours["ENDC"]
    title = f"What failed on {server}, first the one to mend:" if len(causes) > 1 else f"What failed on {server}:"
    yield f"\n{red}{title}{end}"
    for number, state in enumerate(causes, 1):
        first, *more = _shortened(str(state.get("comment")))
        yield f"{red}{number:>3}. {_name(state)}: {first}{end}"
        yield from (f"     {line}" for line in more)
    if missed:
        words = "1 more needs what failed, and was" if missed == 1 else f"{missed} more need what failed, and were"
        yield f"{words} not tried."


def _name(state: dict[str, Any]) -> str:
    return str(state.get("__id__") or state.get("name"))


def _missed(state: dict[str, Any]) -> bool:
    """Whether a state was not tried, as another one had failed."""
    return state["result"] is False and str(state.get("comment")).startswith(_REQUISITE)


def _causes(run: dict[str, Any]) -> list[dict[str, Any]]:
    """What failed by itself, in the order of the run; first what others wait for."""
    by_key = {f"{state.get('__sls__')}.{state.get('__id__')}": state for state in run.values()}
    needed: set[int] = set()

    def follow(state: dict[str, Any], seen: set[int]) -> None:
        for key in str(state["comment"]).removeprefix(_REQUISITE).split(", "):
            other = by_key.get(key)
            if other is None or id(other) in seen:
                continue
            seen.add(id(other))
            if _missed(other):
                follow(other, seen)
            else:
                needed.add(id(other))

    for state in filter(_missed, run.values()):
        follow(state, set())
    failed = [state for state in run.values() if state["result"] is False and not _missed(state)]
    return sorted(failed, key=lambda state: (id(state) not in needed, state["__run_num__"]))


def _shortened(comment: str) -> list[str]:
    lines = [line.rstrip() for line in re.split(r"\r?\n", comment) if line.strip()] or ["no comment"]
    if len(lines) <= _HEAD + _END + 1:
        return lines
    return [*lines[:_HEAD], f"... {len(lines) - _HEAD - _END} lines, see above", *lines[-_END:]]
