"""Kernel and packages: what the running kernel lacks, and what brings it."""

from __future__ import annotations

import types

import pytest

import _modules.plasma_quota_kernel as kernel

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
    monkeypatch.setattr(kernel, "_MODULES", tmp_path / "modules")
    monkeypatch.setattr(kernel, "_QUOTA", tmp_path)
    monkeypatch.setattr(kernel, "_BOOT", tmp_path)
    monkeypatch.setattr(kernel, "_LISTS", tmp_path)
    (tmp_path / "archive_Packages").touch()
    functions = {"cmd.run_all": run, "plasma_preflight.os_release": lambda: {"ID": host.id}}
    return {kernel: {"__salt__": functions}}


def installed(tmp_path, release, name="quota_v2.ko.zst"):
    path = tmp_path / "modules" / release / "kernel/fs/quota" / name
    path.parent.mkdir(parents=True)
    path.touch()


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
    assert kernel.remedy() == {
        "packages": [f"linux-modules-extra-{RELEASE}", *([following] if following else [])],
        "problem": None,
    }


def test_a_fresh_server_without_package_lists_is_given_a_try(host, tmp_path):
    (tmp_path / "archive_Packages").unlink()
    assert kernel.remedy() == {"packages": [f"linux-modules-extra-{RELEASE}"], "problem": None}


def test_an_installed_kernel_that_can_needs_a_reboot(host, tmp_path):
    host.id = "debian"
    installed(tmp_path, "6.1.0-50-amd64")
    found = kernel.remedy()
    assert found["packages"] == []
    assert found["problem"] == (
        f"The running kernel {RELEASE} cannot do quotas on ext4, and the installed kernel 6.1.0-50-amd64 can: "
        "reboot into that one, then apply again."
    )


@pytest.mark.parametrize("id_", ["debian", "ubuntu"])
def test_without_a_remedy_it_says_what_to_install(host, id_):
    host.id = id_
    host.images = [("ii ", "linux-image-aws")]
    host.known = {"linux-modules-extra-aws"}  # but not for the kernel that runs
    found = kernel.remedy()
    assert found["packages"] == []
    assert "no package brings it" in found["problem"]


def test_a_kernel_without_any_quotas(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "_QUOTA", tmp_path / "none")
    assert not kernel.supported()
    assert "was built without quotas" in kernel.remedy()["problem"]


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


@pytest.mark.parametrize(
    ("cmdline", "found"),
    [
        ("root=/dev/sda1 ro", {"old": None, "new": "uquota,gquota"}),
        ("rootflags=subvol=a rootflags=noatime", {"old": "noatime", "new": "noatime,uquota,gquota"}),
        ("rootflags=usrquota", {"old": "usrquota", "new": "usrquota,gquota"}),
        ("rootflags=uquota,gquota", None),
        ("rootflags=quota,grpquota", None),
    ],
)
def test_root_flags_are_added_to_those_there_are(tmp_path, monkeypatch, cmdline, found):
    (tmp_path / "cmdline").write_text(cmdline, encoding="utf-8")
    monkeypatch.setattr(kernel, "_CMDLINE", tmp_path / "cmdline")
    assert kernel.rootflags() == found
