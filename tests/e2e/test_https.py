"""HTTPS with certificates of a real authority and with pairs of files: switched on, renewed, refused, taken back."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.request

import pytest

from tests.e2e.conftest import make_account
from tests.support.acme import DIRECTORY, URL, Authority, make_certificate
from tests.support.hub import HubUser
from tests.support.shell import wait_for

NAMES = ["hub.example.org", "www.example.org"]
CONFIG = "/opt/tljh/config/config.yaml"
SHORT = "/opt/tljh/config/traefik_config.d/renew-early.toml"
ENABLED = "https-enabled|https-enabled"
RENEWED = "https-renewed|https-renewed"


@pytest.fixture(scope="module")
def authority(kept_server, tmp_path_factory):
    found = Authority(kept_server.target, tmp_path_factory.mktemp("acme"), NAMES)
    # An account of a run before would be unknown to this authority, which is new each time.
    kept_server.target.sudo("truncate -s 0 /opt/tljh/state/acme.json")
    found.start()
    yield found
    found.stop()
    found.point([])


@pytest.fixture(scope="module", autouse=True)
def plain_afterwards(kept_server):
    yield
    kept_server.with_pillar()
    assert kept_server.site.apply("https.disabled").failed == {}


@pytest.fixture(scope="module")
def pairs(kept_server, tmp_path_factory):
    """Pairs of files on the server: good, of another key, expired, for another name."""
    directory = tmp_path_factory.mktemp("pairs")
    make_certificate(directory, "good", domains=NAMES)
    make_certificate(directory, "next", domains=NAMES)
    make_certificate(directory, "old", domains=NAMES, days="-1")
    make_certificate(directory, "stranger", domains=["other.example.org"])
    make_certificate(directory, "ca-unknown")
    make_certificate(directory, "signed", domains=NAMES, authority="ca-unknown")
    kept_server.target.sudo(f"install -d -o {kept_server.target.user} /srv/pairs /srv/pairs/in")
    for file in directory.glob("*.*"):
        kept_server.target.copy_to(file, "/srv/pairs/in/")
    kept_server.target.sudo(
        "rm -rf /etc/ssl/plasma; cp -r /srv/pairs/in /etc/ssl/plasma; chown -R root: /etc/ssl/plasma"
    )
    return directory


def shown(server, name=NAMES[0], root=None):
    """The certificate that browsers would see: verified against a root, or as it is."""
    context = ssl.create_default_context(cadata=root) if root else ssl._create_unverified_context()
    with (
        socket.create_connection((server.target.host, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        return secured.getpeercert(binary_form=True)


def with_pair(server, name, key=None, **more):
    server.target.sudo(f"rm -f {SHORT}")
    tls = {"key": f"/etc/ssl/plasma/{key or name}.key", "cert": f"/etc/ssl/plasma/{name}.pem"}
    server.with_pillar(https={"domains": NAMES, "tls": tls, **more})


def with_acme(server, **more):
    wanted = {
        "domains": NAMES,
        "letsencrypt_email": "admin@example.org",
        "acme_server": URL,
        "acme_ca": f"{DIRECTORY}/ca-of-acme.pem",
        "timeout": 90,
        **more,
    }
    # A certificate of less than a day is renewed when 20 minutes are left: these are, as soon as the proxy looks. The
    # authority stands here, too: TLJH takes a section from the last file that has it, and from no other.
    server.target.ssh(
        f"sudo install -d -m 700 /opt/tljh/config/traefik_config.d; sudo tee {SHORT} >/dev/null",
        input="[certificatesResolvers.letsencrypt.acme]\ncertificatesDuration = 1\n"
        f"caServer = {json.dumps(wanted['acme_server'])}\ncaCertificates = [{json.dumps(wanted['acme_ca'])}]\n",
    )
    server.with_pillar(https=wanted)


def plain_answers(server):
    with urllib.request.urlopen(f"http://{server.target.host}/hub/login", timeout=10) as answer:
        return answer.status == 200 and answer.url.startswith("http://")


def test_pillar_without_https_does_nothing(kept):
    result = kept.site.apply("https")
    assert result.failed == {}
    assert result.changed == {}


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("good", "next", "it is not the key of the certificate"),
        ("old", None, "it has expired on"),
        ("stranger", None, "it is for other.example.org, and not for hub.example.org, www.example.org"),
        ("signed", None, "its chain is not complete"),
        ("good", "missing", "there is no such file"),
    ],
)
def test_a_pair_that_cannot_work_is_refused(kept, pairs, cert, key, said):
    before = kept.target.sudo(f"cat {CONFIG}").stdout
    with_pair(kept, cert, key)
    for arguments in (("test=True",), ()):
        result = kept.site.apply("https", *arguments)
        assert result.failed[ENABLED].startswith("Nothing was changed.")
        assert "plasma.https.tls." in result.failed[ENABLED]
        assert said in result.failed[ENABLED]
    assert result.returncode != 0
    assert kept.target.sudo(f"cat {CONFIG}").stdout == before
    assert plain_answers(kept)


def test_a_port_that_is_taken_is_named(kept, pairs):
    kept.target.sudo("systemd-run --unit squats python3 -m http.server 443")
    wait_for(lambda: "443" in kept.target.ssh("ss -ltn").stdout, timeout=20, what="port 443")
    with_pair(kept, "good")
    try:
        result = kept.site.apply("https")
    finally:
        kept.target.sudo("systemctl stop squats")
    assert "port 443 is taken by python3" in "".join(result.failed.values())
    assert result.changed == {}
    assert plain_answers(kept)


def test_a_pair_of_the_server(kept, pairs):
    with_pair(kept, "good")
    predicted = kept.site.apply("https", "test=True")
    result = kept.site.apply("https")
    assert result.failed == {}
    assert predicted.predicted == set(result.changed) == {ENABLED, RENEWED}
    assert predicted.changed == result.changed
    assert ssl.DER_cert_to_PEM_cert(shown(kept)) in (pairs / "good.pem").read_text(encoding="utf-8")
    with urllib.request.urlopen(
        f"http://{kept.target.host}/hub/login", timeout=10, context=ssl._create_unverified_context()
    ) as answer:
        assert answer.status == 200
        assert answer.url.startswith("https://")
    assert kept.site.apply("https").changed == {}
    assert kept.site.apply("tljh").changed == {}


def test_a_pair_that_was_renewed_is_taken_over(kept, pairs):
    with_pair(kept, "good")
    kept.site.apply("https")
    kept.target.sudo("cp /etc/ssl/plasma/good.pem /root/good.pem; cp /etc/ssl/plasma/good.key /root/good.key")
    kept.target.sudo("cd /etc/ssl/plasma; cp next.pem good.pem; cp next.key good.key")
    problem = kept.site.salt("plasma_https.health").value["problem"]
    assert "still shows the certificate that was in /etc/ssl/plasma/good.pem before" in problem
    try:
        started = kept.target.ssh("systemctl show -P ExecMainStartTimestampMonotonic traefik").stdout
        assert kept.target.ssh("systemctl is-active plasma-certificate.timer").stdout.strip() == "active"
        # A certificate without its key, as in the middle of a copy: the proxy goes on with the old pair.
        kept.target.sudo("cp /root/good.key /etc/ssl/plasma/good.key")
        assert kept.target.sudo("systemctl start plasma-certificate", check=False).returncode != 0
        assert ssl.DER_cert_to_PEM_cert(shown(kept)) in (pairs / "good.pem").read_text(encoding="utf-8")
        kept.target.sudo("cp /etc/ssl/plasma/next.key /etc/ssl/plasma/good.key")
        # What the timer does, without the controller and without a restart.
        kept.target.sudo("systemctl start plasma-certificate")
        assert ssl.DER_cert_to_PEM_cert(shown(kept)) in (pairs / "next.pem").read_text(encoding="utf-8")
        assert kept.target.ssh("systemctl show -P ExecMainStartTimestampMonotonic traefik").stdout == started
        assert kept.site.apply("https").changed == {}
        # An apply does it as well.
        kept.target.sudo("cp /root/good.pem /root/good.key /etc/ssl/plasma/")
        assert set(kept.site.apply("https").changed) == {ENABLED}
        kept.target.sudo("cd /etc/ssl/plasma; cp next.pem good.pem; cp next.key good.key")
        assert set(kept.site.apply("https").changed) == {ENABLED}
        assert ssl.DER_cert_to_PEM_cert(shown(kept)) in (pairs / "next.pem").read_text(encoding="utf-8")
        health = kept.site.salt("plasma_https.health").value
        assert health["problem"] is None
        assert 29 < health["days_left"] <= 30
        assert (health["kind"], health["domains"]) == ("files", NAMES)
    finally:
        kept.target.sudo("cp /root/good.pem /root/good.key /etc/ssl/plasma/")


def test_a_certificate_of_an_authority(kept, authority):
    with_acme(kept)
    predicted = kept.site.apply("https", "test=True")
    assert predicted.failed == {}
    result = kept.site.apply("https")
    assert result.failed == {}
    assert predicted.changed == result.changed
    root = authority.root()
    for name in NAMES:
        shown(kept, name, root)  # raises when it does not lead to the root, or is for another name
    assert kept.site.apply("https").changed == {}
    health = kept.site.salt("plasma_https.health").value
    assert (health["kind"], health["domains"]) == ("acme", NAMES)
    assert "Pebble" in health["issuer"]


def test_it_is_renewed(kept, authority):
    root = authority.root()
    before = shown(kept, root=root)
    wait_for(lambda: shown(kept, root=root) != before, timeout=180, what="the next certificate", interval=5)


def test_people_log_in(kept, authority):
    with_acme(kept)
    assert kept.site.apply("https").failed == {}
    kept.target.sudo("userdel -r https-ada", check=False)
    ada = make_account(kept.target, "https-ada")
    person = HubUser(f"https://{kept.target.host}", ada.name)
    person.session.verify = person.session.trust_env = False  # the certificate is for the name, not the address
    person.login(ada.password)
    assert person.logged_in
    kept.target.sudo("userdel -r https-ada", check=False)


def test_an_authority_that_cannot_be_reached(kept, authority, pairs):
    """From a pair that works to an authority that does not answer, and back."""
    with_pair(kept, "good")
    assert kept.site.apply("https").failed == {}
    before = kept.target.sudo(f"cat {CONFIG}").stdout
    authority.stop()
    # With the account that it has, the proxy would go on with the certificate that it has.
    kept.target.sudo("truncate -s 0 /opt/tljh/state/acme.json")
    with_acme(kept, timeout=15)
    try:
        result = kept.site.apply("https")
    finally:
        kept.target.sudo(f"rm -f {SHORT}")
        authority.start()
    comment = result.failed[ENABLED]
    assert "No certificate came within 15 seconds" in comment
    assert "connection refused" in comment
    assert "The configuration of before was restored, and the hub is back." in comment
    assert kept.target.sudo(f"cat {CONFIG}").stdout == before
    assert ssl.DER_cert_to_PEM_cert(shown(kept)) in (pairs / "good.pem").read_text(encoding="utf-8")


def test_a_name_that_leads_elsewhere(kept, authority):
    authority.point(NAMES, "192.0.2.1")
    with_acme(kept)
    try:
        result = kept.site.apply("https")
    finally:
        kept.target.sudo(f"rm -f {SHORT}")
        authority.point(NAMES)
    assert "hub.example.org leads to 192.0.2.1, where port 443 is not this server's" in result.failed[ENABLED]


def test_a_pair_of_the_repository(kept, pairs, tmp_path):
    """A key on the controller: on the server it is root's alone, wherever a copy of it is."""
    kept.site.add_files({"tls/hub.key": pairs / "next.key", "tls/hub.pem": pairs / "next.pem"})
    kept.with_pillar(https={"domains": NAMES, "tls": {"key": "salt://tls/hub.key", "cert": "salt://tls/hub.pem"}})
    predicted = kept.site.apply("https", "test=True")
    result = kept.site.apply("https")
    assert result.failed == {}
    assert predicted.changed == result.changed
    assert "PRIVATE KEY" not in result.stdout
    assert ssl.DER_cert_to_PEM_cert(shown(kept)) in (pairs / "next.pem").read_text(encoding="utf-8")
    assert kept.site.apply("https").changed == {}
    word = (pairs / "next.key").read_text(encoding="utf-8").splitlines()[5]
    kept.target.sudo("rm -rf /srv/pairs /etc/ssl/plasma/next.key")
    copies = kept.target.ssh(
        "sudo grep -rlF -f - /opt /var /tmp /etc /run 2>/dev/null | xargs -r sudo stat -c '%a %n'", input=word
    ).stdout.splitlines()
    assert copies
    assert [line for line in copies if not line.startswith("600 ")] == []


def test_switched_off(kept):
    kept.with_pillar()
    predicted = kept.site.apply("https.disabled", "test=True")
    result = kept.site.apply("https.disabled")
    assert (
        predicted.changed
        == result.changed
        == {"https-disabled|https-disabled": {"https.enabled": {"old": True, "new": False}}}
    )
    assert plain_answers(kept)
    assert kept.site.apply("https.disabled").changed == {}
    assert kept.site.salt("plasma_https.health").value["enabled"] is False
