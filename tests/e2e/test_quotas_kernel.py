"""
Disk quotas on a server with a kernel of its own: ext4 with tables in files (the root file system), XFS, and ext4 with
quotas inside. The tests build on each other. PLASMA_VM_SUITE names another release of Debian than bookworm.
"""

from __future__ import annotations

import os
import re

import pytest

from tests.support.site import Site
from tests.support.vm import VMTarget

pytestmark = pytest.mark.vm

M = 1024 * 1024
# As somebody wrote it: tabs, a comment, no newline at the end.
MORE = "# homes\nLABEL=xhomes\t/srv/xfs xfs\tnoatime,nofail 0 0\n/dev/ubdc   /srv/inside ext4 defaults   0 2"
SETUP = f"""
set -e
mkfs.xfs -q -L xhomes /dev/ubdb
mkfs.ext4 -q -O quota /dev/ubdc
mkdir -p /srv/xfs /srv/inside /srv/memory /srv/maths
printf %s '{MORE}' >> /etc/fstab
systemctl daemon-reload
mount -a
mount -t tmpfs tmpfs /srv/memory
groupadd maths
useradd -m -G maths ada
useradd -m grace
useradd -m stranger
chgrp maths /srv/maths
chmod 2775 /srv/maths
"""
PILLAR = {
    "preflight": {"min_disk": "1G"},
    "users": [
        {"name": "ada", "quota": {"soft": "40M", "hard": "60M", "inodes": {"soft": 50, "hard": 60}}},
        {"name": "grace"},
    ],
    "groups": [{"name": "maths", "total": {"hard": "30M"}}],
    "quota": {"hard": "100M", "grace": 172800},
}


@pytest.fixture(scope="module")
def vm(tmp_path_factory):
    # What takes long to install is there; quota itself is not.
    packages = ("apparmor", "busybox-static", "docker.io", "e2fsprogs", "xfsprogs")
    suite = os.environ.get("PLASMA_VM_SUITE", "bookworm")
    if suite != "bookworm":
        packages += ("docker-cli",)
    target = VMTarget("e2e-quotas", suite=suite, disks=("400M", "200M"), packages=packages)
    target.down()
    target.up()
    target.sudo(SETUP)
    site = Site(target, tmp_path_factory.mktemp("quotas"), PILLAR)
    site.fstab = fstab(site)
    yield site
    if not os.environ.get("PLASMA_KEEP"):
        target.down()


def fstab(vm):
    return vm.target.ssh(["cat", "/etc/fstab"]).stdout


def as_user(vm, name, command):
    """The outcome of a shell command that somebody runs in a directory of theirs."""
    return vm.target.sudo(["su", "-", name, "-c", command], check=False)


def state(result, id_):
    return next(state for key, state in result.states.items() if key.startswith(id_ + "|"))


def switched_on(vm, point):
    # Its exit code says on (2) and off (0).
    said = vm.target.sudo(f"LC_ALL=C quotaon -pug {point}", check=False).stdout
    return sorted(re.findall(rf"(\w+) quota on {point} .* is on$", said, re.MULTILINE)) == ["group", "user"]


def test_the_file_system_of_the_homes_is_found(vm):
    found = vm.salt("plasma_quota.discover").value
    assert (found["supported"], found["mount_point"], found["device"]) == (True, "/", "/dev/ubda")
    assert (found["type"], found["kind"], found["on"]) == ("ext4", "journaled", False)
    assert found["fstab"] == "LABEL=rootfs / ext4 defaults,x-systemd.growfs 0 1"
    assert "/home is on /: ext4 on /dev/ubda, LABEL=rootfs" in found["reason"]
    assert "the packages quota" in found["missing"]


