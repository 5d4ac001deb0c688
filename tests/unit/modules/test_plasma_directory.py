"""Joining a server to a directory: what sssd and adcli are told, and what is left when it fails."""

from __future__ import annotations

import dataclasses
import pathlib
import socket
import ssl
import subprocess
import threading

import pytest
from salt.exceptions import CommandExecutionError

import plasma_directory_conf as conf
import plasma_directory_dns as dns
import plasma_directory_join as join
import plasma_directory_sssd as directory
import plasma_run
import plasma_trust

SECRET = "s3cret-of-the-directory"
LDAP = conf.Wanted(
    kind="ldap",
    domain="example.org",
    servers=("ldaps://a.example.org", "ldaps://b.example.org:1636"),
    base="dc=example,dc=org",
    bind_dn="cn=hub,dc=example,dc=org",
    secrets={"bind_password": SECRET},
)
AD = conf.Wanted(
    kind="ad",
    domain="ad.example.org",
    join_account="joiner",
    join_ou="OU=Servers,DC=ad",
    secrets={"join_password": SECRET},
)


def options(wanted, section=None):
    section = section or f"domain/{wanted.domain}"
    found = conf.parse(conf.text(wanted))
    return {key.split()[-1]: value for key, value in found.items() if key.rpartition(" ")[0] == section}


@pytest.mark.parametrize("wanted", [LDAP, AD], ids=lambda wanted: wanted.kind)
def test_a_directory_says_who_somebody_is_and_nothing_more(wanted):
    found = options(wanted)
    assert (found["sudo_provider"], found["autofs_provider"], found["min_id"]) == ("none", "none", "1000")
    assert options(wanted, "sssd")["services"] == "nss, pam, ifp"
    names = options(wanted, "nss")
    # sudo goes by names: a group of the directory called so would make its members root.
    assert {"sudo", "docker", "wheel", "adm", "jupyterhub-admins"} <= set(names["filter_groups"].split(", "))
    assert "root" in names["filter_users"].split(", ")
    # What is not asked cannot be wrong: a login always asks the directory.
    assert found["cache_credentials"] == "false"


def test_certificates_are_always_checked_and_nothing_goes_in_plain_text():
    found = options(LDAP)
    assert found["ldap_tls_reqcert"] == "demand"
    assert (found["ldap_uri"], found["ldap_id_use_start_tls"]) == (
        "ldaps://a.example.org, ldaps://b.example.org:1636",
        "false",
    )
    plain = conf.Wanted(kind="ldap", domain="x.org", servers=("ldap://a.x.org",), base="dc=x", ca="/etc/ca.pem")
    assert options(plain)["ldap_id_use_start_tls"] == "true"
    assert options(plain)["ldap_tls_cacert"] == "/etc/ca.pem"
    # Without libldap-common nothing else says where the system's authorities are.
    assert found["ldap_tls_cacert"] == "/etc/ssl/certs/ca-certificates.crt"
    assert "ca-certificates" in LDAP.packages and "ldap_tls_cacert" not in options(AD)
    assert "ldap_default_bind_dn" not in options(plain)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"override_homedir": "/home/%u", "use_fully_qualified_names": "false", "access_provider": "permit"}),
        (
            {"qualified_names": True, "homes": "directory", "home_path": "/srv/homes/"},
            {"fallback_homedir": "/srv/homes/%f", "use_fully_qualified_names": "true"},
        ),
        (
            {"groups": ("students of maths", "Staff"), "members": "dns"},
            {
                "access_provider": "simple",
                "simple_allow_groups": "students of maths, Staff",
                "ldap_schema": "rfc2307bis",
            },
        ),
    ],
)
def test_keys_of_pillar_reach_sssd(changes, expected):

    found = options(dataclasses.replace(LDAP, **changes))
    assert {key: found.get(key) for key in expected} == expected


def test_active_directory_is_asked_as_the_machine():
    found = options(AD)
    assert (found["id_provider"], found["krb5_realm"], found["krb5_validate"]) == ("ad", "AD.EXAMPLE.ORG", "true")
    assert found["ldap_id_mapping"] == "true"
    assert SECRET not in conf.text(AD)


