"""
People of a directory: slapd and sssd as Debian has them, on one server with the hub. What whoever writes the directory
could try is tried, and is seen to work where it is not defended.
"""

from __future__ import annotations

import secrets
import shlex

import pytest

from tests.e2e.conftest import make_account
from tests.support.hub import HubUser
from tests.support.shell import wait_for

PASSWORD, BIND = secrets.token_urlsafe(12), secrets.token_urlsafe(12)
MATHS = "students of maths"
BASE = "dc=example,dc=org"
SLAPD = f"""
set -e
export DEBIAN_FRONTEND=noninteractive
debconf-set-selections <<END
slapd slapd/domain string example.org
slapd shared/organization string example
slapd slapd/password1 password {BIND}
slapd slapd/password2 password {BIND}
END
apt-get update -qq >/dev/null && apt-get install -qq --no-install-recommends slapd ldap-utils openssl >/dev/null
echo '127.0.0.1 ldap.test' >> /etc/hosts
mkdir -p /etc/ldap/tls && cd /etc/ldap/tls
for who in good other; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9 -subj /CN=ldap.test \\
        -addext subjectAltName=DNS:ldap.test -keyout $who.key -out $who.pem 2>/dev/null
done
chown -R openldap: . && chmod 0755 . && chmod 0644 *.pem
sed -i 's,^SLAPD_SERVICES=.*,SLAPD_SERVICES="ldap:/// ldaps:/// ldapi:///",' /etc/default/slapd
ldapmodify -Q -Y EXTERNAL -H ldapi:/// >/dev/null <<END
dn: cn=config
changetype: modify
replace: olcTLSCertificateFile
olcTLSCertificateFile: /etc/ldap/tls/good.pem
-
replace: olcTLSCertificateKeyFile
olcTLSCertificateKeyFile: /etc/ldap/tls/good.key
END
systemctl restart slapd
"""


def person(name: str, uid: int, gid: int = 1234500513, home: str = "") -> str:
    return (
        f"dn: uid={name},ou=people,{BASE}\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\nuid: {name}\n"
        f"cn: {name}\nsn: {name}\nuidNumber: {uid}\ngidNumber: {gid}\nloginShell: /bin/bash\n"
        f"homeDirectory: {home or f'/nowhere/{name}'}\nuserPassword: {PASSWORD}\n\n"
    )


def group(name: str, gid: int, *members: str) -> str:
    lines = "".join(f"memberUid: {member}\n" for member in members)
    return f"dn: cn={name},ou=groups,{BASE}\nobjectClass: posixGroup\ncn: {name}\ngidNumber: {gid}\n{lines}\n"


def folder(name: str) -> str:
    return f"dn: ou={name},{BASE}\nobjectClass: organizationalUnit\nou: {name}\n\n"


@pytest.fixture(scope="module")
def slapd(target, ada):
    """A directory with people, and with what its writer could do harm with."""
    target.ssh("sudo bash", input=SLAPD)
    entries = [
        folder("people"),
        folder("groups"),
        person("fred", 1234501105),
        person("20231234", 1234501106),
        # Somebody with the uid and the home of an account of the server, and somebody with its name.
        person("mallory", ada.uid, home=ada.home),
        person(ada.name, 1234501107),
        group("domain users", 1234500513),
        group(MATHS, 1234501200, "fred"),
        group("sudo", 1234501300, "fred"),
        # The name, and the number, of groups of the server.
        group("maths", 1234501400, "fred"),
        group("numbered", ada.gid, "fred"),
    ]
    add = ["ldapadd", "-x", "-H", "ldap://localhost", "-D", f"cn=admin,{BASE}", "-w", BIND]
    target.ssh(shlex.join(add), input="".join(entries))


def directory(**keys):
    wanted = {"kind": "ldap", "domain": "example.org", "servers": ["ldaps://ldap.test"], "base": BASE}
    return {
        **wanted,
        "bind_dn": f"cn=admin,{BASE}",
        "bind_password": BIND,
        "ca": "/etc/ldap/tls/good.pem",
        **keys,
    }


@pytest.fixture(scope="module")
def joined(slapd, kept_server):
    """The server after it was joined, with a group of the directory on the page, and one that administers the hub."""
    groups = ["maths", {"name": MATHS, "external": True}]
    kept_server.with_pillar(directory=directory(), groups=groups, admins=["teacher", f"%{MATHS}"])
    return kept_server


def refused(url: str, name: str, password: str = PASSWORD) -> bool:
    someone = HubUser(url, name)
    answer = someone.login(password)
    assert "Internal" not in answer.text
    return answer.status_code == 403


def test_a_directory_that_cannot_be_trusted_changes_nothing(slapd, kept_server):
    target, site = kept_server.target, kept_server.site
    for keys, said in (
        ({"ca": "/etc/ldap/tls/other.pem"}, "its certificate is not good"),
        ({"servers": ["ldaps://ldap.test:1"]}, "Connection refused"),
        ({"ca": "/etc/none.pem"}, "there is no file /etc/none.pem"),
    ):
        kept_server.with_pillar(directory=directory(**keys))
        for arguments in ((), ("test=True",)):
            (comment,) = site.apply("directory", *arguments).failed.values()
            assert said in comment
            assert BIND not in comment
    assert target.sudo("dpkg-query -W sssd-ldap", check=False).returncode != 0
    assert "sss" not in target.sudo("cat /etc/nsswitch.conf").stdout


