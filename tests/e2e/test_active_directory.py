"""
People of an Active Directory. Its controller is Samba as Debian has it, with a DNS of its own, on a second server; the
hub's server joins the domain, and logins, groups and passwords are those of the domain.
"""

from __future__ import annotations

import re
import secrets
import shlex
import subprocess

import pytest

from tests.e2e.conftest import bare_server
from tests.support.hub import HubUser
from tests.support.shell import SupportError, wait_for

DOMAIN = "corp.example"
# Rules of the domain: capitals, digits, and nothing of one's name.
PASSWORD, NEW, JOIN = (f"Aa1-{secrets.token_urlsafe(12)}" for _ in range(3))
TEACHERS, STUDENTS, STAFF = "Maths Teachers", "Students of Maths", "Other Staff"
PACKAGES = "samba samba-ad-provision samba-dsdb-modules samba-vfs-modules winbind"
SAMBA = f"""
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null && apt-get install -qq --no-install-recommends {PACKAGES} >/dev/null
systemctl disable --quiet --now smbd nmbd winbind 2>/dev/null
rm -f /etc/samba/smb.conf
samba-tool domain provision --quiet --realm={DOMAIN.upper()} --domain=CORP --server-role=dc \\
    --dns-backend=SAMBA_INTERNAL --adminpass='{JOIN}' \\
    --option="dns forwarder=$(awk '/^nameserver/ {{print $2; exit}}' /etc/resolv.conf)" 2>/dev/null
systemctl unmask --quiet samba-ad-dc && systemctl start samba-ad-dc
"""
PEOPLE = f"""
set -e
for name in fred 20231234 Anna.Smith 'frank blank' outsider gone must; do
    samba-tool user create "$name" '{PASSWORD}'
done
for name in '{TEACHERS}' '{STUDENTS}' '{STAFF}' DOCKER; do samba-tool group add "$name"; done
samba-tool group addmembers '{TEACHERS}' Anna.Smith
samba-tool group addmembers '{STUDENTS}' fred,20231234
samba-tool group addmembers '{STAFF}' 'frank blank,must,gone'
samba-tool group addmembers DOCKER fred
samba-tool user disable gone
samba-tool user setpassword must --newpassword='{PASSWORD}' --must-change-at-next-login
"""
# Looks at all processes until it is stopped; says which adcli it saw, and where the password was.
WATCH = """
import os, sys
secret, saw, leaks = sys.stdin.readline().strip().encode(), set(), set()
print("ready", flush=True)
while not os.path.exists("/tmp/watched"):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for what in ("cmdline", "environ"):
            try:
                text = open(f"/proc/{pid}/{what}", "rb").read()
            except OSError:
                continue
            if text.startswith(b"adcli\\0"):
                saw.add(text.split(b"\\0")[1].decode())
            if secret in text:
                leaks.add((what, text[:60]))
print(sorted(saw), sorted(leaks))
"""


@pytest.fixture(scope="module")
def controller(target):
    """The domain, with people, which the hub's server asks for all names."""
    with bare_server("e2e-domain") as server:
        server.ssh("sudo bash", input=SAMBA, timeout=300)
        asked = ["samba-tool", "user", "list"]
        wait_for(lambda: server.sudo(asked, check=False).returncode == 0, timeout=60, what="the domain")
        server.ssh("sudo bash", input=PEOPLE)
        # The only one: beside another that does not know the domain, one slow answer is taken for none.
        target.sudo(f"echo nameserver {server.host} > /etc/resolv.conf")
        found = ["getent", "hosts", f"e2e-domain.{DOMAIN}"]
        wait_for(lambda: target.ssh(found, check=False).returncode == 0, timeout=60, what="the name of the controller")
        yield server


def directory(**keys):
    joining = {"join_account": "Administrator", "join_password": JOIN}
    return {"kind": "ad", "domain": DOMAIN, **joining, **keys}