def test_the_password_is_shown_nowhere():
    assert SECRET in conf.text(LDAP)
    assert SECRET not in repr(LDAP)
    assert SECRET not in str(conf.parse(conf.text(LDAP)))

    other = dataclasses.replace(LDAP, secrets={"bind_password": "another-one"})
    changes = conf.difference(conf.text(LDAP), conf.text(other))
    assert changes == {conf.SSSD: {"old": "another", "new": "written"}}
    moved = dataclasses.replace(LDAP, base="dc=else")
    assert conf.difference(conf.text(LDAP), conf.text(moved)) == {
        "domain/example.org ldap_search_base": {"old": "dc=example,dc=org", "new": "dc=else"}
    }
    assert conf.difference(conf.text(LDAP), conf.text(LDAP)) == {}


class Server:
    """A server with packages and units, as far as joining asks for them."""

    def __init__(self, tmp_path, monkeypatch):
        self.installed, self.commands, self.fails, self.on, self.stdin = {"bash"}, [], set(), True, {}
        self.running, self.asked, self.h_errno = False, [], 0
        # The account of the machine in the domain: the host that it is for.
        self.owner, self.refusal = None, f"adcli: couldn't authenticate as joiner with {SECRET}"
        monkeypatch.setattr(join, "socket", self)
        for name in ("SSSD", "PAM", "CA"):
            monkeypatch.setattr(conf, name, str(tmp_path / name.lower()))
        for name in ("NOTE", "KEYTAB", "BACKUPS", "CACHE", "PAM_AUTH"):
            monkeypatch.setattr(directory, name, tmp_path / f"{name.lower()}.x")
        monkeypatch.setattr(directory.plasma_quota_kernel, "install", self.install)
        monkeypatch.setattr(plasma_run, "run", self.run)
        monkeypatch.setattr(directory, "ONLINE", 0)
        monkeypatch.setattr(dns, "_query", lambda record: self.asked.append(record) or self.h_errno)
        monkeypatch.setattr(directory.time, "sleep", lambda seconds: None)
        self.tmp_path = tmp_path

    by_hand = False
    AI_CANONNAME = socket.AI_CANONNAME

    def gethostname(self):
        return "a-long-name-for-a-server.example.org"

    def getaddrinfo(self, name, port, flags):
        assert (name, flags) == (self.gethostname(), self.AI_CANONNAME)
        return [(None, None, None, name, None)]

    def pam(self, guarded):
        """What pam-auth-update makes of the profiles there are, unless the file was changed by hand."""
        if not self.by_hand:
            lines = ["auth [success=3 default=ignore] pam_unix.so"]
            lines += ["auth [success=die default=ignore] pam_localuser.so"] if guarded else []
            lines += ["auth [success=1 default=ignore] pam_sss.so"] if "libpam-sss" in self.installed else []
            directory.PAM_AUTH.write_text("\n".join([*lines, "auth requisite pam_deny.so"]))

    def install(self, names):
        self.installed |= {*names, "libsss-certmap0", "openssl"}

    def run(self, command, *, stdin="", timeout=300, env=None, cwd="/"):
        self.commands.append(list(command))
        name = command[0]
        self.stdin[name] = stdin
        code, out = 1 if name in self.fails else 0, ""
        if name == "dpkg-query":
            if command[-1] in self.installed:
                out = "ii "
            elif "Package" in command[-1]:
                out = "\n".join(sorted(self.installed))
            else:
                code = 1
        elif name == "sssctl":
            out = "Online status: Online" if self.on else "Online status: Offline"
        elif name == "systemctl":
            if command[1] in ("restart", "stop", "disable"):
                self.running = command[1] == "restart"
            code = int(command[1] == "is-active" and not self.running)
        elif name == "pam-auth-update":
            self.pam("--remove" not in command)
        elif name == "adcli" and code:
            return plasma_run.Result(code, "", self.refusal, command)
        elif command[:2] == ["adcli", "show-computer"]:
            if self.owner is None:
                return plasma_run.Result(5, "", "adcli: couldn't read data: No computer account for A$ exists", command)
            out = f"sAMAccountName:\n A$\ndNSHostName:\n {self.owner}\nservicePrincipalName:\n host/A"
        elif name == "adcli":
            self.owner = self.gethostname()
            directory.KEYTAB.write_text("keys")
        elif "purge" in command and "--simulate" in command:
            out = "".join(f"Purg {one} [1]\n" for one in command[3:]) + "".join(f"Remv {one}\n" for one in self.needs)
        elif "purge" in command:
            self.installed -= set(command)
        return plasma_run.Result(code, out, "", command)

    needs = ()


@pytest.fixture
def server(tmp_path, monkeypatch):
    return Server(tmp_path, monkeypatch)


