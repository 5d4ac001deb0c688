"""Plasma on plain JupyterHub and Traefik, without TLJH.

It reads the keys of TLJH's config.yaml and means the same by them, so that a server can be managed in one way
whichever of the two runs on it. It is not a second TLJH: users, authenticators and the user environment are not its
business.

``python -m tljh_plasma.standalone traefik`` renders the proxy's configuration and is run before the proxy starts;
``python -m tljh_plasma.standalone hub`` becomes the hub.
"""

from __future__ import annotations

import copy
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import settings
from .settings import Settings, SettingsError

HUB_PORT = 15001
LETSENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"

# TLJH's defaults for the keys we read.
DEFAULTS: dict[str, Any] = {
    "base_url": "/",
    "users": {"allowed": [], "banned": [], "admin": []},
    "http": {"address": "", "port": 80},
    "https": {
        "enabled": False,
        "address": "",
        "port": 443,
        "tls": {"cert": "", "key": ""},
        "letsencrypt": {"email": "", "domains": [], "staging": False, "acme_server": ""},
    },
    "traefik_api": {"ip": "127.0.0.1", "port": 8099, "username": "api_admin", "password": ""},
    "services": {
        "cull": {
            "enabled": True,
            "timeout": 600,
            "every": 60,
            "concurrency": 5,
            "users": False,
            "max_age": 0,
            "remove_named_servers": False,
        }
    },
}

# Forward secrecy and authenticated encryption only; TLS 1.3 suites are not configurable and always on.
CIPHER_SUITES = [
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
]