def with_domain(server, image, **keys):
    """The pillar of a joined server: three groups log in, one administers the hub, one may start an environment."""
    environments = [{"name": "ready", "image": image, "groups": [STUDENTS]}]
    asked = directory(groups=[TEACHERS, STUDENTS, STAFF], **keys)
    server.with_pillar(directory=asked, admins=["teacher", f"%{TEACHERS}"], environments=environments)


def state_of(target):
    """What a join changes on a server."""
    files = "/etc/nsswitch.conf /etc/pam.d/common-* /etc/krb5.keytab /etc/sssd/sssd.conf /var/lib/plasma/directory.json"
    packages = "dpkg-query --show --showformat='${Package} ${db:Status-Abbrev}\\n'"
    return target.sudo(f"md5sum {files} 2>/dev/null; {packages}").stdout


def computers(controller):
    return set(controller.sudo("samba-tool computer list").stdout.split())


def login(url, written, password=PASSWORD):
    """Somebody's session and page; whose it is, when they are in."""
    someone = HubUser(url, written)
    page = someone.login(password)
    answer = someone.api("GET", "/user", check=False)
    return someone, page, answer.json() if answer.status_code == 200 else None


def test_a_join_that_the_domain_refuses_leaves_nothing(controller, kept_server):
    target, site = kept_server.target, kept_server.site
    before = state_of(target)
    kept_server.with_pillar(directory=directory(join_password=f"{JOIN}x"))
    (comment,) = site.apply("directory").failed.values()
    assert "join_password is not the password of Administrator. What came with it was taken away again" in comment
    assert JOIN not in comment and "\n" not in comment
    assert state_of(target) == before
    assert computers(controller) == {"E2E-DOMAIN$"}


