"""What an apply has to fetch, and what is said where it cannot."""

from __future__ import annotations

import hashlib
import os
import ssl
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import plasma_builder_images
import plasma_engine
import plasma_hub_installed
import plasma_reach as reach
import plasma_reach_needs as needs
import plasma_run
import plasma_status_parts
import plasma_trust
from tests.support.paths import REPOSITORY
from tests.unit.modules.hub_prefix import HubPrefix
from tests.unit.pillar.conftest import load_external_pillar

ORIGINAL = SimpleNamespace(url=reach.url, apt=reach.apt, image=reach.image, port=reach.port)
GRAINS = {"os": "Debian", "oscodename": "bookworm", "osarch": "amd64"}
EVERYTHING = ("docker", "utils", "tljh", "cockpit", "environments")
LISTS = {
    "http://deb.example.org/debian/": "http://deb.example.org/debian/dists/bookworm/InRelease",
    "http://other.example.org/tools/": "http://other.example.org/tools/dists/stable/InRelease",
}
MINE = "http://deb.example.org/debian/pool/main/j/jq/jq_1_amd64.deb"


class Network:
    """Everything that is asked is kept; ``down`` are the hosts that do not answer."""

    def __init__(self):
        self.asked, self.down, self.options = [], set(), {}

    def __call__(self, address, *arguments, **options):
        self.asked.append(address)
        self.options[address] = options
        return "no answer" if any(host in address for host in self.down) else None


@pytest.fixture
def network(monkeypatch):
    network = Network()
    for name in ("url", "apt", "image"):
        monkeypatch.setattr(reach, name, network)
    monkeypatch.setattr(reach, "port", lambda host, number, also: network(f"{host}:{number}"))
    return network


@pytest.fixture(autouse=True)
def server(monkeypatch, tmp_path):
    """A bare one: packages as ``dpkg`` knows them, and apt's lists."""
    here = {"packages": [], "addresses": [MINE], "engine": None, "images": []}
    monkeypatch.setattr(plasma_engine, "engine", lambda: here["engine"])
    monkeypatch.setattr(plasma_engine, "request", lambda method, path, **_: {} if path in here["images"] else None)
    monkeypatch.setattr(plasma_status_parts, "environments", lambda: here.get("environments", []))
    monkeypatch.setattr(reach, "repositories", lambda: LISTS)
    monkeypatch.setattr(reach, "packages_from", lambda names: here["addresses"])
    monkeypatch.setattr(needs, "_PIP_FILES", (tmp_path / "pip.conf",))
    monkeypatch.setattr(needs, "_NETRC", tmp_path / "netrc")
    monkeypatch.setattr(plasma_trust, "BUNDLE", str(tmp_path / "list.crt"))
    monkeypatch.setattr(needs, "_digest", lambda path: here.get(str(path)))

    def run(command, **_):
        assert command[0] == "dpkg-query"
        shown = "".join(f"installed {name}\n" for name in here["packages"])
        return plasma_run.Result(0, f"{shown}not-installed tree\n")

    monkeypatch.setattr(plasma_run, "run", run)
    return here


@pytest.fixture
def prefix(tmp_path):
    return HubPrefix(tmp_path / "tljh")


def pillar(prefix, hub=None, **keys):
    """The completed pillar, with a prefix that no pillar could name."""
    answer = load_external_pillar().ext_pillar("s", {"plasma": {"hub": hub or {}, **keys}})
    assert answer["plasma"], answer
    answer["plasma"]["hub"]["prefix"] = str(prefix.root)
    return answer["plasma"]


def problems(plasma, parts=EVERYTHING, lock=None):
    told = needs.problems(plasma, parts, GRAINS, lock)
    assert told["warnings"] == []
    return told["problems"]


