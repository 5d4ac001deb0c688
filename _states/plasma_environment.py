"""The environments of the hub."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_environment_run

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_VERBS = (("built", "built"), ("changed", "changed"), ("removed", "removed"))


def managed(name, environments=None, prefix="/opt/tljh", timeout=7200, ready_timeout=60):
    """
    The hub has these environments, built from the commits that their references are at, open to their groups; those
    with ``absent`` it has not. Others are left alone. All builds run at once, as far as the hub has room for them.

    Credentials, keys and arguments of builds are read from pillar (``plasma:environment_secrets``, which the completed
    pillar has beside ``plasma:environments``), and so is the proxy that servers of repositories are asked through
    (``plasma:hub:sources``), which may have a login: what is an argument of a state is shown by Salt.

    name
        Any description.

    environments
        Entries as the completed pillar has them.

    prefix
        Where the hub is installed.

    timeout
        Seconds that one build may take.

    ready_timeout
        Seconds to wait for a hub that starts.

    Changes are ``{name: {"old", "new"}}`` with what differs. What fails is told with the end of its log, and keeps no
    other environment from being done.

    .. code-block:: yaml

        environments-managed:
          plasma_environment.managed:
            - environments:
                - {name: python-course, repository: 'https://example.org/python', ref: v1, groups: [biology]}
                - {name: r-course, absent: true}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    test = __opts__["test"]
    try:
        plasma = __pillar__.get("plasma") or {}
        arguments = (environments or [], plasma.get("environment_secrets"))
        options = {"prefix": prefix, "ready_timeout": ready_timeout, "proxy": _proxy(plasma)}
        if test:
            found = plasma_environment_run.compare(*arguments, **options)
        else:
            found = plasma_environment_run.apply(*arguments, timeout=timeout, **options)
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, comment=str(exc))
        return ret
    if found["older"]:
        # Only a dry run gets here; without it that is an error.
        ret.update(result=None, comment="Environments would be looked at once the hub is upgraded.")
        return ret
    ret["changes"] = found["changes"]
    ret["comment"] = "\n".join([_summary(found, len(environments or []), test), *_told(found)])
    if found["problems"]:
        ret["result"] = False
    elif test and found["changes"]:
        ret["result"] = None
    return ret


def _proxy(plasma):
    sources = (plasma.get("hub") or {}).get("sources") or {}
    return {name: sources[name] for name in _PROXIES if sources.get(name)}


def _summary(found, count, test):
    parts = []
    for key, verb in _VERBS:
        if found[key]:
            parts.append(f"{', '.join(sorted(found[key]))} {'would be ' if test else ''}{verb}")
    hub = "" if found["hub"] else " No hub is installed here yet."
    if parts:
        return f"{'; '.join(parts)}.{hub}"
    if found["problems"]:
        wrong = len(found["problems"])
        return f"{wrong} of {count} environments {'is' if wrong == 1 else 'are'} not as wanted."
    return f"All {count} environments are as wanted.{hub}" if count != 1 else f"The environment is as wanted.{hub}"


def _told(found):
    lines = list(found["notes"])
    for name, (sentence, *rest) in sorted(found["problems"].items()):
        lines += [f"{name}: {sentence}", *(f"    {line}" for line in rest)]
    return lines
