"""
Switch HTTPS on, off or over, and go back when no certificate comes of it.

What was there before is on record until the new certificate has been seen, so that a run which was cut off in between
can still be taken back by the next one.
"""

from __future__ import annotations

import http.client
import json
import pathlib
import time
import urllib.parse

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_https_switch"

# Where Traefik goes without caServer, and what TLJH's and our own configuration name for `staging`.
PRODUCTION, STAGING = "acme-v02.api.letsencrypt.org", "acme-staging-v02.api.letsencrypt.org"
POLL = 1  # seconds between two looks at the certificate


def __virtual__():
    return __virtualname__


def apply(
    wanted,
    domains=(),
    acme_server=None,
    acme_ca=None,
    prefix="/opt/tljh",
    timeout=180,
    ready_timeout=120,
    dns=None,
    environment=None,
    user_domains=False,
):
    """
    Write the settings, reload the proxy, and wait until it shows a certificate that is good for every domain and sends
    plain HTTP there. Otherwise what was there before is restored.

    wanted, domains, acme_server, acme_ca, prefix, dns, environment, user_domains
        As for ``plasma_https.compare``.
    timeout
        Seconds that the certificate may take.
    ready_timeout
        Seconds that the hub may take after a reload.

    Returns ``{"changes": {what: {"old", "new"}}, "seconds": float, "kept": path of what was put aside or None}``.
    Raises CommandExecutionError with the reason, as the authority gave it where it did.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_switch.apply '{enabled: false}'
    """
    begun = time.monotonic()
    changes = __salt__["plasma_https.compare"](
        wanted, domains, acme_server, acme_ca, prefix, dns, environment, user_domains
    )
    if not changes:
        settle(prefix)
        return {"changes": {}, "seconds": 0.0, "kept": None}
    before = _record(prefix) or _now(prefix)
    known = __salt__["plasma_https_acme.authority"](prefix)
    asks = wanted["enabled"] and not wanted["tls"]["key"]
    another = asks and known not in (None, _authority(wanted, acme_server))
    _note(prefix, before)
    try:
        # The account and the certificates of another authority would be used until they expire.
        if another and not before["kept"]:
            before["kept"] = __salt__["plasma_https_acme.put_aside"](prefix)
            _note(prefix, before)
        since = time.time()
        _write_extra(prefix, __salt__["plasma_https.extra_text"](wanted, acme_server, acme_ca, dns))
        variables = environment if dns and wanted["enabled"] else None
        __salt__["plasma_https_dns.write"](__salt__["plasma_https_dns.text"](variables), prefix)
        settings, unset = __salt__["plasma_https.pairs"](wanted, prefix, domains, user_domains)
        done = __salt__["tljh_config.apply"](
            settings, prefix=prefix, unset=unset, reload="proxy", timeout=ready_timeout
        )
        if not done["reloaded"] and _runs():
            __salt__["tljh_config.reload"]("proxy", prefix=prefix, timeout=ready_timeout)
        if _runs():
            problem = _waited(wanted, domains, prefix, timeout, since)
            if problem:
                raise CommandExecutionError(problem)
    except CommandExecutionError as exc:
        raise CommandExecutionError(_back(prefix, before, ready_timeout, str(exc))) from exc
    _path(prefix).unlink(missing_ok=True)
    return {"changes": changes, "seconds": round(time.monotonic() - begun, 2), "kept": before["kept"]}


def settle(prefix="/opt/tljh"):
    """
    Forget what was there before a switch, as all is as wanted now; return whether there was something to forget.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_switch.settle
    """
    try:
        _path(prefix).unlink()
    except FileNotFoundError:
        return False
    return True


def _runs():
    return __salt__["tljh_service.running"]()


def _waited(wanted, domains, prefix, timeout, since):
    """Wait for the certificate; None, or why it is not there, as a sentence."""
    if not wanted["enabled"]:
        return None
    end = time.monotonic() + float(timeout)
    while True:
        unlike = __salt__["plasma_https.not_shown"](wanted, domains, prefix)
        if not unlike:
            break
        if time.monotonic() >= end:
            said = None if wanted["tls"]["key"] else __salt__["plasma_https_acme.last_error"](since=since)
            said = __salt__["plasma_https_dns.hide"](said, prefix)
            why = f"The authority said: {said}" if said else "The journal has no reason: journalctl -u traefik"
            return f"No certificate came within {float(timeout):.0f} seconds ({unlike}). {why}"
        time.sleep(POLL)
    return _not_redirected(prefix, __salt__["plasma_https_names.sample"](next(iter(domains), "localhost")))


