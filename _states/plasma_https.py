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
    shown_key="",
    shown_cert="",
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
    domains, email, staging, acme_server, key, cert
        See the execution function ``plasma_https.settings``.
    acme_ca
        Path of the certificate that signed that of ``acme_server``.
    shown_key, shown_cert, check
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
    domains = list(domains or [])
    try:
        wanted = __salt__["plasma_https.settings"](domains, email, staging, acme_server, key, cert)
        problems = []
        if acme_ca and not key:
            problem = __salt__["plasma_https_certificates.readable_problem"](acme_ca)
            problems = [f"plasma.https.acme_ca ({acme_ca}): {problem}"] if problem else []
        problems += __salt__["plasma_https.problems"](
            wanted, domains, check=check, shown_key=shown_key, shown_cert=shown_cert
        )
        if problems:
            ret["result"] = False
            ret["comment"] = "Nothing was changed. HTTPS cannot be switched on:\n" + "\n".join(
                f"- {problem}" for problem in problems
            )
            return ret
        arguments = {"domains": domains, "acme_server": acme_server, "acme_ca": acme_ca, "prefix": prefix}
        return _switched(ret, wanted, arguments, timeout, ready_timeout, "HTTPS")
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
        return _switched(ret, {"enabled": False}, {"prefix": prefix}, 0, ready_timeout, "Plain HTTP")
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def _switched(ret, wanted, arguments, timeout, ready_timeout, what):
    changes = __salt__["plasma_https.compare"](wanted, **arguments)
    if not changes:
        ret["comment"] = f"{what} is in place."
    elif __opts__["test"]:
        ret.update(result=None, changes=changes, comment=f"{what} would be put in place: {', '.join(sorted(changes))}.")
    else:
        done = __salt__["plasma_https_switch.apply"](wanted, **arguments, timeout=timeout, ready_timeout=ready_timeout)
        kept = f" What another authority had given is kept in {done['kept']}." if done["kept"] else ""
        ret.update(changes=done["changes"], comment=f"{what} is in place after {done['seconds']:.1f} seconds.{kept}")
    return ret
