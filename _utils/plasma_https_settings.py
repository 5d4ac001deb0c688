"""
HTTPS of the hub: what is wanted, what must be so before it is switched on, and how the hub's certificate is.

The proxy ends TLS, with both providers. Its certificate is an existing pair of files, or comes from an authority that
speaks ACME (Let's Encrypt), whose challenge the proxy answers on port 443 (TLS-ALPN), or by a record in DNS.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from salt.exceptions import SaltInvocationError

import plasma_https_acme
import plasma_https_certificates
import plasma_https_dns
import plasma_https_names
import plasma_listeners
import tljh_service
import tljh_settings

_USER_DOMAINS = "plasma.user_domains"  # in config.yaml: the hub's host, below which are those of people


@dataclasses.dataclass(frozen=True)
class Wanted:
    """
    How HTTPS of the hub has to be.

    domains
        Names of the server, the hub's own first.
    email, staging, acme_server, acme_ca
        Of the ACME account: with ``acme_server`` another authority than Let's Encrypt, with ``acme_ca`` the path of the
        certificate that signed its own.
    key, cert
        Paths of an existing pair on this server; with them no authority is asked.
    address, port
        Where the proxy listens for https://; None is what config.yaml says.
    dns, environment
        ``{"provider", "resolvers"}`` for a challenge by DNS, and its variables, which are secrets, ``{name: value}``.
    user_domains
        Whether each person's servers have a name of their own below the first domain.
    prefix
        Where the hub is installed.

    Raises SaltInvocationError for values that do not go together.
    """

    enabled: bool = True
    domains: Sequence[str] = ()
    email: str | None = None
    staging: bool = False
    acme_server: str | None = None
    acme_ca: str | None = None
    key: str | None = None
    cert: str | None = None
    address: str | None = None
    port: int | None = None
    dns: Mapping[str, Any] | None = None
    environment: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)
    user_domains: bool = False
    prefix: str = "/opt/tljh"

    def __post_init__(self) -> None:
        if bool(self.key) != bool(self.cert):
            raise SaltInvocationError("key and cert belong together: give both or none.")
        if self.enabled and not self.key and not (self.domains and self.email):
            raise SaltInvocationError("A certificate needs domains and an e-mail address, or a key and a cert.")

    @property
    def asks(self) -> bool:
        """Whether an authority is asked for the certificate."""
        return self.enabled and not self.key

    @property
    def names(self) -> list[str]:
        """The names that the certificate has to be good for."""
        return names(self.domains, self.user_domains)

    @property
    def section(self) -> dict[str, Any]:
        """The section ``https`` of config.yaml."""
        account = {"email": "", "domains": [], "staging": False}
        if self.asks:
            # Another authority stands in a file of Traefik's: TLJH's config.yaml has no key for it.
            staging = bool(self.staging and not self.acme_server)
            account = {"email": self.email, "domains": self.names, "staging": staging}
        listens = {"address": self.address, "port": self.port}
        return {
            "enabled": self.enabled,
            **{key: value for key, value in listens.items() if value is not None},
            "tls": {"key": self.key or "", "cert": self.cert or ""},
            "letsencrypt": account,
        }

    @property
    def extra_text(self) -> str:
        """
        What Traefik has to know of another authority or challenge, as TOML (JSON's strings are TOML's); empty for Let's
        Encrypt and port 443.
        """
        if not self.asks or not (self.acme_server or self.dns):
            return ""
        lines = [
            "# Managed by Plasma on Salt (plasma.https.acme_server, dns).",
            "[certificatesResolvers.letsencrypt.acme]",
        ]
        if self.acme_server:
            lines.append(f"caServer = {json.dumps(self.acme_server)}")
        if self.acme_ca:
            lines.append(f"caCertificates = [{json.dumps(self.acme_ca)}]")
        if self.dns:
            # Else names without a wildcard would be proved on port 443, which may be closed.
            lines += ["tlsChallenge = false", "[certificatesResolvers.letsencrypt.acme.dnsChallenge]"]
            lines += [f"{key} = {json.dumps(self.dns[key])}" for key in ("provider", "resolvers") if self.dns.get(key)]
        return "\n".join(lines) + "\n"

    @property
    def variables(self) -> str:
        """The content of the file with the DNS provider's variables."""
        return plasma_https_dns.text(self.environment if self.dns and self.enabled else None)

    @property
    def config(self) -> tuple[dict[str, Any], list[str]]:
        """What has to be written to config.yaml: ``(settings, keys to remove)``."""
        if self.enabled:
            settings: dict[str, Any] = {"https": self.section}
            if self.user_domains:
                return settings | {_USER_DOMAINS: self.domains[0]}, []
            return settings, [_USER_DOMAINS]
        # Nothing of a pair or an account is thrown away with the switch.
        on = (tljh_settings.show(self.prefix).get("https") or {}).get("enabled", False)
        return {"https.enabled": False} if on else {}, [_USER_DOMAINS]


