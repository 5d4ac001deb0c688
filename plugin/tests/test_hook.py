"""The hook that TLJH calls, beside another plugin, before and after it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import types

import pluggy
import pytest
import tljh_plasma
from jupyterhub.app import JupyterHub
from tljh_plasma.operators import ADMINISTRATORS_SCOPE, PEOPLE_SCOPE
from tljh_repo2docker import TLJH_R2D_ADMIN_SCOPE
from traitlets.config import Config


def hookspecs():
    """TLJH's specification of the hook."""
    marker = pluggy.HookspecMarker("tljh")

    def tljh_custom_jupyterhub_config(c):
        """Provide configuration to JupyterHub."""

    specs = types.ModuleType("specs")
    specs.tljh_custom_jupyterhub_config = marker(tljh_custom_jupyterhub_config)
    return specs


def builder_plugin():
    """What tljh-repo2docker's hook sets when TLJH is there."""
    marker = pluggy.HookimplMarker("tljh")

    def tljh_custom_jupyterhub_config(c):
        c.JupyterHub.hub_ip = "203.0.113.7"
        c.JupyterHub.spawner_class = "simple"
        c.DockerSpawner.allowed_images = "*"
        c.DockerSpawner.cmd = ["jupyterhub-singleuser"]
        c.DockerSpawner.pull_policy = "Never"
        c.DockerSpawner.remove = True
        c.JupyterHub.services.append({"name": "tljh_repo2docker"})
        c.JupyterHub.load_roles = [{"name": "theirs"}, {"name": "user", "scopes": ["self", "read:hub"]}]
        c.JupyterHub.custom_scopes = {"custom:theirs": {"description": "theirs"}}

    plugin = types.ModuleType("builder")
    plugin.tljh_custom_jupyterhub_config = marker(tljh_custom_jupyterhub_config)
    return plugin


def test_entry_point_is_the_module():
    found = {point.name: point for point in importlib.metadata.entry_points(group="tljh")}
    assert found["tljh_plasma"].load() is tljh_plasma
    assert importlib.metadata.version("tljh-plasma") == tljh_plasma.__version__


def test_importing_the_module_is_light():
    """config_file and the proxy's rendering are run often: they must not load the hub."""
    code = (
        "import sys, tljh_plasma.standalone\n"
        "print([name for name in ('jupyterhub', 'docker', 'dockerspawner', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_aiodocker_is_kept_where_the_builder_works():
    """TLJH installs what its plugins ask for with one call of pip: every range counts."""
    from packaging.specifiers import SpecifierSet

    (wanted,) = tljh_plasma.tljh_extra_hub_pip_packages()
    locked = importlib.metadata.version("aiodocker")
    builders = next(line for line in importlib.metadata.requires("tljh-repo2docker") if line.startswith("aiodocker"))
    ours = SpecifierSet(wanted.removeprefix("aiodocker"))
    assert ours.contains(locked)
    assert not ours.contains("0.22.0")
    assert SpecifierSet(builders.removeprefix("aiodocker")).contains(locked)


def run_hooks(order, prefix, monkeypatch):
    """Run our hook before or after another plugin's, and return the configuration."""
    for directory in ("config", "state"):
        (prefix / directory).mkdir()
    (prefix / "config" / "config.yaml").write_text(
        "limits: {memory: 1G}\n"
        "plasma: {named_servers: {limit: 5}, shared_data: /srv/other, permissions: {default: closed}}\n"
    )
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(prefix))
    manager = pluggy.PluginManager("tljh")
    manager.add_hookspecs(hookspecs())
    plugins = [tljh_plasma, builder_plugin()]
    for plugin in plugins if order == "first" else plugins[::-1]:
        manager.register(plugin)
    c = Config()
    c.JupyterHub.services = [{"name": "cull-idle"}]
    c.Spawner.mem_limit = None
    manager.hook.tljh_custom_jupyterhub_config(c=c)
    return c


@pytest.mark.docker
@pytest.mark.parametrize("order", ["first", "last"])
def test_hook_has_the_last_word(order, docker_host, tmp_path, monkeypatch):
    c = run_hooks(order, tmp_path, monkeypatch)

    from tljh_plasma.auth import PlasmaPAMAuthenticator
    from tljh_plasma.spawner import PlasmaSpawner

    assert c.JupyterHub.authenticator_class is PlasmaPAMAuthenticator
    assert c.JupyterHub.spawner_class is PlasmaSpawner
    gateway = docker_host.networks.get("plasma").attrs["IPAM"]["Config"][0]["Gateway"]
    assert c.JupyterHub.hub_ip == c.JupyterHub.hub_connect_ip == gateway
    assert c.JupyterHub.hub_port == 303
    assert c.JupyterHub.allow_named_servers is True
    assert c.JupyterHub.named_server_limit_per_user == 5
    assert c.JupyterHub.cleanup_servers is False
    assert c.JupyterHub.redirect_to_server is False
    assert c.Authenticator.allow_all is True
    assert (c.Spawner.mem_limit, c.Spawner.cpu_limit) == ("1G", 2)
    assert c.PlasmaSpawner.shared_data == "/srv/other"
    assert c.PlasmaSpawner.permissions_file == str(tmp_path / "state" / "plasma.sqlite")
    assert c.PlasmaSpawner.open_by_default is False


@pytest.mark.docker
@pytest.mark.parametrize("order", ["first", "last"])
def test_19_services_roles_and_scopes_of_others_stay(order, docker_host, tmp_path, monkeypatch):
    """They used to be replaced, the idle culler among them."""
    c = run_hooks(order, tmp_path, monkeypatch)
    assert [service["name"] for service in c.JupyterHub.services] == [
        "cull-idle",
        "tljh_repo2docker",
        "plasma",
        "plasma-operator",
    ]
    roles = {role["name"]: role for role in c.JupyterHub.load_roles}
    assert list(roles) == ["theirs", "user", "plasma-service", "plasma-operator"]
    assert roles["user"]["scopes"] == ["self", "read:hub", "access:services!service=plasma"]
    assert set(c.JupyterHub.custom_scopes) == {
        "custom:theirs",
        TLJH_R2D_ADMIN_SCOPE,
        ADMINISTRATORS_SCOPE,
        PEOPLE_SCOPE,
    }


@pytest.mark.docker
def test_hook_adds_to_lists_that_nobody_set(docker_host, tmp_path, monkeypatch):
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(tmp_path))
    c = Config()
    tljh_plasma.tljh_custom_jupyterhub_config(c)
    app = JupyterHub(config=c)
    assert [service["name"] for service in app.services] == ["plasma", "plasma-operator"]
    assert {role["name"] for role in app.load_roles} == {"user", "plasma-service", "plasma-operator"}
    assert set(app.custom_scopes) == {TLJH_R2D_ADMIN_SCOPE, ADMINISTRATORS_SCOPE, PEOPLE_SCOPE}


@pytest.mark.docker
def test_list_of_allowed_users_restricts(docker_host, tmp_path, monkeypatch):
    for directory in ("config", "state"):
        (tmp_path / directory).mkdir()
    (tmp_path / "config" / "config.yaml").write_text("users: {allowed: [alice]}\n")
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(tmp_path))
    c = Config()
    tljh_plasma.tljh_custom_jupyterhub_config(c)
    assert c.Authenticator.allow_all is False