@pytest.mark.parametrize("wanted", [LDAP, AD], ids=lambda wanted: wanted.kind)
def test_joining_is_predicted_done_once_and_taken_back(server, wanted):
    predicted = directory.compare(wanted)
    assert server.tmp_path.joinpath("sssd").exists() is False
    assert directory.apply(wanted) == predicted
    assert predicted["packages"]["new"] == wanted.packages
    assert (directory.compare(wanted), directory.apply(wanted)) == ({}, {})
    assert pathlib.Path(conf.SSSD).stat().st_mode & 0o777 == 0o600
    assert not any(SECRET in word for command in server.commands for word in command)
    if wanted is AD:
        assert server.stdin["adcli"] == SECRET
        who = ["--domain=ad.example.org", "--login-user=joiner", "--stdin-password"]
        assert [command for command in server.commands if command[0] == "adcli"] == [
            ["adcli", "show-computer", *who, "A-LONG-NAME-FOR"],
            ["adcli", "join", *who, "--computer-name=A-LONG-NAME-FOR", "--domain-ou=OU=Servers,DC=ad"],
        ]
        assert "join_password" not in directory.NOTE.read_text()
    assert SECRET not in directory.NOTE.read_text()
    assert directory.health() == {"domain": wanted.domain, "online": True, "problem": None}
    predicted = directory.compare_removed()
    assert directory.remove() == predicted
    # Who asks the network needs these, and sssd never was the only one.
    assert server.installed == {"bash", "openssl", *({"ca-certificates"} if wanted is LDAP else ())}
    assert not any(pathlib.Path(path).exists() for path in (conf.SSSD, conf.PAM, directory.NOTE, directory.KEYTAB))
    assert (directory.compare_removed(), directory.remove(), directory.health()) == ({}, {}, None)
    # What proves the machine to the domain is kept for root.
    assert bool(list(directory.BACKUPS.glob("keytab.*"))) is (wanted is AD)


def test_keys_of_other_services_are_there_again_when_the_domain_is_left(server):
    directory.KEYTAB.write_text("keys of a file server")
    directory.KEYTAB.chmod(0o600)
    directory.apply(AD)
    assert directory.KEYTAB.read_text() == "keys"
    # A second domain adds to the keys of the first.
    directory.apply(dataclasses.replace(AD, domain="other.example.org"))
    directory.remove()
    assert directory.KEYTAB.read_text() == "keys of a file server"
    assert directory.KEYTAB.stat().st_mode & 0o777 == 0o600


def test_pam_files_of_an_operator_are_not_worked_around(server):
    server.by_hand = True
    directory.PAM_AUTH.write_text("auth sufficient pam_sss.so\nauth [success=die default=ignore] pam_localuser.so\n")
    with pytest.raises(CommandExecutionError, match="was changed by hand, .*pam-auth-update --force"):
        directory.apply(LDAP)
    assert not pathlib.Path(conf.SSSD).exists()


def test_passwords_of_the_directory_for_accounts_of_the_server_are_noticed_and_shut_out(server):
    directory.apply(LDAP)
    directory.PAM_AUTH.write_text("auth sufficient pam_unix.so\nauth sufficient pam_sss.so\n")
    assert set(directory.compare(LDAP)) == {"PAM"}
    directory.apply(LDAP)
    assert directory.compare(LDAP) == {}


def test_packages_that_others_need_now_stay(server):
    directory.apply(LDAP)
    server.needs = ("realmd",)
    assert "packages" not in directory.remove()
    assert "sssd-ldap" in server.installed


def test_a_directory_that_somebody_else_set_up_is_left_alone(server):
    pathlib.Path(conf.SSSD).write_text("[sssd]\n")
    for act in (directory.compare, directory.apply):
        with pytest.raises(CommandExecutionError, match="not from here: .* take plasma.directory out"):
            act(LDAP)
    assert pathlib.Path(conf.SSSD).read_text() == "[sssd]\n"
    assert directory.remove() == {}


BY_HAND = "# von uns, f\xfcr alle\n[sssd]\ndomains = example.org\n".encode("latin-1")