def names(domains: Sequence[str], user_domains: bool = False) -> list[str]:
    """
    Return the names that a certificate has to be good for, the hub's own first.

    domains
        Names of the server.
    user_domains
        Whether each person's servers have a name of their own below the first.
    """
    below = [f"*.{domains[0]}"] if user_domains and domains else []
    return list(dict.fromkeys([*domains, *below]))


def problems(wanted: Wanted, check: bool = True) -> list[str]:
    """
    Return every reason why this server cannot switch to HTTPS, one sentence each; an empty list is good.

    check
        Whether the names must lead to this server, so that an authority, unless it looks in DNS, finds it there.

    Whether files of an existing pair are fit is another question: see ``plasma_https_files.problem``.
    """
    config = tljh_settings.show(wanted.prefix)
    config = {**config, "https": {**(config.get("https") or {}), **wanted.section}}
    reasons = []
    for name in ("http", "https"):
        _, port = tljh_service.place(config, name == "https")
        address = tljh_service.section(config, name).get("address")
        reasons += filter(None, [plasma_listeners.port_problem(port, address, f"plasma.{name}.port")])
    # Another port is what somebody in front leads to: that it does cannot be seen from here.
    if check and not reasons and wanted.asks and not wanted.dns and tljh_service.place(config, True)[1] == 443:
        reasons = list(filter(None, map(plasma_https_names.elsewhere, wanted.names)))
    if check and not reasons and wanted.user_domains:
        reasons = list(filter(None, [plasma_https_names.below_elsewhere(wanted.domains[0])]))
    return reasons


def compare(wanted: Wanted) -> dict[str, dict[str, Any]]:
    """
    Return what ``plasma_https_switch.apply`` would change, ``{what: {"old", "new"}}``; ``{}`` when HTTPS is as wanted
    and shown so.

    Beside keys of config.yaml: ``acme`` (the authority), ``environment`` (names of variables), ``reload`` (the proxy
    has not read its settings yet), and ``certificate`` (what the proxy shows is not what it should).
    """
    settings, unset = wanted.config
    changes = dict(tljh_settings.compare(settings, prefix=wanted.prefix, unset=unset))
    file = extra(wanted.prefix)
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    if old != wanted.extra_text:
        changes["acme"] = {"old": _authority(old), "new": _authority(wanted.extra_text)}
    variables = plasma_https_dns.compare(wanted.variables, wanted.prefix)
    if variables:
        changes["environment"] = variables
    if changes or not wanted.enabled:
        return changes
    if tljh_settings.pending(prefix=wanted.prefix) == "proxy":
        return {"reload": {"old": None, "new": "proxy"}}
    unlike = not_shown(wanted)
    new = f"of {wanted.cert}" if wanted.cert else f"for {', '.join(wanted.names)}"
    return {"certificate": {"old": unlike, "new": new}} if unlike else {}


def extra(prefix: str = "/opt/tljh") -> pathlib.Path:
    """Return the path of the file in which Traefik reads of another authority than Let's Encrypt."""
    return pathlib.Path(prefix) / "config" / "traefik_config.d" / "plasma-acme.toml"


def _authority(text):
    """Who is asked, and how it is proved that the names are ours, in words; None for what nobody has to say."""
    values = {
        key: json.loads(value) for key, _, value in (line.partition(" = ") for line in text.splitlines()) if value
    }
    parts = [values["caServer"]] if "caServer" in values else []
    if "provider" in values:
        parts.append(f"DNS of {values['provider']}")
    if "resolvers" in values:
        parts.append(f"asked at {', '.join(values['resolvers'])}")
    return ", ".join(parts) or None