def test_a_server_joins_once(joined):
    target, site = joined.target, joined.site
    predicted = site.apply("directory", "test=True")
    assert predicted.predicted
    done = site.apply("directory,groups,admins,tljh")
    assert not done.failed, done.failed
    again = site.apply("directory,groups,admins,tljh")
    assert (again.failed, again.changed) == ({}, {})
    assert target.sudo("stat -c '%a %u' /etc/sssd/sssd.conf").stdout.split() == ["600", "0"]
    readable = target.ssh(f"grep -rls -- {shlex.quote(BIND)} /etc /var/log /run /tmp 2>/dev/null", check=False)
    assert readable.stdout == ""
    assert target.ssh("getent passwd fred").stdout.split(":")[2] == "1234501105"
    assert site.salt("plasma_directory.health").value["problem"] is None


def test_people_of_the_directory_work_as_others_do(joined, url, course):
    target = joined.target
    for name, uid in (("fred", 1234501105), ("20231234", 1234501106)):
        someone = HubUser(url, name)
        someone.login(PASSWORD)
        assert someone.logged_in
        assert target.sudo(["stat", "-c", "%u %g %a", f"/home/{name}"]).stdout.split() == [
            str(uid),
            "1234500513",
            "700",
        ]
    assert refused(url, "fred", "wrong")
    fred = HubUser(url, "fred")
    fred.login(PASSWORD)
    # A member of the group that administers the hub; the other is not.
    assert fred.api("GET", "/user").json()["admin"] is True
    other = HubUser(url, "20231234")
    other.login(PASSWORD)
    assert other.api("GET", "/user").json()["admin"] is False
    fred.start(course)
    container = target.sudo("docker ps -q --filter name=jupyter-fred").stdout.split()[0]
    assert target.sudo(["docker", "exec", container, "id", "-u"]).stdout.strip() == "1234501105"
    assert MATHS in target.sudo(["docker", "exec", container, "id", "-Gn"]).stdout
    fred.stop()


def test_whoever_writes_the_directory_becomes_nobody_else(joined, url, ada):
    target = joined.target
    # The uid and home of an account of this server.
    assert refused(url, "mallory")
    # Its name, with a password of the directory; its own goes on.
    assert refused(url, ada.name)
    someone = HubUser(url, ada.name)
    someone.login(ada.password)
    assert someone.logged_in
    # Without the module of PAM the directory's password opens that account.
    target.sudo("pam-auth-update --package --remove plasma-local")
    assert not refused(url, ada.name)
    # A group called sudo: with the names filtered it is none.
    assert "not allowed to run sudo" in target.sudo("sudo -l -U fred", check=False).stdout
    target.sudo("sed -i.bak '/^filter_groups/d' /etc/sssd/sssd.conf && rm -f /var/lib/sss/db/*.ldb")
    target.sudo("systemctl restart sssd")
    wait_for(
        lambda: "(ALL" in target.sudo("sudo -l -U fred", check=False).stdout, timeout=60, what="a root of the directory"
    )
    # The next apply puts both back.
    changed = joined.site.apply("directory")
    assert not changed.failed
    target.sudo("rm -f /var/lib/sss/db/*.ldb && systemctl restart sssd")
    wait_for(
        lambda: refused(url, ada.name), timeout=60, what="the directory's password for a local account to be refused"
    )
    assert "not allowed to run sudo" in target.sudo("sudo -l -U fred", check=False).stdout


def test_names_and_numbers_of_groups_of_this_server_are_not_given_away(joined, url, plain, course):
    target = joined.target
    make_account(target, "linus", "--groups", "maths")
    fred = HubUser(url, "fred")
    fred.login(PASSWORD)
    script = (
        "from tljh_plasma.accounts import group_names; "
        "print(sorted(group_names('fred')), 'maths' in group_names('linus'))"
    )
    found = target.sudo(["/opt/tljh/hub/bin/python3", "-c", script]).stdout
    assert found.strip() == f"['domain users', '{MATHS}'] True"


def test_a_group_that_nobody_knows_is_one_sentence(joined):
    joined.with_pillar(directory=directory(), groups=[{"name": "students of mahts", "external": True}])
    (comment,) = joined.site.apply("groups").failed.values()
    assert comment.startswith("The group 'students of mahts' of pillar is not known to this server")
    assert "\n" not in comment


def test_the_directory_goes_with_what_came_with_it_and_homes_stay(joined, url):
    target, site = joined.target, joined.site
    joined.with_pillar()
    assert site.apply("directory.disabled", "test=True").predicted
    done = site.apply("directory.disabled")
    assert not done.failed, done.failed
    again = site.apply("directory.disabled")
    assert (again.failed, again.changed) == ({}, {})
    assert target.ssh("getent passwd fred", check=False).returncode != 0
    assert "sss" not in target.sudo("cat /etc/nsswitch.conf /etc/pam.d/common-auth").stdout
    assert "pam_localuser" not in target.sudo("cat /etc/pam.d/common-auth").stdout
    assert target.sudo("dpkg-query -W sssd-common", check=False).returncode != 0
    assert target.sudo("stat -c %u /home/fred").stdout.strip() == "1234501105"
    assert refused(url, "fred")
