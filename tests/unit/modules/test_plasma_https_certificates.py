"""The execution module plasma_https_certificates, with real keys and certificates of openssl."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest
from salt.exceptions import CommandExecutionError

import plasma_https_certificates as certificates
from tests.support.acme import make_certificate

NAMES = ["hub.example.org", "www.example.org"]


@pytest.fixture
def configure_loader_modules():
    return {certificates: {}}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pairs")
    for name in ("good", "other"):
        make_certificate(directory, name, domains=NAMES)
    make_certificate(directory, "old", domains=NAMES, days="-1")
    make_certificate(directory, "ca-own")
    make_certificate(directory, "ca-strange")
    make_certificate(directory, "signed", domains=NAMES, authority="ca-own")
    return directory


def text(pairs, *names):
    return "".join((pairs / f"{name}.pem").read_text(encoding="utf-8") for name in names)


def problem(pairs, cert, key=None, domains=NAMES):
    return certificates.pair_problem(str(pairs / f"{key or cert}.key"), str(pairs / f"{cert}.pem"), domains)


def test_what_a_certificate_says(pairs):
    found = certificates.describe(text(pairs, "signed", "ca-own"))
    assert (found["subject"], found["issuer"], found["domains"]) == ("CN=signed", "CN=ca-own", NAMES)
    assert 29 < found["days_left"] <= 30
    assert found["not_before"] < found["not_after"]
    assert found["not_after"].endswith("+00:00")
    assert len(found["fingerprint"]) == len(found["public_key"]) == 64


@pytest.mark.parametrize(
    ("content", "said"),
    [("no certificate", "there is no certificate in PEM format"), ("BROKEN", "openssl cannot read it")],
)
def test_what_is_no_certificate_is_said(content, said):
    if content == "BROKEN":
        content = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n"
    with pytest.raises(CommandExecutionError, match=said):
        certificates.describe(content)


def test_a_good_pair_has_no_problem(pairs):
    assert problem(pairs, "good") is None


@pytest.mark.parametrize(
    ("cert", "key", "domains", "said"),
    [
        ("good", "other", NAMES, "it is not the key of the certificate in"),
        ("old", None, NAMES, "it has expired on"),
        (
            "good",
            None,
            ["away.example.org"],
            "it is for hub.example.org, www.example.org, and not for away.example.org",
        ),
        ("signed", None, NAMES, "its chain is not complete: browsers do not know CN=ca-own"),
    ],
)
def test_a_pair_that_cannot_serve(pairs, cert, key, domains, said):
    assert said in problem(pairs, cert, key, domains)


def test_a_chain_up_to_its_root_is_complete(pairs, tmp_path):
    chain = tmp_path / "chain.pem"
    chain.write_text(text(pairs, "signed", "ca-own"), encoding="utf-8")
    assert certificates.pair_problem(str(pairs / "signed.key"), str(chain), NAMES) is None


def test_a_chain_of_another_authority_is_out_of_order(pairs, tmp_path):
    chain = tmp_path / "chain.pem"
    chain.write_text(text(pairs, "signed", "ca-strange"), encoding="utf-8")
    found = certificates.pair_problem(str(pairs / "signed.key"), str(chain), NAMES)
    assert "after the certificate of CN=signed comes that of CN=ca-strange, which did not sign it" in found


def test_a_key_that_is_none(pairs, tmp_path):
    (tmp_path / "hub.key").write_text("nothing\n", encoding="utf-8")
    found = certificates.pair_problem(
        str(tmp_path / "hub.key"), str(pairs / "good.pem"), key_name="plasma.https.tls.key"
    )
    assert found.startswith("plasma.https.tls.key: it is no private key in PEM format, or it has a passphrase")


@pytest.mark.parametrize(
    ("names", "domain", "good"),
    [
        (["hub.example.org"], "HUB.example.org", True),
        (["*.example.org"], "hub.example.org", True),
        (["*.example.org"], "a.hub.example.org", False),
        (["*.example.org"], "example.org", False),
        (["hub.example.org"], "www.example.org", False),
        ([], "localhost", False),
    ],
)
def test_which_names_a_certificate_is_good_for(names, domain, good):
    assert bool(certificates.covers(names, domain)) is good


def test_a_file_below_a_home_is_hidden_from_the_proxy():
    assert "the proxy sees no files below /home" in certificates.readable_problem("/root/hub.key")


def test_a_file_that_is_missing_or_none(tmp_path):
    assert "there is no such file" in certificates.readable_problem(str(tmp_path / "missing"))
    assert certificates.readable_problem(str(tmp_path)) == "it is no file"


def test_a_file_of_which_root_has_no_right_to_read(tmp_path):
    """Root of the proxy's unit cannot pass over permissions."""
    file = tmp_path / "hub.key"
    file.write_text("x", encoding="utf-8")
    file.chmod(0o000)
    assert f"the proxy may not read {file}" in certificates.readable_problem(str(file))


@contextlib.contextmanager
def serving(pairs, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pairs / f"{name}.pem", pairs / f"{name}.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    with contextlib.suppress(ssl.SSLError), context.wrap_socket(listener.accept()[0], server_side=True):
                        pass

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]


def test_what_a_server_shows(pairs):
    with serving(pairs, "old") as port:
        shown = certificates.served(NAMES[0], port=port)
    assert shown == {**certificates.describe(text(pairs, "old")), "days_left": shown["days_left"]}


def test_a_server_without_tls_shows_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert certificates.served(NAMES[0], port=port) == {}


@pytest.mark.parametrize(("subject", "stand_in"), [("CN=TRAEFIK DEFAULT CERT", True), ("CN=hub.example.org", False)])
def test_traefiks_own_certificate_is_a_stand_in(subject, stand_in):
    assert certificates.is_stand_in({"subject": subject}) is stand_in