def test_a_closed_network_is_told_with_the_keys_that_help(prefix, network):
    network.down = {"github", "download.docker.com"}
    docker, github, raw = problems(pillar(prefix))
    assert docker.startswith(
        "download.docker.com cannot be reached (no answer), for Docker's packages and Docker's key: "
    )
    assert "`plasma.docker.source: distro`" in docker
    # Each host once, for all that it has, in the order of the states.
    said = "github.com cannot be reached (no answer), for ctop, TLJH itself, Miniforge and Traefik: "
    assert github.startswith(said)
    for key in ("utils.monitor: none", "sources.tljh`", "sources.miniforge: none", "sources.traefik: pypi"):
        assert key in github
    assert "raw.githubusercontent.com cannot be reached (no answer), for the installer of TLJH: " in raw
    assert all(one.count("`plasma.hub.provider: pypi`") == 1 for one in (github, raw))


def test_provider_pypi_needs_nothing_but_packages_and_an_index(prefix, network):
    assert problems(pillar(prefix, {"provider": "pypi"})) == []
    assert network.asked == ["https://pypi.org/simple/jupyterhub/", LISTS["http://deb.example.org/debian/"]]


def test_the_toolkit_of_gpus_is_asked_for_where_it_is_wanted_and_missing(prefix, network, server):
    plasma = pillar(prefix, gpu={"enabled": True, "repository": {"url": "https://mirror.example.org/nvidia"}})
    network.down = {"mirror.example.org", "nvidia.github.io"}
    packages, key = problems(plasma, parts=["gpu"])
    said = "cannot be reached (no answer), for the container toolkit of NVIDIA: `plasma.gpu.repository` takes a mirror"
    assert (packages, key) == (f"mirror.example.org {said}", f"nvidia.github.io {said}")
    assert "https://mirror.example.org/nvidia/amd64/InRelease" in network.asked
    server["packages"] = ["nvidia-container-toolkit"]
    assert problems(plasma, parts=["gpu"]) == problems(pillar(prefix), parts=["gpu"]) == []


def test_names_of_mirrors_are_asked_without_showing_logins(prefix, network):
    sources = {"pip_index_url": "https://me:secret@pypi.example.org:8443/simple/"}
    network.down = {"pypi.example.org"}
    (sentence,) = problems(pillar(prefix, {"provider": "pypi", "sources": sources}))
    assert sentence.startswith("pypi.example.org:8443 cannot be reached (no answer), for the hub's packages: ")
    assert "plasma.hub.sources.pip_index_url" in sentence and "secret" not in sentence


def test_nothing_is_asked_where_nothing_is_fetched(prefix, network, server):
    prefix.install("pypi")
    server.update(engine="distro", packages=["jq", "tree", "python3", "python3-venv"])
    lock = hashlib.sha256(prefix.lock.read_bytes()).hexdigest()
    plasma = pillar(prefix, {"provider": "pypi"})
    assert problems(plasma, lock=lock) == problems(plasma, lock=None) == []
    assert network.asked == []
    # Another lock is to come.
    problems(plasma, lock="other")
    assert network.asked == ["https://pypi.org/simple/jupyterhub/"]
    network.asked.clear()
    problems(plasma, parts=["https", "users"], lock="other")
    assert network.asked == []


def test_an_installed_tljh_asks_nobody(prefix, network, server):
    prefix.install("tljh")
    plasma = pillar(prefix)
    server.update({"engine": "docker-ce", "/usr/local/bin/ctop": plasma["utils"]["ctop"]["sha256"]["amd64"]})
    server["packages"] = ["jq", "tree", *needs._HUB["tljh"]]
    assert problems(plasma) == []
    assert network.asked == []


@pytest.mark.parametrize("where", ["another provider", "another prefix"])
def test_a_hub_that_is_refused_fetches_nothing(prefix, network, server, tmp_path, monkeypatch, where):
    prefix.install("pypi")
    plasma = pillar(prefix, utils={"monitor": "none", "packages": []})
    if where == "another prefix":
        monkeypatch.setattr(plasma_hub_installed, "_UNIT", tmp_path / "jupyterhub.service")
        (tmp_path / "jupyterhub.service").write_text(f"WorkingDirectory={prefix.root}/state\n")
        plasma["hub"]["prefix"] = str(tmp_path / "none")
    network.down = {"github", "pypi"}
    assert problems(plasma, ["tljh"]) == []


