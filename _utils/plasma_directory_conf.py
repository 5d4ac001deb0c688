"""
What sssd and PAM are told about a directory of people: the texts of their files, made of what pillar says.

Whoever writes a directory names its people and groups, and gives them ids and homes as they like. So nothing here lets
the directory say more than who somebody is: no rules of sudo, no mounts, no name of root or of a group of root's, no id
of the system; and passwords of this server's own accounts are checked here alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import plasma_doors
import plasma_trust

SSSD = "/etc/sssd/sssd.conf"
CA = "/etc/ssl/certs/plasma-directory.pem"
PAM = "/usr/share/pam-configs/plasma-local"
OURS = "# Managed by Plasma on Salt (plasma.directory)."
SECRET = "ldap_default_authtok"
# Names that mean root, or a command away from it, to programs that go by names, as sudo does. Those of this server's
# other groups are not taken for them either: see group_names of the plugin's accounts.py.
_GROUPS = (
    *plasma_doors.ROOT_GROUPS,
    "sudo",
    "wheel",
    "admin",
    "adm",
    "systemd-journal",
    "ssl-cert",
    "jupyterhub-users",
)
_USERS = ("root", "daemon", "bin", "sys", "nobody", "www-data", "jupyterhub", "plasma", "salt")
PAM_TEXT = """\
Name: Passwords of this server's own accounts, which no directory answers for (Plasma)
Default: yes
Priority: 192
Auth-Type: Primary
Auth:
	[success=die default=ignore]	pam_localuser.so
"""


@dataclass(frozen=True)
class Wanted:
    """
    A directory, as pillar has it: see the section ``plasma.directory`` of the pillar's schema for its keys.

    ``ca`` is a path on the server, and ``ca_source`` where its content is now when that is copied; ``home_path`` is
    ``plasma.home_path``; ``secrets`` has ``bind_password`` and ``join_password``, where they are set, and is not shown.
    """

    kind: str
    domain: str
    servers: tuple[str, ...] = ()
    base: str | None = None
    bind_dn: str | None = None
    ca: str | None = None
    ca_source: str | None = None
    members: str = "names"
    join_account: str | None = None
    join_ou: str | None = None
    join_computer: str | None = None
    ids: str = "computed"
    qualified_names: bool = False
    groups: tuple[str, ...] = ()
    homes: str = "here"
    home_path: str = "/home"
    secrets: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def packages(self) -> list[str]:
        """Debian packages that it takes."""
        own = ["ca-certificates", "sssd-ldap"] if self.kind == "ldap" else ["adcli", "sssd-ad"]
        # sssctl asks by D-Bus whether the directory is reached. libpam-sss brings pam_pwquality, which refuses every
        # new password, also of the server's own accounts, where there is no dictionary (cracklib-runtime).
        return sorted([*own, "cracklib-runtime", "libnss-sss", "libpam-sss", "sssd-dbus", "sssd-tools"])


def text(wanted: Wanted) -> str:
    """Return the content of sssd.conf, the password of ``bind_dn`` included."""
    sections = {
        "sssd": {"services": "nss, pam, ifp", "domains": wanted.domain},
        "nss": {"filter_users": ", ".join(_USERS), "filter_groups": ", ".join(_GROUPS)},
        "pam": {},
        f"domain/{wanted.domain}": {**_common(wanted), **(_ldap(wanted) if wanted.kind == "ldap" else _ad(wanted))},
    }
    lines = [f"{OURS} `state.apply directory.disabled` takes it away."]
    for name, options in sections.items():
        lines += ["", f"[{name}]", *(f"{key} = {value}" for key, value in options.items())]
    return "\n".join(lines) + "\n"


def _common(wanted: Wanted) -> dict[str, Any]:
    name = "%f" if wanted.qualified_names else "%u"
    home = {"here": "override_homedir", "directory": "fallback_homedir"}[wanted.homes]
    options = {
        "id_provider": wanted.kind,
        "auth_provider": wanted.kind,
        "chpass_provider": wanted.kind,
        # Rules of a directory would make its people root, or mount what it likes.
        "sudo_provider": "none",
        "autofs_provider": "none",
        "min_id": 1000,
        "enumerate": "false",
        "cache_credentials": "false",
        "use_fully_qualified_names": str(wanted.qualified_names).lower(),
        "default_shell": "/bin/bash",
        home: f"{wanted.home_path.rstrip('/')}/{name}",
        "access_provider": "permit" if wanted.kind == "ldap" else "ad",
    }
    if wanted.groups:
        options |= {"access_provider": "simple", "simple_allow_groups": ", ".join(wanted.groups)}
    return options


def _ldap(wanted: Wanted) -> dict[str, Any]:
    options = {
        "ldap_uri": ", ".join(wanted.servers),
        "ldap_search_base": wanted.base,
        "ldap_schema": {"names": "rfc2307", "dns": "rfc2307bis"}[wanted.members],
        "ldap_tls_reqcert": "demand",
        # What it is otherwise is said by a file of another package, which need not be there.
        "ldap_tls_cacert": wanted.ca or plasma_trust.BUNDLE,
        # Of ldap:// alone: ldaps:// is encrypted from the first byte on.
        "ldap_id_use_start_tls": str(any(server.startswith("ldap://") for server in wanted.servers)).lower(),
    }
    if wanted.bind_dn:
        options |= {
            "ldap_default_bind_dn": wanted.bind_dn,
            "ldap_default_authtok_type": "password",
            SECRET: wanted.secrets["bind_password"],
        }
    return options


def _ad(wanted: Wanted) -> dict[str, Any]:
    return {
        "ad_domain": wanted.domain,
        "krb5_realm": wanted.domain.upper(),
        "krb5_validate": "true",
        "krb5_store_password_if_offline": "false",
        "ldap_id_mapping": str(wanted.ids == "computed").lower(),
        # Policies for desktops of Windows do not say who may use a hub.
        "ad_gpo_access_control": "disabled",
        "dyndns_update": "false",
    }


def parse(content: str | None) -> dict[str, str]:
    """Return the options in a text of ``text``, ``{"section key": value}``, without the password."""
    found, section = {}, ""
    for line in (content or "").splitlines():
        if line.startswith("["):
            section = line.strip("[] ")
        elif "=" in line and not line.startswith("#"):
            key, _, value = (part.strip() for part in line.partition("="))
            found[f"{section} {key}"] = "set" if key == SECRET else value
    return found


def difference(old: str | None, new: str) -> dict[str, dict[str, str | None]]:
    """Return the options that differ between two texts, ``{"section key": {"old", "new"}}``; no password is in it."""
    if old is None or old == new:
        return {} if old == new else {SSSD: {"old": None, "new": "written"}}
    before, after = parse(old), parse(new)
    changes = {
        key: {"old": before.get(key), "new": after.get(key)}
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    }
    # What is left is the password, or something that was written by hand.
    return changes or {SSSD: {"old": "another", "new": "written"}}
