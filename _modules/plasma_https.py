"""
HTTPS of the hub: what must be so before it is switched on, the switch itself, and a certificate that really is shown.

The proxy ends TLS, with both providers. Its certificate is an existing pair of files, or comes from an authority that
speaks ACME (Let's Encrypt), whose challenge the proxy answers on port 443 (TLS-ALPN), or by a record in DNS.
"""

from __future__ import annotations

import datetime
import json
import pathlib

from salt.exceptions import SaltInvocationError

__virtualname__ = "plasma_https"

_EXTRA = "plasma-acme.toml"
_USER_DOMAINS = "plasma.user_domains"  # in config.yaml: the hub's host, below which are those of people
_OFF = {"enabled": False, "tls": {"key": "", "cert": ""}, "letsencrypt": {"email": "", "domains": [], "staging": False}}


def __virtual__():
    return __virtualname__


def settings(domains=(), email=None, staging=False, acme_server=None, key=None, cert=None):
    """
    Return the ``https`` section of config.yaml for these values of pillar.

    domains
        List of names of the server.
    email, staging, acme_server
        Of the ACME account.
    key, cert
        Paths of an existing pair on this server; with them nothing is asked for at an authority.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.settings '[hub.example.org]' admin@example.org
    """
    if bool(key) != bool(cert):
        raise SaltInvocationError("key and cert belong together: give both or none.")
    if key:
        return {**_OFF, "enabled": True, "tls": {"key": key, "cert": cert}}
    if not domains or not email:
        raise SaltInvocationError("A certificate needs domains and an e-mail address, or a key and a cert.")
    # An authority of its own stands in a file of Traefik's: TLJH's config.yaml has no place for it.
    letsencrypt = {"email": email, "domains": list(domains), "staging": bool(staging and not acme_server)}
    return {**_OFF, "enabled": True, "letsencrypt": letsencrypt}


def names(domains, user_domains=False):
    """
    Return the names that a certificate has to be good for, the hub's own first.

    domains
        Names of the server.
    user_domains
        Whether each person's servers have a name of their own below the first.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.names '[hub.example.org]' True
    """
    return list(dict.fromkeys([*domains, f"*.{domains[0]}"] if user_domains and domains else domains))


def problems(wanted, domains=(), check=True, dns=None, user_domains=False):
    """
    Return every reason why this server cannot switch to HTTPS, one sentence each; an empty list is good.

    wanted
        What ``settings`` returns.
    domains
        Names of the server.
    check
        Whether the names must lead to this server, so that an authority finds it there.
    dns
        As for ``compare``: the authority finds the server by a record in DNS then.
    user_domains
        Whether names below the first one must lead where that one does.

    Whether files of an existing pair are fit is another question: see ``plasma_https_files.problem``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.problems '{tls: {key: /etc/ssl/hub.key, cert: /etc/ssl/hub.pem}}'
    """
    found = []
    for port in (80, 443):
        for process in __salt__["plasma_preflight.listeners"](port):
            if process["unit"] not in ("traefik.service", "jupyterhub.service"):
                found.append(
                    f"port {port} is taken by {process['name']} (pid {process['pid']}): stop it or move it, as the "
                    "hub's proxy needs this port for HTTPS"
                )
                break
    if check and not found:
        reached = domains if not wanted["tls"]["key"] and not dns else ()
        found += filter(None, map(__salt__["plasma_https_names.elsewhere"], reached))
        if user_domains and not found:
            found += filter(None, [__salt__["plasma_https_names.below_elsewhere"](domains[0])])
    return found