def test_a_server_joins_once_and_the_password_is_nowhere(controller, kept_server, course):
    target, site = kept_server.target, kept_server.site
    before = state_of(target)
    with_domain(kept_server, course)
    predicted = site.apply("directory", "test=True")
    assert predicted.predicted and state_of(target) == before
    command = [*target.ssh_command(), "--", shlex.join(["sudo", "python3", "-c", WATCH])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as watch:
        watch.stdin.write(f"{JOIN}\n")
        watch.stdin.flush()
        assert watch.stdout.readline() == "ready\n"
        try:
            done = site.apply("directory,groups,admins,tljh,environments")
        finally:
            target.sudo("touch /tmp/watched")
        seen = watch.stdout.read().strip()
    assert not done.failed, done.failed
    assert done.changed.keys() >= predicted.predicted
    assert seen == "['join', 'show-computer'] []"
    places = ["/etc", "/root", "/run", "/tmp", "/var/lib/plasma", "/var/lib/sss", "/var/log", "/var/tmp"]
    kept = target.sudo(["grep", "-rlsF", "-f", "-", *places], input=f"{JOIN}\n", check=False)
    assert kept.stdout == ""
    # A name of 15 characters.
    assert computers(controller) == {"E2E-DOMAIN$", "E2E-ACTIVE-DIRE$"}
    again = site.apply("directory,groups,admins,tljh,environments")
    assert (again.failed, again.changed) == ({}, {})
    assert site.salt("plasma_directory.health").value == {"domain": DOMAIN, "online": True, "problem": None}
    # As another computer, here the controller, which would be out of its own domain by that.
    target.sudo("mv /etc/krb5.keytab /root/")
    with_domain(kept_server, course, join_computer="e2e-domain")
    (comment,) = site.apply("directory").failed.values()
    assert f"account E2E-DOMAIN$ of {DOMAIN} belongs to e2e-domain.{DOMAIN}" in comment
    assert comment.endswith("sssd goes on with what it had before.")
    target.sudo("mv /root/krb5.keytab /etc/")


def test_one_person_has_one_account_at_the_hub_however_the_name_is_written(controller, kept_server, url):
    target = kept_server.target
    spellings = ("fred", "Fred", f"fred@{DOMAIN}", f"FRED@{DOMAIN.upper()}", "CORP\\fred", "corp\\Fred")
    for written in spellings:
        assert login(url, written)[2]["name"] == "fred", written
    for written, name in (("20231234", "20231234"), ("frank blank", "frank blank"), ("Anna.Smith", "anna.smith")):
        assert login(url, written)[2]["name"] == name
        uid, mode = target.sudo(["stat", "-c", "%u %a", f"/home/{name}"]).stdout.split()
        assert uid == target.ssh(["id", "-u", name]).stdout.strip() and int(uid) > 200000 and mode == "700"
    homes = target.sudo("ls /home").stdout.splitlines()
    assert {"fred", "Fred", "FRED"} & set(homes) == {"fred"}
    for written, password in (("fred", "wrong"), ("gone", PASSWORD), ("nobody.at.all", PASSWORD)):
        _, page, somebody = login(url, written, password)
        assert (page.status_code, somebody) == (403, None)
        assert "Invalid username or password" in page.text
    _, page, somebody = login(url, "outsider")
    assert somebody is None and "the rules of this server do not let you in" in page.text
    # The domain's group is not the one of the engine, whatever its capitals.
    assert "docker" not in target.ssh("id -Gn fred", check=False).stdout.lower().split()


def test_groups_count_as_the_domain_writes_them(kept_server, url):
    """With blanks and capitals, which sssd does not keep."""
    target = kept_server.target
    assert target.ssh(["getent", "group", TEACHERS]).stdout.startswith(f"{TEACHERS.lower()}:")
    assert login(url, "Anna.Smith")[2]["admin"] is True
    fred, _, somebody = login(url, "fred")
    assert somebody["admin"] is False
    fred.start("ready:2026")
    container = target.sudo("docker ps -q --filter name=jupyter-fred").stdout.split()[0]
    inside = target.sudo(["docker", "exec", container, "id"]).stdout
    assert target.ssh("id -u fred").stdout.strip() in inside and STUDENTS.lower() in inside
    fred.stop()
    with pytest.raises(SupportError, match="403"):
        login(url, "frank blank")[0].start("ready:2026")


def test_a_password_that_the_domain_wants_changed_is_changed_at_the_login(kept_server, url):
    must, page, somebody = login(url, "must")
    assert somebody is None and "Your password has to be changed" in page.text
    for new, status, said in (("short", 400, "shorter than"), (NEW, 200, "Choose an environment")):
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
        values = {**hidden, "new_password": new, "new_password_again": new}
        page = must.session.post(f"{url}/hub/login", data=values, timeout=90)
        assert page.status_code == status and said in page.text, page.text
    assert login(url, "must", NEW)[2]["name"] == "must"
    assert login(url, "must")[2] is None
    # The domain wants a day between two changes, and the person reads that.
    page = must.session.get(f"{url}/hub/password", timeout=30)
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
    values = {**hidden, "password": NEW, "new_password": PASSWORD, "new_password_again": PASSWORD}
    page = must.session.post(f"{url}/hub/password", data=values, timeout=90)
    assert page.status_code == 400 and "The server says: Password change rejected" in page.text


def test_the_domain_is_left_and_homes_stay(controller, kept_server, url):
    target, site = kept_server.target, kept_server.site
    kept_server.with_pillar()
    assert site.apply("directory.disabled", "test=True").predicted
    done = site.apply("directory.disabled")
    assert not done.failed, done.failed
    assert site.apply("directory.disabled").changed == {}
    assert target.ssh("getent passwd fred", check=False).returncode != 0
    assert "sss" not in target.sudo("cat /etc/nsswitch.conf /etc/pam.d/common-auth").stdout
    gone = "test ! -e /etc/krb5.keytab -a ! -e /etc/sssd/sssd.conf -a ! -e /var/lib/plasma/directory.json"
    target.sudo(gone)
    assert target.sudo("dpkg-query -W sssd-common adcli", check=False).returncode != 0
    assert target.sudo("test -d /home/fred && ls /var/backups/plasma/directory").stdout.startswith("krb5.keytab.")
    assert login(url, "fred")[2] is None
    # As the documentation says.
    assert "E2E-ACTIVE-DIRE$" in computers(controller)
