"""The weaknesses of the system this one replaces, one attack each, against a real hub with real containers.

The numbers are those of the list in the project's field notes.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from support_containers import process_status, run_in
from support_hub import container_name

pytestmark = pytest.mark.docker


def owned_by_others(home: Path, uid: int) -> list[Path]:
    """Files below a home that are not its owner's."""
    return [path for path in home.rglob("*") if path.lstat().st_uid != uid]


def test_1_nothing_of_a_server_runs_as_root(mallory, container):
    """A profile that ran as root, and what it left behind."""
    statuses = process_status(container)
    assert len(statuses) >= 2
    for status in statuses:
        assert status["Uid"].split() == [str(mallory.uid)] * 4, status["Name"]
        assert status["Gid"].split() == [str(mallory.gid)] * 4, status["Name"]
    ran = mallory.home / "ran-as"
    assert not ran.exists() or set(ran.read_text().split()) == {str(mallory.uid)}

    # A set-user-id program of root's gains nothing.
    # Both of its outputs in one stream: the engine hands on two in any order.
    code, output = run_in(
        container, str(mallory.home / "rootshell"), "-pc", "exec 2>&1; id -u; id -ru; cat /etc/shadow"
    )
    assert output.split()[:2] == [str(mallory.uid)] * 2
    assert "Permission denied" in output
    # Nor can one be made that another account of the host would gain from.
    run_in(container, "sh", "-c", "cp /bin/sh ~/mine; chown 0:0 ~/mine; chmod 6755 ~/mine")
    made = (mallory.home / "mine").stat()
    assert (made.st_uid, made.st_gid) == (mallory.uid, mallory.gid)


def test_2_entrypoint_belongs_to_one_container_and_to_root(mallory, container, alice, docker_host, hub):
    """An entrypoint shared by all, which one of them could write."""
    import tljh_plasma

    script = "/opt/plasma/entrypoint"
    source = Path(tljh_plasma.__file__).parent / "entrypoint.sh"
    before = source.read_bytes()
    code, output = run_in(
        container, "sh", "-c", f"echo evil >{script}; rm -f {script}; mv /opt/plasma /opt/x; ls -l {script}"
    )
    assert output.count("Read-only file system") >= 3, output
    assert re.search(r"-rwxr-xr-x 1 root root .* /opt/plasma/entrypoint", output)
    # Even root of that container would change that container alone: of the host it can write to nothing but the home.
    assert [mount["Source"] for mount in container.attrs["Mounts"] if mount["RW"]] == [str(mallory.home)]
    container.exec_run(["sh", "-c", f"echo evil >{script}"], user="0")
    other = docker_host.containers.get(container_name(alice.name))
    _, text = run_in(other, "cat", script)
    assert text.encode() == before == source.read_bytes()


def test_3_planted_programs_do_not_run_for_anybody_else(mallory, container):
    """A "su" in a directory that came first in root's PATH. (The entrypoint's own PATH: see test_entrypoint.)"""
    ran = mallory.home / "ran-as"
    assert not ran.exists() or "0" not in ran.read_text().split()
    environment = Path(f"/proc/{container.attrs['State']['Pid']}/environ").read_bytes().split(b"\0")
    path = next(entry for entry in environment if entry.startswith(b"PATH="))
    assert str(mallory.home).encode() not in path


def test_4_nothing_is_written_through_a_persons_links(mallory, accounts, hub, environment, tmp_path):
    """Settings written by root through a link of the person's to wherever they liked."""
    link = mallory.home / "plasmat-course" / ".jupyter"
    assert os.readlink(link) == "/etc"
    assert not Path("/etc/lab").exists()
    assert owned_by_others(mallory.home, mallory.uid) == [mallory.home / "rootshell"]

    # The environment's directory itself is a link to a directory of root's on the host.
    eve = accounts.add("eve")
    trap = Path("/srv") / f"{eve.name}-trap"
    trap.mkdir(mode=0o755)
    try:
        (eve.home / "plasmat-course").symlink_to(trap)
        answer = hub.spawn(eve.name, environment)
        assert answer.status_code in (201, 202), answer.text
        assert list(trap.iterdir()) == []
        assert trap.stat().st_uid == 0
    finally:
        hub.stop_server(eve.name)
        trap.rmdir()


