"""Encrypted values and files, with the commands of docs/people/secrets.md, real gpg and Salt's own pillar compiler."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import shell
from tests.unit.pillar.conftest import MARKER, REPOSITORY, Site

PAGE = REPOSITORY / "docs" / "people" / "secrets.md"


def command(start: str) -> str:
    """The command of the documentation that starts so."""
    (found,) = re.findall(rf"^\$ ({re.escape(start)}.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return found


@pytest.fixture(scope="module")
def keyring() -> Iterator[Path]:
    """A repository with keys made as documented. Its path is short: gpg's sockets are in it."""
    if not shutil.which("gpg"):
        shell.ensure_packages(["gnupg"])
    root = Path(tempfile.mkdtemp(prefix="gpg"))
    (root / "conf").mkdir()
    try:
        for start in ("mkdir ", "gpg --homedir conf/gpgkeys --batch"):
            subprocess.run(command(start), shell=True, cwd=root, check=True, capture_output=True, timeout=120)  # noqa: S602
        yield root
    finally:
        subprocess.run(
            ["gpgconf", "--homedir", str(root / "conf" / "gpgkeys"), "--kill", "all"], check=False, timeout=60
        )
        shutil.rmtree(root)


@pytest.fixture
def encrypted(keyring: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """The site in that repository."""
    site = Site.__new__(Site)
    site.root, site.pillar = keyring, keyring / "pillar"
    for name in ("conf", "pillar", "_pillar", "_renderers"):
        shutil.copytree(
            REPOSITORY / name,
            keyring / name,
            ignore=shutil.ignore_patterns("__pycache__", "gpgkeys"),
            dirs_exist_ok=True,
        )
    monkeypatch.chdir(keyring)
    yield site
    for name in ("pillar", "_pillar", "cache"):
        shutil.rmtree(keyring / name, ignore_errors=True)


def encrypt(root: Path, text: str) -> str:
    """A value as the documented command makes it; what is typed comes from a pipe here."""
    line = command("(read -rs")
    result = subprocess.run(
        ["bash", "-c", line], input=f"{text}\n", cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.startswith("-----BEGIN PGP MESSAGE-----") and text not in result.stdout
    return result.stdout


def write(site: Site, value: str, more: str = "") -> None:
    block = "".join(f"        {line}\n" for line in value.splitlines())
    (site.pillar / "plasma.sls").write_text(
        f"#!yaml|gpg\nplasma:\n{more}  users:\n    - name: anna\n      password: |\n{block}", encoding="utf-8"
    )


def test_an_encrypted_password_becomes_a_hash(encrypted):
    write(encrypted, encrypt(encrypted.root, MARKER))
    pillar = encrypted.compile()
    (user,) = pillar["plasma"]["users"]
    assert user["password_hash"].startswith("$y$j9T$")
    left = [path for path in encrypted.root.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]
    assert MARKER not in json.dumps(pillar) and left == []


def test_the_keys_are_the_owners_alone(encrypted):
    assert (encrypted.root / "conf" / "gpgkeys").stat().st_mode & 0o077 == 0


def test_an_encrypted_value_that_is_wrong_is_not_shown(encrypted):
    write(encrypted, encrypt(encrypted.root, MARKER * 30))
    pillar = encrypted.compile()
    assert pillar["_errors"] == [
        "pillar/plasma.sls:5: plasma.users[0].password: ******** is longer than 256 characters. "
        "Allowed: one line of text of at most 256 characters, or null."
    ]


def test_a_value_for_other_keys_ends_the_run(encrypted, caplog):
    value = encrypt(encrypted.root, MARKER)
    shutil.move(encrypted.root / "conf" / "gpgkeys", encrypted.root / "conf" / "away")
    try:
        (encrypted.root / "conf" / "gpgkeys").mkdir(mode=0o700)
        write(encrypted, value)
        pillar = encrypted.compile()
        assert pillar["_errors"] and not (pillar.get("plasma") or {}).get("users")
    finally:
        shutil.rmtree(encrypted.root / "conf" / "gpgkeys")
        shutil.move(encrypted.root / "conf" / "away", encrypted.root / "conf" / "gpgkeys")


@pytest.mark.parametrize("suffix", ["gpg", "asc"])
def test_an_encrypted_csv_file(encrypted, suffix):
    (encrypted.pillar / "plain.csv").write_text(f"username,password\nbob,{MARKER}\n", encoding="utf-8")
    line = command("gpg --homedir conf/gpgkeys --encrypt").replace("pillar/students.csv", "pillar/plain.csv")
    subprocess.run(line, shell=True, cwd=encrypted.root, check=True, capture_output=True, timeout=60)  # noqa: S602
    (encrypted.pillar / "plain.csv.gpg").rename(encrypted.pillar / f"s.csv.{suffix}")
    (encrypted.pillar / "plain.csv").unlink()
    (encrypted.pillar / "plasma.sls").write_text(f"plasma:\n  users_csv: [s.csv.{suffix}]\n", encoding="utf-8")
    pillar = encrypted.compile()
    (user,) = pillar["plasma"]["users"]
    assert user["name"] == "bob" and user["password_hash"].startswith("$y$j9T$")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"username,password\nbob," + MARKER.encode(), "cannot be decrypted with the keys in"), (b"", "cannot be decryp")],
)
def test_a_csv_file_that_cannot_be_decrypted(encrypted, content, reason):
    (encrypted.pillar / "s.csv.gpg").write_bytes(content)
    (encrypted.pillar / "plasma.sls").write_text("plasma:\n  users_csv: [s.csv.gpg]\n", encoding="utf-8")
    (line,) = encrypted.compile()["_errors"]
    assert line.startswith(f"s.csv.gpg {reason}") and MARKER not in line


def test_a_small_file_that_stands_for_a_huge_one(encrypted):
    """What gpg writes has a limit."""
    subprocess.run(
        ["gpg", "--homedir", "conf/gpgkeys", "--encrypt", "--recipient", "plasma", "--output", "pillar/s.csv.gpg"],
        input=b"a" * (40 * 2**20),
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert (encrypted.pillar / "s.csv.gpg").stat().st_size < 2**20
    (encrypted.pillar / "plasma.sls").write_text("plasma:\n  users_csv: [s.csv.gpg]\n", encoding="utf-8")
    (line,) = encrypted.compile()["_errors"]
    assert line.startswith(("s.csv.gpg is larger than 8 MB", "s.csv.gpg cannot be decrypted"))


def test_without_gpg(encrypted, monkeypatch):
    (encrypted.pillar / "s.csv.gpg").write_bytes(b"x")
    (encrypted.pillar / "plasma.sls").write_text("plasma:\n  users_csv: [s.csv.gpg]\n", encoding="utf-8")
    monkeypatch.setenv("PATH", str(encrypted.root))
    assert encrypted.compile()["_errors"] == [
        "s.csv.gpg cannot be decrypted: the program gpg is missing on this machine (package gnupg)."
    ]
