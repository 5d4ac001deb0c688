"""
Pillars to render with: empty, with every key of the schema, and with the most awkward text the schema accepts.

What an operator writes under `plasma:`; ``compiled`` is what Salt makes of it, through the real external pillar.
"""

from __future__ import annotations

import copy
import functools
import json
import pathlib
import tempfile
from typing import Annotated, Any, get_origin

import salt.pillar
import yaml
from pydantic import TypeAdapter, ValidationError

from _pillar.plasma import schema
from tests.render.options import options

# In the CSV files that pillars name.
CSV_PASSWORD = "Pa55-of-the-csv"
CSV = f"username,password,group,quota_soft,quota_hard,fullname\nno,{CSV_PASSWORD},biology,1G,2G,Ed Example\n"
PASSWORD = "Correct-Horse-{{ 7*7 }}-Battery"
# Of a private repository: what a state must not get as an argument.
TOKEN = "T0ken-of-the-course"
DEPLOY_KEY = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU=\n-----END OPENSSH PRIVATE KEY-----\n"
)
HASH = "$6$rounds=5000$saltsaltsalt$0123456789abcdefghijklmnopqrstuvwxyzABCDEF./"
# Of nobody: made for the tests.
AUTHORITY = """-----BEGIN CERTIFICATE-----
MIIBmTCCAT+gAwIBAgIUGUvMwVPdIqtM5j8ZuvIfacbWh7MwCgYIKoZIzj0EAwIw
ITEfMB0GA1UEAwwWQXV0aG9yaXR5IG9mIHRoZSB0ZXN0czAgFw0yNjExMzAxMTE1
MjJaGA8yMTI2MTEwNjExMTUyMlowITEfMB0GA1UEAwwWQXV0aG9yaXR5IG9mIHRo
ZSB0ZXN0czBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNImXGxNJ9F47gmwvOaT
XwYQFDRISiuYnr0LkXy7e45WEbAoXcDC74c5hhJVeXojAyJMAqFmCtzwomaL2jPC
vLujUzBRMB0GA1UdDgQWBBT3HpMo4BCkEHhM0amvui3RXkQiJDAfBgNVHSMEGDAW
gBT3HpMo4BCkEHhM0amvui3RXkQiJDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49
BAMCA0gAMEUCIQDLvtu7BwtPUmc6vu1FmmerGotmUMWMN3bVzlFLj10VMAIgbGch
sJtsjIJ5WlgqM5AmWoLO9pKOr1gN2QgbzVY6vF4=
-----END CERTIFICATE-----
"""
SHA = {letter: letter * 64 for letter in "abcdef"}

