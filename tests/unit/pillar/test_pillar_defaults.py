"""What the states get from a pillar that is valid."""

from __future__ import annotations

import json
import sys
import time

import pytest

from tests.unit.pillar.conftest import MARKER, load_external_pillar

HASH = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"


@pytest.mark.parametrize("given", [None, {}, "", "limits: {}", "hub: {sources: {}, versions: {}}", "users: []"])
def test_what_is_not_set_has_its_default(complete, given):
    assert complete(given) == complete({})


def test_no_plasma_key_at_all_means_all_defaults(external_pillar, complete):
    assert external_pillar.ext_pillar("server", {"other": 1}) == {"plasma": complete({})}


def test_the_documented_defaults(complete):
    plasma = complete({})
    assert plasma["limits"] == {"memory": "2G", "cpu": 2}
    assert plasma["cull"]["timeout"] == 3600
    assert plasma["named_servers"] == {"limit": 2}
    assert plasma["shared_data"] == "/srv/data"
    assert plasma["hub"]["provider"] == "tljh"
    assert plasma["hub"]["prefix"] == "/opt/tljh"
    assert plasma["docker"]["log_driver"] == "journald"
    assert plasma["utils"]["packages"] == ["jq", "tree"]
    assert plasma["permissions"] == {"default": "open"}
    builder = plasma["builder"]
    assert (builder["parallel"], builder["timeout"]) == (2, 7200)
    assert builder["image"] == "quay.io/jupyterhub/repo2docker:2025.12.0"
    assert plasma["monitoring_url"] == ""
    assert [plasma[name] for name in ("users", "groups", "admins", "environments")] == [[], [], [], []]
    assert not plasma["cockpit"]["enabled"] and not plasma["https"]["domains"] and not plasma["https"]["tls"]


def test_provider_pypi_is_enough_for_a_closed_network(complete):
    """By default it takes nothing from GitHub or Docker; what is named is taken all the same."""
    found = {name: complete({"hub": {"provider": name}}) for name in ("tljh", "pypi")}
    assert [found[name]["docker"]["source"] for name in found] == ["docker-ce", "distro"]
    assert [found[name]["utils"]["monitor"] for name in found] == ["ctop", "none"]
    image = complete({})["builder"]["image"]
    assert [found[name]["builder"]["image"] for name in found] == [image, "local"]
    named = {"docker": {"source": "docker-ce"}, "utils": {"monitor": "ctop"}, "builder": {"image": image}}
    plasma = complete({"hub": {"provider": "pypi"}, **named})
    assert (plasma["docker"]["source"], plasma["utils"]["monitor"]) == ("docker-ce", "ctop")
    assert plasma["builder"]["image"] == image
    assert complete(named) == complete({})


def test_the_result_is_plain_data(complete):
    plasma = complete(
        {
            "users": [{"name": "anna", "quota": {"soft": "1G"}}],
            "groups": ["biology"],
            "limits": {"cpu": 0.5},
            "https": {"tls": {"key": "/etc/ssl/a.key", "cert": "salt://certs/a.pem"}},
            "environments": [{"name": "r", "repository": "https://git.example.org/courses/r.git"}],
        }
    )
    assert json.loads(json.dumps(plasma)) == plasma


def test_values_keep_the_form_they_were_written_in(complete):
    plasma = complete("{limits: {memory: 1.5G, cpu: 3}, preflight: {min_disk: 0K}}")
    assert plasma["limits"] == {"memory": "1.5G", "cpu": 3}
    assert isinstance(plasma["limits"]["cpu"], int)
    assert plasma["preflight"]["min_disk"] == "0K"


def test_files_that_salt_fetches_may_lie_on_the_server(complete):
    """A server behind a proxy gets them as files: Salt's own downloads know no proxy."""
    plasma = complete(
        {
            "docker": {"repository": {"key_url": "/srv/mirror/docker.asc"}},
            "utils": {"ctop": {"url": "/srv/mirror/ctop-{version}-{arch}"}},
        }
    )
    assert plasma["docker"]["repository"]["key_url"] == "/srv/mirror/docker.asc"
    assert plasma["utils"]["ctop"]["url"] == "/srv/mirror/ctop-{version}-{arch}"


