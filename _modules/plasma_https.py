"""
HTTPS of the hub: what must be so before it is switched on, the switch itself, and a certificate that really is shown.

The proxy ends TLS, with both providers. Its certificate is an existing pair of files, or comes from an authority that
speaks ACME (Let's Encrypt), whose TLS-ALPN challenge the proxy answers on port 443.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import secrets
import socket
import threading

from salt.exceptions import SaltInvocationError

__virtualname__ = "plasma_https"

_EXTRA = "plasma-acme.toml"
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


def problems(wanted, domains=(), check=True):
    """
    Return every reason why this server cannot switch to HTTPS, one sentence each; an empty list is good.

    wanted
        What ``settings`` returns.
    domains
        Names of the server.
    check
        Whether the names must lead to this server, so that an authority finds it there.

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
    if check and not found and not wanted["tls"]["key"]:
        for domain in domains:
            problem = _elsewhere(domain)
            if problem:
                found.append(problem)
    return found


def _elsewhere(domain):
    """Why a name does not lead to this server, or None."""
    try:
        addresses = sorted({entry[4][0] for entry in socket.getaddrinfo(domain, 80, type=socket.SOCK_STREAM)})
    except OSError as exc:
        return (
            f"{domain} has no address ({exc.strerror}): add an A or AAAA record for it that names this server, and "
            "wait until it is known"
        )
    if all(_ours(address) for address in addresses):
        return None
    # Behind a router the address is the router's: what is reached through it then has to be this server.
    if all(_ours(address) or _leads_here(address, domain) for address in addresses):
        return None
    return (
        f"{domain} leads to {', '.join(addresses)}, where port 443 is not this server's: correct its A and AAAA "
        "records, or forward ports 80 and 443 to this server; for names that only outsiders reach, set "
        "plasma.https.check: false"
    )


def _ours(address):
    """Whether an address is one of this machine: nobody can bind to another."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _leads_here(address, domain, timeout=5):
    """Whether port 443 of an address is this machine's: while it is free a random word is told there."""
    shown = __salt__["plasma_https_certificates.served"](domain)
    if shown:
        return __salt__["plasma_https_certificates.served"](domain, address=address) == shown
    word = secrets.token_bytes(32)
    try:
        listener = socket.create_server(("", 443))
    except OSError:
        return False
    with listener:
        listener.settimeout(timeout)
        teller = threading.Thread(target=_tell, args=(listener, word), daemon=True)
        teller.start()
        try:
            with socket.create_connection((address, 443), timeout=timeout) as asked:
                return asked.recv(len(word), socket.MSG_WAITALL) == word
        except OSError:
            return False


def _tell(listener, word):
    try:
        while True:
            with listener.accept()[0] as caller:
                caller.sendall(word)
    except OSError:
        return  # the time is over, or the listener closed


def compare(wanted, domains=(), acme_server=None, acme_ca=None, prefix="/opt/tljh"):
    """
    Return what ``apply`` would change, ``{what: {"old", "new"}}``; ``{}`` when HTTPS is as wanted and shown so.

    wanted
        What ``settings`` returns, or ``{"enabled": False}``.
    domains
        Names of the server.
    acme_server, acme_ca
        Directory of another ACME authority, and the path of the certificate that signed its own.
    prefix
        Where the hub is installed.

    Beside keys of config.yaml: ``acme`` (the authority), and ``certificate`` (what the proxy shows is not what it
    should).

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.compare '{enabled: false}'
    """
    changes = dict(__salt__["tljh_config.compare"](pairs(wanted, prefix), prefix=prefix))
    file = pathlib.Path(extra(prefix))
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    new = extra_text(wanted, acme_server, acme_ca)
    if old != new:
        changes["acme"] = {"old": _authority(old), "new": _authority(new)}
    if changes or not wanted["enabled"]:
        return changes
    if __salt__["tljh_config.pending"](prefix=prefix) == "proxy":
        return {"reload": {"old": None, "new": "proxy"}}
    unlike = not_shown(wanted, domains, prefix)
    return {"certificate": {"old": unlike, "new": _wanted_word(wanted, domains)}} if unlike else {}


def pairs(wanted, prefix="/opt/tljh"):
    """
    Return the settings of config.yaml that have to be written for this.

    wanted, prefix
        As for ``compare``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.pairs '{enabled: false}'
    """
    if wanted["enabled"]:
        return {"https": wanted}
    # Nothing of a pair or an account is thrown away with the switch.
    enabled = (__salt__["tljh_config.show"](prefix).get("https") or {}).get("enabled", False)
    return {"https.enabled": False} if enabled else {}


def extra(prefix="/opt/tljh"):
    """
    Return the path of the file in which Traefik reads of another authority than Let's Encrypt.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.extra
    """
    return str(pathlib.Path(prefix) / "config" / "traefik_config.d" / _EXTRA)


def extra_text(wanted, acme_server=None, acme_ca=None):
    """
    Return what Traefik has to know of another authority, as TOML (JSON's strings are TOML's); empty for Let's Encrypt.

    wanted, acme_server, acme_ca
        As for ``compare``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.extra_text '{enabled: false}'
    """
    if not wanted["enabled"] or (wanted.get("tls") or {}).get("key") or not acme_server:
        return ""
    lines = ["# Managed by Plasma on Salt (plasma.https.acme_server).", "[certificatesResolvers.letsencrypt.acme]"]
    lines.append(f"caServer = {json.dumps(acme_server)}")
    if acme_ca:
        lines.append(f"caCertificates = [{json.dumps(acme_ca)}]")
    return "\n".join(lines) + "\n"


def _authority(text):
    for line in text.splitlines():
        if line.startswith("caServer = "):
            return json.loads(line.partition(" = ")[2])
    return None


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
        name = next(iter(domains), "localhost")
        text = pathlib.Path(wanted["tls"]["cert"]).read_text(encoding="utf-8", errors="replace")
        file = __salt__["plasma_https_certificates.describe"](text)
        shown = served(name, port=port)
        if not shown:
            return f"no TLS on port {port}"
        return None if shown["fingerprint"] == file["fingerprint"] else f"another one ({shown['subject']})"
    for domain in domains:
        shown = served(domain, port=port)
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
    ("acme", "files" or None), "last_error" (of the authority, since the certificate came), "problem"}``. The problem is
    a sentence with its mend, or None.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https.health
    """
    https = __salt__["tljh_config.show"](prefix).get("https") or {}
    found = dict.fromkeys(("issuer", "not_after", "days_left", "kind", "last_error", "problem"))
    found.update(enabled=https.get("enabled") is True, domains=[])
    if not found["enabled"]:
        return found
    account, pair = https.get("letsencrypt") or {}, https.get("tls") or {}
    found["kind"] = "files" if pair.get("cert") else "acme"
    found["domains"] = list(account.get("domains") or [])
    name = next(iter(found["domains"]), "localhost")
    shown = __salt__["plasma_https_certificates.served"](name, port=https.get("port") or 443)
    again = "salt-ssh '*' state.apply https"
    if not shown:
        found["problem"] = f"The proxy shows no certificate on port 443: systemctl restart traefik, or {again}"
        return found
    if found["kind"] == "files":
        found["domains"] = shown["domains"]
    found.update({key: shown[key] for key in ("issuer", "not_after", "days_left")})
    if found["kind"] == "acme":
        found["last_error"] = __salt__["plasma_https_acme.last_error"](since=_came(shown, prefix))
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