@pytest.mark.parametrize("how", ["name", "id", "short id", "path", "number", "list"])
def test_5_only_environments_can_be_started(how, alice, hub, images, docker_host):
    """Any image by API: ``allowed_images="*"``, and no check at the start."""
    plain = next(image for image in docker_host.images.list() if image.tags and not image.labels.get("repo2docker.ref"))
    asked = {
        "name": plain.tags[0],
        "id": plain.id,
        "short id": plain.short_id,
        "path": "../../etc",
        "number": 7,
        "list": [plain.tags[0]],
    }[how]
    answer = hub.spawn(alice.name, asked, server=f"other{how.replace(' ', '')}")
    assert answer.status_code == 400, answer.text
    assert "Please choose one from the list" in answer.json()["message"]
    assert not docker_host.containers.list(
        all=True, filters={"name": container_name(alice.name, f"other{how.replace(' ', '')}")}
    )


# What a browser says when somebody follows a link of another site.
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def test_6_cookies_alone_start_nothing(accounts, hub, environment, docker_host):
    """Cross-site requests that carried the person's cookies and nothing else were obeyed."""
    victim = accounts.add("victim")
    session, page = hub.login(victim.name, victim.password)
    assert page.status_code == 200
    headers = {"Origin": "https://evil.example.org", "Referer": "https://evil.example.org/"}
    attempts = [
        session.post(f"{hub.url}/hub/spawn", data={"image": environment}, headers=headers),
        session.post(f"{hub.url}/hub/spawn/{victim.name}", data={"image": environment}, headers=headers),
        session.post(f"{hub.url}/hub/api/users/{victim.name}/server", json={"image": environment}, headers=headers),
        session.get(f"{hub.url}/hub/spawn?image={environment}", headers={**headers, **LINK}),
    ]
    assert [answer.status_code for answer in attempts[:3]] == [403] * 3
    # A link chooses an environment on the page, and starts nothing.
    assert attempts[3].status_code == 200
    assert "press Start" in attempts[3].text
    assert re.search(rf'value="{environment}"[^>]* checked', attempts[3].text)
    assert hub.api("GET", f"/users/{victim.name}").json()["servers"] == {}
    # The only service that people reach is attacked in test_service_guard.py; the others answer nobody.
    services = hub.api("GET", "/services").json()
    assert {name for name, service in services.items() if service["url"]} == {"plasma"}


def test_7_group_is_the_accounts_own(alice, course, container, docker_host, hub):
    """The group id was taken from the user id: files belonged to a stranger's group."""
    server = docker_host.containers.get(container_name(alice.name))
    for status in process_status(server):
        assert status["Gid"].split() == [str(alice.gid)] * 4
        assert {int(gid) for gid in status["Groups"].split()} - {alice.gid} == {course.gr_gid}, (
            "the course's group, and no group of the system"
        )
    _, output = run_in(server, "sh", "-c", "touch ~/file; id -un; id -gn; id -Gn")
    assert output.split()[0] == alice.name
    assert course.gr_name in output.split()
    made = (alice.home / "file").stat()
    assert (made.st_uid, made.st_gid) == (alice.uid, alice.gid)
    assert {path.lstat().st_gid for path in (alice.home / "plasmat-course").rglob("*")} == {alice.gid}