def test_completing_does_not_change_the_defaults_of_the_next_one(complete):
    first = complete({})
    first["utils"]["packages"].append("htop")
    first["users"].append("x")
    assert complete({})["utils"]["packages"] == ["jq", "tree"]
    assert complete({})["users"] == []


class TestInstaller:
    """The installer is downloaded and run as root: no version of it without a checksum."""

    def test_default(self, complete):
        sources = complete({})["hub"]["sources"]
        assert sources["installer"].endswith("/the-littlest-jupyterhub/2.0.0/bootstrap/bootstrap.py")
        assert sources["installer_sha256"].startswith("f97d6db8")

    def test_the_address_follows_the_version(self, complete):
        hub = complete({"hub": {"versions": {"tljh": "2.1.0"}, "sources": {"installer_sha256": "0" * 64}}})["hub"]
        assert hub["sources"]["installer"].endswith("/2.1.0/bootstrap/bootstrap.py")
        assert hub["sources"]["installer_sha256"] == "0" * 64

    def test_another_version_wants_its_checksum(self, problem):
        line = problem({"hub": {"versions": {"tljh": "2.1.0"}}})
        assert line.startswith("plasma.hub.sources.installer_sha256 is required, as plasma.hub.versions.tljh is 2.1.0")

    def test_the_provider_pypi_has_no_installer_to_check(self, complete):
        hub = complete({"hub": {"provider": "pypi", "versions": {"tljh": "main"}}})["hub"]
        assert hub["sources"]["installer_sha256"] is None

    @pytest.mark.parametrize("source", ["https://mirror.example.org/bootstrap.py", "/srv/mirror/bootstrap.py"])
    def test_a_mirror_of_a_known_version_is_held_to_the_known_checksum(self, complete, source):
        sources = complete({"hub": {"sources": {"installer": source}}})["hub"]["sources"]
        assert sources["installer"] == source
        assert sources["installer_sha256"].startswith("f97d6db8")

    @pytest.mark.parametrize("version", ["latest", "2", "2.0"])
    def test_versions_that_move_are_refused(self, problem, version):
        line = problem({"hub": {"versions": {"tljh": version}}})
        assert f'plasma.hub.versions.tljh: "{version}" does not name one fixed version' in line

    @pytest.mark.parametrize("name", ["miniforge", "traefik"])
    @pytest.mark.parametrize("source", ["https://mirror.example.org/file", "/srv/mirror/file"])
    def test_other_downloads_want_a_checksum(self, complete, problem, name, source):
        assert f"plasma.hub.sources.{name}_sha256 is required" in problem({"hub": {"sources": {name: source}}})
        complete({"hub": {"sources": {name: source, f"{name}_sha256": "a" * 64}}})

    @pytest.mark.parametrize("sources", [{}, {"traefik": "pypi"}])
    def test_a_checksum_of_nothing_is_refused(self, problem, sources):
        assert "has nothing to check" in problem({"hub": {"sources": {**sources, "traefik_sha256": "a" * 64}}})

    def test_another_ctop_wants_its_checksum(self, complete, problem):
        assert "plasma.utils.ctop.sha256 is required" in problem({"utils": {"ctop": {"version": "0.7.8"}}})
        ctop = complete({"utils": {"ctop": {"version": "0.7.8", "sha256": {"arm64": "a" * 64}}}})["utils"]["ctop"]
        assert ctop["sha256"] == {"amd64": None, "arm64": "a" * 64}


def test_a_group_may_be_a_plain_name(complete):
    groups = complete({"groups": ["biology", {"name": "chemistry", "gid": 2000}]})["groups"]
    assert groups == [{"name": "biology", "absent": False}, {"name": "chemistry", "gid": 2000, "absent": False}]