def _not_redirected(prefix, name):
    """Why plain HTTP does not lead to HTTPS, as a sentence, or None."""
    port = (__salt__["tljh_config.show"](prefix).get("http") or {}).get("port") or 80
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/hub/login", headers={"Host": name})
        answer = connection.getresponse()
        place = answer.getheader("Location") or ""
        if answer.status in (301, 302, 307, 308) and place.startswith("https://"):
            return None
        return f"Plain HTTP on port {port} does not lead to HTTPS (status {answer.status})"
    except (OSError, http.client.HTTPException) as exc:
        return f"Plain HTTP on port {port} does not answer ({exc})"
    finally:
        connection.close()


def _authority(wanted, acme_server):
    """The host of who is asked for certificates."""
    if acme_server:
        return urllib.parse.urlsplit(acme_server).netloc
    return STAGING if wanted["letsencrypt"]["staging"] else PRODUCTION


def _now(prefix):
    file = pathlib.Path(__salt__["plasma_https.extra"](prefix))
    config = __salt__["tljh_config.show"](prefix)
    return {
        "https": config.get("https"),
        "user_domains": (config.get("plasma") or {}).get("user_domains"),
        "extra": file.read_text(encoding="utf-8") if file.exists() else "",
        "environment": __salt__["plasma_https_dns.current"](prefix),
        "kept": None,
    }


def _back(prefix, before, timeout, why):
    """Restore what was there before; return the whole story."""
    why = why.rstrip(".")
    try:
        __salt__["plasma_https_acme.bring_back"](before["kept"], prefix)
        _write_extra(prefix, before["extra"])
        __salt__["plasma_https_dns.write"](before["environment"], prefix)
        settings, unset = ({"https": before["https"]}, []) if before["https"] else ({}, ["https"])
        if before["https"]:
            current = __salt__["tljh_config.show"](prefix).get("https") or {}
            unset = [f"https.{key}" for key in _leaves(current) if key not in _leaves(before["https"])]
        if before["user_domains"]:
            settings["plasma.user_domains"] = before["user_domains"]
        else:
            unset.append("plasma.user_domains")
        done = __salt__["tljh_config.apply"](settings, prefix=prefix, unset=unset, reload="proxy", timeout=timeout)
        if not done["reloaded"] and _runs():
            __salt__["tljh_config.reload"]("proxy", prefix=prefix, timeout=timeout)
    except (CommandExecutionError, OSError) as exc:
        return f"{why}. What was there before could not be restored: {exc}"
    _path(prefix).unlink(missing_ok=True)
    return f"{why}. The configuration of before was restored, and the hub is back."


def _leaves(section, above=""):
    found = set()
    for key, value in section.items():
        found |= _leaves(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}"}
    return found


def _write_extra(prefix, text):
    file = pathlib.Path(__salt__["plasma_https.extra"](prefix))
    if not text:
        file.unlink(missing_ok=True)
        return
    # Its directory is root's alone, as all of config is.
    file.parent.mkdir(mode=0o700, exist_ok=True)
    __salt__["plasma_files.write"](file, text)


def _path(prefix):
    return pathlib.Path(prefix) / "plasma" / "https-before.json"


def _record(prefix):
    """What was there before a switch that was cut off, or None."""
    try:
        found = json.loads(_path(prefix).read_text(encoding="utf-8"))
        # A release before this one knew of no others.
        later = {"user_domains": found.get("user_domains"), "environment": str(found.get("environment") or "")}
        return {"https": found["https"], "extra": str(found["extra"]), "kept": found["kept"], **later}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note(prefix, before):
    # Root's alone: variables of a DNS provider are in it.
    __salt__["plasma_files.write"](_path(prefix), json.dumps(before))
