"""The messages that the page about troubleshooting quotes are said by the code, and a test has met each of them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.pages import Page
from tests.support.paths import REPOSITORY

PAGE = Page(REPOSITORY / "docs" / "troubleshooting.md")
QUOTED = re.findall(r'^#+ "(.*)"$', PAGE.text, re.MULTILINE)
SOURCES = ("_modules", "_utils", "_states", "_pillar", "_roster", "_output", "plugin/src")
GAP = "\x00"
# Said by Salt itself, or by Traefik.
SALTS_OWN = {"Pillar failed to render with the following messages", "unrecognized DNS provider: ..."}
# Put together from two strings.
TOGETHER = {
    'begins a template here that is wrong", or "would be read as a template': "begins a template here that is wrong",
    "jupyterhub.sqlite, in which the hub keeps who is logged in and which servers run, ...": (
        "in which the hub keeps who is logged in and which servers run"
    ),
    "The environment ... cannot start: there is no jupyterhub-singleuser in it": "The environment ... cannot start",
    "The environment ... cannot start: its links or volumes lead into homes": "its links or volumes lead into homes",
    "Installing the hub's packages failed": "Installing the hub's packages",
    "Salt could not be put into ... on this server, the disk of ... is full": "Salt could not be put into",
    "... more need what failed, and were not tried": "more need what failed, and were",
}
# The test that has met it, and its words there.
MET = {
    "The hub will not start again: it was installed for a Python that this server no longer has": (
        "tests/unit/modules/test_plasma_status_report.py",
        "The hub will not start again: it was installed for a Python that this server no longer has",
    ),
    "... is mounted with the option ...": (
        "tests/unit/modules/test_plasma_preflight.py",
        "is mounted with the option noexec",
    ),
    "..., the program of the proxy, is ...": (
        "tests/unit/modules/test_plasma_status_parts.py",
        "the program of the proxy, is",
    ),
    "..., and this TLJH needs one of the series ..., such as ...": (
        "plugin/tests/test_installing.py",
        "and this TLJH needs one of the series 3, such as 3.1.4.",
    ),
    "Your home directory on this server cannot be used": (
        "plugin/tests/test_directory_accounts.py",
        "Your home directory on this server cannot be used",
    ),
    "Your home directory on this server cannot be made": (
        "plugin/tests/test_directory_accounts.py",
        "Your home directory on this server cannot be made",
    ),
    "The group ... of pillar is not known to this server": (
        "tests/e2e/test_directory.py",
        "of pillar is not known to this server",
    ),
    "home ... is gone, and ..., where pillar has homes, ...": (
        "tests/unit/modules/test_plasma_users.py",
        "where pillar has homes",
    ),
    "... is there and not from here": ("tests/unit/modules/test_plasma_directory.py", "not from here"),
    "plasma.directory.ca: ... has no certificate in PEM in it": (
        "tests/unit/modules/test_plasma_directory.py",
        "has no certificate in PEM in it",
    ),
    "... is not made: there is no group ...": ("tests/unit/test_umask.py", "is not made: there is no group"),
    "... is not found by DNS, ...": ("tests/unit/modules/test_plasma_directory.py", "is not found by DNS"),
    "The account ... belongs to ..., which it would be taken from": (
        "tests/e2e/test_active_directory.py",
        "belongs to e2e-domain.",
    ),
    "This server cannot join ...": ("tests/unit/modules/test_plasma_directory.py", "This server cannot join"),
    "The environment ... is not open to you": ("plugin/tests/test_permitted_servers.py", "is not open to you"),
    "This environment no longer exists": ("plugin/tests/test_starting.py", "no longer exists"),
    "The server needed more than its ... GB of memory while it started": (
        "plugin/tests/test_starting.py",
        "needed more than its 0.047 GB of memory",
    ),
    "The environment ... cannot start: there is no jupyterhub-singleuser in it": (
        "plugin/tests/test_starting.py",
        "there is no jupyterhub-singleuser in it",
    ),
    "The environment ... cannot start: its links or volumes lead into homes": (
        "plugin/tests/test_images_elsewhere.py",
        "lead into homes",
    ),
    "A server's name may have up to 64 letters": ("plugin/tests/test_bodies.py", "A server's name may have"),
    "There are not enough free GPUs at the moment": (
        "plugin/tests/test_gpus.py",
        "There are not enough free GPUs at the moment",
    ),
    "This environment needs a GPU, and the server has none to give": (
        "plugin/tests/test_gpus.py",
        "the server has none to give",
    ),
    "Docker cannot give it a GPU": ("plugin/tests/test_gpus.py", "Docker cannot give it a GPU"),
    "This server runs in safe mode": ("plugin/tests/test_safe_mode.py", "This server runs in safe mode"),
    "A directory is missing": ("plugin/tests/test_servers.py", "A directory is missing"),
    "Not everything went well at the start": ("plugin/tests/test_starting.py", "Not everything went well at the start"),
    "Your server ran out of memory": ("plugin/tests/test_memory.py", "Your server ran out of memory"),
    "Your disk space is used up": ("plugin/tests/test_starting.py", "Your disk space is used up"),
    "The disk of the hub is full": ("plugin/tests/test_starting.py", "disk of the hub is full"),
    "The server did not answer within ... seconds": ("plugin/tests/test_starting.py", "did not answer within"),
    "... the hub could not shield itself from it": ("plugin/tests/test_firewall_refusals.py", "FirewallError"),
    "the clock says ..., ... that of the machine salt-ssh runs on": (
        "tests/unit/modules/test_plasma_preflight.py",
        "2027-01-15 08:00:00 UTC",
    ),
    "... is missing or empty, so nobody is let in": ("plugin/tests/test_kept.py", "is missing or empty"),
    "..., which says who may start which environment, is gone, so nobody is let in": (
        "plugin/tests/test_kept.py",
        "gone, so nobody is let in",
    ),
    "jupyterhub.sqlite, in which the hub keeps who is logged in and which servers run, ...": (
        "tests/e2e/test_status.py",
        "sessions truncated",
    ),
    "No certificate came within ... seconds": ("tests/e2e/test_https.py", "No certificate came"),
    "... has no address (...), and people's servers get such names: add ...": (
        "tests/e2e/test_domains.py",
        "add a wildcard record for",
    ),
    "unrecognized DNS provider: ...": ("tests/e2e/test_domains.py", "unrecognized DNS provider: nosuchprovider"),
    "... is of another machine": ("tests/e2e/test_backup.py", "is of another machine"),
    "Another backup is being made": ("plugin/tests/test_backup_create.py", "Another backup is being made"),
    "Pillar failed to render with the following messages": ("tests/e2e/test_refusals.py", "plasma.limts"),
    'begins a template here that is wrong", or "would be read as a template': (
        "tests/unit/pillar/test_pillar_files.py",
        "begins a template here that is wrong",
    ),
    "the line is indented otherwise than those beside it": (
        "tests/unit/pillar/test_pillar_files.py",
        "indented otherwise",
    ),
    "a colon followed by a space, within a value": ("tests/unit/tools/test_salt_ssh.py", "within a value"),
    "the line is not UTF-8": ("tests/unit/pillar/test_pillar_files.py", "is not UTF-8"),
    "names no file for ..., or an empty one": ("tests/unit/pillar/test_pillar_files.py", "names no file for server"),
    "No server of ... matches ...": ("tests/unit/test_roster.py", "matches maths"),
    "port ... is taken by ...": ("tests/e2e/test_refusals.py", "port 80 is taken by python3"),
    "Take it out, and restart the engine": ("tests/unit/modules/test_plasma_docker_daemon.py", "Take it out"),
    "Nobody but its owner can read ...": ("tests/unit/test_umask.py", 'ret.get("warnings")'),
    "The proxy does not show the certificate of ...": ("plugin/tests/test_renewal.py", "does not show the certificate"),
    "If it is that of an authority of your own, name it in plasma.trust": (
        "plugin/tests/test_builds_outside.py",
        "name it in plasma.trust",
    ),
    "net.ipv4.ip_unprivileged_port_start is ...": (
        "tests/e2e/test_admins.py",
        "net.ipv4.ip_unprivileged_port_start is 0",
    ),
    "Port ... of ... is to be that of ... but belongs to uid ...": ("tests/e2e/test_admins.py", "belongs to uid"),
    "Lost or spoilt: ...": ("tests/e2e/test_admins.py", "Lost or spoilt: "),
    "... free on the file system of ...: ... is needed": ("tests/e2e/test_refusals.py", "plasma.preflight.min_disk"),
    "... holds a hub of the provider ..., and pillar asks for ...": (
        "tests/e2e/test_deploy.py",
        "a hub of the provider",
    ),
    "The hub of this server is in ..., and pillar says ...: set plasma.hub.prefix to ...": (
        "tests/unit/modules/test_plasma_preflight.py",
        "the hub of this server is in",
    ),
    "... cannot be reached (...), for ...: ...": (
        "tests/unit/modules/test_plasma_reach_needs.py",
        "cannot be reached (no answer), for",
    ),
    "... more need what failed, and were not tried": ("tests/unit/test_output.py", "3 more need what failed"),
    "Salt could not be put into ... on this server, the disk of ... is full": (
        "tests/unit/test_roster.py",
        "the disk of / is full",
    ),
    "The password in pillar was edited and is not set": (
        "tests/unit/states/test_plasma_users.py",
        "edited and is not set",
    ),
    "Administrators of pillar who cannot log in, as this server has no account of that name": (
        "tests/unit/states/test_plasma_admins.py",
        "cannot log in, as this server has no account",
    ),
    "user ...: became ... here, and would be made anew with an empty home": (
        "tests/unit/modules/test_plasma_users_rename.py",
        "became hanna here, and would be made anew",
    ),
    "user ...: was ..., who became ... here": (
        "tests/unit/modules/test_plasma_users_rename.py",
        "was anna, who became hanna here",
    ),
    "Interrupted. What was begun on the servers goes on there": (
        "tests/unit/test_roster.py",
        "Interrupted. What was begun on the servers goes on there",
    ),
    "Another apply runs on this server": (
        "tests/unit/modules/test_plasma_lock.py",
        "Another apply runs on this server",
    ),
    "Another program has held ... for ... s": ("tests/unit/modules/test_plasma_apt.py", "Another program has held"),
    "Installing the hub's packages failed": (
        "tests/unit/modules/test_plasma_hub_installer.py",
        "Installing the hub's packages failed",
    ),
    "... is not valid YAML, nothing was changed ...": ("tests/e2e/test_faults.py", "not valid YAML"),
    "The hub did not come up with the new ...": (
        "tests/unit/modules/test_tljh_config.py",
        "did not come up with the new",
    ),
    "The hub in ... is stopped, so it cannot be asked": (
        "tests/unit/modules/test_plasma_hub_api.py",
        "is stopped",
    ),
    "SSH is left as it was, because ...": ("tests/unit/modules/test_plasma_doors.py", "would shut out"),
    "The upgrade ... failed and was undone; ... runs again": ("tests/e2e/test_upgrade.py", "failed and was undone"),
    "Your account on this server has expired": ("plugin/tests/test_accounts.py", "has expired. Please ask"),
    "Your password is right, but ...": ("plugin/tests/test_pam.py", "pam_words.REFUSED"),
    "Nobody can log in at the moment": ("plugin/tests/test_pam.py", "pam_words.CLOSED"),
    "The new password was not accepted": ("plugin/tests/test_pam.py", "pam_words.NOT_ACCEPTED"),
    "This server changes passwords without asking for the current one, so it is not done on this page": (
        "plugin/tests/test_pam.py",
        "without asking",
    ),
    "That took too long, or was sent twice": ("plugin/tests/test_pam.py", "took too long"),
    "exists beside ...: remove one of the two accounts": (
        "tests/unit/modules/test_plasma_users_rename.py",
        "exists beside hanna: remove one of the two accounts",
    ),
    "is being renamed to ... since an earlier run": (
        "tests/unit/modules/test_plasma_users_rename.py",
        "anna is being renamed to hanna since an earlier run",
    ),
    "while the removal of ... is not finished": (
        "tests/unit/modules/test_plasma_users_rename.py",
        "while the removal of {leaver} is not",
    ),
    "Too many wrong passwords were entered for this account from your network": (
        "plugin/tests/test_logins.py",
        "Too many wrong passwords were entered",
    ),
    "Your account on this server is not allowed to use JupyterHub": (
        "plugin/tests/test_accounts.py",
        "system account|login shell",
    ),
    "Your home directory on this server does not belong to your account": (
        "plugin/tests/test_accounts.py",
        "home directory",
    ),
}

# What people of the Ansible playbooks find in their documentation.
SYMPTOMS = {
    "how-to-get-onto-the-server",
    "where-the-logs-are",
    "an-environment-does-not-build",
    "run-an-environment-on-your-own-machine",
    "an-extension-or-a-package-is-missing",
    "the-name-of-the-environment-is-not-in-the-top-bar",
    "the-build-is-slow",
    "where-an-environment-comes-from",
    "removing-an-environment-returns-an-error",
}


@cache
def said() -> list[str]:
    """All strings in the code, in small letters, with a gap for what is filled in."""
    found = []
    for path in (path for folder in SOURCES for path in (REPOSITORY / folder).rglob("*.py")):
        found.extend(_texts(path))
    return found


def _texts(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.sub(r"\{[^}]*\}", GAP, node.value).lower())
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else GAP for part in node.values]
            found.append("".join(parts).lower())
    return found


def is_said(message: str) -> bool:
    """Whether one string of the code has all that the message has between its dots."""
    pieces = [piece.strip(" .,;:").lower() for piece in message.split("...")]
    return any(all(piece in text for piece in pieces) for text in said())


@pytest.mark.parametrize("message", [message for message in QUOTED if message not in SALTS_OWN])
def test_a_message_is_said_by_the_code(message):
    assert is_said(TOGETHER.get(message, message))


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_is_met_by_a_test(message):
    file, words = MET[message]
    assert words in (REPOSITORY / file).read_text(encoding="utf-8")


def test_symptoms_of_the_playbooks_have_a_heading():
    assert PAGE.anchors >= SYMPTOMS


def test_what_nobody_says_is_found():
    assert len(QUOTED) > 20
    assert not is_said("The coffee machine does not answer")