def compare(
    wanted,
    domains=(),
    acme_server=None,
    acme_ca=None,
    prefix="/opt/tljh",
    dns=None,
    environment=None,
    user_domains=False,
):
    """
    Return what ``apply`` would change, ``{what: {"old", "new"}}``; ``{}`` when HTTPS is as wanted and shown so.

    wanted
        What ``settings`` returns, or ``{"enabled": False}``.
    domains
        Names that the certificate has to be good for, as of ``names``.
    acme_server, acme_ca
        Directory of another ACME authority, and the path of the certificate that signed its own.
    prefix
        Where the hub is installed.
    dns
        ``{"provider", "resolvers"}`` for a challenge by DNS, or None.
    environment
        Its variables, which are secrets, ``{name: value}``.
    user_domains
        Whether each person's servers have a name of their own below the first domain.

    Beside keys of config.yaml: ``acme`` (the authority), ``environment`` (names of variables), and ``certificate``
    (what the proxy shows is not what it should).

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.compare '{enabled: false}'
    """
    settings_, unset = pairs(wanted, prefix, domains, user_domains)
    changes = dict(__salt__["tljh_config.compare"](settings_, prefix=prefix, unset=unset))
    file = pathlib.Path(extra(prefix))
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    new = extra_text(wanted, acme_server, acme_ca, dns)
    if old != new:
        changes["acme"] = {"old": _authority(old), "new": _authority(new)}
    variables = __salt__["plasma_https_dns.compare"](environment if dns and wanted["enabled"] else None, prefix)
    if variables:
        changes["environment"] = variables
    if changes or not wanted["enabled"]:
        return changes
    if __salt__["tljh_config.pending"](prefix=prefix) == "proxy":
        return {"reload": {"old": None, "new": "proxy"}}
    unlike = not_shown(wanted, domains, prefix)
    return {"certificate": {"old": unlike, "new": _wanted_word(wanted, domains)}} if unlike else {}


def pairs(wanted, prefix="/opt/tljh", domains=(), user_domains=False):
    """
    Return what has to be written to config.yaml for this: ``(settings, keys to remove)``.

    wanted, prefix, domains, user_domains
        As for ``compare``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.pairs '{enabled: false}'
    """
    if wanted["enabled"]:
        below = {_USER_DOMAINS: domains[0]} if user_domains else {}
        return {"https": wanted, **below}, [] if below else [_USER_DOMAINS]
    # Nothing of a pair or an account is thrown away with the switch.
    enabled = (__salt__["tljh_config.show"](prefix).get("https") or {}).get("enabled", False)
    return ({"https.enabled": False} if enabled else {}), [_USER_DOMAINS]


def extra(prefix="/opt/tljh"):
    """
    Return the path of the file in which Traefik reads of another authority than Let's Encrypt.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.extra
    """
    return str(pathlib.Path(prefix) / "config" / "traefik_config.d" / _EXTRA)


def extra_text(wanted, acme_server=None, acme_ca=None, dns=None):
    """
    Return what Traefik has to know of another authority or challenge, as TOML (JSON's strings are TOML's); empty for
    Let's Encrypt and port 443.

    wanted, acme_server, acme_ca, dns
        As for ``compare``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.extra_text '{enabled: false}'
    """
    if not wanted["enabled"] or (wanted.get("tls") or {}).get("key") or not (acme_server or dns):
        return ""
    lines = ["# Managed by Plasma on Salt (plasma.https.acme_server, dns).", "[certificatesResolvers.letsencrypt.acme]"]
    if acme_server:
        lines.append(f"caServer = {json.dumps(acme_server)}")
    if acme_ca:
        lines.append(f"caCertificates = [{json.dumps(acme_ca)}]")
    return "\n".join([*lines, *__salt__["plasma_https_dns.section"](dns)]) + "\n"


def _authority(text):
    """Who is asked, and how it is proved that the names are ours, in words; None for what nobody has to say."""
    said = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    parts = [json.loads(said["caServer"])] if "caServer" in said else []
    if "provider" in said:
        parts.append(f"DNS of {json.loads(said['provider'])}")
    if "resolvers" in said:
        parts.append(f"asked at {', '.join(json.loads(said['resolvers']))}")
    return ", ".join(parts) or None


def _wanted_word(wanted, domains):
    return f"of {wanted['tls']['cert']}" if wanted["tls"]["key"] else f"for {', '.join(domains)}"


def not_shown(wanted, domains=(), prefix="/opt/tljh"):
    """
    Return what is wrong with the certificate that the proxy shows, in a few words; None when it is the right one.

    wanted, domains, prefix
        As for ``compare``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.not_shown '{tls: {key: /etc/ssl/hub.key, cert: /etc/ssl/hub.pem}}'
    """
    port = (__salt__["tljh_config.show"](prefix).get("https") or {}).get("port") or 443
    served = __salt__["plasma_https_certificates.served"]
    if wanted["tls"]["key"]:
        name = __salt__["plasma_https_names.sample"](next(iter(domains), "localhost"))
        text = pathlib.Path(wanted["tls"]["cert"]).read_text(encoding="utf-8", errors="replace")
        file = __salt__["plasma_https_certificates.describe"](text)
        shown = served(name, port=port)
        if not shown:
            return f"no TLS on port {port}"
        return None if shown["fingerprint"] == file["fingerprint"] else f"another one ({shown['subject']})"
    for domain in domains:
        shown = served(__salt__["plasma_https_names.sample"](domain), port=port)
        if not shown:
            return f"no TLS on port {port}"
        if __salt__["plasma_https_certificates.is_stand_in"](shown):
            return f"none yet for {domain}"
        if not __salt__["plasma_https_certificates.covers"](shown["domains"], domain):
            return f"one for {', '.join(shown['domains'])}, not for {domain}"
    return None