def test_a_tljh_without_github(prefix, network, server, monkeypatch):
    """What the page on closed networks shows."""
    network.down = {"github", "docker.com"}
    sources = {
        "installer": "/srv/tljh/bootstrap/bootstrap.py",
        "tljh": "/srv/tljh",
        "miniforge": "none",
        "traefik": "pypi",
    }
    closed = {"docker": {"source": "distro"}, "utils": {"monitor": "none"}}
    plasma = pillar(prefix, {"sources": sources}, **closed)
    # Nothing is on the server yet, or something else.
    installer, itself = problems(plasma)
    missing = "cannot be reached (it is not on this server), for"
    assert installer.startswith(f"/srv/tljh/bootstrap/bootstrap.py {missing} the installer of TLJH: ")
    assert itself == f"/srv/tljh {missing} TLJH itself: see `plasma.hub.sources.tljh`"
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: str(path).startswith("/srv/tljh") or exists(path))
    server["/srv/tljh/bootstrap/bootstrap.py"] = "5" * 64
    assert "(its SHA-256 is not that of pillar), for the installer of TLJH" in problems(plasma)[0]
    server["/srv/tljh/bootstrap/bootstrap.py"] = plasma["hub"]["sources"]["installer_sha256"]
    assert problems(plasma) == []
    # Once there is a copy, it may be removed again.
    server[str(prefix.root / "plasma" / "bootstrap.py")] = server.pop("/srv/tljh/bootstrap/bootstrap.py")
    assert problems(plasma) == []
    sources = {"traefik": "https://mirror.github.example.org/traefik", "traefik_sha256": "7" * 64}
    sentences = problems(
        pillar(prefix, {"sources": {**sources, "tljh": "git+https://github.example.org/tljh@2.0.0"}}, **closed)
    )
    assert any("mirror.github.example.org cannot be reached" in one and "sources.traefik`" in one for one in sentences)
    assert any(one.startswith("github.example.org cannot be reached (no answer), for TLJH itself") for one in sentences)


def test_pips_own_settings_count(prefix, network, tmp_path):
    plasma = pillar(prefix, {"provider": "pypi"}, utils={"packages": []})
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = http://pip.example.org/simple\n")
    problems(plasma, ["tljh"])
    assert network.asked[0] == "http://pip.example.org/simple/jupyterhub/"
    for text in (
        "[global]\nno-index = true\n",
        "[install]\nfind-links = /srv/wheels\n",
        "[install]\nclient-cert = /x.pem\n",
        "no section",
    ):
        network.asked.clear()
        (tmp_path / "pip.conf").write_text(text)
        problems(plasma, ["tljh"])
        assert network.asked == [LISTS["http://deb.example.org/debian/"]]


@pytest.mark.parametrize(
    ("addresses", "down", "told"),
    [
        ([MINE], {"deb.example.org"}, True),
        ([MINE], {"other.example.org"}, False),  # of somebody else's tools
        ([], {"deb.example.org"}, False),  # apt has them
        (None, {"deb.example.org"}, True),  # no lists yet: those of the release
        (None, {"other.example.org"}, False),
    ],
)
def test_packages_come_from_where_apt_would_take_them(prefix, network, server, addresses, down, told):
    server["addresses"], network.down = addresses, down
    sentences = problems(pillar(prefix, utils={"packages": ["jq"], "monitor": "none"}), ["utils"])
    assert bool(sentences) is told
    if told:
        assert sentences[0].startswith("deb.example.org cannot be reached (no answer), for packages (jq): apt needs")


ENVIRONMENTS = [
    {"name": "by-https", "repository": "https://git.example.org/a.git"},
    {"name": "by-ssh", "repository": "ssh://git@ssh.example.org:2222/b.git", "deploy_key": None},
    {"name": "ready", "image": "registry.example.org/course:2026"},
    {"name": "gone", "absent": True},
]


