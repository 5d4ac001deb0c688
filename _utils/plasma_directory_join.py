"""
The account of this machine in an Active Directory, which adcli makes.

adcli takes an account that is there by that name for the machine's own, and gives it a new password: the computer that
has it, be it a controller of the domain, is out of it from then on. Names of accounts end after 15 characters, so two
servers whose long names begin alike would do that to each other. So the account is looked at first.
"""

from __future__ import annotations

import socket

from salt.exceptions import CommandExecutionError

import plasma_directory_conf as conf
import plasma_run

LONGEST = 15  # characters of such an account's name, a dollar sign after it not counted
# What adcli says, and what it means; the first that fits is told.
_CAUSES = (
    ("Preauthentication failed", "plasma.directory.join_password is not the password of {account}"),
    ("not found in Kerberos database", "it has no account {account}: check plasma.directory.join_account"),
    ("credentials have been revoked", "the account {account} is disabled, locked or expired there"),
    ("New password cannot be zero length", "the password of {account} has expired: change it there first"),
    ("Password has expired", "the password of {account} has expired: change it there first"),
    (
        "Clock skew too great",
        "the clocks of this server and of the domain differ too much (`timedatectl`)",
    ),
    ("organizational unit does not exist", "it has no plasma.directory.join_ou {ou}"),
    (
        "Insufficient permissions",
        "{account} may not make the account {computer}: have that allowed, or name another "
        "plasma.directory.join_account",
    ),
    (
        "Access denied",
        "{account} may not change the account {computer}, which is there already: have that allowed, or name another "
        "plasma.directory.join_account",
    ),
)


def computer(wanted: conf.Wanted) -> str:
    """Return the name of the machine's account, without the dollar sign: that of pillar, or the host's."""
    return (wanted.join_computer or socket.gethostname().partition(".")[0][:LONGEST]).upper()


def join(wanted: conf.Wanted) -> None:
    """
    Make the machine's account in a domain, or take the one that it had before, and write its keytab.

    Raises CommandExecutionError, with one sentence, when the domain refuses that, or has another machine of that name.
    """
    name = computer(wanted)
    shown = _adcli("show-computer", wanted, name)
    if not shown.returncode:
        owner = _host(shown.stdout)
        if owner and owner.lower() != _own_host().lower():
            raise CommandExecutionError(
                f"The account {name}$ of {wanted.domain} belongs to {owner}, which it would be taken from: give this "
                f"server another name there, of at most {LONGEST} characters (plasma.directory.join_computer), or have "
                "that account removed from the domain if it is one that nobody needs any more."
            )
    elif "No computer account" not in shown.stderr:
        raise _refused(wanted, name, shown)
    more = [f"--computer-name={name}", *([f"--domain-ou={wanted.join_ou}"] if wanted.join_ou else [])]
    done = _adcli("join", wanted, *more)
    if done.returncode:
        raise _refused(wanted, name, done)


def _adcli(what: str, wanted: conf.Wanted, *arguments: str) -> plasma_run.Result:
    """Run adcli as who may join; the password is read from standard input, as arguments can be read by everybody."""
    who = [f"--domain={wanted.domain}", f"--login-user={wanted.join_account}", "--stdin-password"]
    return plasma_run.run(["adcli", what, *who, *arguments], stdin=wanted.secrets["join_password"], timeout=120)


def _host(shown: str) -> str:
    """The host that an account is for, of what adcli shows of it; nothing where a domain has prepared one."""
    lines = [line.strip() for line in shown.splitlines()]
    value = dict(zip(lines, lines[1:], strict=False)).get("dNSHostName:", "")
    return "" if value == "- not set -" else value


def _own_host() -> str:
    """The name that adcli writes there."""
    name = socket.gethostname()
    try:
        return socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)[0][3] or name
    except OSError:
        return name


def _refused(wanted: conf.Wanted, name: str, done: plasma_run.Result) -> CommandExecutionError:
    said = done.last_line.replace(wanted.secrets["join_password"], "********")
    for words, why in _CAUSES:
        if words in done.stderr:
            told = why.format(account=wanted.join_account, computer=f"{name}$", ou=wanted.join_ou)
            return CommandExecutionError(f"This server cannot join {wanted.domain}: {told}.")
    return CommandExecutionError(
        f"This server cannot join {wanted.domain}: {said}. Its name servers have to be those of the domain, and "
        "plasma.directory.join_account has to be one that may join machines."
    )
