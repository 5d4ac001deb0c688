"""
Section about HTTPS: names of the server, the way to a certificate, and names of people's servers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from . import hub_rules
from .base import Found, Section, checked, hub_option, number, option, ruled
from .environments import Credential
from .hub_rules import NotAllowed
from .people import repeated
from .rules import CertificateFile, Domain, Email, HttpsUrl, check_domain, pattern

# Of a certificate.
DomainOrWildcard = checked(
    lambda text: f"*.{check_domain(text[2:])}" if text.startswith("*.") else check_domain(text),
    "a full domain name such as hub.example.org, or a wildcard such as *.example.org",
)
DnsProvider = pattern(
    r"[a-z0-9][a-z0-9-]*",
    "is not the code of a DNS provider",
    "the code of a DNS provider, lower-case letters, digits and -, from https://doc.traefik.io/traefik/https/acme/#providers",
    40,
)
EnvironmentVariable = pattern(
    # What a program does without its own doing (LD_PRELOAD, PATH) is no setting of a DNS provider.
    r"(?!LD_|PATH\Z|HOME\Z|GODEBUG\Z|SSL_CERT_|TRAEFIK_)[A-Z][A-Z0-9_]*",
    "is not the name of such a variable",
    "the name of an environment variable of the DNS provider: capitals, digits and _",
    64,
)


def _nameserver(text: str) -> str:
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise NotAllowed("is not ADDRESS:PORT") from None
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536 or (address.version == 6) != ("[" in host):
        raise NotAllowed("is not ADDRESS:PORT")
    return text


Nameserver = checked(_nameserver, "the address and the port of a name server, such as 192.0.2.53:53")


ListenAddress = ruled(hub_rules.LISTEN)
PublicPort = number(hub_rules.PUBLIC_PORT)
Front = ruled(hub_rules.FRONT)


class Http(Section):
    address: ListenAddress | None = option(None, shown_default="what config.yaml says: all", example="127.0.0.1")
    """Address of the server that the hub's proxy listens on for http://."""
    port: PublicPort | None = option(None, shown_default="what config.yaml says: 80", example=81)
    """Port for http://. Below 1024 only root's programs can take it while the proxy restarts."""
    behind: list[Front] = hub_option("behind", example=["127.0.0.1", "10.1.2.0/24"])
    """Proxies in front of the hub's: nginx, Apache, a load balancer, by the addresses that they connect from. What they
    say of their clients (X-Forwarded-For, -Proto, -Host) is believed, and nobody else's word."""


class Tls(Section):
    key: CertificateFile = option(example="/etc/ssl/private/hub.key")
    """The private key, in PEM format."""
    cert: CertificateFile = option(example="/etc/ssl/certs/hub.pem")
    """The certificate and its chain, in PEM."""


# With the longest part of a person's in front of it, a name is as long as names may be.
LONGEST_HUB = 189


class Dns(Section):
    provider: DnsProvider = option(example="cloudflare")
    """Who hosts the domain's DNS, by the code that Traefik has for them."""
    environment: dict[EnvironmentVariable, Credential] = option(
        dict, secret=True, example={"CF_DNS_API_TOKEN": "0123456789"}
    )
    """Environment variables that Traefik's page names for this provider, such as its token."""
    resolvers: list[Nameserver] = option(list, example=["192.0.2.53:53"])
    """Name servers that are asked whether the record is there, where the system's own see another DNS than the
    authority does."""