def test_environments_that_are_to_be_made(prefix, network, server):
    plasma = pillar(prefix, environments=ENVIRONMENTS[:1] + ENVIRONMENTS[2:])
    plasma["environments"].append({"name": "by-ssh", "repository": "git@ssh.example.org:b.git"})
    plasma["environments"].append({"name": "by-port", "repository": "ssh://git@ssh.example.org:2222/b.git"})
    network.down = {"git.example.org", "quay.io", "registry.example.org"}
    sentences = problems(plasma, ["environments"])
    assert network.asked[:5] == [
        "https://git.example.org/a.git/info/refs?service=git-upload-pack",
        "registry.example.org/course:2026",
        "ssh.example.org:22",
        "ssh.example.org:2222",
        plasma["builder"]["image"],
    ]
    assert [one.partition(" ")[0] for one in sentences] == ["git.example.org", "registry.example.org", "quay.io"]
    assert "`plasma.environments` (by-https)" in sentences[0] and "`plasma.builder.image`" in sentences[2]
    # What is here is not fetched.
    network.asked.clear()
    server["packages"] = ["git", "openssh-client"]
    server["environments"] = [{"image": f"{name}:HEAD"} for name in ("by-https", "ready", "by-ssh", "by-port")]
    assert problems(plasma, ["environments"]) == []
    assert network.asked == []


def test_images_that_the_server_makes_itself(prefix, network, server):
    plasma = pillar(prefix, environments=ENVIRONMENTS[:1], builder={"image": "local"})
    network.down = {"pypi.org"}
    (sentence,) = problems(plasma, ["builder", "environments"])
    assert sentence.startswith("pypi.org cannot be reached (no answer), for the images that builds begin with: ")
    assert not [address for address in network.asked if "repo2docker" in address]
    network.asked.clear()
    server["images"] = [f"/images/{plasma_builder_images.BASE}/json"]
    assert problems(plasma, ["builder"]) == []
    assert network.asked == []


@pytest.mark.parametrize("installed", [False, True])
def test_environments_do_not_keep_an_installed_hub_from_an_apply(prefix, network, installed):
    if installed:
        prefix.install("pypi")
    builder = {"image": "quay.io/jupyterhub/repo2docker:2025.12.0"}
    environments = ENVIRONMENTS[:1] + ENVIRONMENTS[2:]
    plasma = pillar(prefix, {"provider": "pypi"}, environments=environments, builder=builder)
    network.down = {"git.example.org", "quay.io", "registry.example.org", "deb.example.org"}
    told = needs.problems(plasma, ["tljh", "environments"], GRAINS)
    hosts = {kind: [line.partition(" ")[0] for line in lines] for kind, lines in told.items()}
    theirs = ["git.example.org", "registry.example.org", "quay.io"]
    if installed:
        assert hosts == {"problems": ["deb.example.org"], "warnings": theirs}
    else:
        assert hosts == {"problems": [*theirs, "deb.example.org"], "warnings": []}


def test_an_engine_that_hangs_is_not_asked_for_each_image(prefix, network, monkeypatch):
    def hangs(*_, **__):
        raise CommandExecutionError("Docker does not answer within 5 seconds")

    asked = []
    monkeypatch.setattr(plasma_status_parts, "environments", hangs)
    monkeypatch.setattr(needs, "_has", asked.append)
    needs.problems(pillar(prefix, environments=ENVIRONMENTS[2:]), ["environments"], GRAINS)
    assert asked == []


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("git@git.example.org:2026/python.git", ("git.example.org", 22)),
        ("git.example.org:x", ("git.example.org", 22)),
        ("git@[2001:db8::1]:x.git", ("2001:db8::1", 22)),
        ("ssh://git@[2001:db8::1]/x", ("2001:db8::1", 22)),
        ("ssh://git@[2001:db8::1]:2222/x", ("2001:db8::1", 2222)),
        ("ssh://git@git.example.org:2222/2026/x", ("git.example.org", 2222)),
        ("ssh://git.example.org/x@y:1/z", ("git.example.org", 22)),
        ("git://git.example.org/x", ("git.example.org", 9418)),
        ("", None),
    ],
)
def test_where_git_goes(address, place):
    assert needs._git(address) == place