# Names that YAML would not read as text stand among them: they must stay text on the whole way.
_PEOPLE = {
    "users": [
        {
            "name": "anna",
            "was": "annette",
            "password": PASSWORD,
            "groups": ["biology"],
            "admin": True,
            "quota": {"soft": "1G", "hard": "2G", "inodes": {"soft": 1000, "hard": 2000}},
            "shell": "/bin/zsh",
            "uid": 1500,
            "fullname": "Anna Example",
            "home": "/srv/homes/anna",
        },
        {"name": "null", "password_hash": HASH, "password_policy": "enforce", "groups": ["biology", "video"]},
        {"name": "off", "absent": True, "remove_home": True},
    ],
    "groups": [
        {
            "name": "biology",
            "gid": 2000,
            "quota": {"soft": "3G", "hard": "4G", "inodes": {"soft": 10, "hard": 20}},
            "total": {"soft": "30G", "hard": "40G", "inodes": {"soft": 100, "hard": 200}},
        },
        {"name": "yes", "absent": True},
        "on",
        {"name": "true"},
        {"name": "Students of Maths@example.org", "external": True, "quota": {"hard": "5G"}},
    ],
    "quota": {"soft": "10G", "hard": "12G", "grace": 86400, "inodes": {"soft": 100, "hard": 200, "grace": 172800}},
    "quotas": {"enabled": True, "device": "LABEL=cloudimg-rootfs", "unmanaged": True},
    "users_csv": [{"file": "students.csv", "absent": False}],
    "home_path": "/srv/people",
    "password_policy": "enforce",
    "admins": ["true", "fred@example.org", "%students of maths"],
    "ssh": {
        "enabled": True,
        "open_to": {"users": ["null", "by-hand"], "groups": ["on", "elsewhere"]},
        "limits": {"memory": "1G", "cpu": 0.5, "tasks": 100},
    },
    "cockpit": {"enabled": True},
    "environments": [
        {
            "name": "python-course",
            "repository": "https://git.example.org/python-course.git",
            "ref": "v1.2",
            "memory": "4G",
            "cpu": 1.5,
            "opens": "/lab/tree/first.ipynb?reset=1",
            "gpus": 1,
            "groups": ["Maths (2026)"],
            "description": "First steps in Python",
            "build_args": {"PYTHON_VERSION": "3.12"},
            "credentials": {"username": "deploy", "password": TOKEN},
            "previous": True,
            "replace": True,
        },
        {
            "name": "null",
            "repository": "git@git.example.org:courses/null.git",
            "deploy_key": DEPLOY_KEY,
            "known_hosts": "git.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGbNmVb0f3y8\n",
        },
        {"name": "no", "image": "registry.example.org/no:2026", "image_file": "/srv/images/no.tar", "archived": True},
        {"name": "1e3", "absent": True, "wait": 600},
    ],
}
_COMMON = {
    **_PEOPLE,
    "limits": {"memory": "1.5G", "cpu": 0.5},
    "cull": {
        "enabled": True,
        "timeout": 7200,
        "every": 30,
        "concurrency": 7,
        "users": True,
        "max_age": 86400,
        "remove_named_servers": True,
    },
    "named_servers": {"limit": 5},
    "shared_data": "/srv/course-data",
    "servers": {
        "timezone": "Europe/Berlin",
        "umask": "0002",
        "environment": {"OMP_NUM_THREADS": "2"},
        "proxy": {"http": "http://10.1.2.3:3128", "https": "http://proxy.example.org", "no_proxy": ".example.org"},
        "volumes": [{"source": "/srv/models", "target": "/srv/models", "writable": False}],
        "overrides": [
            {
                "groups": ["biology"],
                "environments": ["python-course"],
                "timezone": "Europe/Paris",
                "umask": "0007",
                "environment": {"COURSE": "biology"},
                "proxy": {"http": "http://10.1.2.4:3128", "https": "http://10.1.2.4:3128", "no_proxy": "10.1.2.0/24"},
                "volumes": [{"source": "/srv/biology", "target": "/srv/lab", "writable": True}],
            }
        ],
    },
    "permissions": {"default": "closed"},
    "enter_servers": ["%assistants"],
    "network": {
        "allow": ["10.1.2.0/24:5432"],
        "host_ports": [5432],
        "builds": ["10.1.3.4", "git.example.org:443"],
    },
    "builder": {
        "image": "registry.example.org:5000/r2d:2025.12.0",
        "parallel": 3,
        "timeout": 3600,
        "memory": "8G",
        "cpu": 4,
        "disk": "40G",
        "trial": False,
        "index": "https://builds.example.org/simple",
        "http_proxy": f"http://builds:{TOKEN}@proxy.example.org:3130",
        "https_proxy": f"http://builds:{TOKEN}@proxy.example.org:3131",
        "no_proxy": "localhost,.example.org",
    },
    "http": {"address": "127.0.0.1", "port": 81, "behind": ["127.0.0.1", "10.9.0.0/16"]},
    "trust": [AUTHORITY],
    "monitoring_url": "https://monitoring.example.org/d/plasma?from=now-1h",
    "utils": {
        "packages": ["libstdc++6", "no", "1e3"],
        "monitor": "ctop",
        "ctop": {
            "version": "0.7.8",
            "url": "https://mirror.example.org/ctop-{version}-{arch}",
            "sha256": {"amd64": SHA["a"], "arm64": SHA["b"]},
        },
    },
    "gpu": {
        "enabled": True,
        "repository": {
            "url": "https://mirror.example.org/nvidia/deb",
            "key_url": "https://mirror.example.org/nvidia.gpg",
            "key_sha256": SHA["f"],
        },
        "reserved": [0, 7],
    },
    "preflight": {"min_disk": "20G", "min_memory": "3.5G"},
    "backup": {
        "enabled": True,
        "schedule": "Mon,Thu *-*-* 02:00:00",
        "directory": "/srv/backups",
        "keep": 30,
        "homes": True,
        "images": True,
    },
    "upgrade": {"message": "Upgrade from 18:00 to 18:10", "wait": 300},
    "uninstall": {
        "data": True,
        "users": True,
        "homes": True,
        "environments": True,
        "docker": True,
        "quotas": True,
        "backups": True,
    },
}
_SOURCES = {
    "pip_index_url": "https://reader:token@pypi.example.org/simple",
    "http_proxy": "http://proxy.example.org:3128",
    "https_proxy": "http://proxy.example.org:3129",
    "no_proxy": "localhost,.example.org",
    "ca_bundle": "/etc/ssl/certs/own.crt",
}
FULL_TLJH = {
    **_COMMON,
    "directory": {
        "kind": "ldap",
        "domain": "example.org",
        "servers": ["ldaps://ldap.example.org", "ldap://ldap2.example.org:1389"],
        "base": "dc=example,dc=org",
        "bind_dn": "cn=hub,dc=example,dc=org",
        "bind_password": TOKEN,
        "ca": "/etc/ssl/certs/own-ca.pem",
        "members": "dns",
        "qualified_names": True,
        "groups": ["students of maths"],
        "homes": "directory",
    },
    "hub": {
        "provider": "tljh",
        "prefix": "/opt/hub",
        "base_url": "/jupyter/",
        "versions": {"tljh": "2.1.0"},
        "sources": {
            **_SOURCES,
            "installer": "https://mirror.example.org/tljh/bootstrap.py",
            "installer_sha256": SHA["c"],
            "tljh": "/srv/mirror/the-littlest-jupyterhub",
            "miniforge": "https://mirror.example.org/Miniforge3-Linux.sh",
            "miniforge_sha256": SHA["d"],
            "traefik": "https://mirror.example.org/traefik_linux.tar.gz",
            "traefik_sha256": SHA["e"],
        },
        "install_timeout": 3600,
        "ready_timeout": 300,
    },
    "docker": {
        "source": "docker-ce",
        "repository": {
            "url": "https://mirror.example.org/docker/linux",
            "key_url": "https://mirror.example.org/docker.gpg",
            "key_sha256": SHA["f"],
        },
        "log_driver": "local",
        "prune": {"enabled": True, "schedule": "daily", "min_age": 24, "warn_at": 90},
    },
    "https": {
        "name_server": "hub.example.org",
        "domains": ["hub.example.org", "www.example.org"],
        "letsencrypt_email": "admin@example.org",
        "staging": True,
        "acme_server": "https://acme.example.org/directory",
        "acme_ca": "/etc/ssl/certs/own-ca.pem",
        "dns": {"provider": "rfc2136", "environment": {"RFC2136_TSIG_SECRET": TOKEN}, "resolvers": ["192.0.2.53:53"]},
        "user_domains": True,
        "address": "192.0.2.10",
        "port": 444,
        "timeout": 300,
        "check": False,
    },
}
FULL_PYPI = {
    **_COMMON,
    "directory": {
        "kind": "ad",
        "domain": "ad.example.org",
        "join_account": "joiner@AD.EXAMPLE.ORG",
        "join_password": TOKEN,
        "join_ou": "OU=Servers,DC=ad,DC=example,DC=org",
        "join_computer": "HUB-2",
        "ids": "directory",
    },
    "hub": {
        "provider": "pypi",
        "prefix": "/srv/hub",
        "sources": dict(_SOURCES),
        "install_timeout": 600,
        "ready_timeout": 60,
    },
    "docker": {"source": "distro", "log_driver": "json-file"},
    "https": {"tls": {"key": "/etc/ssl/private/hub.key", "cert": "/etc/ssl/certs/hub.pem"}},
}
# The ways to name a source that are in neither of the above: files of the server, and words.
FILES = {
    "hub": {
        "provider": "tljh",
        "sources": {
            "installer": "/srv/mirror/bootstrap.py",
            "tljh": "the-littlest-jupyterhub @ git+https://git.example.org/tljh@main",
            "miniforge": "/srv/mirror/Miniforge3.sh",
            "miniforge_sha256": SHA["d"],
            "traefik": "/srv/mirror/traefik",
            "traefik_sha256": SHA["e"],
        },
    },
    "utils": {"packages": [], "monitor": "none"},
    "limits": {"memory": "64M", "cpu": 0.01},
    "docker": {"source": "distro"},
}
WORDS = {
    "hub": {"provider": "tljh", "sources": {"miniforge": "none", "traefik": "pypi"}},
    "builder": {"image": "local"},
}