def not_shown(wanted: Wanted) -> str | None:
    """Return what is wrong with the certificate that the proxy shows, in a few words; None when it is the right one."""
    address, port = tljh_service.place(tljh_settings.show(wanted.prefix), True)
    for domain in wanted.names[:1] or ["localhost"] if wanted.cert else wanted.names:
        shown = plasma_https_certificates.served(plasma_https_names.sample(domain), address, port)
        if not shown:
            return f"no TLS on port {port}"
        if wanted.cert:
            same = shown["fingerprint"] == plasma_https_certificates.describe_file(wanted.cert)["fingerprint"]
            return None if same else f"another one ({shown['subject']})"
        if plasma_https_certificates.is_stand_in(shown):
            return f"none yet for {domain}"
        if not plasma_https_certificates.covers(shown["domains"], domain):
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
    config = tljh_settings.show(prefix)
    https = config.get("https") or {}
    report = dict.fromkeys(("issuer", "not_after", "days_left", "kind", "last_error", "problem"))
    report |= {"enabled": https.get("enabled") is True, "domains": [], "user_domains": False}
    if not report["enabled"]:
        return report
    hub = (config.get("plasma") or {}).get("user_domains")
    cert = (https.get("tls") or {}).get("cert")
    domains = list((https.get("letsencrypt") or {}).get("domains") or [])
    report |= {"kind": "files" if cert else "acme", "domains": domains, "user_domains": bool(hub)}
    name = plasma_https_names.sample(next(iter(domains), hub or "localhost"))
    address, port = tljh_service.place(config, True)
    shown = plasma_https_certificates.served(name, address, port)
    if shown:
        report |= {key: shown[key] for key in ("issuer", "not_after", "days_left")}
        if cert:
            report["domains"] = shown["domains"]
        else:
            error = plasma_https_acme.last_error(since=_came(shown, prefix))
            report["last_error"] = plasma_https_dns.hide(error, prefix)
    report["problem"] = _problem(shown, cert, name, hub, report["last_error"], port)
    return report


def _problem(shown, cert, name, hub, error, port):
    """What is wrong with the certificate that the proxy shows, with its mend, or None."""
    again = "salt-ssh '*' state.apply https"
    if not shown:
        return f"The proxy shows no certificate on port {port}: systemctl restart traefik, or {again}"
    refusal = f" The authority said: {error}" if error else ""
    if not cert and plasma_https_certificates.is_stand_in(shown):
        return f"There is no certificate for {name} yet.{refusal} Mend what it names, and: {again}"
    if shown["days_left"] <= 0:
        return f"The certificate has expired on {shown['not_after'][:10]}.{refusal} Renew it with: {again}"
    begin, end = (datetime.datetime.fromisoformat(shown[key]) for key in ("not_before", "not_after"))
    # Traefik renews at 30 of 90 days.
    if shown["days_left"] < min(21, (end - begin).days / 5):
        mend = "Put a new pair in place" if cert else "Mend what it names"
        days = f"{shown['days_left']:.1f} days"
        return f"The certificate expires in {days} and has not been renewed.{refusal} {mend}, and: {again}"
    if cert and not plasma_https_certificates.readable_problem(cert):
        file = plasma_https_certificates.describe_file(cert)
        if file["fingerprint"] != shown["fingerprint"]:
            return f"The proxy still shows the certificate that was in {cert} before: {again}"
    needed = names([hub], True) if hub else []
    missing = [domain for domain in needed if not plasma_https_certificates.covers(shown["domains"], domain)]
    return f"The certificate is not good for {', '.join(missing)}: {again}" if missing else None


def _came(certificate, prefix):
    """When the certificate came, in seconds since 1970: authorities date back, and the proxy notes what it gets."""
    begin = datetime.datetime.fromisoformat(certificate["not_before"]).timestamp()
    try:
        return max(begin, (pathlib.Path(prefix) / "state" / "acme.json").stat().st_mtime)
    except OSError:
        return begin
