"""
How ``plasma.prove`` looks on a terminal: a line for each attack, what was expected of it and what was seen. What is no
such run (an error of Salt, say) looks as it always does.
"""

from __future__ import annotations

import textwrap

import salt.loader
import salt.utils.color

__virtualname__ = "plasma_prove"

WIDTHS = (13, 46, 30)  # attack, what, expected; what was seen takes the rest
SEEN = 60


def __virtual__():
    return __virtualname__


def output(data, **kwargs):
    """
    Return the text for ``{server: run}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma.prove --out=plasma_prove
    """
    colours = salt.utils.color.get_colors(__opts__.get("color"), __opts__.get("color_theme"))
    blocks = []
    for server, run in data.items():
        if isinstance(run, dict) and "refused" in run and "attacks" in run:
            blocks.append("\n".join(_block(server, run, colours)))
        else:
            blocks.append(salt.loader.outputters(__opts__)["nested"]({server: run}, **kwargs))
    return "\n".join(blocks)


def _block(server, run, colours):
    end, attacks = colours["ENDC"], run["attacks"]
    failed = [one for one in attacks if one["refused"] is False]
    if failed:
        state = f"{len(failed)} of {len(attacks)} attacks NOT REFUSED"
    else:
        refused = sum(1 for one in attacks if one["refused"])
        state = f"all of {refused} attacks refused" if attacks else "nothing was played"
        if refused < len(attacks):
            state += f", {len(attacks) - refused} to look at (--)"
    if run["problems"]:
        state += ", NOT ALL REMOVED"
    colour = colours["GREEN"] if run["refused"] else colours["RED"]
    yield f"{colours['CYAN']}{server}:{end} {colour}{state}{end} ({run['seconds']:.0f} s)"
    if attacks:
        yield from _row("    ", ("attack", "what is tried", "expected", "seen"))
    for one in attacks:
        sign = {True: "ok", None: "--", False: "!!"}[one["refused"]]
        colour = {True: "", None: colours["YELLOW"], False: colours["RED"]}[one["refused"]]
        for line in _row(f" {sign} ", (one["attack"], one["what"], one["expected"], one["seen"])):
            yield f"{colour}{line}{end if colour else ''}"
    for name in run["removed"]:
        yield f"    an earlier run had left {name}, which was removed"
    for problem in run["problems"]:
        yield f"  {colours['RED']}!! {problem}{end}"
        yield f"       -> salt-ssh '{server}' plasma.prove clean=True"


def _row(sign, cells):
    """The lines of one row: each cell is broken where it is wider than its column."""
    columns = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, (*WIDTHS, SEEN), strict=True)]
    for number in range(max(map(len, columns))):
        parts = [column[number] if number < len(column) else "" for column in columns]
        padded = [part.ljust(width) for part, width in zip(parts, (*WIDTHS, SEEN), strict=True)]
        yield (sign if not number else " " * len(sign)) + "  ".join(padded).rstrip()