def test_an_sssd_that_was_set_up_by_hand_after_an_apply_failed_is_left_alone(server):
    """The note of what was begun is still there."""
    server.on = False
    with pytest.raises(CommandExecutionError):
        directory.apply(AD)
    assert directory.NOTE.exists() and directory.KEYTAB.exists()
    sssd = pathlib.Path(conf.SSSD)
    sssd.write_bytes(BY_HAND)
    server.on = server.running = True
    for act in (directory.compare, directory.apply):
        with pytest.raises(CommandExecutionError, match="not from here: .* take plasma.directory out"):
            act(AD)
    assert directory.health() is None
    predicted = directory.compare_removed()
    assert directory.remove() == predicted == {AD.domain: {"old": "asked", "new": None}}
    # It goes on, with its packages, its keys and its unit.
    assert (sssd.read_bytes(), server.running, directory.KEYTAB.exists()) == (BY_HAND, True, True)
    assert "sssd-ad" in server.installed
    assert not directory.NOTE.exists() and not pathlib.Path(conf.PAM).exists()


def test_what_was_in_our_file_is_kept_for_root(server):
    directory.apply(LDAP)
    sssd = pathlib.Path(conf.SSSD)
    edited = sssd.read_bytes() + b"# f\xfcr sp\xe4ter\n"
    sssd.write_bytes(edited)
    sssd.chmod(0o600)
    # Back as it was, byte by byte, where the directory is not reached.
    server.on = False
    with pytest.raises(CommandExecutionError):
        directory.apply(LDAP)
    assert sssd.read_bytes() == edited
    server.on = True
    directory.apply(LDAP)
    assert sssd.read_bytes() == conf.text(LDAP).encode()
    kept = list(directory.BACKUPS.glob("sssd.*"))
    assert {one.read_bytes() for one in kept} == {edited}
    assert {one.stat().st_mode & 0o777 for one in kept} == {0o600}
    assert directory.BACKUPS.stat().st_mode & 0o777 == 0o700
    directory.remove()
    assert conf.text(LDAP).encode() in {one.read_bytes() for one in directory.BACKUPS.glob("sssd.*")}


def test_a_directory_that_is_not_reached_leaves_what_was_there(server):
    server.on = False
    with pytest.raises(CommandExecutionError, match="does not reach example.org within .* stay for now: .*disabled`"):
        directory.apply(LDAP)
    assert not pathlib.Path(conf.SSSD).exists()
    # There is nothing that a start of sssd could go by.
    assert directory.health()["problem"].endswith("the last apply did not reach it: run `state.apply directory`")
    server.on = True
    directory.apply(LDAP)
    before, server.on = pathlib.Path(conf.SSSD).read_text(), False

    with pytest.raises(CommandExecutionError, match="It goes on with what it had before"):
        directory.apply(dataclasses.replace(LDAP, base="dc=else", domain="else.org"))
    assert pathlib.Path(conf.SSSD).read_text() == before
    assert directory.health()["domain"] == "example.org"
    assert "journalctl" in directory.health()["problem"]


