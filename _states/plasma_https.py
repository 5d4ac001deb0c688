"""HTTPS of the hub, with a certificate that really is shown."""

from __future__ import annotations

from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_https_files
import plasma_https_renewal
import plasma_https_settings
import plasma_https_switch
import plasma_timer


def enabled(
    name,
    domains=None,
    email=None,
    staging=False,
    acme_server=None,
    acme_ca=None,
    key=None,
    cert=None,
    address=None,
    port=None,
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
        See ``plasma_https_settings.Wanted``.
    acme_ca
        Certificate that signed that of ``acme_server``.
    key, cert
        An existing pair in PEM format. It and ``acme_ca`` are paths on the server, or salt://FILE: those are copied to
        the server, each content to a place of its own, so that the files in use are never overwritten.
    address, port, dns, user_domains
        See ``plasma_https_settings.Wanted``. The variables of the DNS provider are read from pillar
        (``plasma:https_secrets``, which the completed pillar has beside ``plasma:https``): what is an argument of a
        state is shown by Salt.
    check
        See ``plasma_https_settings.problems``.
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
        values = {"acme_ca": acme_ca, "key": key, "cert": cert}
        files = plasma_https_files.locate(values, __salt__["cp.cache_file"], prefix)
        paths: dict[str, Any] = {name: file.path for name, file in files.items()}
        wanted = plasma_https_settings.Wanted(
            domains=domains or [],
            email=email,
            staging=staging,
            acme_server=acme_server,
            **paths,
            address=address,
            port=port,
            dns=dns,
            environment=(__pillar__.get("plasma") or {}).get("https_secrets"),
            user_domains=user_domains,
            prefix=prefix,
        )
        problem = plasma_https_files.problem(files, wanted.names)
        problems = [problem] if problem else []
        # What works is not asked whether it could: names need not be known in this moment, nor a network be there.
        changes = plasma_https_settings.compare(wanted)
        if problems or changes:
            problems += plasma_https_settings.problems(wanted, check)
        if problems:
            lines = ["Nothing was changed. HTTPS cannot be switched on:", *(f"- {problem}" for problem in problems)]
            ret.update(result=False, comment="\n".join(lines))
            return ret
        if not __opts__["test"]:
            plasma_https_files.install(files)
        return _switched(ret, changes, wanted, timeout, ready_timeout, "HTTPS")
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def renewed(name, wanted=True, prefix="/opt/tljh"):
    """
    A pair of key and certificate that is renewed on the server is taken over without another apply: a timer looks.

    name
        Any description.
    wanted
        Whether there is such a pair; otherwise there is to be no timer.
    prefix
        Where the hub is installed.

    .. code-block:: yaml

        https-renewed:
          plasma_https.renewed: []
    """
    comment = "Renewed files are taken over by the server itself." if wanted else "No files are looked after."
    ret = {"name": name, "changes": {}, "result": True, "comment": comment}
    timer = plasma_https_renewal.timer(wanted, prefix)
    try:
        ret["changes"] = plasma_timer.compare(timer)
        if ret["changes"] and __opts__["test"]:
            ret.update(result=None, comment="The timer would be changed.")
        elif ret["changes"]:
            plasma_timer.apply(timer)
    except (CommandExecutionError, OSError) as exc:
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
        wanted = plasma_https_settings.Wanted(enabled=False, prefix=prefix)
        return _switched(ret, plasma_https_settings.compare(wanted), wanted, 0, ready_timeout, "Plain HTTP")
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def _switched(ret, changes, wanted, timeout, ready_timeout, what):
    if not changes:
        if not __opts__["test"]:
            plasma_https_switch.settle(wanted.prefix)
        ret["comment"] = f"{what} is in place."
    elif __opts__["test"]:
        ret.update(result=None, changes=changes, comment=f"{what} would be put in place: {', '.join(sorted(changes))}.")
    else:
        done = plasma_https_switch.apply(wanted, timeout=timeout, ready_timeout=ready_timeout)
        kept = f" What another authority had given is kept in {done['kept']}." if done["kept"] else ""
        ret.update(changes=done["changes"], comment=f"{what} is in place after {done['seconds']:.1f} seconds.{kept}")
    return ret