def health(prefix="/opt/tljh"):
    """
    Return how the hub's certificate is: ``{"enabled", "domains", "issuer", "not_after" (ISO 8601), "days_left", "kind"
    ("acme", "files" or None), "last_error" (of the authority, since the certificate came), "user_domains" (whether
    people's servers have names of their own), "problem"}``. The problem is a sentence with its mend, or None.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.health
    """
    config = __salt__["tljh_config.show"](prefix)
    https = config.get("https") or {}
    found = dict.fromkeys(("issuer", "not_after", "days_left", "kind", "last_error", "problem"))
    found.update(enabled=https.get("enabled") is True, domains=[])
    hub = (config.get("plasma") or {}).get("user_domains")
    found["user_domains"] = found["enabled"] and bool(hub)
    if not found["enabled"]:
        return found
    account, pair = https.get("letsencrypt") or {}, https.get("tls") or {}
    found["kind"] = "files" if pair.get("cert") else "acme"
    found["domains"] = list(account.get("domains") or [])
    name = __salt__["plasma_https_names.sample"](next(iter(found["domains"]), hub or "localhost"))
    shown = __salt__["plasma_https_certificates.served"](name, port=https.get("port") or 443)
    covers = __salt__["plasma_https_certificates.covers"]
    again = "salt-ssh '*' state.apply https"
    if not shown:
        found["problem"] = f"The proxy shows no certificate on port 443: systemctl restart traefik, or {again}"
        return found
    if found["kind"] == "files":
        found["domains"] = shown["domains"]
    found.update({key: shown[key] for key in ("issuer", "not_after", "days_left")})
    if found["kind"] == "acme":
        said = __salt__["plasma_https_acme.last_error"](since=_came(shown, prefix))
        found["last_error"] = __salt__["plasma_https_dns.hide"](said, prefix)
    said = f" The authority said: {found['last_error']}" if found["last_error"] else ""
    stand_in = __salt__["plasma_https_certificates.is_stand_in"](shown)
    if found["kind"] == "acme" and stand_in:
        found["problem"] = f"There is no certificate for {name} yet.{said} Mend what it names, and: {again}"
    elif found["days_left"] <= 0:
        found["problem"] = f"The certificate has expired on {shown['not_after'][:10]}.{said} Renew it with: {again}"
    elif found["days_left"] < _soon(shown):
        found["problem"] = (
            f"The certificate expires in {found['days_left']:.1f} days and has not been renewed.{said} "
            + (
                f"Mend what it names, and: {again}"
                if found["kind"] == "acme"
                else f"Put a new pair in place, and: {again}"
            )
        )
    elif found["kind"] == "files" and __salt__["plasma_https_certificates.readable_problem"](pair["cert"]) is None:
        text = pathlib.Path(pair["cert"]).read_text(encoding="utf-8", errors="replace")
        if __salt__["plasma_https_certificates.describe"](text)["fingerprint"] != shown["fingerprint"]:
            found["problem"] = f"The proxy still shows the certificate that was in {pair['cert']} before: {again}"
    if found["user_domains"] and not found["problem"]:
        missing = [name for name in names([hub], True) if not covers(shown["domains"], name)]
        if missing:
            found["problem"] = f"The certificate is not good for {', '.join(missing)}: {again}"
    return found


def _came(certificate, prefix):
    """When the certificate came, in seconds since 1970: authorities date back, and the proxy notes what it gets."""
    begin = datetime.datetime.fromisoformat(certificate["not_before"]).timestamp()
    try:
        return max(begin, (pathlib.Path(prefix) / "state" / "acme.json").stat().st_mtime)
    except OSError:
        return begin


def _soon(certificate):
    """Days before the end at which a certificate should have been renewed: Traefik does it at 30 of 90 days."""
    begin, end = (datetime.datetime.fromisoformat(certificate[key]) for key in ("not_before", "not_after"))
    return min(21, (end - begin).total_seconds() / 86400 / 5)
