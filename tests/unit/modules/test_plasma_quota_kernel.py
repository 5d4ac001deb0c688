"""Kernel and packages: what the running kernel lacks, and what brings it."""

from __future__ import annotations

import types

import pytest
from salt.exceptions import CommandExecutionError

import plasma_quota_kernel as kernel

RELEASE = "6.8.0-1012-aws"


@pytest.fixture
def host():
    """What apt and dpkg know, and the system."""
    return types.SimpleNamespace(id="ubuntu", known=set(), images=[], modprobe=1, commands=[])


@pytest.fixture
def configure_loader_modules(host, tmp_path, monkeypatch):
    def run(command, **options):
        host.commands.append(command)
        code, text = 0, ""
        if command[0] == "apt-cache":
            code = 0 if command[-1] in host.known else 100
        elif command[0] == "dpkg-query":
            text = "".join(f"{state} {name}\n" for state, name in host.images)
        elif command[0] == "modprobe":
            code = host.modprobe
        return {"retcode": code, "stdout": text, "stderr": ""}

    monkeypatch.setattr(kernel.os, "uname", lambda: types.SimpleNamespace(release=RELEASE))
    monkeypatch.setattr(kernel, "_QUOTA", tmp_path)
    monkeypatch.setattr(kernel, "_BOOT", tmp_path)
    monkeypatch.setattr(kernel.platform, "freedesktop_os_release", lambda: {"ID": host.id})
    return {kernel: {"__salt__": {"cmd.run_all": run}}}


@pytest.mark.parametrize(
    ("images", "following"),
    [
        ([("ii ", "linux-image-aws")], "linux-modules-extra-aws"),
        ([("ii ", "linux-image-virtual-hwe-24.04")], "linux-image-extra-virtual-hwe-24.04"),
        ([("rc ", "linux-image-aws"), ("ii ", "linux-image-6.8.0-1012-aws")], None),
        ([("ii ", "linux-image-unknown")], None),
    ],
)
def test_ubuntus_cloud_kernels_get_their_extra_modules(host, images, following):
    host.images = images
    host.known = {f"linux-modules-extra-{RELEASE}", "linux-modules-extra-aws", "linux-image-extra-virtual-hwe-24.04"}
    # Those of the kernels to come too: otherwise the next update would switch quotas off.
    assert kernel.module_packages() == [f"linux-modules-extra-{RELEASE}", *([following] if following else [])]


def test_without_a_package_it_says_what_to_install(host):
    host.id = "debian"
    with pytest.raises(CommandExecutionError, match=f"kernel {RELEASE} cannot do quotas on ext4 and no package adds"):
        kernel.module_packages()


def test_a_kernel_without_any_quotas(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "_QUOTA", tmp_path / "none")
    assert not kernel.supported()
    with pytest.raises(CommandExecutionError, match="cannot do quotas on ext4"):
        kernel.module_packages()


@pytest.mark.parametrize(("code", "supported"), [(0, True), (1, False)])
def test_what_modprobe_finds_is_supported(host, code, supported):
    host.modprobe = code
    # Where these tests run the module may be loaded already.
    if not kernel.pathlib.Path("/sys/module/quota_v2").is_dir():
        assert kernel.supported() is supported


@pytest.mark.parametrize(
    ("config", "can"), [("CONFIG_XFS_QUOTA=y\n", True), ("# CONFIG_XFS_QUOTA is not set\n", False), (None, True)]
)
def test_xfs_without_quotas_would_not_mount_at_the_next_boot(tmp_path, config, can):
    if config:
        (tmp_path / f"config-{RELEASE}").write_text(config, encoding="utf-8")
    assert (kernel.xfs_problem() is None) is can
