"""How the hub's lock is installed: by uv with pip's settings, and by pip where uv does not do."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError

import plasma_hub_installed as plasma_hub
from tests.unit.modules.hub_prefix import LOCK
from tests.unit.modules.hub_runs import bare_server, calls, commands, install, loader_modules

pytestmark = pytest.mark.slow


@pytest.fixture
def configure_loader_modules(tmp_path):
    return loader_modules(tmp_path, tmp_path / "tools", set())


@pytest.fixture
def prefix(tmp_path):
    return bare_server(tmp_path)


def uv_variables(prefix, configuration):
    """What uv is told when pip has this configuration; None when uv is not asked."""
    prefix.write("pip-config", configuration)
    install(prefix)
    for call in calls(prefix):
        if call["argv"][0].endswith("/uv"):
            return {
                name: value for name, value in call["environment"].items() if name.startswith(("UV_", "SSL", "HTTP"))
            }
    return None


def test_it_leaves_no_cache_behind(prefix):
    assert uv_variables(prefix, "") == {
        "UV_CACHE_DIR": f"{prefix.root}/plasma/uv-cache",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_NO_PROGRESS": "1",
    }
    assert not (prefix.root / "plasma" / "uv-cache").exists()


@pytest.mark.parametrize(
    "configuration, variable, value",
    [
        (
            "global.index-url='https://mirror.example.org/simple'",
            "UV_DEFAULT_INDEX",
            "https://mirror.example.org/simple",
        ),
        (":env:.index-url='https://mirror/simple'", "UV_DEFAULT_INDEX", "https://mirror/simple"),
        # What comes later counts for more.
        ("global.index-url='https://a/'\n:env:.index-url='https://b/'", "UV_DEFAULT_INDEX", "https://b/"),
        ("global.extra-index-url='\\nhttps://a/\\nhttps://b/'", "UV_INDEX", "https://a/ https://b/"),
        ("install.find-links='/opt/wheels /mnt/wheels'", "UV_FIND_LINKS", "/opt/wheels,/mnt/wheels"),
        ("global.no-index='true'", "UV_NO_INDEX", "true"),
        ("global.trusted-host='mirror'", "UV_INSECURE_HOST", "mirror"),
        ("global.proxy='http://proxy:3128'", "HTTPS_PROXY", "http://proxy:3128"),
        ("global.cert='/etc/ssl/certs/ca-certificates.crt'", "SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
        (":env:.default-timeout='60'", "UV_HTTP_TIMEOUT", "60"),
        # Options of other commands.
        ("download.index-url='https://elsewhere/'", "UV_DEFAULT_INDEX", None),
        (":env:.progress-bar='off'", "UV_INDEX_STRATEGY", "unsafe-best-match"),
    ],
)
def test_it_is_told_what_pip_is_told(prefix, configuration, variable, value):
    assert uv_variables(prefix, configuration).get(variable) == value


@pytest.mark.parametrize("option", ["client-cert='/etc/ssl/me.pem'", "only-binary=':all:'", "constraint='/etc/pins'"])
def test_pip_installs_with_options_that_uv_does_not_know(prefix, option):
    assert uv_variables(prefix, f"global.{option}") is None
    assert plasma_hub.compare("pypi", prefix=str(prefix.root), version="") == {}


def test_pip_installs_when_uv_fails(prefix):
    prefix.write("fail", "--compile-bytecode")
    install(prefix)
    assert f"-m pip install --require-hashes --no-deps --requirement {prefix.lock}" in commands(calls(prefix))
    assert not (prefix.root / "plasma" / "uv-cache").exists()
    assert plasma_hub.compare("pypi", prefix=str(prefix.root), version="") == {}


def test_what_pip_says_counts_when_both_fail(prefix):
    prefix.write("fail", str(prefix.lock))
    with pytest.raises(CommandExecutionError, match="Installing the hub's packages with pip failed"):
        install(prefix)


def test_uv_comes_by_its_hashes_alone(prefix):
    install(prefix)
    entry = LOCK[LOCK.index("uv==") :]
    assert (prefix.root / "plasma" / "uv.txt").read_text(encoding="utf-8") == entry


def test_a_lock_without_uv(prefix):
    prefix.lock.write_text(LOCK[: LOCK.index("uv==")], encoding="utf-8")
    install(prefix)
    assert commands(calls(prefix))[1] == f"-m pip install --require-hashes --no-deps --requirement {prefix.lock}"