class Https(Section):
    name_server: Domain | None = option(None, example="hub.example.org")
    """Domain name of the server; the first of `domains`."""
    domains: list[DomainOrWildcard] = option(list, example=["hub.example.org", "www.example.org"])
    """All its domain names, the hub's own first. Wildcards such as `*.example.org` need `tls` or `dns`."""
    address: ListenAddress | None = option(None, shown_default="what config.yaml says: all", example="192.0.2.10")
    """Address of the server that the hub's proxy listens on for https://."""
    port: PublicPort | None = option(None, shown_default="what config.yaml says: 443", example=444)
    """Port for https://. An authority without `dns` asks at 443 whatever is set here."""
    user_domains: bool = option(False, example=True)
    """Whether each person's servers get a name of their own below the first of `domains`, so that pages of one cannot
    act on the hub or on another's. Needs `tls` or `dns`, for a wildcard certificate, and a wildcard record in DNS."""
    letsencrypt_email: Email | None = option(None, example="admin@example.org")
    """Where Let's Encrypt writes about the certificate."""
    staging: bool = option(False, example=True)
    """Take test certificates, which browsers do not trust and which are not rationed."""
    acme_server: HttpsUrl | None = option(None, example="https://acme.example.org/directory")
    """Directory of another certificate authority that speaks ACME; null is Let's Encrypt."""
    acme_ca: CertificateFile | None = option(None, example="/etc/ssl/certs/own-ca.pem")
    """Certificate of the authority that signed `acme_server`'s own certificate, in PEM, where the system does not trust
    it."""
    timeout: int = option(180, ge=10, le=3600, unit="seconds", example=300)
    """How long the certificate may take to arrive before the configuration of before is restored."""
    check: bool = option(True, example=False)
    """Whether the names must lead to this server before it switches: for a server that is seen under its names from
    outside only, `false` leaves that check out."""
    tls: Tls | None = option(None, example={"key": "/etc/ssl/private/hub.key", "cert": "/etc/ssl/certs/hub.pem"})
    """An existing key and certificate, in place of Let's Encrypt."""
    dns: Dns | None = option(
        None, example={"provider": "cloudflare", "environment": {"CF_DNS_API_TOKEN": "0123456789"}}
    )
    """Prove to the authority that the names are yours by a record in DNS and not by answering on port 443: for
    wildcards, and where the authority cannot reach the server."""

    def found(self) -> Iterable[Found]:
        names = [*([self.name_server] if self.name_server else []), *self.domains]
        yield from repeated(self.domains, "domains")
        if self.tls:
            for name in ("letsencrypt_email", "staging", "acme_server", "acme_ca", "dns"):
                if getattr(self, name):
                    yield Found((name,), "is set beside plasma.https.tls: keep one of the two ways to a certificate")
        elif self.letsencrypt_email and not names:
            yield Found(("domains",), "is required with letsencrypt_email (or name_server, for one domain)")
        elif names and not self.letsencrypt_email:
            yield Found(("letsencrypt_email",), "is required with a domain (or tls, for an existing certificate)")
        elif not names and (self.staging or self.acme_server or self.acme_ca or self.dns):
            yield Found(("domains",), "is required, together with letsencrypt_email, as other keys of https are set")

        if self.acme_ca and not self.acme_server:
            yield Found(("acme_ca",), "has nothing to check: plasma.https.acme_server names no other authority")
        if not self.tls and not self.dns:
            for index, name in enumerate(self.domains):
                if name.startswith("*."):
                    yield Found(
                        ("domains", index), "is a wildcard, for which authorities want a DNS challenge: set dns"
                    )
        if self.user_domains:
            yield from self._names_of_users(names)

    def _names_of_users(self, names: list[str]) -> Iterable[Found]:
        hub = names[0] if names else ""
        if not hub or hub.startswith("*."):
            yield Found(("user_domains",), "needs the hub's own name as the first of plasma.https.domains")
            return
        if not self.tls and not self.dns:
            yield Found(
                ("user_domains",),
                f"needs a certificate for *.{hub}: set plasma.https.dns for a DNS challenge, or plasma.https.tls",
            )
        if len(hub) > LONGEST_HUB:
            yield Found(("user_domains",), f"needs a name of at most {LONGEST_HUB} characters for the hub")
        for index, name in enumerate(self.domains):
            if name.endswith(f".{hub}") and name != f"*.{hub}":
                yield Found(("domains", index), f"is below {hub}, where names are those of people's servers")

    def complete(self) -> None:
        if self.name_server and self.name_server not in self.domains:
            self.domains = [self.name_server, *self.domains]

    @property
    def wanted(self) -> bool:
        return bool(self.tls or self.domains)
