"""A certificate authority that speaks ACME (pebble), on a throwaway server; and certificates made by openssl."""

from __future__ import annotations

import base64
import json
import pathlib
import secrets
import subprocess

from tests.support.shell import wait_for

DIRECTORY = "/srv/acme"
PORT = 14000
# Its own certificate names this: the same machine.
URL = f"https://localhost:{PORT}/dir"
UNIT = "acme-authority"


def make_certificate(
    directory: pathlib.Path, name: str, *, domains=("hub.example.org",), days: str = "30", authority: str | None = None
) -> tuple[pathlib.Path, pathlib.Path]:
    """
    Make a key and a certificate with openssl; returns their paths, NAME.key and NAME.pem.

    ``days`` may be negative: it has expired. ``authority`` is the name of another certificate made here, that signs.
    """
    key, cert = directory / f"{name}.key", directory / f"{name}.pem"
    names = ",".join(f"{'IP' if domain.replace('.', '').isdigit() else 'DNS'}:{domain}" for domain in domains)
    ca = "TRUE" if authority is None and name.startswith("ca") else "FALSE"
    request = directory / f"{name}.csr"
    extensions = directory / f"{name}.ext"
    extensions.write_text(f"basicConstraints=CA:{ca}\nsubjectAltName={names}\n", encoding="utf-8")
    run = lambda *arguments: subprocess.run(["openssl", *arguments], check=True, capture_output=True)  # noqa: E731
    run("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    signer = ["-signkey", key]
    if authority:
        signer = ["-CA", directory / f"{authority}.pem", "-CAkey", directory / f"{authority}.key", "-CAcreateserial"]
    run("x509", "-req", "-in", request, *signer, "-days", days, "-extfile", extensions, "-out", cert)
    return key, cert


class Authority:
    """
    Pebble on a server, which reaches that server's names through /etc/hosts, or finds records of a name server
    (ADDRESS:PORT). Certificates are valid for minutes.
    """

    def __init__(self, target, directory: pathlib.Path, domains, validity: int = 300, nameserver: str | None = None):
        self.target = target
        self.nameserver = f"-dnsserver {nameserver}" if nameserver else ""
        target.install("pebble")
        make_certificate(directory, "ca-of-acme", domains=["ca.example.org"])
        make_certificate(directory, "acme", domains=["localhost"], authority="ca-of-acme")
        target.sudo(f"rm -rf {DIRECTORY}; install -d -o {target.user} {DIRECTORY}")
        for file in ("acme.key", "acme.pem", "ca-of-acme.pem"):
            target.copy_to(directory / file, f"{DIRECTORY}/")
        config = {
            "pebble": {
                "listenAddress": f"127.0.0.1:{PORT}",
                "managementListenAddress": "127.0.0.1:15000",
                "certificate": f"{DIRECTORY}/acme.pem",
                "privateKey": f"{DIRECTORY}/acme.key",
                "httpPort": 80,
                "tlsPort": 443,
                "certificateValidityPeriod": validity,
            }
        }
        target.ssh(f"cat > {DIRECTORY}/config.json", input=json.dumps(config))
        # The proxy's unit has ProtectHome and reads the authority's certificate as root.
        target.sudo(f"chown -R root: {DIRECTORY}")
        self.point(domains)

    def point(self, domains, address: str = "127.0.0.1") -> None:
        """Let these names lead to an address, for everything on the server."""
        self.target.sudo(
            "sed '/ # by the tests$/d' /etc/hosts > /run/hosts.new; "
            + "".join(f"echo '{address} {domain} # by the tests' >> /run/hosts.new; " for domain in domains)
            + "cat /run/hosts.new > /etc/hosts"
        )

    def start(self) -> None:
        """Run it, with new keys of its own: all certificates of before are of another authority."""
        self.stop()
        self.target.sudo(
            f"systemd-run --unit {UNIT} --setenv PEBBLE_VA_NOSLEEP=1 --setenv PEBBLE_WFE_NONCEREJECT=0 "
            f"pebble -config {DIRECTORY}/config.json {self.nameserver}"
        )
        listens = f"ss -ltn | grep -q :{PORT}"
        wait_for(lambda: self.target.ssh(listens, check=False).returncode == 0, timeout=30, what="the authority")

    def stop(self) -> None:
        self.target.sudo(f"systemctl stop {UNIT}; systemctl reset-failed {UNIT}", check=False)

    def root(self) -> str:
        """The certificate that everything it issues leads to, in PEM."""
        fetch = (
            "import ssl, urllib.request as u; c = ssl._create_unverified_context(); "
            "print(u.urlopen('https://127.0.0.1:15000/roots/0', context=c).read().decode())"
        )
        return self.target.ssh(["python3", "-c", fetch]).stdout


class NameServer:
    """bind9 on a server, where everything there looks for names: a zone whose records may be changed with a key."""

    ZONE, PORT = "example.org", 53

    def __init__(self, target):
        self.target = target
        target.install("bind9")
        self.secret = base64.b64encode(secrets.token_bytes(32)).decode()
        target.ssh(
            "sudo tee /etc/bind/named.conf.local >/dev/null",
            input=f'key "acme" {{ algorithm hmac-sha256; secret "{self.secret}"; }};\n'
            f'zone "{self.ZONE}" {{ type master; file "/var/lib/bind/{self.ZONE}"; '
            'allow-update { key "acme"; }; };\n',
        )
        target.sudo("chmod 600 /etc/bind/named.conf.local; chown bind: /etc/bind/named.conf.local")
        self.before = target.ssh("cat /etc/resolv.conf").stdout

    def records(self, *records: str) -> None:
        """Serve these records and no others, and let the server ask here."""
        lines = ["$TTL 1", "@ SOA ns hostmaster 1 60 60 60 1", "@ NS ns", "ns A 127.0.0.1", *records]
        self.target.sudo(f"systemctl stop named; rm -f /var/lib/bind/{self.ZONE}.jnl", check=False)
        self.target.ssh(
            f"sudo tee /var/lib/bind/{self.ZONE} >/dev/null; sudo chown bind: /var/lib/bind/{self.ZONE}",
            input="\n".join(lines) + "\n",
        )
        self.target.sudo("systemctl start named")
        self.target.ssh("sudo tee /etc/resolv.conf >/dev/null", input="nameserver 127.0.0.1\n")
        asked = f"getent hosts ns.{self.ZONE}"
        wait_for(lambda: self.target.ssh(asked, check=False).returncode == 0, timeout=30, what="the name server")

    def stop(self) -> None:
        self.target.ssh("sudo tee /etc/resolv.conf >/dev/null", input=self.before)
        self.target.sudo("systemctl disable --quiet --now named", check=False)
