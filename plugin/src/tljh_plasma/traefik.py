"""Traefik's configuration, rendered from config.yaml for the hub without TLJH."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .replace import directory, replace
from .settings import Settings, SettingsError
from .standalone import api_password, defaulted, merge

LETSENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"

# Characters that may be percent-encoded in a path. Traefik refuses them unless told otherwise, and files whose names
# hold one could then not be opened. No rule of ours protects anything by its path, so nothing can be got around.
ENCODED_CHARACTERS = {
    "allowEncodedSlash": True,
    "allowEncodedSemicolon": True,
    "allowEncodedPercent": True,
    "allowEncodedQuestionMark": True,
    "allowEncodedHash": True,
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


def static_config(config: dict[str, Any], state_dir: Path) -> dict[str, Any]:
    """Return Traefik's static configuration (traefik.toml) as a dict.

    Args:
        config: config.yaml with defaults.
        state_dir: the state directory.
    """
    http, https, api = config["http"], config["https"], config["traefik_api"]
    timeouts = {"respondingTimeouts": {"idleTimeout": "10m"}}
    to_https = {"redirections": {"entryPoint": {"to": "https", "scheme": "https"}}}
    plain: dict[str, Any] = {
        "address": f"{http['address']}:{http['port']}",
        "transport": timeouts,
        "http": {"encodedCharacters": ENCODED_CHARACTERS, **(to_https if https["enabled"] else {})},
    }
    entry_points: dict[str, Any] = {"http": plain, "auth_api": {"address": f"{api['ip']}:{api['port']}"}}
    result: dict[str, Any] = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
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
        entry_points["https"] = {
            "address": f"{https['address']}:{https['port']}",
            "transport": timeouts,
            "http": {"tls": {"options": "default"}, "encodedCharacters": ENCODED_CHARACTERS},
        }
        letsencrypt = https["letsencrypt"]
        if letsencrypt["email"]:
            acme = {"email": letsencrypt["email"], "storage": str(state_dir / "acme.json"), "tlsChallenge": {}}
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
            "default": {"defaultGeneratedCert": {"resolver": "letsencrypt", "domain": {"main": main, "sans": others}}}
        }
    return {"tls": tls}


def believe_in_front(static: dict[str, Any], behind: Sequence[str]) -> None:
    """Let Traefik keep what proxies in front of it say of their clients; of everybody else it takes that away.

    Args:
        static: Traefik's static configuration, which is changed.
        behind: addresses and networks of these proxies.
    """
    for name in ("http", "https"):
        if behind and name in static.get("entryPoints", {}):
            static["entryPoints"][name].setdefault("forwardedHeaders", {})["trustedIPs"] = list(behind)


def tls_challenge_is_off(extra: dict[str, Any]) -> bool:
    """Return whether a file wants no challenge on port 443, and take its word for that (false) out of it.

    Args:
        extra: a file of traefik_config.d. Under TLJH, which lays it over its own, Traefik reads the word.
    """
    acme = extra.get("certificatesResolvers", {}).get("letsencrypt", {}).get("acme", {})
    if acme.get("tlsChallenge") is not False:
        return False
    del acme["tlsChallenge"]
    return True


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


def keep_files(values: Settings) -> None:
    """Make the files that the proxy needs and does not make itself, where they are missing or cannot be read any more.

    Certificates that are lost so are fetched again.

    Args:
        values: the settings.
    """
    state = values.state_dir
    directory(state / "rules", 0o700)
    api_password(state)
    certificates = state / "acme.json"
    try:
        text = certificates.read_text(encoding="utf-8")
        broken = bool(text) and not isinstance(json.loads(text), dict)
    except FileNotFoundError:
        broken = False
    except (OSError, ValueError):
        broken = True
    if broken:
        os.replace(certificates, state / "acme.json.broken")
    for path in (state / "rules" / "rules.toml", certificates):
        # Traefik refuses an acme.json that others may read.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        os.chmod(path, 0o600)


def complete(values: Settings) -> None:
    """Do what TLJH, which renders Traefik's configuration itself, has no key for.

    Args:
        values: the settings.
    """
    import toml

    keep_files(values)
    path = values.state_dir / "traefik.toml"
    if not values.behind or not path.exists():
        return
    try:
        text = path.read_text(encoding="utf-8")
        static = toml.loads(text)
    except (toml.TomlDecodeError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from error
    believe_in_front(static, values.behind)
    if static != toml.loads(text):
        replace(path, toml.dumps(static))


def render(values: Settings) -> list[Path]:
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

    config = defaulted(values.config)
    check_https(config)
    state = values.state_dir
    rules = state / "rules"
    directory(rules, 0o700)
    static = static_config(config, state)
    for extra in sorted((values.config_dir / "traefik_config.d").glob("*.toml")):
        try:
            found = toml.loads(extra.read_text(encoding="utf-8"))
            if tls_challenge_is_off(found):
                static.get("certificatesResolvers", {}).get("letsencrypt", {}).get("acme", {}).pop("tlsChallenge", None)
            static = merge(static, found)
        except (toml.TomlDecodeError, OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{extra} is not valid TOML: {error}.") from error
    believe_in_front(static, values.behind)

    header = "# Rendered from config.yaml by tljh_plasma.standalone: changes here are lost.\n"
    replace(state / "traefik.toml", header + toml.dumps(static))
    replace(rules / "dynamic.toml", header + toml.dumps(dynamic_config(config)))
    keep_files(values)
    return [state / "traefik.toml", rules / "dynamic.toml", rules / "rules.toml", state / "acme.json"]
