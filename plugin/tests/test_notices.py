"""Notices about the disk, on the hub's pages and in people's servers, with a stand-in for the kernel's answer."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import requests
from support_containers import run_in
from support_hub import TOKEN_HEADER, Hub, container_name, wait_until
from tljh_plasma import disk_quota, notices
from tljh_plasma.accounts import AccountError
from tljh_plasma.disk_quota import Amount, Notice, Usage

GB = 1024**3
FULL = [[11 * GB, 10 * GB, 12 * GB, 32503680000], [5, 0, 0, 0]]
STAND_IN = """
import json
from pathlib import Path
from tljh_plasma import disk_quota

def read(uid, directory):
    known = json.loads(Path({path!r}).read_text()).get(str(uid))
    if known == "broken":
        raise RuntimeError("broken")
    return known and disk_quota.Usage(*(disk_quota.Amount(*amount) for amount in known))

disk_quota.read = read
c.Spawner.poll_interval = 1
"""


@pytest.fixture
def told(monkeypatch):
    """What everybody is told, to be set as ``told.notice``."""

    class Told:
        notice = Notice("warning", "Your disk is nearly full", 'You use "too much" <b>.')

    monkeypatch.setattr(disk_quota, "notice_for", lambda name: Told.notice)
    return Told


def content(directory: str) -> dict:
    return json.loads(Path(directory, notices.FILE).read_text())


def test_the_file_says_what_there_is_to_tell_and_is_roots(tmp_path, told):
    base = str(tmp_path / "run" / "notices")
    before = os.umask(0o077)
    try:
        directory = notices.refresh(base, "anna", 1500)
    finally:
        os.umask(before)
    assert directory == f"{base}/1500"
    assert content(directory) == {"level": "warning", "title": told.notice.title, "text": told.notice.text}
    # The person reads it through the mount; nobody on the host finds the way to it.
    assert stat.S_IMODE(Path(directory, notices.FILE).stat().st_mode) == 0o644
    assert stat.S_IMODE(Path(base).stat().st_mode) == 0o700
    told.notice = None
    assert notices.refresh(base, "anna", 1500) == directory
    assert content(directory) == {}
    assert os.listdir(directory) == [notices.FILE]


def test_the_file_is_replaced_and_only_when_it_changes(tmp_path, told):
    """A mount of the directory sees the new one; whoever reads finds the old one or the new one, and never half."""
    path = Path(notices.refresh(str(tmp_path), "anna", 1500), notices.FILE)
    first = path.stat().st_ino
    notices.refresh(str(tmp_path), "anna", 1500)
    assert path.stat().st_ino == first
    told.notice = None
    notices.refresh(str(tmp_path), "anna", 1500)
    assert path.stat().st_ino != first


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, told, monkeypatch):
    directory = notices.refresh(str(tmp_path), "anna", 1500)
    before = content(directory)
    told.notice = None

    def full(*paths):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        notices.refresh(str(tmp_path), "anna", 1500)
    assert content(directory) == before
    assert os.listdir(directory) == [notices.FILE]


def test_somebody_without_an_account_is_told_nothing(tmp_path, monkeypatch):
    def unknown(name):
        raise AccountError("no account")

    monkeypatch.setattr(disk_quota, "notice_for", unknown)
    assert content(notices.refresh(str(tmp_path), "anna", 1500)) == {}


@pytest.mark.parametrize("problem", ["account", "failure", "slow"])
def test_a_page_is_shown_whatever_happens(monkeypatch, problem):
    import asyncio
    import threading

    released = threading.Event()

    def ask(name):
        if problem == "slow":
            released.wait(30)
        raise AccountError("no account") if problem == "account" else RuntimeError("broken")

    monkeypatch.setattr(disk_quota, "notice_for", ask)
    monkeypatch.setattr(notices, "PATIENCE", 0.1)

    async def page():
        try:
            return await notices.asked_for(type("User", (), {"name": "anna"}))()
        finally:
            released.set()

    assert asyncio.run(page()) is None
    assert notices.asked_for(None) is None


def test_the_extension_is_what_jupyterlab_looks_for():
    files = {path: text for path, text, _ in notices.extension_files()}
    root = notices.EXTENSION[1:]
    package = json.loads(files[f"{root}/package.json"])
    build = package["jupyterlab"]["_build"]
    assert (package["name"], package["jupyterlab"]["extension"]) == (notices.NAME, True)
    assert f"{root}/{build['load']}" in files


# At a hub.


@pytest.fixture(scope="module")
def quota_hub(docker_host, accounts, environment, tmp_path_factory):
    running = Hub(tmp_path_factory.mktemp("quota"), accounts.add("admin6").name)
    usage = running.prefix / "usage.json"
    usage.write_text("{}")
    with (running.prefix / "config" / "jupyterhub_config.d" / "tests.py").open("a") as file:
        file.write(STAND_IN.format(path=str(usage)))
    running.use = lambda **people: usage.write_text(json.dumps(people))
    running.start()
    yield running
    running.stop()
    running.remove_containers(docker_host)


@pytest.fixture(scope="module")
def person(quota_hub, accounts, environment):
    """Somebody with a server that was started while all was well."""
    made = accounts.add("full")
    assert quota_hub.spawn(made.name, environment).status_code in (201, 202)
    return made


def server_says(hub, person) -> dict:
    """What the extension asks."""
    headers = {TOKEN_HEADER: f"token {hub.user_token(person.name)}"}
    address = f"{hub.url}/user/{person.name}/api/config/plasma_notice"
    answer = requests.get(address, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.docker
def test_a_running_server_tells_its_owner_and_nobody_else(quota_hub, person, accounts):
    quota_hub.use()
    wait_until(lambda: server_says(quota_hub, person) == {}, 30, "nothing to tell")
    quota_hub.use(**{str(person.uid): FULL})
    wait_until(lambda: server_says(quota_hub, person), 30, "notice")
    notice = server_says(quota_hub, person)
    assert notice["level"] == "warning"
    assert "You use 11 GB of disk space; your limit is 10 GB." in notice["text"]

    # Files of extensions are for everybody: what is told must be none of them.
    base = f"{quota_hub.url}/user/{person.name}"
    script = requests.get(f"{base}/lab/extensions/plasma-notice/static/remoteEntry.js", timeout=30)
    assert script.status_code == 200
    assert "window._JUPYTERLAB" in script.text
    other = accounts.add("curious")
    session, _ = quota_hub.login(other.name, other.password)
    for visitor in (requests, session):
        answer = visitor.get(f"{base}/api/config/plasma_notice", timeout=30)
        assert answer.status_code in (403, 404)
        assert "11 GB" not in answer.text
    quota_hub.use()
    wait_until(lambda: server_says(quota_hub, person) == {}, 30, "nothing to tell any more")


@pytest.mark.docker
def test_jupyterlab_finds_the_extension(quota_hub, person, docker_host):
    session, _ = quota_hub.login(person.name, person.password)
    lab = session.get(f"{quota_hub.url}/user/{person.name}/lab", timeout=60).text
    config = json.loads(lab.partition('id="jupyter-config-data"')[2].partition(">")[2].partition("</script>")[0])
    found = {one["name"]: one for one in config["federated_extensions"]}
    assert found["plasma-notice"]["load"] == "static/remoteEntry.js"
    # Those of the image are still there.
    assert "jupyterlab-topbar-text" in found


@pytest.mark.docker
def test_the_person_can_write_neither_what_is_told_nor_the_extension(quota_hub, person, docker_host):
    server = docker_host.containers.get(container_name(person.name))
    for path in (f"{notices.TARGET}/{notices.FILE}", f"{notices.TARGET}/x", f"{notices.EXTENSION}/package.json"):
        code, output = run_in(server, "sh", "-c", f"echo x >>{path}")
        assert code != 0, output
    (mount,) = [mount for mount in server.attrs["Mounts"] if mount["Destination"] == notices.TARGET]
    assert not mount["RW"]
    # No other person's, and nothing in the home.
    assert run_in(server, "ls", "-A", notices.TARGET) == (0, f"{notices.FILE}\n")
    assert not [path for path in person.home.rglob("*") if "notice" in path.name]


@pytest.mark.docker
@pytest.mark.parametrize(("usage", "role"), [(FULL, "status"), ([[12 * GB, 0, 12 * GB], [0]], "alert")])
def test_home_and_start_page_tell_the_visitor(quota_hub, accounts, usage, role):
    visitor, other = accounts.add("visitor"), accounts.add("visitor2")
    session, page = quota_hub.login(visitor.name, visitor.password)
    assert 'id="plasma-notice"' not in page.text
    quota_hub.use(**{str(visitor.uid): usage})
    for path in ("home", "spawn"):
        page = session.get(f"{quota_hub.url}/hub/{path}", timeout=30)
        assert page.status_code == 200
        assert page.text.count('id="plasma-notice"') == 1
        assert f'role="{role}"' in page.text.partition('id="plasma-notice"')[2][:200]
        assert "~/.local/share/Trash" in page.text
    session, page = quota_hub.login(other.name, other.password)
    assert 'id="plasma-notice"' not in page.text


@pytest.mark.docker
def test_a_broken_answer_breaks_no_page_and_no_server(quota_hub, accounts, environment):
    visitor = accounts.add("unlucky")
    quota_hub.use(**{str(visitor.uid): "broken"})
    _, page = quota_hub.login(visitor.name, visitor.password)
    assert page.status_code == 200
    assert 'id="plasma-notice"' not in page.text
    assert quota_hub.spawn(visitor.name, environment).status_code in (201, 202)
    quota_hub.use()
    quota_hub.stop_server(visitor.name)


@pytest.mark.docker
def test_without_a_directory_for_notices_servers_start(quota_hub, accounts, environment, docker_host):
    base = quota_hub.prefix / "notices"
    base.rename(base.with_name("kept"))
    base.write_text("in the way")
    visitor = accounts.add("plain")
    try:
        assert quota_hub.spawn(visitor.name, environment).status_code in (201, 202)
        assert server_says(quota_hub, visitor) == {}
        quota_hub.stop_server(visitor.name)
    finally:
        base.unlink()
        base.with_name("kept").rename(base)


def test_an_unused_amount_is_nothing_to_tell():
    assert disk_quota.notice(Usage(Amount(0), Amount(0)), 0) is None
