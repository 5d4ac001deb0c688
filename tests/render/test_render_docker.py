"""What the rendered states say of the Docker engine and of the tools, system by system."""

from __future__ import annotations

import pytest

from tests.render.compiler import SYSTEMS, low_state
from tests.render.pillars import GIVEN, compiled

# https://docs.docker.com/engine/install/ubuntu/ and .../debian/
REPOSITORIES = {
    "ubuntu-22.04": ("ubuntu", "jammy"),
    "ubuntu-24.04": ("ubuntu", "noble"),
    "ubuntu-26.04": ("ubuntu", "resolute"),
    "debian-12": ("debian", "bookworm"),
    "debian-13": ("debian", "trixie"),
}
DOCKER_CE = [name for name in GIVEN if compiled(name)["plasma"]["docker"]["source"] == "docker-ce"]
DISTRO = [name for name in GIVEN if name not in DOCKER_CE]


def _by_id(system, architecture, pillar):
    return {chunk["__id__"]: chunk for chunk in low_state(system, architecture, pillar)}


def test_there_are_pillars_for_both_sources():
    assert "minimal" in DOCKER_CE
    assert "full-pypi" in DISTRO
    assert set(REPOSITORIES) == set(SYSTEMS)


@pytest.mark.parametrize("pillar", DOCKER_CE)
def test_repository(system, architecture, pillar):
    settings = compiled(pillar)["plasma"]["docker"]["repository"]
    distribution, codename = REPOSITORIES[system]
    states = _by_id(system, architecture, pillar)
    engine = states["docker-engine"]
    assert engine["repository"] == (
        f"deb [arch={architecture} signed-by=/etc/apt/keyrings/docker.asc] "
        f"{settings['url']}/{distribution} {codename} stable"
    )
    assert engine["key"] == (settings["key_url"] or f"{settings['url']}/{distribution}/gpg")
    assert engine["key_hash"] == f"sha256={settings['key_sha256']}"
    assert engine["source"] == "docker-ce"
    assert "docker-ce" in engine["packages"]
    assert "docker.io" not in engine["packages"]


def test_the_repository_of_docker_itself(system, architecture):
    distribution, codename = REPOSITORIES[system]
    states = _by_id(system, architecture, "minimal")
    engine = states["docker-engine"]
    assert engine["repository"].endswith(f"] https://download.docker.com/linux/{distribution} {codename} stable")
    assert engine["key"] == f"https://download.docker.com/linux/{distribution}/gpg"


@pytest.mark.parametrize("pillar", DISTRO)
def test_engine_of_the_distribution(system, architecture, pillar):
    states = _by_id(system, architecture, pillar)
    assert not {"repository", "key"} & states["docker-engine"].keys()
    # docker.io brings the client itself, but on Debian 13.
    extra = ["docker-cli"] if system == "debian-13" else []
    assert states["docker-engine"]["packages"] == ["docker.io", *extra]


def test_configuration(system, architecture, pillar):
    driver = compiled(pillar)["plasma"]["docker"]["log_driver"]
    states = _by_id(system, architecture, pillar)
    assert states["docker-configuration"]["dataset"] == {"live-restore": True, "log-driver": driver}
    assert states["docker-configuration"]["merge_if_exists"] is True
    assert states["docker-service"]["log_driver"] == driver


def test_monitor(system, architecture, pillar):
    utils = compiled(pillar)["plasma"]["utils"]
    states = _by_id(system, architecture, pillar)
    assert ("utils-ctop" in states) is (utils["monitor"] == "ctop")
    assert ("utils-packages" in states) is bool(utils["packages"])
    if "utils-packages" in states:
        assert states["utils-packages"]["pkgs"] == utils["packages"]
    if "utils-ctop" in states:
        ctop = utils["ctop"]
        url = ctop["url"].replace("{version}", ctop["version"]).replace("{arch}", architecture)
        assert states["utils-ctop"]["source"] == ([url, "/usr/local/bin/ctop"] if url.startswith("/") else url)
        assert states["utils-ctop"]["source_hash"] == f"sha256={ctop['sha256'][architecture]}"
        assert states["utils-ctop"]["mode"] == "0755"
