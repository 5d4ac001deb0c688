"""A renewed pair of key and certificate is taken over by the server itself."""

from __future__ import annotations

import hashlib
import ssl
import subprocess

import pytest
import yaml
from tljh_plasma import renewal, settings
from tljh_plasma.renewal import NotTaken, take_over


def make(directory, name, days="30"):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", days, "-subj", f"/CN={name}"]
        + ["-keyout", directory / f"{name}.key", "-out", directory / f"{name}.pem"],
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pairs")
    for name in ("old", "new"):
        make(directory, name)
    return directory


def fingerprint(path):
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(path.read_text())).hexdigest()


class Proxy:
    """Reads the pair when its configuration is put in place anew, as Traefik does."""

    def __init__(self, prefix, pairs):
        self.prefix, self.pairs = prefix, pairs
        for folder in ("config", "state/rules", "ssl"):
            (prefix / folder).mkdir(parents=True)
        self.dynamic = prefix / "state" / "rules" / "dynamic.toml"
        self.dynamic.write_text("# TLS\n")
        self.cert, self.key = prefix / "ssl" / "hub.pem", prefix / "ssl" / "hub.key"
        self.put("old")
        self.broken = False
        self.read = self.seen = None
        self.configure({"enabled": True, "tls": {"cert": str(self.cert), "key": str(self.key)}})
        self.show({})

    def configure(self, https):
        (self.prefix / "config" / "config.yaml").write_text(yaml.safe_dump({"https": https}))

    def put(self, cert, key=None):
        self.cert.write_bytes((self.pairs / f"{cert}.pem").read_bytes())
        self.key.write_bytes((self.pairs / f"{key or cert}.key").read_bytes())

    def show(self, https):
        inode = self.dynamic.stat().st_ino
        if inode != self.seen and not self.broken:
            self.seen, self.read = inode, fingerprint(self.cert)
        return self.read

    def take_over(self):
        return take_over(settings.load(self.prefix), patience=0)


@pytest.fixture
def proxy(tmp_path, pairs, monkeypatch):
    made = Proxy(tmp_path, pairs)
    monkeypatch.setattr(renewal, "_shown", made.show)
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(tmp_path))
    # Directories of the tests are somebody's; files are looked at by a test of its own.
    monkeypatch.setattr(renewal, "unreadable", lambda path: None)
    return made


def test_a_new_pair_is_taken_over_once(proxy):
    assert proxy.take_over() is True  # nothing is noted yet
    before = proxy.seen
    assert proxy.take_over() is False
    proxy.put("new")
    assert proxy.take_over() is True
    assert proxy.read == fingerprint(proxy.pairs / "new.pem")
    assert proxy.seen != before
    assert proxy.dynamic.read_text() == "# TLS\n"
    assert proxy.take_over() is False
    assert (proxy.prefix / "state" / "pair.sha256").stat().st_mode & 0o777 == 0o600


def test_nothing_is_touched_where_the_proxy_shows_it_already(proxy):
    before = proxy.dynamic.stat().st_ino
    assert proxy.take_over() is True
    assert proxy.dynamic.stat().st_ino == before


def test_a_pair_that_does_not_fit_is_left_for_the_next_time(proxy):
    """As while it is copied: the certificate is there, its key is not yet."""
    proxy.take_over()
    proxy.put("new", "old")
    before = proxy.dynamic.stat().st_ino
    with pytest.raises(NotTaken, match="are no certificate and its key"):
        proxy.take_over()
    assert proxy.dynamic.stat().st_ino == before
    proxy.put("new")
    assert proxy.take_over() is True


def test_letters_of_another_encoding_between_the_certificates(proxy):
    proxy.take_over()
    proxy.put("new")
    proxy.cert.write_bytes("# für den Hub\n".encode("latin-1") + proxy.cert.read_bytes())
    # As Traefik, which looks for the certificates alone.
    proxy.broken, proxy.read = True, fingerprint(proxy.pairs / "new.pem")
    assert proxy.take_over() is True


@pytest.mark.parametrize("spoil", ["empty", "half", "expired"])
def test_no_good_certificate(proxy, tmp_path, spoil):
    proxy.take_over()
    if spoil == "expired":
        subprocess.run(
            ["openssl", "x509", "-req", "-in", _request(tmp_path, proxy.key), "-signkey", proxy.key]
            + ["-days", "-1", "-out", proxy.cert],
            check=True,
            capture_output=True,
        )
    else:
        text = (proxy.pairs / "new.pem").read_text()
        proxy.cert.write_text("" if spoil == "empty" else text[: len(text) // 2])
    with pytest.raises(NotTaken):
        proxy.take_over()
    assert proxy.read == fingerprint(proxy.pairs / "old.pem")


def _request(directory, key):
    path = directory / "request.csr"
    subprocess.run(["openssl", "req", "-new", "-key", key, "-subj", "/CN=x", "-out", path], check=True)
    return path


def test_a_proxy_that_does_not_show_it_is_an_error_and_tried_again(proxy):
    proxy.take_over()
    proxy.put("new")
    proxy.broken = True
    for _ in range(2):
        with pytest.raises(NotTaken, match="The proxy does not show the certificate"):
            proxy.take_over()
    proxy.broken = False
    assert proxy.take_over() is True


@pytest.mark.parametrize(
    "https",
    [
        {},
        {"enabled": False, "tls": {"cert": "/x", "key": "/y"}},
        {"enabled": True, "letsencrypt": {"email": "a@example.org", "domains": ["hub.example.org"]}},
        {"enabled": True, "tls": {"cert": "", "key": ""}},
    ],
)
def test_where_there_is_no_pair_there_is_nothing_to_do(proxy, https):
    proxy.configure(https)
    assert proxy.take_over() is False


def test_a_missing_file(proxy, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(proxy.prefix))
    proxy.cert.unlink()
    assert renewal.main() == 1
    assert "hub.pem cannot be read: No such file" in capsys.readouterr().err


def test_what_the_proxy_may_not_read(tmp_path, monkeypatch):
    """It is root without the right to pass over modes; a file of somebody else's has to be for everybody."""
    path = tmp_path / "key"
    path.write_text("x")
    path.chmod(0o000)
    assert str(path) in (renewal.unreadable(path) or "")
