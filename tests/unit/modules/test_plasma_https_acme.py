"""The execution module plasma_https_acme: the proxy's journal, and the store of its account."""

from __future__ import annotations

import pytest

import plasma_https_acme as acme
import plasma_run

ERROR = (
    "\x1b[90m2026-11-25T08:00:00Z\x1b[0m \x1b[31mERR\x1b[0m "
    "\x1b[1mUnable to obtain ACME certificate for domains\x1b[0m "
    'error="unable to generate a certificate for the domains [hub.example.org]: error: one or more domains had a '
    'problem:\\n[hub.example.org] acme: error: 403 :: urn:ietf:params:acme:error:unauthorized :: Cannot negotiate"\n'
)


@pytest.fixture
def configure_loader_modules():
    return {acme: {}}


@pytest.fixture
def journal(monkeypatch):
    """What journalctl prints, newest first, and the commands that were asked for."""
    told = {"text": "", "commands": []}

    def run(command, **_options):
        told["commands"].append(command)
        return plasma_run.Result(0, told["text"])

    monkeypatch.setattr(plasma_run, "run", run)
    return told


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "state" / "acme.json"
    path.parent.mkdir()
    path.write_text('{"letsencrypt": {}}', encoding="utf-8")
    path.chmod(0o600)
    return path


def test_the_last_error_is_one_plain_line(journal):
    journal["text"] = f'INF Server started\n{ERROR}ERR ACME of before error="older"\n'
    found = acme.last_error(since=1795593600.5)
    assert found.startswith("unable to generate a certificate for the domains [hub.example.org]")
    assert found.endswith("acme: error: 403 :: urn:ietf:params:acme:error:unauthorized :: Cannot negotiate")
    assert "\n" not in found
    assert "--since=@1795593600" in journal["commands"][0]


def test_a_journal_without_errors_of_the_authority(journal):
    journal["text"] = 'INF Starting provider *acme.Provider\nERR Service not found error="no such service"\n'
    assert acme.last_error() is None


def test_an_account_is_put_aside_and_brought_back(store, tmp_path):
    place = tmp_path / "backups"
    before = store.stat().st_ino
    copy = acme.put_aside(tmp_path, place)
    assert store.read_text(encoding="utf-8") == ""
    assert (store.stat().st_ino, store.stat().st_mode & 0o777) == (before, 0o600)
    assert place.stat().st_mode & 0o777 == 0o700
    with open(copy, encoding="utf-8") as file:
        assert file.read() == '{"letsencrypt": {}}'
    assert [path.stat().st_mode & 0o777 for path in place.iterdir()] == [0o600]
    acme.bring_back(copy, tmp_path)
    assert store.read_text(encoding="utf-8") == '{"letsencrypt": {}}'


def test_an_empty_or_missing_store_needs_no_copy(store, tmp_path):
    store.write_text("", encoding="utf-8")
    assert acme.put_aside(tmp_path, tmp_path / "backups") is None
    store.unlink()
    assert acme.put_aside(tmp_path, tmp_path / "backups") is None
    acme.bring_back(None, tmp_path)
    assert not (tmp_path / "backups").exists()
