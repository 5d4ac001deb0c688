"""
Section about a directory of people: LDAP or Active Directory, which sssd asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .base import Found, Section, checked, option
from .environments import Credential
from .hub_rules import NotAllowed, check_url
from .names import GroupAnywhere
from .people import repeated
from .rules import CertificateFile, Domain, pattern

Dn = pattern(
    r"[A-Za-z][A-Za-z0-9-]*=[^\x00-\x1f\x7f,=]+(?:,[A-Za-z][A-Za-z0-9-]*=[^\x00-\x1f\x7f,=]+)*(?<!\s)",
    "is not a distinguished name",
    "a distinguished name such as ou=people,dc=example,dc=org",
    500,
)
JoinAccount = pattern(
    r"[A-Za-z0-9][A-Za-z0-9._$-]*(?:@[A-Za-z0-9.-]+)?",
    "is not the name of such an account",
    "the name of an account, such as Administrator or joiner@EXAMPLE.ORG",
    100,
)

Computer = pattern(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,13}[A-Za-z0-9])?",
    "is not the name of such an account",
    "at most 15 letters, digits and hyphens",
    15,
)


def _ldap(text: str) -> str:
    check_url(text, ("ldaps", "ldap"))
    rest = text.partition("://")[2]
    if any(char in rest for char in "/?#,"):
        raise NotAllowed("is more than the address of a server")
    return text


LdapUrl = checked(
    _ldap, "ldaps://HOST or ldap://HOST, which is spoken to by StartTLS, each with :PORT where it needs one"
)


class Directory(Section):
    kind: Literal["ldap", "ad"] = option(example="ldap")
    """What it is: `ldap` is any server of LDAP, `ad` is Active Directory or Samba, which the server joins."""
    domain: Domain = option(example="example.org")
    """Its name. That of `ad` is its DNS domain, which the server's name servers have to know."""
    servers: list[LdapUrl] = option(list, example=["ldaps://ldap.example.org"])
    """Its servers, the first that answers is asked; `ad` finds them by DNS. Certificates are always checked."""
    base: Dn | None = option(None, shown_default="required with `ldap`", example="dc=example,dc=org")
    """Where people and groups are in `ldap`."""
    bind_dn: Dn | None = option(None, example="cn=hub,dc=example,dc=org")
    """Whom sssd logs in as to look people up; null does so as nobody."""
    bind_password: Credential | None = option(None, secret=True, example="0123456789")
    """The password of `bind_dn`. It is in `/etc/sssd/sssd.conf`, which root alone can read."""
    ca: CertificateFile | None = option(None, example="/etc/ssl/certs/own-ca.pem")
    """Certificate of the authority that signed those of the servers, in PEM, where the system does not trust it."""
    members: Literal["names", "dns"] = option("names", example="dns")
    """How groups of `ldap` name their members: by login names (memberUid, RFC 2307), or by distinguished names (member,
    RFC 2307bis)."""
    join_account: JoinAccount | None = option(None, shown_default="required with `ad`", example="joiner")
    """An account that may join machines to `ad`."""
    join_password: Credential | None = option(None, secret=True, example="0123456789")
    """Its password. It is used once, to join, and kept nowhere on the server; once all servers are joined it can be
    taken out of pillar."""
    join_ou: Dn | None = option(None, example="OU=Servers,DC=example,DC=org")
    """Where the machine's own account is made; null is the place that the domain has for them."""
    join_computer: Computer | None = option(None, shown_default="the start of the host name", example="HUB-TEACHING-2")
    """Name of the machine's own account in `ad`. Two servers whose names begin with the same 15 characters need one
    each, in their own files in `pillar/servers/`. It counts when a server joins."""
    ids: Literal["computed", "directory"] = option("computed", example="directory")
    """Where the ids of `ad` come from: computed of its security identifiers, the same on all servers, or its attributes
    uidNumber and gidNumber."""
    qualified_names: bool = option(False, example=True)
    """Whether people log in as `name@domain`, and groups are called so, too."""
    groups: list[GroupAnywhere] = option(list, example=["students of maths"])
    """Only members of these groups may log in; an empty list lets in everybody whom the directory has."""
    homes: Literal["here", "directory"] = option("here", example="directory")
    """Where homes are: in `plasma.home_path` by their login names, or where the directory says, as far as that is below
    /home or `plasma.home_path`."""

    def found(self) -> Iterable[Found]:
        yield from repeated(self.servers, "servers")
        yield from repeated(self.groups, "groups")
        own = {
            "ldap": ("servers", "base", "bind_dn", "bind_password", "ca"),
            "ad": ("join_account", "join_password", "join_ou", "join_computer"),
        }
        for kind, keys in own.items():
            for key in keys if kind != self.kind else ():
                if getattr(self, key):
                    yield Found((key,), f"belongs to `kind: {kind}`")
        for key in {"ldap": ("servers", "base"), "ad": ("join_account",)}[self.kind]:
            if not getattr(self, key):
                yield Found((key,), f"is required with `kind: {self.kind}`")
        if bool(self.bind_dn) != bool(self.bind_password):
            yield Found(("bind_password",) if self.bind_dn else ("bind_dn",), "is required: the two belong together")
        for key in SECRETS:
            value = getattr(self, key)
            if value and value != value.strip():
                yield Found((key,), "starts or ends with a blank, which sssd would cut off")


SECRETS = ("bind_password", "join_password")


def secrets(directory: Directory | None) -> dict[str, str]:
    """What must be in no argument of a state: Salt prints those."""
    return {name: getattr(directory, name) for name in SECRETS if directory and getattr(directory, name)}
