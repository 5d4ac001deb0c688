"""
How ``plasma.status`` and ``plasma.prove`` look on a terminal: problems first, each with what mends it, or a line for
each attack. What is neither (an error of Salt, say) looks as it always does.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import salt.loader
import salt.utils.color

# Environments, and people with servers, that are listed one by one.
SHOWN = 12
# Parts of a status that have lines of their own here; others, of capabilities to come, are shown as they are.
_LINES = {
    *("healthy", "problems", "server", "versions", "services", "certificate", "disks", "quotas", "environments"),
    *("servers", "backup", "cockpit", "gpu", "prune", "ssh", "upgrade", "databases", "applied"),
}
# Characters of attack, what is tried, what is expected, what was seen.
WIDTHS = (13, 46, 30, 60)


def output(data: dict[str, Any], **kwargs: Any) -> str:
    """
    Return the text for ``{server: status}`` or ``{server: run}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma.status --out=plasma
    """
    colours = salt.utils.color.get_colors(__opts__.get("color"), __opts__.get("color_theme"))
    blocks = []
    for server, answer in data.items():
        keys = answer.keys() if isinstance(answer, dict) else set()
        show = _status if keys >= {"healthy", "problems"} else _attacks if keys >= {"refused", "attacks"} else None
        if show:
            blocks.append("\n".join(show(server, answer, colours)))
        else:
            blocks.append(salt.loader.outputters(__opts__)["nested"]({server: answer}, **kwargs))
    return "\n".join(blocks)


def _headline(server: str, text: str, good: bool, colours: dict[str, Any]) -> str:
    end = colours["ENDC"]
    return f"{colours['CYAN']}{server}:{end} {colours['GREEN' if good else 'RED']}{text}{end}"


def _attacks(server: str, run: dict[str, Any], colours: dict[str, Any]) -> Iterator[str]:
    end, attacks = colours["ENDC"], run["attacks"]
    failed = [attack for attack in attacks if attack["refused"] is False]
    refused = sum(attack["refused"] is True for attack in attacks)
    state = f"all of {_count(refused, 'attack')} refused" if attacks else "nothing was played"
    if refused < len(attacks):
        state += f", {len(attacks) - refused} to look at (--)"
    if failed:
        state = f"{len(failed)} of {_count(len(attacks), 'attack')} NOT REFUSED"
    if run["problems"]:
        state += ", NOT ALL REMOVED"
    yield f"{_headline(server, state, run['refused'], colours)} ({run['seconds']:.0f} s)"
    if attacks:
        yield from _row("    ", ("attack", "what is tried", "expected", "seen"))
    for attack in attacks:
        signs = {True: ("ok", ""), None: ("--", colours["YELLOW"]), False: ("!!", colours["RED"])}
        sign, colour = signs[attack["refused"]]
        for line in _row(f" {sign} ", (attack[key] for key in ("attack", "what", "expected", "seen"))):
            yield f"{colour}{line}{end if colour else ''}"
    yield from (f"    an earlier run had left {name}, which was removed" for name in run["removed"])
    for problem in run["problems"]:
        yield f"  {colours['RED']}!! {problem}{end}"
        yield f"       -> salt-ssh '{server}' plasma.prove clean=True"


def _row(sign: str, cells: Iterable[str]) -> Iterator[str]:
    """The lines of one row: each cell is broken where it is wider than its column."""
    columns = [textwrap.wrap(cell, width) for cell, width in zip(cells, WIDTHS, strict=True)]
    for number, parts in enumerate(itertools.zip_longest(*columns, fillvalue="")):
        padded = [part.ljust(width) for part, width in zip(parts, WIDTHS, strict=True)]
        yield (" " * len(sign) if number else sign) + "  ".join(padded).rstrip()


def _status(server: str, status: dict[str, Any], colours: dict[str, Any]) -> Iterator[str]:
    problems = status["problems"]
    errors = sum(problem["severity"] == "error" for problem in problems)
    counted = [_count(number, what) for number, what in ((errors, "error"), (len(problems) - errors, "warning"))]
    state = ["healthy" if status["healthy"] else "NOT HEALTHY", *(text for text in counted if text[0] != "0")]
    yield _headline(server, ", ".join(state), status["healthy"], colours)
    for problem in problems:
        colour, sign = (colours["RED"], "!!") if problem["severity"] == "error" else (colours["YELLOW"], " !")
        yield f"  {colour}{sign} {problem['problem']}{colours['ENDC']}"
        yield f"       -> {problem['mend']}"
    for name, text in _parts(status):
        lines = [text] if isinstance(text, str) else text
        yield from (f"  {'' if number else name:<13}{line}" for number, line in enumerate(lines))


def _parts(status: dict[str, Any]) -> Iterator[tuple[str, str | list[str]]]:
    """What each part of a status looks like: a line, or several."""
    known = {name: part for name, part in status.items() if part}
    server, versions, services = (known.get(name, {}) for name in ("server", "versions", "services"))
    certificate, quotas, backup = (known.get(name, {}) for name in ("certificate", "quotas", "backup"))
    cockpit, prune, ssh, applied = (known.get(name, {}) for name in ("cockpit", "prune", "ssh", "applied"))
    gpu = known.get("gpu", {})
    yield "server", ", ".join(filter(None, [server.get("os"), _named("Docker ", server.get("docker"))])) or "?"
    yield "versions", [_version(name, version) for name, version in versions.items()] or "no hub"
    states = [f"{name} {state}" for name, state in services.items() if name != "hub answers"]
    answers = "the hub answers" if services.get("hub answers") else "the hub does not answer"
    yield "services", ", ".join([*states, answers])
    yield "certificate", _certificate(certificate) if certificate.get("enabled") else "none, plain HTTP"
    disk = "{mount}: {percent} % of {size}, {free} free ({holds})".format_map
    yield "disks", [disk({**one, "holds": ", ".join(one["holds"])}) for one in status.get("disks") or ()] or "?"
    over = [f"{person['name']} {person['used']} of {person['limit']}" for person in quotas.get("exceeded") or ()]
    yield "quotas", _some(over) if over else "nobody is over a limit" if quotas.get("on") else "off"
    environments, servers = status.get("environments"), status.get("servers")
    lines = [f"{one['size']:>9}  {one['name']} ({one['image']})" for one in environments or ()]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    yield "environments", [*lines[:SHOWN], *more] or _nothing("none", environments)
    names = [one["user"] + _named("/", one["server"]) for one in servers or ()]
    running = f"{_count(len(names), 'server')}: {_some(names)}"
    yield "servers", running if names else _nothing("none run", servers)
    if backup:
        last = f"{backup['last']} ({backup['age_hours']:.0f} hours ago)" if backup.get("last") else "never"
        yield "backup", f"{last}, {_named('timer ', backup.get('timer')) or 'no timer'}"
    if cockpit.get("installed"):
        yield "cockpit", f"{cockpit['installed']}, {'running' if cockpit.get('running') else 'not offered'}"
    if gpu:
        yield "GPUs", f"{gpu['used']} of {gpu['count']} in use"
    if prune.get("timer"):
        yield "pruning", f"timer {prune['timer']}{_named(', last ', prune.get('last'))}"
    if ssh:
        people = _some(ssh.get("open") or []) or "nobody of the hub"
        others = _some(["root", *(ssh.get("privileged") or [])])
        closed = f"open to {people}, and to {others}; {ssh.get('shut')} shut out"
        yield "ssh", closed if ssh.get("kept") else "open to everybody with a key or a password"
    for name in sorted(known.keys() - _LINES):
        # Its problem is among the problems.
        values = {key: value for key, value in known[name].items() if key != "problem" and value not in (None, [], {})}
        if values:
            yield name, ", ".join(f"{key} {value}" for key, value in values.items())
    pending = _named("; pending: ", ", ".join(applied.get("pending") or [])) or ", nothing is pending"
    yield "applied", (applied.get("at") or "never") + pending


def _version(name: str, version: dict[str, Any]) -> str:
    installed, available = version.get("installed"), version.get("available")
    newer = available and installed not in available.split(" or ")
    return f"{name} {installed or 'not installed'}" + (f" ({available} available)" if newer else "")


def _certificate(certificate: dict[str, Any]) -> str:
    text = ", ".join(certificate.get("domains") or []) or "?"
    if certificate.get("not_after"):
        text += f", until {certificate['not_after'][:10]} ({certificate['days_left']:.0f} days)"
    if certificate.get("user_domains") is False:
        text += ", people's servers share the hub's name (plasma.https.user_domains is off)"
    return text + _named(", last error: ", certificate.get("last_error"))


def _nothing(text: str, value: list[Any] | None) -> str:
    """What stands for an empty list, or for one that could not be had."""
    return "?" if value is None else text


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _named(name: str, value: Any) -> str:
    """A value with what stands in front of it; nothing when there is no value."""
    return f"{name}{value}" if value else ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