def test_they_are_switched_on_without_a_reboot(vm):
    boot = vm.target.ssh(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    predicted = vm.apply("quotas", "test=True")
    assert {key.partition("|")[0] for key in predicted.predicted} == {"quotas-enabled", "quotas-limits"}
    assert fstab(vm) == vm.fstab
    assert vm.target.sudo("test -e /aquota.user || command -v setquota", check=False).returncode
    first = vm.apply("quotas")
    assert first.failed == {}
    assert state(first, "quotas-enabled")["changes"] == state(predicted, "quotas-enabled")["changes"]
    assert state(first, "quotas-limits")["changes"].keys() == state(predicted, "quotas-limits")["changes"].keys()
    assert switched_on(vm, "/")
    # One line has its options, and nothing else changed.
    added = "usrjquota=aquota.user,grpjquota=aquota.group,jqfmt=vfsv1"
    assert fstab(vm) == vm.fstab.replace("x-systemd.growfs", "x-systemd.growfs," + added)
    notes = vm.target.sudo("stat -c '%U %a' /var/lib/plasma/*; stat -c '%a' /etc/fstab").stdout.split("\n")
    assert set(notes) - {""} == {"root 600", "644"}
    assert vm.target.ssh(["cat", "/proc/sys/kernel/random/boot_id"]).stdout == boot


def test_a_second_apply_changes_nothing(vm):
    vm.target.sudo("setquota -u stranger 5000 6000 0 7 /")
    again = vm.apply("quotas")
    assert (again.failed, again.changed) == ({}, {})


def test_nobody_writes_beyond_a_hard_limit(vm):
    within = as_user(vm, "ada", "fallocate -l 50M within")
    assert within.returncode == 0
    beyond = as_user(vm, "ada", "fallocate -l 1G test.img")
    assert beyond.returncode != 0
    assert beyond.stderr == "fallocate: fallocate failed: Disk quota exceeded\n"
    other = as_user(vm, "grace", "fallocate -l 90M file && fallocate -l 20M more")
    assert "Disk quota exceeded" in other.stderr


def test_people_see_what_they_use(vm):
    as_user(vm, "ada", "rm -f test.img")
    said = as_user(vm, "ada", "quota -vs").stdout.splitlines()
    assert re.match(r"Disk quotas for user ada \(uid \d+\):", said[0])
    assert said[1].split()[:5] == ["Filesystem", "space", "quota", "limit", "grace"]
    device, space, soft, hard, grace, files, files_soft, files_hard = said[2].split()
    assert (device, soft, hard, grace, files_soft, files_hard) == ("/dev/ubda", "40960K", "61440K", "2days", "50", "60")
    assert space.endswith("K*")


def test_nobody_has_more_files_than_the_limit(vm):
    made = as_user(vm, "ada", "for n in $(seq 80); do touch file$n || exit 1; done")
    assert made.returncode == 1
    assert "Disk quota exceeded" in made.stderr
    as_user(vm, "ada", "rm -f file*")


def test_the_files_of_a_group_are_limited_together(vm):
    """Ada has 40 MB left of her own; the group had 30 MB."""
    as_user(vm, "ada", "rm within")
    made = as_user(vm, "ada", "fallocate -l 35M /srv/maths/data")
    assert made.returncode != 0
    assert "Disk quota exceeded" in made.stderr
    assert as_user(vm, "ada", "rm /srv/maths/data; fallocate -l 20M /srv/maths/data").returncode == 0


def test_a_container_of_somebody_is_bound_by_their_quota(vm):
    vm.target.sudo(
        "systemctl start docker && mkdir -p /root/box/bin && cp /bin/busybox /root/box/bin/ "
        "&& tar -C /root/box -c . | docker import - box",
        timeout=300,
    )
    uid, gid = (vm.target.ssh(["id", option, "ada"]).stdout.strip() for option in ("-u", "-g"))
    written = vm.target.sudo(
        f"docker run --rm --network none --user {uid}:{gid} --volume /home/ada:/home/ada box "
        "/bin/busybox dd if=/dev/zero of=/home/ada/inside bs=1M count=100",
        check=False,
    )
    assert written.returncode != 0
    assert "Disk quota exceeded" in written.stderr
    # Here too it counts for the same person: 20 MB lie in the group's directory.
    size = int(vm.target.sudo(["stat", "-c", "%s", "/home/ada/inside"]).stdout)
    assert 30 * M < size <= 40 * M


def test_the_report_says_who_needs_to_know(vm):
    table = vm.salt("plasma_quota.report").value.splitlines()
    assert re.fullmatch(r"/ \(/dev/ubda\): \d+ users and 1 groups, 2 over a limit", table[0])
    assert [line.split()[:2] for line in table[2:4]] == [["X", "grace"], ["X", "ada"]]
    rows = vm.salt("plasma_quota.report", "output=json").value
    ada = next(row for row in rows if row["name"] == "ada")
    assert (ada["soft"], ada["hard"], ada["files_hard"]) == (40 * M, 60 * M, 60)
    assert ada["over_soft"]
    assert 0 < ada["grace"] <= 172800
    assert rows.index(ada) == 1


def test_a_device_that_holds_no_homes_is_refused(vm):
    said = vm.salt("plasma_quota.compare", "/home", "device=LABEL=xhomes")
    assert said.returncode != 0
    assert "plasma.quotas.device is LABEL=xhomes (/dev/ubdb), and /home is on /dev/ubda, mounted on /" in said.stdout


def test_a_file_system_in_memory_is_refused(vm):
    said = vm.salt("plasma_quota.discover", "/srv/memory/homes").value
    assert not said["supported"]
    assert "which is tmpfs: it is in memory and gone after a reboot" in said["reason"]


def test_xfs_in_use_is_prepared_for_a_reboot(vm):
    busy = vm.target.sudo("cd /srv/xfs; nohup sleep 600 >/dev/null 2>&1 & echo $!").stdout.strip()
    vm.set_pillar({**PILLAR, "home_path": "/srv/xfs/homes", "quotas": {"device": "LABEL=xhomes"}})
    try:
        result = vm.apply("quotas")
    finally:
        vm.target.sudo(["kill", busy])
    enabled = state(result, "quotas-enabled")
    assert enabled["result"] is False
    assert enabled["comment"].endswith("/etc/fstab is ready, so reboot, then apply again.")
    assert list(enabled["changes"]) == ["fstab"]
    assert "LABEL=xhomes\t/srv/xfs xfs\tnoatime,nofail,uquota,gquota 0 0\n" in fstab(vm)


def test_xfs_not_in_use_is_mounted_again(vm):
    result = vm.apply("quotas")
    assert result.failed == {}
    assert list(state(result, "quotas-enabled")["changes"]) == ["mount", "user", "group"]
    assert switched_on(vm, "/srv/xfs")
    vm.target.sudo("install -d -o ada /srv/xfs/ada")
    assert "Disk quota exceeded" in as_user(vm, "ada", "fallocate -l 70M /srv/xfs/ada/file").stderr


def test_ext4_with_quotas_inside(vm):
    vm.set_pillar({**PILLAR, "home_path": "/srv/inside/homes"})
    result = vm.apply("quotas")
    assert result.failed == {}
    changes = state(result, "quotas-enabled")["changes"]
    assert changes["user"] == {"old": "counting", "new": "on"}
    # The kernel switches these on at mount, which systemd's quotaon would take for an error.
    assert "/etc/systemd/system/quotaon.service.d/plasma.conf" in changes["boot"]["new"]
    assert fstab(vm).endswith("\n/dev/ubdc   /srv/inside ext4 defaults,usrquota,grpquota   0 2")
    vm.target.sudo("install -d -o ada /srv/inside/ada")
    assert "Disk quota exceeded" in as_user(vm, "ada", "fallocate -l 70M /srv/inside/ada/file").stderr


def test_a_reboot_keeps_it_all(vm):
    vm.target.reboot()
    for point in ("/", "/srv/xfs", "/srv/inside"):
        assert switched_on(vm, point), point
        vm.target.sudo(["install", "-d", "-o", "ada", f"{point}/after"])
        assert "Disk quota exceeded" in as_user(vm, "ada", f"fallocate -l 70M {point}/after/file").stderr, point
    said = as_user(vm, "ada", "quota -vs").stdout
    assert len(re.findall(r" 40960K +61440K ", said)) == 3
    assert vm.target.sudo("systemctl --failed --no-legend").stdout == ""


def test_limits_that_pillar_no_longer_names_are_taken_back(vm):
    """And with `unmanaged`, the default holds for everybody else, but not for who is logged in by SSH."""
    vm.set_pillar({**PILLAR, "users": [{"name": "grace"}], "groups": [], "quotas": {"unmanaged": True}})
    result = vm.apply("quotas")
    assert result.failed == {}
    assert {*state(result, "quotas-limits")["changes"]} == {"user ada", "user stranger", "group maths"}
    assert as_user(vm, "ada", "fallocate -l 30M more").returncode == 0
    table = vm.target.sudo("repquota -u -O csv /").stdout
    assert re.search(r"^ada,ok,ok,\d+,0,102400,,\d+,0,0,$", table, re.MULTILINE)
    # Of what somebody set by hand, what pillar does not speak of stays.
    assert re.search(r"^stranger,ok,ok,\d+,5000,102400,,\d+,0,7,$", table, re.MULTILINE)
    assert re.search(r"^ubuntu,ok,ok,\d+,0,0,,\d+,0,0,$", table, re.MULTILINE)


def test_switching_off_puts_fstab_back(vm):
    result = vm.apply("quotas.disabled")
    assert result.failed == {}
    assert fstab(vm) == vm.fstab
    assert "The limits are kept in /aquota.*" in state(result, "quotas-disabled")["comment"]
    assert not switched_on(vm, "/")
    assert "quota" not in vm.target.ssh("grep ' / ' /proc/mounts").stdout
    assert vm.target.sudo("test -e /etc/systemd/system/quotaon.service.d", check=False).returncode
    assert vm.target.sudo("test -s /aquota.user && test -s /aquota.group", check=False).returncode == 0
    assert as_user(vm, "grace", "fallocate -l 200M all").returncode == 0