def test_a_join_that_is_refused_says_why_without_the_password(server):
    server.fails = {"adcli"}
    with pytest.raises(CommandExecutionError) as caught:
        directory.apply(AD)
    assert str(caught.value).startswith(
        "This server cannot join ad.example.org: adcli: couldn't authenticate as joiner with ***"
    )
    assert SECRET not in str(caught.value)
    assert not pathlib.Path(conf.SSSD).exists()
    # Nothing of it is left, but what other programs need as well.
    assert str(caught.value).endswith("packages, PAM and nsswitch.conf are as they were.")
    assert server.installed == {"bash", "openssl"}
    assert not pathlib.Path(conf.PAM).exists() and not directory.NOTE.exists()
    assert directory.health() is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Couldn't authenticate as: joiner@AD.EXAMPLE.ORG: Preauthentication failed",
            "plasma.directory.join_password is not the password of joiner.",
        ),
        (
            "Couldn't authenticate as: joiner@AD.EXAMPLE.ORG: Client 'joiner@AD.EXAMPLE.ORG' not found in Kerberos "
            "database",
            "it has no account joiner: check plasma.directory.join_account.",
        ),
        (
            "Couldn't authenticate as: joiner@AD.EXAMPLE.ORG: Client's credentials have been revoked",
            "the account joiner is disabled, locked or expired there.",
        ),
        (
            "Couldn't get kerberos ticket for: joiner@AD.EXAMPLE.ORG: New password cannot be zero length",
            "the password of joiner has expired: change it there first.",
        ),
        (
            "Insufficient permissions to modify computer account: CN=A,DC=ad: acl: unable to get access\n",
            "joiner may not make the account A-LONG-NAME-FOR$: have that allowed, or name another ",
        ),
        (
            "Cannot set computer password: Access denied: Not permitted to change password",
            "joiner may not change the account A-LONG-NAME-FOR$, which is there already: have that allowed, ",
        ),
        (
            "The organizational unit does not exist: OU=Servers,DC=ad",
            "it has no plasma.directory.join_ou OU=Servers,DC=ad.",
        ),
    ],
)
def test_why_a_domain_refuses_a_machine_is_told_by_what_to_do(server, said, told):
    """What adcli 0.9.1 says to a domain of Samba."""
    server.fails, server.refusal = {"adcli"}, f"adcli: joining domain ad.example.org failed: {said}"
    with pytest.raises(CommandExecutionError) as caught:
        directory.apply(AD)
    assert str(caught.value).startswith(f"This server cannot join ad.example.org: {told}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("owner", ["a-long-name-for-another.example.org", "a-long-name-for-a-server.example.com"])
def test_the_account_of_another_machine_is_not_taken(server, owner):
    """adcli would give it a new password, and that machine would be out of the domain."""
    server.owner = owner
    with pytest.raises(
        CommandExecutionError, match=r"account A-LONG-NAME-FOR\$ of .* belongs to .*join_computer"
    ) as caught:
        directory.apply(AD)
    assert str(caught.value).endswith("packages, PAM and nsswitch.conf are as they were.")
    assert not [command for command in server.commands if command[:2] == ["adcli", "join"]]
    assert not directory.KEYTAB.exists()
    # By another name there is room for both.
    server.owner = None
    directory.apply(dataclasses.replace(AD, join_computer="Hub-2"))
    assert [word for command in server.commands for word in command if "computer-name" in word] == [
        "--computer-name=HUB-2"
    ]


@pytest.mark.parametrize("owner", ["A-Long-Name-For-A-Server.example.org", "- not set -"])
def test_the_account_that_a_machine_had_before_or_that_waits_for_it_is_taken(server, owner):
    server.owner = owner
    directory.apply(AD)
    assert directory.KEYTAB.exists()


def test_a_join_that_is_refused_leaves_packages_that_others_need(server):
    server.fails, server.needs = {"adcli"}, ("realmd",)
    with pytest.raises(CommandExecutionError, match="packages that came with it stay, as others need them now"):
        directory.apply(AD)
    assert "sssd-ad" in server.installed and not pathlib.Path(conf.PAM).exists()


def test_a_join_that_is_refused_leaves_the_directory_that_was_asked_before(server):
    directory.apply(LDAP)
    before = pathlib.Path(conf.SSSD).read_text()
    server.fails = {"adcli"}
    with pytest.raises(CommandExecutionError, match="sssd goes on with what it had before"):
        directory.apply(AD)
    assert pathlib.Path(conf.SSSD).read_text() == before
    assert directory.health() == {"domain": "example.org", "online": True, "problem": None}


def test_packages_that_came_before_apt_failed_are_taken_away_again(server, monkeypatch):
    def half(names):
        server.installed |= {"libsss-certmap0"}
        raise CommandExecutionError("No route to the archive.")

    monkeypatch.setattr(directory.plasma_quota_kernel, "install", half)
    with pytest.raises(CommandExecutionError, match="No route to the archive. What came with it was taken away again"):
        directory.apply(LDAP)
    assert server.installed == {"bash"}


@pytest.mark.parametrize(
    ("h_errno", "said"),
    [
        (0, None),
        (1, "its name servers have no record _ldap._tcp.ad.example.org (SRV)"),
        (4, "its name servers have no record _ldap._tcp.ad.example.org (SRV)"),
        (2, "no name server of this server answers for _ldap._tcp.ad.example.org"),
    ],
)
def test_a_domain_that_is_not_in_dns_is_told_before_anything_changes(server, h_errno, said):
    server.h_errno = h_errno
    found = directory.problems(AD, directory.compare(AD))
    assert server.asked == ["_ldap._tcp.ad.example.org"]
    start = f"ad.example.org is not found by DNS, {said}: check plasma.directory.domain, and"
    assert found == [] if said is None else [one[: len(start)] for one in found] == [start]
    # The servers of ldap are named in pillar.
    server.asked.clear()
    directory.problems(dataclasses.replace(LDAP, servers=("ldaps://localhost:1",)), {})
    assert server.asked == []


def test_the_c_library_is_asked():
    """A domain that can never be; without a network there is no answer, which is said as well."""
    assert dns._query("_ldap._tcp.nohost.invalid") != 0


def test_a_server_that_has_joined_needs_the_password_no_more(server):

    without = dataclasses.replace(AD, secrets={})
    assert directory.problems(without, directory.compare(without)) == [
        "plasma.directory.join_password is not set, and this server has not joined the domain yet"
    ]
    directory.apply(AD)
    assert directory.compare(without) == {}


# The first look at a server, before anything is changed.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate for localhost, signed by itself."""
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", folder / "key", "-out", folder / "cert"], check=True, capture_output=True)
    return folder / "cert", folder / "key"


@pytest.fixture
def listener(certificate):
    """A function that serves one connection: with StartTLS, TLS from the start, or a refusal; returns the port."""
    sockets = []

    def serve(start_tls: bytes | None):
        listening = socket.create_server(("localhost", 0))
        sockets.append(listening)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)

        def one():
            plain, _ = listening.accept()
            with plain:
                if start_tls is not None:
                    plain.recv(100)
                    plain.sendall(start_tls)
                try:
                    context.wrap_socket(plain, server_side=True).close()
                except OSError:
                    pass

        threading.Thread(target=one, daemon=True).start()
        return listening.getsockname()[1]

    yield serve
    for one in sockets:
        one.close()


