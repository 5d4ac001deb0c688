"""Where the proxy listens and what is in front of it, authorities, and the builds' proxy."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.render.pillars import AUTHORITY
from tests.support.acme import make_certificate
from tests.unit.pillar.conftest import MARKER


def test_without_keys_what_was_set_by_hand_stays(complete):
    plasma = complete({})
    assert plasma["http"] == {"address": None, "port": None, "behind": []}
    for key in ("http", "base_url"):
        assert key not in plasma["hub_config"]


def test_what_is_given_goes_to_the_hub(complete):
    given = {"http": {"address": "127.0.0.1", "port": 81, "behind": ["127.0.0.1"]}, "hub": {"base_url": "/jupyter/"}}
    config = complete(given)["hub_config"]
    assert config["http"] == {"address": "127.0.0.1", "port": 81}
    assert config["base_url"] == "/jupyter/"
    assert config["plasma"]["behind"] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("plasma", "said"),
    [
        (
            {"http": {"port": 302}},
            "plasma.http.port: 302 is a port of the hub's own inside the server. Allowed: a port",
        ),
        ({"http": {"port": 0}}, "plasma.http.port: 0 is too small"),
        ({"http": {"port": 65536}}, "plasma.http.port: 65536 is too large"),
        ({"http": {"port": "81"}}, 'plasma.http.port: "81" '),
        ({"http": {"address": "localhost"}}, 'plasma.http.address: "localhost" is no IPv4 address'),
        ({"http": {"behind": ["0.0.0.0/0"]}}, 'plasma.http.behind[0]: "0.0.0.0/0" is so large that clients would be'),
        ({"http": {"behind": ["nginx"]}}, 'plasma.http.behind[0]: "nginx" is no IP address and no network'),
        ({"hub": {"base_url": "jupyter"}}, 'plasma.hub.base_url: "jupyter" is not such a path'),
        ({"hub": {"base_url": "/jupyter"}}, 'plasma.hub.base_url: "/jupyter" is not such a path'),
        ({"hub": {"base_url": "/a/../"}}, 'plasma.hub.base_url: "/a/../" is not such a path'),
        ({"hub": {"base_url": "//evil/"}}, 'plasma.hub.base_url: "//evil/" is not such a path'),
        (
            {"http": {"port": 443}, "https": {"tls": {"key": "/etc/k", "cert": "/etc/c"}}},
            "plasma.https.port is plasma.http.port, too: each needs one of its own",
        ),
        ({"builder": {"no_proxy": "a b"}}, 'plasma.builder.no_proxy: "a b" is not such a list'),
    ],
)
def test_what_is_wrong_is_said(problem, plasma, said):
    assert said in problem(plasma)


@pytest.mark.parametrize("url", [f"ftp://a:{MARKER}@proxy.example.org", f"http://a:{MARKER} x@proxy"])
def test_no_login_of_a_proxy_is_repeated(problem, url):
    line = problem({"builder": {"https_proxy": url}})
    assert line.startswith("plasma.builder.https_proxy")


def test_builds_reach_their_proxy(complete):
    plasma = complete(
        {"builder": {"http_proxy": "http://10.1.2.3:3128", "https_proxy": f"http://u:{MARKER}@p.example.org"}}
    )
    assert plasma["network"]["builds"] == ["10.1.2.3:3128", "p.example.org:80"]
    # What states get as arguments.
    assert MARKER not in json.dumps(plasma["hub_config"])


@pytest.fixture
def files(tmp_path, site):
    """Files beside the pillar files of a copy of the repository."""
    key, cert = make_certificate(tmp_path, "ca-one")
    der = subprocess.run(["openssl", "x509", "-in", cert, "-outform", "DER"], check=True, capture_output=True).stdout
    made = {"one.pem": cert.read_bytes(), "one.cer": der, "both.pem": key.read_bytes() + cert.read_bytes()}
    made |= {"bundle.crt": b"# ours\n" + cert.read_bytes() + b"\n" + AUTHORITY.encode(), "empty.pem": b""}
    made |= {"half.pem": cert.read_bytes()[:300], "binary.cer": b"0\x82garbage", "large.pem": b"x" * 300_000}
    for name, content in made.items():
        (site.pillar / name).write_bytes(content)
    return site


def compiled(site, entries):
    (site.pillar / "plasma.sls").write_text("#!yaml\n" + json.dumps({"plasma": {"trust": entries}}), encoding="utf-8")
    return site.compile()


def test_files_and_texts_are_certificates_one_each(files):
    plasma = compiled(files, ["one.pem", "bundle.crt", "one.cer", AUTHORITY])["plasma"]
    assert len(plasma["trust"]) == 2  # each once, whatever file it is in
    assert AUTHORITY in plasma["trust"]
    for pem in plasma["trust"]:
        assert pem.startswith("-----BEGIN CERTIFICATE-----\n") and pem.count("BEGIN") == 1
    assert plasma["hub"]["sources"]["ca_bundle"] == "/etc/ssl/certs/ca-certificates.crt"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("both.pem", "plasma.trust[0]: both.pem has a private key in it: give the certificate alone"),
        ("empty.pem", "plasma.trust[0]: empty.pem has no whole certificate in PEM format in it"),
        ("half.pem", "plasma.trust[0]: half.pem has no whole certificate in PEM format in it"),
        ("binary.cer", "plasma.trust[0]: binary.cer has a damaged certificate in it"),
        ("large.pem", "plasma.trust[0]: large.pem is larger than 256 kB"),
        ("nothing.pem", "plasma.trust[0]: nothing.pem does not exist in "),
    ],
)
def test_files_that_are_no_good(files, entry, said):
    lines = compiled(files, [entry])["_errors"]
    assert len(lines) == 1
    assert said in lines[0]
    assert lines[0].count("Allowed: ") == 1


KEY = f"-----BEGIN PRIVATE KEY-----\n{MARKER}\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("before", ["", "# ours\n", AUTHORITY])
def test_a_key_in_pillar_is_refused_and_not_shown(problem, before):
    """The fixture looks for the marker."""
    line = problem({"trust": [before + KEY]})
    assert line.startswith("plasma.trust[0]: ******** has a private key in it")


def test_a_key_that_is_in_the_wrong_place_or_damaged_is_not_shown_either(problem):
    inside = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgOnlyAnExample0"
    for value in (KEY, KEY[5:], f"x\n{inside}\ny", inside, f"{inside}=="):
        for plasma in ({"trust": [value]}, {"shared_data": value}, {"hub": {"provider": value}}):
            line = problem(plasma)
            assert "********" in line and inside[:20] not in line
    # What is no key helps to find the mistake.
    digest, path = "0123456789abcdef" * 4, f"srv/{'long-' * 14}"
    assert digest in problem({"trust": [digest]})
    assert path in problem({"shared_data": path})


@pytest.mark.parametrize(
    "entry", ["own-ca", "../own.pem", "own.csv", "a\nb.pem", "-----BEGIN CERTIFICATE REQUEST-----"]
)
def test_what_is_neither_a_file_nor_a_certificate(problem, entry):
    assert problem({"trust": [entry]}).startswith("plasma.trust[0]")


def test_a_list_of_the_operators_own_is_kept(complete):
    given = {"trust": [AUTHORITY], "hub": {"sources": {"ca_bundle": "/etc/ssl/own.pem"}}}
    assert complete(given)["hub"]["sources"]["ca_bundle"] == "/etc/ssl/own.pem"
    assert complete({})["hub"]["sources"]["ca_bundle"] is None