# Tried in this order on every text of the schema; the first that it accepts takes the place of its ordinary value.
# "{n}" makes each unique.
_HOSTILE = (
    """zz{n}zz "x" 'y' {{{{ 7*7 }}}} {{% raise %}} {{# n #}} # a: - b &c *d !e %f @g `id` $(id) \\n | > ; é 漢 🎉""",
    """zz{n}zz "x" 'y' {{{{ 7*7 }}}} {{% raise %}} # - b &c *d !e %f @g `id` $(id) \\ ; é 漢 🎉""",
    "https://zz{n}zz.example.org/%7B%7B7*7%7D%7D/~c/@d/[e]/!*+,=&x?y={{version}}{{arch}}&z=1#f",
    "https://zz{n}zz.example.org/%7B%7B7*7%7D%7D/~c/@d/[e]/!*+,=&x?y=%22&z=1#f",
    "http://zz{n}zz:p%40s%3As*@zz.example.org:3128/%7B%7B7*7%7D%7D",
    "https://zz{n}zz.example.org/%7B%7B7-7%7D%7D/~c/@d/!+,=:x",
    "/srv/zz{n}zz/a=b,c@d+e~f-g_h.i/-x/=/@",
    "git@zz{n}zz.example.org:~a/b+c.git",
    "*.zz{n}zz.[::1]:8/_",
    "zz{n}zz/a+b-c_d.e",
    "1.0+zz{n}zz.-",
    "zz{n}zz.example.org:5000/a__b/c-d.e:F_g.-1",
)