def merge(base: dict[str, Any], extra: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return ``base`` with ``extra`` laid over it, key by key; neither is changed.

    A null in ``extra`` keeps the default: that is how people empty a key in YAML.

    Raises:
        SettingsError: a mapping meets something else.
    """
    result = copy.deepcopy(base)
    for key, value in extra.items():
        where = f"{path}{key}"
        if isinstance(result.get(key), dict):
            if value is None:
                continue
            if not isinstance(value, dict):
                raise SettingsError(f"config.yaml: {where} must be a mapping, not {value!r}.")
            result[key] = merge(result[key], value, f"{where}.")
        elif value is not None or key not in result:
            result[key] = copy.deepcopy(value)
    return result


def api_password(state_dir: Path) -> str:
    """Return the password of Traefik's API, made on the first call and kept in ``traefik-api.secret`` (0600)."""
    path = state_dir / "traefik-api.secret"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        password = path.read_text(encoding="ascii").strip()
        if password:
            return password
        # Left empty by a crash between creation and writing.
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    password = secrets.token_hex(32)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(password)
        file.flush()
        os.fsync(file.fileno())
    return password


def culler(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the idle culler as (service, role), from ``services.cull``.

    The role holds the few scopes the culler needs instead of full administration.
    """
    cull = config["services"]["cull"]
    command = [
        sys.executable,
        "-m",
        "jupyterhub_idle_culler",
        f"--timeout={int(cull['timeout'])}",
        f"--cull-every={int(cull['every'])}",
        f"--concurrency={int(cull['concurrency'])}",
        f"--max-age={int(cull['max_age'])}",
    ]
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    if cull["users"]:
        command.append("--cull-users")
        scopes.append("admin:users")
    if cull["remove_named_servers"]:
        command.append("--remove-named-servers")
    service = {"name": "cull-idle", "command": command}
    role = {"name": "plasma-cull-idle", "scopes": scopes, "services": ["cull-idle"]}
    return service, role


def apply(c: Any, values: Settings) -> None:
    """Set in ``c`` what TLJH would set from the same config.yaml.

    Args:
        c: the traitlets ``Config`` object.
        values: the settings.

    Raises:
        SettingsError: a key of config.yaml cannot be used.
    """
    config = merge(DEFAULTS, values.config)
    state = values.state_dir

    c.JupyterHub.base_url = config["base_url"]
    c.JupyterHub.hub_port = HUB_PORT
    c.JupyterHub.cookie_secret_file = str(state / "jupyterhub_cookie_secret")
    c.JupyterHub.db_url = f"sqlite:///{state / 'jupyterhub.sqlite'}"

    users = config["users"]
    c.Authenticator.allowed_users = {str(name) for name in users["allowed"]}
    c.Authenticator.blocked_users = {str(name) for name in users["banned"]}
    c.Authenticator.admin_users = {str(name) for name in users["admin"]}

    # auth.<Class>.<trait>: as in TLJH. auth.type is not read, Plasma logs in through PAM.
    for name, traits in settings.section(config, "auth").items():
        if name[:1].isupper() and isinstance(traits, dict):
            for trait, value in traits.items():
                if value is not None:
                    c[name][trait] = value

    # Traefik runs as a unit of its own, so that it outlives the hub.
    api = config["traefik_api"]
    c.JupyterHub.proxy_class = "traefik_file"
    c.TraefikProxy.should_start = False
    c.TraefikFileProviderProxy.dynamic_config_file = str(state / "rules" / "rules.toml")
    c.TraefikProxy.traefik_api_url = f"http://{api['ip']}:{api['port']}"
    c.TraefikProxy.traefik_api_username = api["username"]
    c.TraefikProxy.traefik_api_password = api["password"] or api_password(state)
    c.TraefikProxy.traefik_entrypoint = "https" if config["https"]["enabled"] else "http"

    # Plain lists: a plugin that iterates over the unset trait would get a LazyConfigValue.
    c.JupyterHub.services = []
    c.JupyterHub.load_roles = []
    if config["services"]["cull"]["enabled"]:
        service, role = culler(config)
        c.JupyterHub.services.append(service)
        c.JupyterHub.load_roles.append(role)


def configure(c: Any, hook: Callable[[Any], None]) -> list[Path]:
    """Do for plain JupyterHub what TLJH's jupyterhub_config.py does.

    Args:
        c: the traitlets ``Config`` object.
        hook: the plugin's hook.

    Returns:
        The files of jupyterhub_config.d, to be loaded last, in order.
    """
    values = settings.load()
    apply(c, values)
    hook(c)
    return sorted((values.config_dir / "jupyterhub_config.d").glob("*.py"))


def static_config(config: dict[str, Any], state_dir: Path) -> dict[str, Any]:
    """Return Traefik's static configuration (traefik.toml) as a dict.

    Args:
        config: config.yaml with defaults.
        state_dir: the state directory.
    """
    http, https, api = config["http"], config["https"], config["traefik_api"]
    timeouts = {"respondingTimeouts": {"idleTimeout": "10m"}}
    plain: dict[str, Any] = {"address": f"{http['address']}:{http['port']}", "transport": timeouts}
    entry_points: dict[str, Any] = {"http": plain, "auth_api": {"address": f"{api['ip']}:{api['port']}"}}
    result: dict[str, Any] = {
        "api": {},
        "log": {"level": "INFO"},
        # Only what went wrong, and never a credential.
        "accessLog": {
            "format": "json",
            "filters": {"statusCodes": ["500-999"]},
            "fields": {
                "headers": {
                    "names": {
                        "Authorization": "redact",
                        "Cookie": "redact",
                        "Set-Cookie": "redact",
                        "X-Xsrftoken": "redact",
                    }
                }
            },
        },
        "entryPoints": entry_points,
        "providers": {
            "providersThrottleDuration": "0s",
            "file": {"directory": str(state_dir / "rules"), "watch": True},
        },
    }
    if https["enabled"]:
        plain["http"] = {"redirections": {"entryPoint": {"to": "https", "scheme": "https"}}}
        entry_points["https"] = {
            "address": f"{https['address']}:{https['port']}",
            "transport": timeouts,
            "http": {"tls": {"options": "default"}},
        }
        letsencrypt = https["letsencrypt"]
        if letsencrypt["email"]:
            acme = {
                "email": letsencrypt["email"],
                "storage": str(state_dir / "acme.json"),
                "tlsChallenge": {},
            }
            server = letsencrypt["acme_server"] or (LETSENCRYPT_STAGING if letsencrypt["staging"] else "")
            if server:
                acme["caServer"] = server
            result["certificatesResolvers"] = {"letsencrypt": {"acme": acme}}
    return result


def dynamic_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of Traefik's dynamic configuration that is ours (rules/dynamic.toml): TLS.

    Args:
        config: config.yaml with defaults.
    """
    https = config["https"]
    if not https["enabled"]:
        return {}
    tls: dict[str, Any] = {"options": {"default": {"minVersion": "VersionTLS12", "cipherSuites": CIPHER_SUITES}}}
    if https["tls"]["cert"]:
        tls["stores"] = {
            "default": {"defaultCertificate": {"certFile": https["tls"]["cert"], "keyFile": https["tls"]["key"]}}
        }
    elif https["letsencrypt"]["email"]:
        main, *others = https["letsencrypt"]["domains"]
        tls["stores"] = {
            "default": {
                "defaultGeneratedCert": {"resolver": "letsencrypt", "domain": {"main": main, "sans": others}}
            }
        }
    return {"tls": tls}


def check_https(config: dict[str, Any]) -> None:
    """Check that HTTPS, when enabled, has a certificate to work with.

    Raises:
        SettingsError: it has not.
    """
    https = config["https"]
    if not https["enabled"]:
        return
    tls, letsencrypt = https["tls"], https["letsencrypt"]
    if bool(tls["cert"]) != bool(tls["key"]):
        raise SettingsError("config.yaml: https.tls needs both cert and key.")
    if bool(letsencrypt["email"]) != bool(letsencrypt["domains"]):
        raise SettingsError("config.yaml: https.letsencrypt needs both email and domains.")
    if not tls["cert"] and not letsencrypt["email"]:
        raise SettingsError(
            "config.yaml: https.enabled needs a certificate: set https.tls.cert and https.tls.key, "
            "or https.letsencrypt.email and https.letsencrypt.domains."
        )


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole, 0600: Traefik watches the directory and must never see half of one."""
    # A name that the file provider does not read.
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def render_traefik(values: Settings) -> list[Path]:
    """Write traefik.toml, rules/dynamic.toml and, when missing, rules/rules.toml and acme.json.

    As in TLJH, ``config/traefik_config.d/*.toml`` is merged over traefik.toml. The routes that the hub keeps in
    rules/rules.toml are left alone, so that the proxy can be restarted under running servers.

    Args:
        values: the settings.

    Returns:
        The files that Traefik reads or writes.

    Raises:
        SettingsError: config.yaml cannot be used.
    """
    import toml

    config = merge(DEFAULTS, values.config)
    check_https(config)
    state = values.state_dir
    rules = state / "rules"
    rules.mkdir(mode=0o700, parents=True, exist_ok=True)
    static = static_config(config, state)
    for extra in sorted((values.config_dir / "traefik_config.d").glob("*.toml")):
        try:
            static = merge(static, toml.loads(extra.read_text(encoding="utf-8")))
        except (toml.TomlDecodeError, OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{extra} is not valid TOML: {error}.") from error

    header = "# Rendered from config.yaml by tljh_plasma.standalone: changes here are lost.\n"
    _write(state / "traefik.toml", header + toml.dumps(static))
    _write(rules / "dynamic.toml", header + toml.dumps(dynamic_config(config)))
    api_password(state)
    for path in (rules / "rules.toml", state / "acme.json"):
        # Traefik refuses an acme.json that others may read.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        os.chmod(path, 0o600)
    return [state / "traefik.toml", rules / "dynamic.toml", rules / "rules.toml", state / "acme.json"]


def main(arguments: list[str] | None = None) -> int:
    """Command line: ``python -m tljh_plasma.standalone {traefik,hub}``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["hub"]:
        # The configuration's path holds the version of Python: only Python itself knows it.
        config = str(Path(__file__).with_name("standalone_config.py"))
        # As TLJH does: the database follows the hub's version; nothing happens when it is up to date.
        os.execv(sys.executable, [sys.executable, "-m", "jupyterhub", "-f", config, "--upgrade-db"])
    if arguments != ["traefik"]:
        print("usage: python -m tljh_plasma.standalone {traefik,hub}", file=sys.stderr)
        return 2
    try:
        render_traefik(settings.load())
    except (SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
