"""
Names of people and groups.
"""

from __future__ import annotations

import re
import unicodedata
from functools import partial

from .base import checked, words
from .hub_rules import NotAllowed

_ACCOUNT = re.compile(r"\w(?:[\w .@\\'-]*[\w-])?")
_GROUP = re.compile(r"\w(?:[\w .@\\'()&+#!-]*[\w()+#!-])?")
# With a letter somewhere, or a student number.
_NAME = re.compile(r"(?=[0-9]*\Z|.*[a-z])[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9_-])?", re.ASCII)
# What programs take for a number, and so for the id of somebody: in decimal, unless it is larger than people's ids.
_LEAST_NUMBER = 100_000
_OTHER_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+e[0-9]+", re.ASCII)

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
    "lower-case letters, digits and . _ -, starting with a letter or a digit, not ending with a dot, at most 32 "
    "characters, not the name of a system {}; a number alone from 100000 on"
)


def _name(text: str) -> str:
    if not text:
        raise NotAllowed("is empty")
    if not text.isascii():
        raise NotAllowed("has characters outside ASCII")
    if len(text) > 32:
        raise NotAllowed("is longer than 32 characters")
    if not _NAME.fullmatch(text):
        raise NotAllowed("is not a Linux user or group name")
    if (text.isdigit() and int(text) < _LEAST_NUMBER) or _OTHER_NUMBER.fullmatch(text):
        raise NotAllowed("could be taken for the id of somebody else")
    return text


def _user(text: str) -> str:
    if _name(text) in SYSTEM_ACCOUNTS or text.startswith("systemd-"):
        raise NotAllowed("is the name of a system account")
    return text


def system_group(name: str) -> bool:
    """Whether the system or a package brings the group of this name: it is never made or removed here."""
    return name in SYSTEM_GROUPS or name.startswith("systemd-")


def _group(text: str) -> str:
    if system_group(_name(text)):
        raise NotAllowed("is the name of a system group")
    return text


def _membership(text: str) -> str:
    if _name(text) in ROOT_GROUPS:
        raise NotAllowed("is a group whose members can take over the server (`sudo` is the group of those who may)")
    return text


def group_made(text: str) -> str:
    """Check the name of a group that is made on the server; raises NotAllowed."""
    return _group(text)


def _directory_name(text: str, what: re.Pattern[str]) -> str:
    """Check a name that a directory may have: user@domain, DOMAIN\\user, blanks, capitals, other alphabets."""
    if not text:
        raise NotAllowed("is empty")
    if len(text) > 255:
        raise NotAllowed("is longer than 255 characters")
    if not what.fullmatch(text):
        raise NotAllowed("is not a name that a directory can have")
    if unicodedata.normalize("NFKC", text) != text or any(char.isdigit() and not char.isascii() for char in text):
        raise NotAllowed("has letters or digits in a form that only looks like the usual one")
    for part in re.split(r"[^\w]+", text):
        if len({unicodedata.name(char, "?").split()[0] for char in part if char.isalpha()}) > 1:
            raise NotAllowed("mixes letters of several alphabets, which look alike")
    return text


def _account_anywhere(text: str) -> str:
    if _NAME.fullmatch(text.lower()):
        _user(text.lower())
        return text
    return _directory_name(text, _ACCOUNT)


def group_anywhere(text: str) -> str:
    """Check the name of a group of any source that is no group of root's; raises NotAllowed."""
    if _NAME.fullmatch(text.lower()):
        _membership(text.lower())
        return text
    return _directory_name(text, _GROUP)


def _administrator(text: str) -> str:
    if text.startswith("%"):
        _directory_name(text[1:], _GROUP)
        return text
    return _account_anywhere(text)


UserName = checked(_user, _WORDS.format("account"))
GroupName = checked(_group, _WORDS.format("group"))
Membership = checked(
    _membership, "the name of a group, not one that makes its members root (docker, disk, shadow, lxd ...)"
)
# Of any source of accounts that the server knows: it is asked there.
_GROUP_WORDS = (
    "the name of a group, of the server or of a directory: letters, digits, blanks and . _ - @ \\ ' ( ) & + # !, at "
    "most 255"
)
GroupAnywhere = checked(group_anywhere, f"{_GROUP_WORDS}; not one that makes its members root (docker, disk, lxd ...)")
GroupDeclared = checked(partial(_directory_name, what=_GROUP), _GROUP_WORDS)
Administrator = checked(
    _administrator,
    "the name of an account, of the server or of a directory: letters, digits, blanks and . _ - @ \\ ', at most 255; "
    "or the name of a group with % before it",
)