def test_a_port_that_git_takes_for_a_folder_is_told_where_the_host_is_not_reached(prefix, network, server):
    network.down = {"ssh.example.org"}
    told = {}
    for address in ("git@ssh.example.org:2026/b.git", "git@ssh.example.org:b.git"):
        plasma = pillar(prefix, environments=[])
        plasma["environments"] = [{"name": "by-ssh", "repository": address}]
        (told[address],) = problems(plasma, ["environments"])
    meant = (
        "2026 is a folder in git@ssh.example.org:2026/b.git: with that port it is ssh://git@ssh.example.org:2026/b.git"
    )
    assert meant in told["git@ssh.example.org:2026/b.git"]
    assert "folder" not in told["git@ssh.example.org:b.git"]


AUTHORITY = ssl.DER_cert_to_PEM_cert(b"an authority")


@pytest.mark.parametrize(
    ("parts", "there", "also"),
    [
        (["trust", "tljh"], False, [AUTHORITY]),
        (["trust", "tljh"], True, []),  # an earlier apply brought it
        (["tljh"], False, []),  # this one does not
    ],
)
def test_authorities_that_come_with_the_same_run(prefix, network, tmp_path, parts, there, also):
    plasma = pillar(prefix, {"provider": "pypi"}, utils={"packages": []})
    plasma["trust"] = [AUTHORITY]
    (tmp_path / "list.crt").write_text(AUTHORITY if there else "")
    problems(plasma, parts)
    assert len(network.options) == 2
    assert all(options["also"] == also for options in network.options.values())


@pytest.mark.parametrize("addresses", [[MINE], None])
def test_all_that_is_asked_takes_these_authorities(prefix, network, server, monkeypatch, addresses):
    """With the real functions: one that did not would be a traceback."""
    server["addresses"] = addresses
    for name in ("url", "apt", "image", "port"):
        monkeypatch.setattr(reach, name, create_autospec(getattr(ORIGINAL, name), return_value=None))
    environments = [*ENVIRONMENTS[:1], *ENVIRONMENTS[2:]]
    plasma = pillar(prefix, environments=environments)
    plasma["environments"].append({"name": "by-ssh", "repository": "git@ssh.example.org:b.git"})
    assert problems(plasma) == []
    assert all(getattr(reach, name).called for name in ("url", "apt", "image", "port"))


@pytest.mark.parametrize(
    ("index", "content", "whole"),
    [
        ("https://pypi.example.org/simple", "machine pypi.example.org login me password secret\n", False),
        ("https://other.example.org/simple", "machine pypi.example.org login me password secret\n", True),
        ("https://me:x@pypi.example.org/simple", "machine pypi.example.org login me password secret\n", True),
        ("https://pypi.example.org/simple", "what is this\n", True),
        ("https://pypi.example.org/simple", None, True),
    ],
)
def test_a_login_that_pip_has_from_a_file(prefix, network, tmp_path, index, content, whole):
    if content:
        (tmp_path / "netrc").write_text(content)
    problems(pillar(prefix, {"provider": "pypi", "sources": {"pip_index_url": index}}), ["tljh"])
    assert network.options[f"{index}/jupyterhub/"]["whole"] is whole


def test_what_salt_downloads_goes_by_no_proxy(prefix, network, monkeypatch):
    """Salt's client does not read the variables, so neither may the probe."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://proxy.example.org:3128")
    sources = {"https_proxy": "http://proxy.example.org:3128"}
    plasma = pillar(prefix, {"sources": sources})
    problems(plasma)
    (installer,) = [address for address in network.asked if "bootstrap" in address]
    assert not network.options[installer].get("proxies")


def test_the_packages_are_those_of_the_states():
    for provider, packages in needs._HUB.items():
        text = (REPOSITORY / "salt" / "tljh" / f"{provider}.sls").read_text()
        assert all(f"- {name}\n" in text for name in packages)
    cockpit = (REPOSITORY / "salt" / "cockpit" / "init.sls").read_text()
    assert all(f"'{name}'" in cockpit for name in needs._COCKPIT)
    assert plasma_hub_installed.paths("/x")["installer"].name == "bootstrap.py"
