"""
Switch HTTPS on, off or over, and go back when no certificate comes of it.

What was there before is on record until the new certificate has been seen, so that a run which was cut off in between
can still be taken back by the next one.
"""

from __future__ import annotations

import http.client
import pathlib
import time
import urllib.parse
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_https_acme
import plasma_https_dns
import plasma_https_names
import plasma_https_settings
import tljh_service
import tljh_settings

# Where Traefik goes without caServer, and what TLJH's and our own configuration name for `staging`.
PRODUCTION, STAGING = "acme-v02.api.letsencrypt.org", "acme-staging-v02.api.letsencrypt.org"
POLL = 1  # seconds between two looks at the certificate


def apply(wanted: plasma_https_settings.Wanted, timeout: float = 180, ready_timeout: float = 120) -> dict[str, Any]:
    """
    Write the settings, reload the proxy, and wait until it shows a certificate that is good for every domain and sends
    plain HTTP there. Otherwise what was there before is restored.

    timeout
        Seconds that the certificate may take.
    ready_timeout
        Seconds that the hub may take after a reload.

    Returns ``{"changes": {what: {"old", "new"}}, "seconds": float, "kept": path of what was put aside or None}``.
    Raises CommandExecutionError with the reason, as the authority gave it where it did.
    """
    started, prefix = time.monotonic(), wanted.prefix
    changes = plasma_https_settings.compare(wanted)
    if not changes:
        settle(prefix)
        return {"changes": {}, "seconds": 0.0, "kept": None}
    record = pathlib.Path(_path(prefix))
    # That of a switch which was cut off comes first: since then nothing was in order.
    before = plasma_files.read_note(record, "remove it, and apply again") or _present(prefix)
    known = plasma_https_acme.authority(prefix)
    plasma_files.write_note(record, before)
    try:
        # The account and the certificates of another authority would be used until they expire.
        if wanted.asks and known not in (None, _authority(wanted)) and not before["kept"]:
            before["kept"] = plasma_https_acme.put_aside(prefix)
            plasma_files.write_note(record, before)
        since = time.time()
        _write(prefix, wanted.extra_text, wanted.variables, *wanted.config, ready_timeout)
        problem = _wait(wanted, timeout, since) if wanted.enabled and tljh_service.running() else None
        if problem:
            raise CommandExecutionError(problem)
    except CommandExecutionError as exc:
        raise CommandExecutionError(_restore(prefix, before, ready_timeout, str(exc).rstrip("."))) from exc
    settle(prefix)
    return {"changes": changes, "seconds": round(time.monotonic() - started, 2), "kept": before["kept"]}


def settle(prefix: str = "/opt/tljh") -> None:
    """Forget what was there before a switch, as all is as wanted now."""
    _path(prefix).unlink(missing_ok=True)


def _write(prefix, extra_text, variables, settings, unset, timeout):
    """Write all that the proxy reads, and let it start again."""
    extra = plasma_https_settings.extra(prefix)
    if extra_text:
        # Its directory is root's alone, as all of config is.
        plasma_files.directory(extra.parent, 0o700)
        plasma_files.write(extra, extra_text)
    else:
        extra.unlink(missing_ok=True)
    plasma_https_dns.write(variables, prefix)
    done = tljh_settings.apply(settings, prefix=prefix, unset=unset, reload="proxy", timeout=timeout)
    if not done["reloaded"] and tljh_service.running():
        tljh_settings.reload("proxy", prefix=prefix, timeout=timeout)


def _wait(wanted, timeout, since):
    """Wait for the certificate; None, or why it is not there, as a sentence."""
    deadline = time.monotonic() + timeout
    while unlike := plasma_https_settings.not_shown(wanted):
        if time.monotonic() >= deadline:
            error = plasma_https_dns.hide(plasma_https_acme.last_error(since=since), wanted.prefix)
            why = "The journal has no reason: journalctl -u traefik"
            if wanted.asks and error:
                why = f"The authority said: {error}"
            return f"No certificate came within {timeout:.0f} seconds ({unlike}). {why}"
        time.sleep(POLL)
    return _not_redirected(wanted.prefix, plasma_https_names.sample(next(iter(wanted.domains), "localhost")))


def _not_redirected(prefix, name):
    """Why plain HTTP does not lead to HTTPS, as a sentence, or None."""
    address, port = tljh_service.place(tljh_settings.show(prefix), False)
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", "/hub/login", headers={"Host": name})
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as exc:
        return f"Plain HTTP on port {port} does not answer ({exc})"
    finally:
        connection.close()
    if answer.status in (301, 302, 307, 308) and answer.getheader("Location", "").startswith("https://"):
        return None
    return f"Plain HTTP on port {port} does not lead to HTTPS (status {answer.status})"


def _authority(wanted):
    """The host of who is asked for certificates."""
    if wanted.acme_server:
        return urllib.parse.urlsplit(wanted.acme_server).netloc
    return STAGING if wanted.staging else PRODUCTION


def _present(prefix):
    extra = plasma_https_settings.extra(prefix)
    config = tljh_settings.show(prefix)
    return {
        "https": config.get("https"),
        "user_domains": (config.get("plasma") or {}).get("user_domains"),
        "extra": extra.read_text(encoding="utf-8") if extra.exists() else "",
        "environment": plasma_https_dns.current(prefix),
        "kept": None,
    }


def _restore(prefix, before, timeout, why):
    """Restore what was there before; return the whole story."""
    settings, unset = {}, ["https"]
    if before["https"]:
        settings = {"https": before["https"]}
        present = tljh_settings.show(prefix).get("https") or {}
        unset = [f"https.{key}" for key in _leaves(present) - _leaves(before["https"])]
    # A release before this one did not note names of people's servers, and variables.
    if before.get("user_domains"):
        settings["plasma.user_domains"] = before["user_domains"]
    else:
        unset.append("plasma.user_domains")
    try:
        plasma_https_acme.bring_back(before["kept"], prefix)
        _write(prefix, before["extra"], before.get("environment") or "", settings, unset, timeout)
    except (CommandExecutionError, OSError) as exc:
        return f"{why}. What was there before could not be restored: {exc}"
    settle(prefix)
    return f"{why}. The configuration of before was restored, and the hub is back."


def _leaves(section, above=""):
    """Dotted keys of the values in a section."""
    keys = set()
    for key, value in section.items():
        keys |= _leaves(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}"}
    return keys


def _path(prefix):
    return pathlib.Path(prefix) / "plasma" / "https-before.json"