@pytest.mark.parametrize("kind", ["system uid", "no shell", "stolen home", "foreign home"])
def test_8_accounts_of_the_system_get_nothing(kind, accounts, hub, environment, tmp_path, docker_host):
    """``games`` logged in, and a directory was made in /usr/games."""
    options = {
        "system uid": ["--system"],
        "no shell": ["--shell", "/usr/sbin/nologin"],
        "stolen home": ["--home-dir", str(tmp_path / "home")],
        "foreign home": ["--no-create-home", "--home-dir", "/usr/games"],
    }[kind]
    before = sorted(os.listdir("/usr/games"))
    person = accounts.add("sys", *options, create_home="--no-create-home" not in options)
    if kind == "stolen home":
        # Somebody else than root could put another directory in its place.
        tmp_path.chmod(0o777)
    session, page = hub.login(person.name, person.password)
    assert page.status_code == 403, page.text
    assert "Please ask the administrator" in page.text
    assert "Traceback" not in page.text
    # Neither with a token of their own nor when an administrator starts it for them.
    assert hub.spawn(person.name, environment).status_code == 403
    answer = hub.spawn(person.name, environment, token=hub.token)
    assert answer.status_code == 403, answer.text
    assert "ask the administrator" in answer.json()["message"]
    assert not docker_host.containers.list(all=True, filters={"name": container_name(person.name)})
    assert sorted(os.listdir("/usr/games")) == before
    if kind == "foreign home":
        # Removing the account must leave /usr/games alone.
        subprocess.run(["usermod", "--home", f"/home/{person.name}", person.name], check=True)


def test_8_two_names_that_differ_in_capitals_are_two_people(accounts, hub):
    """``Upper`` was lowercased and then failed with a 500; worse, its password must not open ``upper``."""
    lower = accounts.add("twin")
    upper = lower.name.replace("plasmat-", "Plasmat-")
    subprocess.run(["useradd", "--badname", "--create-home", "--shell", "/bin/bash", upper], check=True)
    accounts.users.append(upper)
    subprocess.run(["chpasswd"], input=f"{upper}:upper-password\n", text=True, check=True)
    for name, password in ((upper, lower.password), (lower.name, "upper-password")):
        session, page = hub.login(name, password)
        assert page.status_code == 403, page.text
        assert "Invalid username or password" in page.text
    for name, password in ((upper, "upper-password"), (lower.name, lower.password)):
        session, page = hub.login(name, password)
        assert page.status_code == 200
        assert f">{name}</span>" in page.text
    # With no lower-case account at all, and no account with capitals.
    accounts.remove(lower.name)
    session, page = hub.login(upper, "upper-password")
    assert f">{upper}</span>" in page.text
    session, page = hub.login(lower.name, "upper-password")
    assert page.status_code == 403


@pytest.mark.parametrize("asked", ["no-such-environment:1", "<script>alert(1)</script>", "", None])
def test_10_unknown_environment_is_explained(asked, hub, alice):
    """A bare 500."""
    answer = hub.spawn(alice.name, asked, server="unknown")
    assert answer.status_code == 400
    assert "choose one from the list" in answer.json()["message"]


def test_10_unknown_environment_is_explained_in_the_page(accounts, hub):
    """The same through the form, on the page that lists the environments."""
    person = accounts.add("bob")
    session, page = hub.login(person.name, person.password)
    action = re.search(r'action="([^"]*_xsrf=[^"]*)"', page.text)[1].replace("&amp;", "&")
    answer = session.post(f"{hub.url}{action}", data={"image": "<b>gone</b>:1"})
    assert answer.status_code == 400
    assert "does not exist" in answer.text
    assert "<b>gone</b>" not in answer.text
    assert 'type="radio"' in answer.text


def test_11_names_of_environments_stay_inside_the_home(hub, alice, images, docker_host):
    """A display name ".." copied into the parent and gave it away; one with a space broke the start."""

    def around() -> tuple[int, int, list[str]]:
        # Homes of other tests come and go.
        status = alice.home.parent.stat()
        names = sorted(name for name in os.listdir(alice.home.parent) if not name.lower().startswith("plasmat-"))
        return status.st_uid, stat.S_IMODE(status.st_mode), names

    before = around()
    for number, (display, directory) in enumerate({"..": "environment", "../a b;$(id)": "a-b-id"}.items()):
        image = images(f"plasmat-odd{number}:1", display)
        answer = hub.spawn(alice.name, image, server=f"odd{number}")
        assert answer.status_code in (201, 202), answer.text
        assert (alice.home / directory / "welcome.ipynb").is_file()
        server = docker_host.containers.get(container_name(alice.name, f"odd{number}"))
        assert Path(f"/proc/{server.attrs['State']['Pid']}/root").exists()
        hub.stop_server(alice.name, f"odd{number}")
    assert around() == before
    assert owned_by_others(alice.home, alice.uid) == []
