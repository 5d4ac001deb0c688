"""HTTPS of the hub, with a certificate that really is shown."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_https"


def __virtual__():
    return __virtualname__


def enabled(
    name,
    domains=None,
    email=None,
    staging=False,
    acme_server=None,
    acme_ca=None,
    key=None,
    cert=None,
    dns=None,
    user_domains=False,
    check=True,
    prefix="/opt/tljh",
    timeout=180,
    ready_timeout=120,
):
    """
    The hub answers on https:// with a certificate for these names, and http:// leads there. When the certificate does
    not come, everything is as it was before.

    name
        Any description.
    domains, email, staging, acme_server
        See the execution function ``plasma_https.settings``.
    acme_ca
        Certificate that signed that of ``acme_server``.
    key, cert
        An existing pair in PEM format. It and ``acme_ca`` are paths on the server, or salt://FILE: those are copied to
        the server, each content to a place of its own, so that the files in use are never overwritten.
    dns, user_domains
        See ``plasma_https.compare``. The variables of the DNS provider are read from pillar (``plasma:https_secrets``,
        which the completed pillar has beside ``plasma:https``): what is an argument of a state is shown by Salt.
    check
        See ``plasma_https.problems``.
    prefix, timeout, ready_timeout
        See ``plasma_https_switch.apply``.

    .. code-block:: yaml

        https-enabled:
          plasma_https.enabled:
            - domains: [hub.example.org]
            - email: admin@example.org
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    try:
        domains = __salt__["plasma_https.names"](list(domains or []), user_domains)
        found = __salt__["plasma_https_files.found"]({"acme_ca": acme_ca, "key": key, "cert": cert}, prefix)
        wanted = __salt__["plasma_https.settings"](domains, email, staging, acme_server, found["key"], found["cert"])
        arguments = {
            "domains": domains,
            "acme_server": acme_server,
            "acme_ca": found["acme_ca"],
            "prefix": prefix,
            "dns": dns,
            "environment": (__pillar__.get("plasma") or {}).get("https_secrets"),
            "user_domains": user_domains,
        }
        problem = __salt__["plasma_https_files.problem"](found, domains)
        problems = [problem] if problem else []
        # What works is not asked whether it could: names need not be known in this moment, nor a network be there.
        changes = __salt__["plasma_https.compare"](wanted, **arguments)
        if problems or changes:
            problems += __salt__["plasma_https.problems"](wanted, domains, check, dns, user_domains)
        if problems:
            ret["result"] = False
            ret["comment"] = "Nothing was changed. HTTPS cannot be switched on:\n" + "\n".join(
                f"- {problem}" for problem in problems
            )
            return ret
        if not __opts__["test"]:
            __salt__["plasma_https_files.place"](found)
        return _switched(ret, changes, wanted, arguments, timeout, ready_timeout, "HTTPS")
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def disabled(name, prefix="/opt/tljh", ready_timeout=120):
    """
    The hub answers on http:// alone. Account, certificates and pairs of files stay, for when it is switched on again.

    name
        Any description.
    prefix, ready_timeout
        See ``plasma_https_switch.apply``.

    .. code-block:: yaml

        https-disabled:
          plasma_https.disabled: []
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    try:
        wanted, arguments = {"enabled": False}, {"prefix": prefix}
        changes = __salt__["plasma_https.compare"](wanted, **arguments)
        return _switched(ret, changes, wanted, arguments, 0, ready_timeout, "Plain HTTP")
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def _switched(ret, changes, wanted, arguments, timeout, ready_timeout, what):
    if not changes:
        if not __opts__["test"]:
            __salt__["plasma_https_switch.settle"](arguments["prefix"])
        ret["comment"] = f"{what} is in place."
    elif __opts__["test"]:
        ret.update(result=None, changes=changes, comment=f"{what} would be put in place: {', '.join(sorted(changes))}.")
    else:
        done = __salt__["plasma_https_switch.apply"](wanted, **arguments, timeout=timeout, ready_timeout=ready_timeout)
        kept = f" What another authority had given is kept in {done['kept']}." if done["kept"] else ""
        ret.update(changes=done["changes"], comment=f"{what} is in place after {done['seconds']:.1f} seconds.{kept}")
    return ret
