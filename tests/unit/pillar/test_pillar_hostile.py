"""Pillar that was made to break something: values that would reach a shell, a path, a log or another account."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.pillar.conftest import MARKER

HUGE = pytest.param(10**400, id="huge")
INJECTIONS = [
    "; rm -rf /",
    "$(id)",
    "`id`",
    "a b",
    "a\nb",
    "a\n",
    "\ta",
    "a\x00b",
    "a\x1b[2Jb",
    "'",
    '"',
    "{{ 7 * 7 }}",
    "{% raw %}",
    "-rf",
    "--index-url=https://evil.example.org",
    "../../etc",
    "..",
    "/",
    "|sh",
    "&",
    "*",
    "~root",
    "a:b",
    "x" * 10_000,
    "\u202eadmin",
    "\u200badmin",
    "аdmin",
    "ａｄｍｉｎ",
    "٣",
    "",
]


def at(path: str, value: Any) -> Any:
    """`users[].name` and a value as `{"users": [{"name": value}]}`."""
    name, _, rest = path.partition(".")
    inner = at(rest, value) if rest else value
    return {name.removesuffix("[]"): [inner] if name.endswith("[]") else inner}


PLACES = [
    "users[].name",
    "groups[].name",
    "groups[]",
    "hub.prefix",
    "hub.versions.tljh",
    "hub.sources.installer",
    "hub.sources.installer_sha256",
    "hub.sources.tljh",
    "hub.sources.traefik",
    "hub.sources.pip_index_url",
    "hub.sources.http_proxy",
    "hub.sources.ca_bundle",
    "docker.repository.url",
    "docker.repository.key_url",
    "docker.repository.key_sha256",
    "docker.log_driver",
    "limits.memory",
    "limits.cpu",
    "shared_data",
    "servers.umask",
    "servers.proxy.http",
    "servers.volumes[].source",
    "quota.soft",
    "quotas.device",
    "https.name_server",
    "https.letsencrypt_email",
    "https.acme_server",
    "https.dns.provider",
    "environments[].name",
    "permissions.default",
    "utils.packages[]",
    "utils.ctop.version",
    "utils.ctop.url",
    "preflight.min_disk",
]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_means_something_to_a_shell_a_path_or_a_terminal(problems, place):
    for text in INJECTIONS:
        lines = problems(at(place, text))
        assert lines[0].startswith(f"plasma.{place.replace('[]', '[0]')}"), text
        assert len(lines[0]) < 600


@pytest.mark.parametrize("text", [text for text in INJECTIONS if text])
def test_no_time_zone_and_no_place_in_a_server_means_something_to_a_shell(problems, text):
    assert problems({"servers": {"timezone": text}})[0].startswith("plasma.servers.timezone: ")
    volume = {"source": "/srv/a", "target": text}
    assert problems({"servers": {"volumes": [volume]}})[0].startswith("plasma.servers.volumes[0].target: ")


@pytest.mark.parametrize("place", ["admins[]", "environments[].groups[]", "groups[].name"])
def test_names_of_directories_are_wide_and_no_trap(problems, place):
    """Blanks are usual there; what a shell, a path or a reader would take for something else is not."""
    key, text_of = (
        place.split("[")[0],
        {"admins[]": ("%", ""), "groups[].name": ("",), "environments[].groups[]": ("",)},
    )
    for text in (text for text in INJECTIONS if text != "a b"):
        for sign in text_of[place]:
            pillar = at(place, f"{sign}{text}")
            if key == "environments":
                pillar["environments"][0] |= {"name": "r", "repository": "https://example.org/r"}
            if key == "groups":
                pillar["groups"][0]["external"] = True
            assert problems(pillar)[0].startswith(f"plasma.{place.replace('[]', '[0]')}"), text


@pytest.mark.parametrize(
    "name",
    [
        "fred@example.org",
        "EXAMPLE\\fred",
        "Fred Smith",
        "20231234",
        "Anna",
        "Jörg",
        "Conan O'Brien",
        "ольга@example.org",
    ],
)
def test_names_of_people_as_directories_write_them(complete, name):
    assert complete({"admins": [name, "anna", "%Lehrer & Tutoren (Physik)"]})["admins"] == [name, "anna"]


@pytest.mark.parametrize("name", ["Root", "DOCKER", "Jupyterhub"])
def test_system_accounts_are_nobodys_names_in_capitals_either(problem, name):
    assert "is the name of a system account" in problem({"admins": [name]})


@pytest.mark.parametrize("group", ["docker", "Docker", "LXD"])
def test_a_directory_brings_no_group_of_roots(problem, group):
    assert "can take over the server" in problem({"groups": [{"name": group, "external": True}]})
    course = {"name": "r", "repository": "https://example.org/r", "groups": [group]}
    assert "can take over the server" in problem({"environments": [course]})


@pytest.mark.parametrize(("key", "value"), [("gid", 2000), ("absent", True)])
def test_a_group_of_a_directory_is_not_made_here(problem, key, value):
    line = problem({"groups": [{"name": "Maths", "external": True, key: value}]})
    assert line.startswith(f"plasma.groups[0].{key}: ")
    assert "not made or removed here" in line


def test_a_name_that_only_a_directory_can_have_says_how_to_write_that(problem):
    assert "needs `external: true`" in problem({"groups": ["Students of Maths"]})
    line = problem({"groups": [{"name": "Maths", "external": True}], "users": [{"name": "anna", "groups": ["Maths"]}]})
    assert line.startswith("plasma.users[0].groups[0]: ")


@pytest.mark.parametrize("place", ["users[].home", "users[].shell", "users[].groups[]", "users[].fullname"])
@pytest.mark.parametrize("text", ["a\nroot::0:0::/:/bin/sh", "a:b", "a\x00", "/home/a\n", "\u202e"])
def test_nothing_that_breaks_a_line_of_passwd(problems, place, text):
    user = at(place.removeprefix("users[]."), text)
    assert problems({"users": [{"name": "anna", **user}]})[0].startswith("plasma.users[0].")


@pytest.mark.parametrize(
    "place", ["hub.prefix", "shared_data", "users[].home", "home_path", "servers.volumes[].source"]
)
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "//opt/x",
        "/opt",
        "/srv",
        "/home",
        "/etc",
        "/etc/tljh",
        "/usr",
        "/usr/lib/x",
        "/usr/local",
        "/usr/local/bin",
        "/var",
        "/var/lib/docker",
        "/root",
        "/root/x",
        "/proc/1",
        "/tmp/x",
        "/run/x",
        "/dev/shm/x",
        "/boot",
        "/opt/../etc",
        "/opt/./x",
        "/opt/x/..",
        "/opt/x/",
        "/opt//x",
        "opt/x",
        "./opt/x",
        "~/x",
        "/opt/a b",
        "/opt/x;id",
        "/opt/$HOME",
        "/opt/x\n",
        "/opt/\u0445",
        "/opt/" + "x" * 300,
    ],
)
def test_no_directory_of_the_system_and_no_way_out_of_one(problem, place, path):
    plasma = at(place, path)
    for user in plasma.get("users", []):
        user["name"] = "anna"
    if (place, path) == ("home_path", "/home"):
        return
    assert problem(plasma).startswith(f"plasma.{place.replace('[]', '[0]')}: ")


def test_the_prefix_is_not_in_a_home(problem):
    assert "cannot read" in problem({"hub": {"prefix": "/home/anna/tljh"}})


@pytest.mark.parametrize("path", ["/home/anna/a.key", "/root/a.key", "salt://../a.key", "a.key", "file:///etc/a.key"])
def test_certificates_the_proxy_cannot_read(problem, path):
    assert problem({"https": {"tls": {"key": path, "cert": "/etc/ssl/a.pem"}}}).startswith("plasma.https.tls.key: ")


@pytest.mark.parametrize(
    "name",
    ["root", "games", "nobody", "daemon", "www-data", "systemd-network", "sshd", "messagebus", "docker", "jupyterhub"],
)
@pytest.mark.parametrize("place", ["users[].name", "admins[]"])
def test_system_accounts_are_nobodys_names(problem, place, name):
    assert "is the name of a system account" in problem(at(place, name))


@pytest.mark.parametrize(
    "name",
    ["Anna", "ANNA", "_anna", "-anna", ".anna", "anna.", "an na", "anna@b", "anna$", "a" * 33, "änna", "007"],
)
def test_names_linux_tools_would_not_take(problem, name):
    assert problem({"users": [{"name": name}]}).startswith(
        f"plasma.users[0].name: {json.dumps(name, ensure_ascii=False)} "
    )


@pytest.mark.parametrize("group", ["docker", "root", "disk", "shadow", "lxd"])
def test_no_group_that_makes_root_through_the_back_door(problem, group):
    assert "can take over the server" in problem({"users": [{"name": "anna", "groups": [group]}]})
    assert "is the name of a system group" in problem({"groups": [group]})


@pytest.mark.parametrize("number", [0, -1, 999, 60001, 65534, 2**31, 2**64, HUGE, 1e300, 1500.0, True])
def test_user_ids_of_the_system_or_of_nobody(problem, number):
    assert problem({"users": [{"name": "anna", "uid": number}]}).startswith("plasma.users[0].uid: ")


@pytest.mark.parametrize(
    "size",
    [
        "0",
        "64",
        "63M",
        "1K",
        "-1G",
        "1e3G",
        "1,5G",
        "2GB",
        "2Gi",
        " 2G",
        "2 G",
        "٢G",
        "9" * 400 + "G",
        "9999T",
        ".5G",
        "1.G",
        "inf",
        "nanG",
        "none",
    ],
)
def test_sizes(problem, size):
    line = problem({"limits": {"memory": size}})
    assert line.startswith("plasma.limits.memory: ") and len(line) < 400


@pytest.mark.parametrize(
    "number", [0, -1, 0.001, 1025, float("inf"), float("nan"), HUGE, True, "2", [], None, "all", "none"]
)
def test_cpus(problem, number):
    line = problem({"limits": {"cpu": number}})
    assert line.startswith("plasma.limits.cpu: ") and len(line) < 400


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x",
        "file:///etc/passwd",
        "https://",
        "https:///x",
        "https://exa mple.org/",
        "https://example.org/$(id)",
        "https://example.org/'x'",
        "https://example.org:99999/x",
        "https://[::1/x",
        "https://ex\u0430mple.org/",
        "javascript:alert(1)",
        f"https://user:{MARKER}@example.org/x",
    ],
)
@pytest.mark.parametrize(
    "place", ["hub.sources.installer", "docker.repository.url", "https.acme_server", "utils.ctop.url"]
)
def test_addresses(problem, place, url):
    assert problem(at(place, url)).startswith(f"plasma.{place}: ")


def test_what_no_checksum_verifies_comes_over_https_only(problem):
    line = problem({"https": {"acme_server": "http://acme.example.org/directory"}})
    assert line.startswith("plasma.https.acme_server: ") and "does not start with https://" in line


@pytest.mark.parametrize(
    "spec",
    [
        "-r /etc/passwd",
        "--index-url https://evil.example.org tljh",
        "tljh; rm -rf /",
        "tljh\n-e .",
        ".",
        "./x",
        "tljh @ /etc",
        "tljh @ file:///etc",
        "git+ssh://git@example.org/x",
        "git+file:///x",
        "git+https://u@example.org/x",
        "ftp://example.org/x.zip",
        "http://example.org/x.zip",
        "/srv/../etc",
    ],
)
def test_what_pip_is_given(problem, spec):
    assert problem({"hub": {"sources": {"tljh": spec}}}).startswith("plasma.hub.sources.tljh: ")


@pytest.mark.parametrize(
    "repository",
    [
        "file:///etc",
        "/etc",
        "ext::sh -c id",
        "-uhttps://x",
        "https://x/$(id)",
        "git@-oProxyCommand=id:x",
        "--upload-pack=id",
        "https://x",
        "https://x/a?token=b",
        "https://x/a#b",
        "https://x/a&b",
        "ssh://x/*",
    ],
)
def test_what_git_is_given(problem, repository):
    line = problem({"environments": [{"name": "a", "repository": repository}]})
    assert line.startswith("plasma.environments[0].repository: ")


@pytest.mark.parametrize("ref", ["-x", "--upload-pack=id", "a..b", "a b", "a;b", "/a", "a/", "a//b", "a.", ""])
def test_git_references(problem, ref):
    line = problem({"environments": [{"name": "a", "repository": "https://example.org/a", "ref": ref}]})
    assert line.startswith("plasma.environments[0].ref: ")


@pytest.mark.parametrize(
    "domain",
    [
        "localhost",
        "*.example.org",
        "a..b",
        "-a.org",
        "a.org.",
        "a_b.org",
        "1.2.3.4",
        "a.org:443",
        "https://a.org",
        "ex\u0430mple.org",
        f"{'a' * 64}.org",
        "a.org\n",
    ],
)
def test_domains(problem, domain):
    line = problem({"https": {"domains": [domain], "letsencrypt_email": "a@b.org"}})
    assert line.startswith("plasma.https.domains[0]: ")


@pytest.mark.parametrize(
    "email", ["a", "a@b", "@b.org", "a@", "a b@c.org", "a@b.org\nBcc: x@y.org", "a@b@c.org", "<a@b.org>"]
)
def test_e_mail_addresses(problem, email):
    line = problem({"https": {"domains": ["a.org"], "letsencrypt_email": email}})
    assert line.startswith("plasma.https.letsencrypt_email: ")


@pytest.mark.parametrize("package", ["jq-", "-y", "jq=1", "jq/stable", "JQ", "jq htop", "jq\n", "./x.deb", "*"])
def test_packages(problem, package):
    assert problem({"utils": {"packages": [package]}}).startswith("plasma.utils.packages[0]: ")


@pytest.mark.parametrize(
    "plasma",
    [
        {"users": [{"name": "anna", "password": f"{MARKER}\n"}]},
        {"users": [{"name": "anna", "password": [MARKER]}]},
        {"users": [{"name": "anna", "password": {MARKER: MARKER}}]},
        {"users": [{"name": "anna", "password": MARKER * 50}]},
        {"users": [{"name": "anna", "password": f"{MARKER}\ud800"}]},
        {"users": [{"name": "anna", "password": MARKER + "\U0001f600" * 130}]},
        {"users": [{"name": "anna", "password": MARKER, "password_policy": "never"}]},
        {"users": [{"name": "anna", "password": MARKER, "remove_home": True}]},
        {"users": [{"name": "anna", "password": MARKER}, {"name": "anna", "password": MARKER}]},
        {"users": [{"name": "anna", "password": MARKER}], "users_csv": ["no-such-file.txt"]},
        {"users": [{"name": "anna", "password": MARKER}], "quotas": {"unmanaged": True}},
        {"users": [{"name": "anna", "password": MARKER, "password_hash": "$6$abcdefgh$abcdefghijkl"}]},
        {"users": [{"name": "anna", "password_hash": MARKER}]},
        {"users": [{"name": "anna", "passwd": MARKER}]},
        {"users": [{"name": "anna", "Password": MARKER}]},
        {"users": [{"name": "Anna", "password": MARKER}]},
        {"users": [f"anna:{MARKER}"]},
        {"users": [[MARKER]]},
        {"users": MARKER},
        {"users": {"anna": MARKER}},
        MARKER,
        [MARKER],
        {"environments": [{"name": "a", "absent": True, "build_args": MARKER}]},
        {"environments": [{"name": "a", "absent": True, "build_args": {"A": f"{MARKER}\n"}}]},
        {"environments": [{"name": "a", "repository": f"https://user:{MARKER}@example.org/a"}]},
        {"environments": [{"name": "a", "repository": f"https://{MARKER}@example.org/a"}]},
        {"environments": [{"name": "a", "absent": True, "credentials": MARKER}]},
        {"environments": [{"name": "a", "absent": True, "credentials": {"password": f"{MARKER}\n"}}]},
        {"environments": [{"name": "a", "repository": "git://b/c", "credentials": {"password": MARKER}}]},
        {"environments": [{"name": "a", "absent": True, "deploy_key": MARKER}]},
        {"environments": [{"name": "a", "absent": True, "deploy_key": [MARKER]}]},
        {"https": {"dns": {"provider": "x", "environment": {"TOKEN": f"{MARKER}\n"}}}},
        {"https": {"dns": {"provider": "x", "environment": {"token": MARKER}}}},
        {"https": {"dns": {"provider": "x", "environment": [MARKER]}}},
        {"hub": {"sources": {"http_proxy": f"user:{MARKER}@proxy:3128"}}},
        {"hub": {"sources": {"http_proxy": f"socks://user:x/{MARKER}@proxy:3128"}}},
        {"hub": {"sources": {"https_proxy": f"ftp://user:x@{MARKER}@proxy:3128"}}},
        {"hub": {"sources": {"pip_index_url": f"https://token:{MARKER}@pypi.example.org:port/simple"}}},
        {"hub": {"sources": {"installer": f"ftp://example.org/x?token={MARKER}"}}},
    ],
)
def test_secrets_are_never_shown(problems, plasma):
    # `problems` looks for the marker in every line.
    assert problems(plasma)


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (f"password:{MARKER}", "plasma.users[0]: a blank is missing after `password:`."),
        (f"password{MARKER}", 'plasma.users[0]."********": unknown key'),
        (MARKER, 'plasma.users[0]."********": unknown key'),
        ("passwrod", "plasma.users[0].passwrod: unknown key; did you mean 'password'?"),
    ],
)
def test_a_password_that_became_a_key_is_not_shown(problem, entry, line):
    """`{name: ben, password:hunter-2}` is one key for YAML."""
    assert problem(f"users: [{{name: ben, {entry}}}]").startswith(line)


def test_a_number_as_a_password_is_not_shown(problem):
    assert "90817263" not in problem({"users": [{"name": "anna", "password": 90817263}]})


def test_very_deep_pillar(problem):
    deep: Any = {}
    for _ in range(5000):
        deep = {"hub": deep}
    assert problem(deep) == "plasma: is nested more than 12 levels deep; no key of the schema is."


def test_pillar_that_contains_itself(problem):
    ring: dict[str, Any] = {}
    ring["hub"] = ring
    assert "nested more than" in problem(ring)