DONE = bytes.fromhex("300c02010178070a010004000400")
REFUSED = bytes.fromhex("300c02010178070a013404000400")


def test_an_authority_in_der_is_told(server, certificate, tmp_path):
    der = tmp_path / "own.cer"
    command = ["openssl", "x509", "-in", certificate[0], "-outform", "DER", "-out", der]
    subprocess.run(command, check=True, capture_output=True)
    wanted = dataclasses.replace(LDAP, ca=conf.CA, ca_source=str(der))
    # One that an earlier apply wrote.
    pathlib.Path(conf.CA).write_bytes(der.read_bytes()[::-1])
    (problem,) = directory.problems(wanted, directory.compare(wanted))
    assert problem.startswith(f"plasma.directory.ca: {der} has no certificate in PEM in it: ")


def test_pam_files_with_other_letters_are_read(server):
    directory.PAM_AUTH.write_bytes(
        b"# f\xfcr alle\nauth [success=die default=ignore] pam_localuser.so\nauth sufficient pam_sss.so\n"
    )
    assert directory._guarded() is True


@pytest.mark.parametrize("bundle", ["missing", "without", "pending"])
def test_an_authority_that_the_system_trusts_by_then(listener, certificate, monkeypatch, tmp_path, bundle):
    """`ca` is not set: the list of the system counts, which this run may complete, or bring."""
    monkeypatch.setattr(plasma_trust, "BUNDLE", str(tmp_path / "list.crt"))
    if bundle != "missing":
        (tmp_path / "list.crt").touch()
    trusted = [certificate[0].read_text()] if bundle == "pending" else []
    why = directory._unreachable(f"ldaps://localhost:{listener(None)}", None, trusted)
    assert (why or "").startswith("its certificate is not good") is (bundle == "without")


@pytest.mark.parametrize(
    ("scheme", "answer", "trusted", "said"),
    [
        ("ldaps", None, True, None),
        ("ldap", DONE, True, None),
        ("ldaps", None, False, "its certificate is not good"),
        ("ldap", DONE, False, "its certificate is not good"),
        ("ldap", REFUSED, True, "it does not take StartTLS"),
    ],
)
def test_a_server_is_spoken_to_by_tls_before_anything_changes(listener, certificate, scheme, answer, trusted, said):
    url = f"{scheme}://localhost:{listener(answer)}"
    why = directory._unreachable(url, str(certificate[0]) if trusted else None)
    assert (why is None) if said is None else why.startswith(said)


def test_a_server_that_does_not_answer_is_said(monkeypatch):
    with socket.create_server(("localhost", 0)) as one:
        port = one.getsockname()[1]

    wanted = dataclasses.replace(LDAP, servers=(f"ldaps://localhost:{port}",))
    (problem,) = directory.problems(wanted, {})
    assert problem == f"ldaps://localhost:{port} cannot be used: Connection refused"
    wanted = dataclasses.replace(LDAP, ca="/nonexistent.pem")
    assert directory.problems(wanted, {}) == ["plasma.directory.ca: there is no file /nonexistent.pem on this server"]