def plasma_schema() -> Any:
    """The root section of the schema."""
    return schema("site").Plasma


def leaves() -> list[tuple[str, Any]]:
    """Every key of the schema that holds no other, as (path, shape)."""
    found = []
    for path, _, shape in schema("base").walk(plasma_schema(), "plasma"):
        inner = shape
        while inner.items:
            path = f"{path}[]" if get_origin(inner.bare) is list else path
            inner = inner.items
        if not inner.section:
            found.append((path, inner))
    return found


def accepted(shape: Any, text: str) -> bool:
    """Whether the schema takes this text for a key, as it is."""
    adapter = TypeAdapter(Annotated[(shape.bare, *shape.metadata)] if shape.metadata else shape.bare)
    try:
        return adapter.validate_python(text, strict=True) == text
    except ValidationError:
        return False


def hostile_text(shape: Any, number: int) -> str | None:
    """The most awkward text that the schema takes for a key, or None for a key of few words."""
    return next((text for text in (each.format(n=number) for each in _HOSTILE) if accepted(shape, text)), None)


def hostile(full: dict[str, Any]) -> dict[str, Any]:
    """``full`` with every text of it replaced by the most awkward one that the schema accepts there."""
    changed = copy.deepcopy(full)
    for number, (path, shape) in enumerate(leaves()):
        if shape.wants_text:
            text = hostile_text(shape, number)
            if text is not None:
                _replace(changed, path.removeprefix("plasma.").split("."), text)
    for group, before in zip(changed["groups"], full["groups"], strict=True):
        # The wide names are those of directories.
        if isinstance(group, dict) and not group.get("external"):
            group["name"] = before["name"]
    for environment in changed["environments"]:
        # A key of SSH goes with no other kind of address.
        if "deploy_key" in environment:
            environment["repository"] = "git@zz0zz.example.org:~a/b+c.git"
    return changed


def _replace(value: Any, keys: list[str], text: str) -> None:
    key, rest = keys[0].removesuffix("[]"), keys[1:]
    if not isinstance(value, dict) or value.get(key) is None:
        return
    if not rest:
        if isinstance(value[key], list):
            value[key] = [text]
        elif isinstance(value[key], dict):
            value[key] = dict.fromkeys(value[key], text)
        else:
            value[key] = text
    elif isinstance(value[key], list):
        for item in value[key]:
            _replace(item, rest, text)
    else:
        _replace(value[key], rest, text)


GIVEN: dict[str, dict[str, Any]] = {
    "minimal": {},
    "full-tljh": FULL_TLJH,
    "full-pypi": FULL_PYPI,
    "files": FILES,
    "words": WORDS,
    "hostile-tljh": hostile(FULL_TLJH),
    "hostile-pypi": hostile(FULL_PYPI),
}


def texts(value: Any) -> list[str]:
    """Every text in a value, keys of mappings included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@functools.cache
def compiled(name: str) -> dict[str, Any]:
    """What Salt's pillar compiler and the external pillar make of one of the pillars above."""
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        (root / "pillar").mkdir()
        (root / "pillar" / "top.sls").write_text("base:\n  '*':\n    - plasma\n", encoding="utf-8")
        # A renderer that runs no Jinja: what the operator wrote is data.
        text = "#!yaml\n" + yaml.safe_dump({"plasma": GIVEN[name]}, allow_unicode=True)
        (root / "pillar" / "plasma.sls").write_text(text, encoding="utf-8")
        for file in (entry["file"] for entry in GIVEN[name].get("users_csv", [])):
            path = root / "pillar" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(CSV, encoding="utf-8")
            path.chmod(0o600)
        opts = options(root, pillar_roots={"base": [str(root / "pillar")]})
        pillar = salt.pillar.Pillar(opts, opts["grains"], opts["id"], "base").compile_pillar()
    if "_errors" in pillar:
        raise AssertionError(f"{name} is not valid:\n" + "\n".join(pillar["_errors"]))
    return json.loads(json.dumps(pillar))
