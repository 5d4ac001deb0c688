"""People: who gets in, what they can start, and where their work ends up; in a real browser where they see pages."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.support.browsing import open_notebook, run_cell, sign_in, start_server
from tests.support.hub import HubUser
from tests.support.shell import SupportError


def inspect(target, name):
    found = target.sudo(["docker", "ps", "--filter", f"name=jupyter-{name}", "--format", "{{.ID}}"]).stdout.split()
    assert len(found) == 1, found
    return json.loads(target.sudo(["docker", "inspect", found[0]]).stdout)[0]


def test_a_student_logs_in_starts_a_server_and_saves_a_notebook(page, url, ada, course, target):
    sign_in(page, url, ada.name, ada.password)
    # Where people arrive.
    page.wait_for_url("**/hub/spawn**")
    start_server(page, url, "python-course")
    open_notebook(page)
    run_cell(page, "import os; print('sum', 20 + 22, os.getuid(), os.getgid(), os.getcwd())")
    output = page.locator(".jp-OutputArea-output").first
    expect(output).to_contain_text(f"sum 42 {ada.uid} {ada.gid} {ada.home}/python-course")
    page.keyboard.press("Control+s")
    dialog = page.locator(".jp-Dialog")
    dialog.locator("input[type=text], input:not([type])").first.fill("my-work.ipynb")
    dialog.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("tab", name="my-work.ipynb")).to_be_visible()
    path = f"{ada.home}/python-course/my-work.ipynb"
    found = ""
    for _ in range(100):
        found = target.sudo(["stat", "-c", "%u %g", path], check=False).stdout.strip()
        if found and "sum 42" in target.sudo(["cat", path]).stdout:
            break
        page.wait_for_timeout(100)
    assert found == f"{ada.uid} {ada.gid}"
    notebook = json.loads(target.sudo(["cat", path]).stdout)
    assert "20 + 22" in "".join(notebook["cells"][0]["source"])


def test_the_files_of_the_environment_were_copied(login, ada, course, target):
    listing = target.sudo(f"find {ada.home}/python-course -maxdepth 1 -printf '%f %U %G\\n'").stdout.splitlines()
    names = {line.split()[0] for line in listing}
    assert {"README.md", "welcome.ipynb", "data"} <= names
    assert {tuple(line.split()[1:]) for line in listing} == {(str(ada.uid), str(ada.gid))}


def test_the_container_is_the_user_and_nothing_more(ada, course, target, login):
    person = login(ada)
    if not person.server():
        person.start(course)
    container = inspect(target, ada.name)
    host = container["HostConfig"]
    assert container["Config"]["User"] == f"{ada.uid}:{ada.gid}"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["Memory"] == host["MemorySwap"] == 2 * 1024**3
    assert host["CpuQuota"] == 2 * host["CpuPeriod"]
    assert 0 < host["PidsLimit"] <= 4096
    owners = target.sudo(["docker", "top", container["Id"], "-eo", "pid,uid"]).stdout.split()[3::2]
    assert set(owners) == {str(ada.uid)}


def test_shared_data_is_read_only(target, course, login, ada):
    target.sudo("mkdir -p /srv/data && echo shared > /srv/data/table.csv && chmod -R a+rX /srv/data")
    person = login(ada)
    if person.server():
        person.stop()
    person.start(course)
    container = inspect(target, ada.name)["Id"]
    assert target.sudo(["docker", "exec", container, "cat", "/srv/data/table.csv"]).stdout == "shared\n"
    written = target.sudo(["docker", "exec", container, "touch", "/srv/data/mine"], check=False)
    assert written.returncode != 0
    assert "Read-only" in written.stderr


def test_others_homes_are_not_there(target, course, login, ada, grace):
    person = login(ada)
    if not person.server():
        person.start(course)
    container = inspect(target, ada.name)["Id"]
    assert target.sudo(["docker", "exec", container, "ls", "/home"]).stdout.split() == ["ada", "jovyan"]


@pytest.mark.parametrize("name", ["root", "games", "nobody", "nosuchuser"])
def test_who_is_no_user_of_the_system_does_not_get_in(url, target, grace, name):
    if name == "games":
        # A system account that somebody gave a password.
        target.ssh("sudo chpasswd", input=f"games:{grace.password}\n")
    person = HubUser(url, name)
    answer = person.login(grace.password)
    assert answer.status_code == 403
    assert "Internal" not in answer.text
    assert not target.sudo("ls -d /usr/games/python-course", check=False).stdout


def test_a_wrong_password_is_refused(url, grace):
    assert HubUser(url, grace.name).login("wrong").status_code == 403


def test_an_image_that_is_no_environment_cannot_be_started(login, grace, course, target):
    person = login(grace)
    target.sudo(["docker", "tag", course, "not-an-environment:latest"])
    for image in ("not-an-environment:latest", "missing:1", "", "../../etc"):
        with pytest.raises(SupportError) as refused:
            person.start(image)
        assert "500" not in str(refused.value).split(":")[1], image
    assert not target.sudo(["docker", "ps", "-q", "--filter", f"name=jupyter-{grace.name}"]).stdout


def test_two_named_servers_and_no_more(login, grace, course):
    person = login(grace)
    person.start(course, "one")
    person.start(course, "two")
    with pytest.raises(SupportError, match="named servers"):
        person.start(course, "three")
    person.stop("one")
    person.stop("two")
