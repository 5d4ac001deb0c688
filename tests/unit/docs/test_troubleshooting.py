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
SOURCES = ("_modules", "_states", "_pillar", "plugin/src")
GAP = "\x00"
# Said by Salt itself, or by Traefik.
SALTS_OWN = {"Pillar failed to render with the following messages", "unrecognized DNS provider: ..."}
# Put together from two strings.
TOGETHER = {
    "jupyterhub.sqlite, in which the hub keeps who is logged in and which servers run, ...": (
        "in which the hub keeps who is logged in and which servers run"
    ),
    "The environment ... cannot start: there is no jupyterhub-singleuser in it": "The environment ... cannot start",
    "The environment ... cannot start: its links or volumes lead into homes": "its links or volumes lead into homes",
    "Installing the hub's packages failed": "Installing the hub's packages",
}
# The test that has met it, and its words there.
MET = {
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
    "port ... is taken by ...": ("tests/e2e/test_refusals.py", "port 80 is taken by python3"),
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
    "Another program has held ... for ... s": ("tests/unit/modules/test_plasma_apt.py", "Another program has held"),
    "Installing the hub's packages failed": ("tests/e2e/test_faults.py", "Installing the hub's packages failed"),
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
