"""
How ``plasma.status`` looks on a terminal: problems first, each with what mends it, then a line for each part. What is
no status (an error of Salt, say) looks as it always does.
"""

from __future__ import annotations

import salt.loader
import salt.utils.color

__virtualname__ = "plasma_status"

SHOWN = 12  # environments, and people with servers, that are listed one by one


def __virtual__():
    return __virtualname__


def output(data, **kwargs):
    """
    Return the text for ``{server: status}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma.status --out=plasma_status
    """
    colours = salt.utils.color.get_colors(__opts__.get("color"), __opts__.get("color_theme"))
    blocks = []
    for server, status in data.items():
        if isinstance(status, dict) and "healthy" in status and "problems" in status:
            blocks.append("\n".join(_block(server, status, colours)))
        else:
            blocks.append(salt.loader.outputters(__opts__)["nested"]({server: status}, **kwargs))
    return "\n".join(blocks)


def _block(server, status, colours):
    end = colours["ENDC"]
    warnings = [one for one in status["problems"] if one["severity"] != "error"]
    errors = len(status["problems"]) - len(warnings)
    counted = [_count(number, what) for number, what in ((errors, "error"), (len(warnings), "warning")) if number]
    state, colour = ("healthy", colours["GREEN"]) if status["healthy"] else ("NOT HEALTHY", colours["RED"])
    yield f"{colours['CYAN']}{server}:{end} {colour}{', '.join([state, *counted])}{end}"
    for one in status["problems"]:
        colour = colours["RED"] if one["severity"] == "error" else colours["YELLOW"]
        yield f"  {colour}{'!!' if one['severity'] == 'error' else ' !'} {one['problem']}{end}"
        yield f"       -> {one['mend']}"
    for name, text in _parts(status):
        first, *rest = text if isinstance(text, list) else [text]
        yield f"  {name:<13}{first}"
        yield from (f"  {'':<13}{line}" for line in rest)


def _parts(status):
    server = status.get("server") or {}
    yield (
        "server",
        ", ".join(part for part in (server.get("os"), _named("Docker", server.get("docker"))) if part) or "?",
    )
    yield "versions", [_version(name, one) for name, one in (status.get("versions") or {}).items()] or "no hub"
    services = {name: state for name, state in (status.get("services") or {}).items() if name != "hub answers"}
    answers = "the hub answers" if (status.get("services") or {}).get("hub answers") else "the hub does not answer"
    yield "services", ", ".join([*(f"{name} {state}" for name, state in services.items()), answers])
    yield "certificate", _certificate(status.get("certificate"))
    yield (
        "disks",
        [
            f"{one['mount']}: {one['percent']} % of {one['size']}, {one['free']} free ({', '.join(one['holds'])})"
            for one in status.get("disks") or ()
        ]
        or "?",
    )
    quotas = status.get("quotas") or {}
    over = [f"{one['name']} {one['used']} of {one['limit']}" for one in quotas.get("exceeded") or ()]
    yield "quotas", _some(over) if over else "nobody is over a limit" if quotas.get("on") else "off"
    yield (
        "environments",
        _list(status.get("environments"), lambda one: f"{one['size']:>9}  {one['name']} ({one['image']})"),
    )
    yield "servers", _servers(status.get("servers"))
    if status.get("backup"):
        yield "backup", _backup(status["backup"])
    cockpit = status.get("cockpit") or {}
    if cockpit.get("installed"):
        yield "cockpit", f"{cockpit['installed']}, {'running' if cockpit.get('running') else 'not offered'}"
    prune = status.get("prune") or {}
    if prune.get("timer"):
        yield "pruning", f"timer {prune['timer']}" + (f", last {prune['last']}" if prune.get("last") else "")
    if status.get("ssh"):
        yield "ssh", _ssh(status["ssh"])
    applied = status.get("applied") or {}
    pending = f"; pending: {', '.join(applied['pending'])}" if applied.get("pending") else ", nothing is pending"
    yield "applied", (applied.get("at") or "never") + pending


def _count(number, what):
    return f"{number} {what}{'' if number == 1 else 's'}"


def _named(name, value):
    return f"{name} {value}" if value else ""


def _version(name, one):
    installed, available = one.get("installed"), one.get("available")
    text = f"{name} {installed or 'not installed'}"
    if available and installed not in available.split(" or "):
        text += f" ({available} available)"
    return text


def _certificate(found):
    if not found or not found.get("enabled"):
        return "none, plain HTTP"
    text = ", ".join(found.get("domains") or []) or "?"
    if found.get("not_after"):
        text += f", until {found['not_after'][:10]} ({found['days_left']:.0f} days)"
    if found.get("user_domains") is False:
        text += ", people's servers share the hub's name (plasma.https.user_domains is off)"
    return text + (f", last error: {found['last_error']}" if found.get("last_error") else "")


def _backup(found):
    last = f"{found['last']} ({found['age_hours']:.0f} hours ago)" if found.get("last") else "never"
    return f"{last}, " + (f"timer {found['timer']}" if found.get("timer") else "no timer")


def _ssh(found):
    if not found.get("kept"):
        return "open to everybody with a key or a password"
    names = _some(found.get("open") or []) or "nobody of the hub"
    return f"open to {names}, and to {_some(['root', *(found.get('privileged') or [])])}; {found.get('shut')} shut out"


def _servers(found):
    if not found:
        return "none run" if found == [] else "?"
    names = [one["user"] + (f"/{one['server']}" if one["server"] else "") for one in found]
    return f"{_count(len(names), 'server')}: {_some(names)}"


def _some(names):
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _list(found, line):
    if not found:
        return "none" if found == [] else "?"
    lines = [line(one) for one in found[:SHOWN]]
    return [*lines, f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else lines
