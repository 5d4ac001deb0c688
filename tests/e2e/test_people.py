"""People: who gets in, what they can start, and where their work ends up; in a real browser where they see pages."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
import time

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import make_account, site_pillar
from tests.support.browsing import open_notebook, overflow, run_cell, serious_problems, sign_in, start_server
from tests.support.hub import HubUser
from tests.support.shell import SupportError

PACKAGES = ("libpam-google-authenticator", "libpam-pwquality", "cracklib-runtime", "wamerican")
NEW = "Zebra-crossing 71 x"


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


# What PAM says at the login, and new names.


@pytest.fixture(scope="module")
def modules(target):
    """The usual modules of Debian, whose rules for new passwords are set at once."""
    target.install(*PACKAGES)
    target.sudo("echo minlen = 12 >> /etc/security/pwquality.conf")


def code(key: bytes) -> str:
    """The code of this half minute (RFC 6238)."""
    digest = hmac.new(key, struct.pack(">Q", int(time.time()) // 30), hashlib.sha1).digest()
    start = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[start : start + 4])[0] & 0x7FFFFFFF) % 10**6:06d}"


def enter(page, url, name, password):
    page.goto(f"{url}/hub/login")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def signed_in(page, name):
    expect(page.locator(".plasma-user")).to_contain_text(name)


def test_a_second_factor(page, url, target, modules):
    person = make_account(target, "code")
    key = b"12345678901234567890"
    target.ssh(
        "sudo install -m 400 -o code -g code /dev/stdin /home/code/.google_authenticator",
        input=f'{base64.b32encode(key).decode()}\n" TOTP_AUTH\n" DISALLOW_REUSE\n',
    )
    target.sudo(
        "cp -a /etc/pam.d/login /root/login; echo 'auth required pam_google_authenticator.so nullok' > /root/line"
    )
    target.sudo("sed -i '/@include common-auth/r /root/line' /etc/pam.d/login")
    try:
        enter(page, url, person.name, person.password)
        field = page.get_by_label("Verification code")
        # The cursor is there: people type the code and press Enter.
        expect(field).to_be_focused()
        assert serious_problems(page) == []
        field.fill("000000")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Invalid username or password")
        enter(page, url, person.name, person.password)
        page.get_by_label("Verification code").fill(code(key))
        page.keyboard.press("Enter")
        signed_in(page, person.name)
        # Who has none goes on as before.
        other = make_account(target, "nocode")
        person = HubUser(url, other.name)
        person.login(other.password)
        assert person.logged_in
    finally:
        target.sudo("cp -a /root/login /etc/pam.d/login")


def test_a_password_that_has_to_be_changed_by_the_rules_of_the_system(page, url, target, modules):
    person = make_account(target, "mustchange")
    target.sudo(["chage", "--lastday", "0", person.name])
    enter(page, url, person.name, person.password)
    expect(page.get_by_role("heading", name="Change your password")).to_be_visible()
    assert serious_problems(page) == []
    for new, words in (("short1", "shorter than 12"), ("responsibility", "dictionary"), (NEW, "")):
        page.get_by_label("New password", exact=True).fill(new)
        page.get_by_label("New password, once more").fill(new)
        page.keyboard.press("Enter")
        if words:
            expect(page.get_by_role("alert")).to_contain_text(words)
    signed_in(page, person.name)
    # At will, with the keyboard alone, on a phone as well.
    page.goto(f"{url}/hub/password")
    assert serious_problems(page) == [] and overflow(page) <= 0
    expect(page.get_by_label("Current password")).to_be_focused()
    page.keyboard.type(NEW)
    for text in ("Another one of mine 8", "Another one of mine 8"):
        page.keyboard.press("Tab")
        page.keyboard.type(text)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Your password is changed")).to_be_visible()
    shadow = target.sudo(f"grep ^{person.name}: /etc/shadow").stdout
    assert NEW not in shadow and shadow.split(":")[2] != "0"
    journal = target.sudo("journalctl -u jupyterhub").stdout
    assert NEW not in journal and "Another one of mine" not in journal


def test_a_server_that_is_closed(page, url, target, grace):
    target.sudo("echo 'New disks until noon' > /etc/nologin")
    try:
        for name in (grace.name, "no-such-account"):
            enter(page, url, name, grace.password)
            expect(page.get_by_role("alert")).to_contain_text("The server says: New disks until noon.")
    finally:
        target.sudo("rm /etc/nologin")


def test_somebody_gets_another_name(site, url, target, course):
    def apply(*users):
        site.set_pillar({**site_pillar(), "users": list(users)})
        done = site.apply("users")
        assert not done.failed, done.failed
        return next(state["changes"] for key, state in done.states.items() if key.startswith("users-managed"))

    word = "correct horse battery 7"
    groups = ["maths"]
    apply(
        {"name": "20231234", "password": word, "groups": groups}, {"name": "anna", "password": word, "groups": groups}
    )
    for name in ("20231234", "anna"):
        person = HubUser(url, name)
        person.login(word)
        assert person.logged_in
        person.start(course)
    target.install("cron")
    target.sudo("echo work > /home/anna/work.txt; echo hers > /var/mail/anna; echo '@daily true' | crontab -u anna -")
    uid = target.sudo("id -u anna").stdout.strip()
    hanna = {"name": "hanna", "was": "anna", "groups": groups}
    number = {"name": "20231234", "groups": groups}
    assert list(apply(number, hanna)) == ["hanna"]
    assert target.sudo("id -u hanna; id -nG hanna; cat /home/hanna/work.txt /var/mail/hanna").stdout.split() == [
        uid,
        "hanna",
        "maths",
        "work",
        "hers",
    ]
    assert "@daily" in target.sudo("crontab -u hanna -l").stdout
    assert target.sudo("getent passwd anna", check=False).returncode
    # The old session and the old name are nobody's, and the other person's server went on.
    assert not person.logged_in
    renamed = HubUser(url, "hanna")
    renamed.login(word)
    assert renamed.logged_in
    renamed.start(course)
    renamed.stop()
    assert target.sudo(["docker", "ps", "-q", "--filter", "name=jupyter-20231234"]).stdout
    assert apply(number, hanna) == {}