def test_people_have_only_what_is_said(complete):
    plasma = complete(
        f"""
        password_policy: enforce
        admins: [teacher, anna]
        users:
          - {{name: anna, admin: true, groups: [biology, sudo, video], quota: {{hard: 1G}}, password_hash: {HASH}}}
          - {{name: bob, uid: 1500, fullname: Bob B, home: /srv/bob, shell: /bin/zsh, admin: true,
             password_hash: {HASH}, password_policy: on_create}}
          - {{name: carl, absent: true, remove_home: true, groups: [old], uid: 1501, password: x, shell: /bin/sh}}
          - {{name: dora, absent: true, remove_home: false}}
          - {{name: emil, groups: [systemd-journal], password: null}}
        """
    )
    assert plasma["users"] == [
        {"name": "anna", "groups": ["biology", "sudo", "video"], "shell": "/bin/bash", "password_hash": HASH},
        {
            "name": "bob",
            "groups": [],
            "shell": "/bin/zsh",
            "password_hash": HASH,
            "password_policy": "on_create",
            "uid": 1500,
            "fullname": "Bob B",
            "home": "/srv/bob",
        },
        {"name": "carl", "absent": True, "remove_home": True},
        {"name": "dora", "absent": True},
        {"name": "emil", "groups": ["systemd-journal"], "shell": "/bin/bash"},
    ]
    # Neither those of the system, nor those of people who go.
    assert plasma["groups"] == [{"name": "biology", "absent": False}]
    assert plasma["admins"] == ["teacher", "anna", "bob"]
    assert (plasma["home_path"], plasma["password_policy"]) == ("/home", "enforce")
    assert not {"quota", "users_csv"} & set(plasma)


def test_a_shell_has_the_limits_of_a_user_server_unless_others_are_set(complete):
    given = complete({"limits": {"memory": "3G", "cpu": 1.5}, "ssh": {"limits": {"cpu": 1}}})
    assert given["ssh"]["limits"] == {"memory": "3G", "cpu": 1, "tasks": 1024}
    assert given["ssh"]["open_to"] == {"users": [], "groups": []}


def test_the_name_of_the_server_is_the_first_of_its_domains(complete):
    https = complete("https: {name_server: Hub.Example.org, domains: [www.example.org], letsencrypt_email: a@b.org}")
    assert https["https"]["domains"] == ["hub.example.org", "www.example.org"]


def test_variables_of_a_dns_provider_are_beside_what_states_get(complete):
    dns = {"provider": "cloudflare", "environment": {"CF_DNS_API_TOKEN": MARKER}}
    plasma = complete(
        {"https": {"domains": ["hub.example.org", "*.hub.example.org"], "letsencrypt_email": "a@b.org", "dns": dns}}
    )
    assert plasma["https"]["dns"] == {"provider": "cloudflare", "resolvers": []}
    assert plasma["https_secrets"] == {"CF_DNS_API_TOKEN": MARKER}
    assert complete({})["https_secrets"] == {}


@pytest.mark.parametrize("password", [MARKER, f"{MARKER} with spaces, ümlauts and {{braces}} %n"])
def test_a_plain_password_does_not_leave_the_controller(complete, password):
    plasma = complete({"users": [{"name": "anna", "password": password}, {"name": "bob"}]})
    assert MARKER not in json.dumps(plasma, ensure_ascii=False)
    assert all("password" not in user for user in plasma["users"])
    assert plasma["users"][0]["password_hash"].startswith("$y$j9T$") and "password_hash" not in plasma["users"][1]
    assert [user["name"] for user in plasma["users"]] == ["anna", "bob"]


def test_a_password_hash_is_sent(complete):
    assert complete({"users": [{"name": "anna", "password_hash": HASH}]})["users"][0]["password_hash"] == HASH


def test_five_thousand_users_take_no_time_worth_noticing(complete):
    users = [{"name": f"student{number}", "groups": ["biology"], "password_hash": HASH} for number in range(5000)]
    started = time.process_time()
    assert len(complete({"users": users})["users"]) == 5000
    assert time.process_time() - started < 2


def test_loading_leaves_the_import_path_alone(external_pillar):
    before = list(sys.path)
    first = external_pillar.schema("check")
    again = load_external_pillar().schema("check")
    assert first is again
    assert sys.path == before
