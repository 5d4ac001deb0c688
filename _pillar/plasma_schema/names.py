"""
Names of people and groups.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from .base import Rule, refuse, words

_NAME = re.compile(r"[a-z](?:[a-z0-9._-]{0,30}[a-z0-9_-])?", re.ASCII)

# Accounts and groups of Debian and Ubuntu and of the packages a hub's server has (base-passwd, systemd, dbus, openssh,
# cloud images, cockpit, the engine). A person of such a name would take over the files and rights of a service.
SYSTEM_ACCOUNTS = words(
    """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup
    operator messagebus polkitd sshd syslog uuidd tcpdump tss landscape pollinate fwupd-refresh usbmux avahi
    dnsmasq rtkit colord geoclue pulse saned sssd ntp ntpsec chrony dhcpcd statd rpc postfix exim debian-exim
    mysql postgres redis rabbitmq nginx apache cockpit-ws cockpit-wsinstance cockpit-session-socket
    cockpit-systemd-service lxd docker containerd traefik jupyterhub jupyterhub-admins jupyterhub-users plasma
    salt
    """
)
SYSTEM_GROUPS = SYSTEM_ACCOUNTS | words(
    """
    adm tty disk kmem dialout fax voice cdrom floppy tape sudo audio dip src shadow utmp video sasl plugdev
    staff users input sgx kvm render netdev crontab ssh ssl-cert wheel admin incus incus-admin libvirt ssh_keys
    rdma
    """
)
# Membership in these is as good as being root, without a trace in the list of admins: TLJH lets jupyterhub-admins use
# sudo without a password, and staff may write to /usr/local where Debian was installed years ago.
ROOT_GROUPS = words(
    """
    root docker disk shadow kmem lxd incus incus-admin libvirt salt jupyterhub-admins staff
    """
)

_WORDS = (
    "lower-case letters, digits and . _ -, starting with a letter, not ending with a dot, at most 32 characters, "
    "not the name of a system {}"
)


def _name(text: str) -> str:
    if not text:
        raise refuse("is empty")
    if not text.isascii():
        raise refuse("has characters outside ASCII")
    if len(text) > 32:
        raise refuse("is longer than 32 characters")
    if not _NAME.fullmatch(text):
        raise refuse("is not a Linux user or group name")
    return text


def _user(text: str) -> str:
    if _name(text) in SYSTEM_ACCOUNTS or text.startswith("systemd-"):
        raise refuse("is the name of a system account")
    return text


def system_group(name: str) -> bool:
    """Whether the system or a package brings the group of this name: it is never made or removed here."""
    return name in SYSTEM_GROUPS or name.startswith("systemd-")


def _group(text: str) -> str:
    if system_group(_name(text)):
        raise refuse("is the name of a system group")
    return text


def _membership(text: str) -> str:
    if _name(text) in ROOT_GROUPS:
        raise refuse("is a group whose members can take over the server (`sudo` is the group of those who may)")
    return text


UserName = Annotated[str, AfterValidator(_user), Rule(_WORDS.format("account"))]
GroupName = Annotated[str, AfterValidator(_group), Rule(_WORDS.format("group"))]
Membership = Annotated[
    str,
    AfterValidator(_membership),
    Rule("the name of a group, not one that makes its members root (docker, disk, shadow, lxd ...)"),
]
