"""Switching quotas on and off, on a stand-in server."""

from __future__ import annotations

import json
import threading
import time
from unittest.mock import Mock

import pytest
from salt.exceptions import CommandExecutionError

import plasma_quota_fstab as fstab
import plasma_quota_kernel as kernel
import plasma_quota_setup as quota
from tests.unit.modules.stand_in_quota import ROOT, QuotaServer, text

JOURNALED = "usrjquota=aquota.user,grpjquota=aquota.group,jqfmt=vfsv1"
HOMES = "LABEL=homes\t/srv/homes  xfs\tnoatime 0 0"


@pytest.fixture
def kind():
    """Arguments of the stand-in server."""
    return {}


@pytest.fixture
def server(tmp_path, monkeypatch, kind):
    return QuotaServer(tmp_path, monkeypatch, **kind)


@pytest.fixture
def configure_loader_modules(server):
    return server.loader_modules()


def notes():
    path = fstab.NOTES / "quota.json"
    return json.loads(text(path)) if path.exists() else None


xfs = pytest.mark.parametrize("kind", [{"fstype": "xfs", "target": "/srv/homes"}], ids=["xfs"])
inside = pytest.mark.parametrize("kind", [{"builtin": True}], ids=["inside"])


def test_everything_is_done_and_then_nothing(server):
    server.installed = set()
    server.options.append("errors=remount-ro")
    predicted = quota.compare("/home")
    assert server.ran("mount") == server.ran("apt-get") == []
    done = quota.enable("/home")
    assert done == {"changes": predicted, "reboot": None}
    assert set(predicted) == {"packages", "fstab", "mount", "tables", "user", "group"}
    assert server.state == {"user": "on", "group": "on"}
    assert text(server.fstab) == ROOT.replace("defaults", f"defaults,{JOURNALED}") + "\n# end"
    # The mount keeps its own options, and takes none of fstab that are no business of quotas.
    assert server.ran("mount") == [
        ["-o", f"remount,{JOURNALED}", "--options-mode=prepend", "--options-source=mtab", "/"]
    ]
    assert quota.compare("/home") == {}
    server.commands.clear()
    assert quota.enable("/home") == {"changes": {}, "reboot": None}
    assert [command for command in server.commands if command[0] in ("mount", "quotacheck", "apt-get")] == []


def test_what_was_before_comes_back(server):
    before = server.fstab.read_bytes()
    server.fstab.chmod(0o640)
    quota.enable("/home")
    assert server.fstab.stat().st_mode & 0o777 == 0o640
    assert (fstab.NOTES / notes()["/"]["before"]).read_bytes() == before
    for path in fstab.NOTES.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    done = quota.disable()
    assert server.fstab.read_bytes() == before
    assert (server.state, notes()) == ({"user": "off", "group": "off"}, None)
    assert done["changes"]["/"] == {"old": "on", "new": "off"}
    assert done["notes"] == ["The limits are kept in /aquota.*, and count again when quotas are switched on."]
    assert quota.disable() == {"changes": {}, "notes": []}
    # On again: the tables are there, and are not made anew.
    assert "tables" not in quota.enable("/home")["changes"]


def test_what_others_wrote_to_fstab_in_between_stays(server):
    quota.enable("/home")
    server.fstab.write_text(text(server.fstab) + "\ntmpfs /tmp tmpfs rw 0 0\n", encoding="utf-8")
    quota.disable()
    assert text(server.fstab) == ROOT + "\n# end\ntmpfs /tmp tmpfs rw 0 0\n"


def test_an_option_that_somebody_took_out_is_added_again_and_all_leave_together(server):
    quota.enable("/home")
    server.fstab.write_text(text(server.fstab).replace(",jqfmt=vfsv1", ",noatime"), encoding="utf-8")
    assert set(quota.enable("/home")["changes"]) == {"fstab"}
    assert "noatime,jqfmt=vfsv1" in text(server.fstab)
    server.fstab.write_text(text(server.fstab).replace("noatime", "nodev"), encoding="utf-8")
    quota.disable()
    assert text(server.fstab) == ROOT.replace("defaults", "defaults,nodev") + "\n# end"


def test_quotas_that_somebody_set_up_stay_as_they_are(server):
    server.fstab.write_text(ROOT.replace("defaults", "usrquota,grpquota"), encoding="utf-8")
    server.options += ["usrquota", "grpquota"]
    server.files, server.state = {"/aquota.user", "/aquota.group"}, {"user": "on", "group": "on"}
    found = quota.discover("/home")
    assert (found["kind"], found["on"], found["missing"]) == ("files", True, [])
    assert quota.enable("/home")["changes"] == {}
    assert quota.disable() == {"changes": {}, "notes": []}
    assert server.state == {"user": "on", "group": "on"}


def test_of_quotas_that_are_half_set_up_the_other_half_is_added(server):
    server.fstab.write_text(ROOT.replace("defaults", "usrquota"), encoding="utf-8")
    server.options.append("usrquota")
    server.files, server.state = {"/aquota.user"}, {"user": "on", "group": "off"}
    quota.enable("/home")
    assert "usrquota,grpquota " in text(server.fstab)
    assert [words[-2] for words in server.ran("quotacheck")] == ["-g"]
    assert server.ran("quotaon") == [["-g", "/"]]


def test_without_a_line_in_fstab_it_says_which_to_add(server):
    server.fstab.write_text("# unconfigured", encoding="utf-8")
    with pytest.raises(CommandExecutionError, match="has no line that mounts /: add one for /dev/sda1"):
        quota.enable("/home")
    assert text(server.fstab) == "# unconfigured"


@inside
def test_quotas_inside_need_no_tables_but_their_own_unit(server):
    changes = quota.enable("/home")["changes"]
    assert changes["user"] == {"old": "counting", "new": "on"}
    assert "tables" not in changes
    assert server.ran("quotacheck") == []
    assert "defaults,usrquota,grpquota\t" in text(server.fstab) or "defaults,usrquota,grpquota " in text(server.fstab)
    assert len(changes["boot"]["new"]) == 3
    assert all("quotaon -pug" in text(path) for path in changes["boot"]["new"])
    assert quota.compare("/home") == {}
    assert quota.disable()["changes"]["boot"] == {"old": changes["boot"]["new"], "new": None}
    assert list(kernel.SYSTEMD.iterdir()) == []


@xfs
def test_xfs_that_nobody_uses_is_mounted_again(server):
    server.fstab.write_text(ROOT + "\n" + HOMES, encoding="utf-8")
    assert quota.enable("/srv/homes")["reboot"] is None
    assert (server.state, server.mounted) == ({"user": "on", "group": "on"}, True)
    assert text(server.fstab) == ROOT + "\n" + HOMES.replace("noatime", "noatime,uquota,gquota")
    assert quota.compare("/srv/homes") == {}


@xfs
def test_xfs_in_use_is_prepared_and_says_reboot_every_time(server):
    server.fstab.write_text(HOMES, encoding="utf-8")
    server.busy = True
    for expected in ({"fstab"}, set()):
        done = quota.enable("/srv/homes")
        assert done["reboot"].endswith("/etc/fstab is ready, so reboot, then apply again.")
        assert set(done["changes"]) == expected
    assert server.mounted
    assert "uquota,gquota" in text(server.fstab)


@xfs
def test_xfs_that_does_not_mount_with_quotas_is_mounted_without(server, monkeypatch):
    server.fstab.write_text(HOMES, encoding="utf-8")
    real = server._mount
    monkeypatch.setattr(
        server,
        "_mount",
        lambda words, options: ("bad option.",) if "uquota" in text(server.fstab) else real(words, options),
    )
    with pytest.raises(
        CommandExecutionError, match=r"cannot be mounted with quotas .*it is mounted without, as before"
    ):
        quota.enable("/srv/homes")
    assert (text(server.fstab), server.mounted, notes()) == (HOMES, True, None)


@pytest.mark.parametrize("kind", [{"fstype": "xfs"}], ids=["xfs"])
def test_xfs_as_root_takes_them_from_the_command_line(server):
    server.fstab.write_text("LABEL=root / xfs defaults 0 0\n", encoding="utf-8")
    with pytest.raises(CommandExecutionError, match="put rootflags=uquota,gquota there, reboot, then apply again"):
        quota.enable("/home")
    server.options += ["usrquota", "grpquota"]
    server.state = {"user": "on", "group": "on"}
    assert set(quota.enable("/home")["changes"]) == {"fstab"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("LABEL=root / ext4 rw 0 1\n/dev/sda1 / ext4 rw 0 1\n", "has several lines for / (lines 1 and 2)"),
        ("LABEL=homes / ext4 rw 0 1\n", "line 1, mounts LABEL=homes on /, where /dev/sda1 is mounted now"),
        ("LABEL=gone / ext4 rw 0 1\n", "line 1, mounts LABEL=gone on /"),
        ("LABEL=root / ext4 rw,noquota 0 1\n", "switches quotas of / off (noquota)"),
    ],
)
def test_an_fstab_that_is_not_clear_is_refused_and_left_alone(server, content, said):
    server.fstab.write_text(content, encoding="utf-8")
    found = quota.discover("/home")
    assert not found["supported"]
    assert said in found["reason"]
    assert "\n" not in found["reason"]
    with pytest.raises(CommandExecutionError):
        quota.enable("/home")
    assert text(server.fstab) == content
    assert [command for command in server.commands if command[0] in ("mount", "apt-get", "quotacheck")] == []


@pytest.mark.parametrize(
    ("device", "fits"), [(None, True), ("/dev/sda1", True), ("LABEL=root", True), ("UUID=1-2", True)]
)
def test_a_device_that_holds_the_homes_is_taken(server, device, fits):
    assert quota.discover("/home", device)["supported"] is fits


def test_a_device_that_does_not_hold_the_homes_is_refused(server):
    for device in ("LABEL=homes", "/dev/sdb"):
        with pytest.raises(CommandExecutionError) as refused:
            quota.enable("/home", device)
        assert str(refused.value) == (
            f"plasma.quotas.device is {device} (/dev/sdb), and /home is on /dev/sda1, mounted on /: name that one, "
            "or leave the key out."
        )
    assert text(server.fstab) == ROOT + "\n# end"


def test_an_fstab_that_findmnt_does_not_like_is_not_put_in_place(server):
    server.faults = "   [E] unreachable: /dev/x\n"
    with pytest.raises(CommandExecutionError, match=r"was left as it is: .*unreachable"):
        quota.enable("/home")
    assert text(server.fstab) == ROOT + "\n# end"
    assert notes() is None
    assert not list(server.directory.glob(".fstab*"))


@pytest.mark.parametrize("program", ["apt-get", "modprobe", "mount", "quotacheck", "quotaon"])
def test_a_step_that_fails_leaves_fstab_as_it_was_and_says_so(server, program):
    server.installed = set()
    server.fails[program] = "first line\nthe reason.\n"
    with pytest.raises(CommandExecutionError, match="the reason"):
        quota.enable("/home")
    assert text(server.fstab) == ROOT + "\n# end"
    del server.fails[program]
    assert quota.enable("/home")["reboot"] is None
    assert quota.compare("/home") == {}


def test_the_packages_are_looked_for_again_with_new_lists(server):
    server.installed = set()
    answers = iter([("Unable to locate package quota",), "", ""])
    real = server._apt_get
    server._apt_get = lambda words, options: real(words, options) and "" if (a := next(answers)) == "" else a
    quota.enable("/home")
    assert [words[-1] for words in server.ran("apt-get")] == ["quota", "update", "quota"]


def test_two_at_once_wait_for_each_other(server, monkeypatch):
    inside, most = [], []
    real = server.run

    def slow(command, **options):
        if command[0] == "quotacheck":
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()
        return real(command, **options)

    server.functions["cmd.run_all"] = slow
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(quota.enable("/home"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    # One did it; the others found it done.
    assert sorted(bool(outcome["changes"]) for outcome in outcomes) == [False, False, True]
    assert len(server.ran("quotacheck")) == 1


def test_somebody_who_holds_the_lock_too_long_is_named(server):
    with fstab.lock(), pytest.raises(CommandExecutionError, match=r"Another run .*fuser -v"), fstab.lock(timeout=0):
        pass


def test_a_kernel_without_the_module_gets_it(server):
    server.supported = False
    server.functions["plasma_quota_kernel.module_packages"] = lambda: ["linux-modules-extra-test"]
    assert quota.enable("/home")["changes"]["packages"]["new"] == ["linux-modules-extra-test"]


def test_a_kernel_for_which_there_is_no_module_is_refused(server):
    server.supported = False
    server.functions["plasma_quota_kernel.module_packages"] = Mock(side_effect=CommandExecutionError("Reboot."))
    with pytest.raises(CommandExecutionError, match="Reboot"):
        quota.enable("/home")
    assert server.ran("apt-get") == []


def test_a_kernel_that_calls_it_dev_root_gets_a_node(server, monkeypatch):
    entry = server.entry
    monkeypatch.setattr(server, "entry", lambda: {**entry(), "source": "/dev/root"})
    monkeypatch.setattr(kernel.os.path, "exists", lambda path: path == "/dev/root" and bool(server.ran("systemctl")))
    changes = quota.enable("/home")["changes"]
    unit = kernel.SYSTEMD / "plasma-quota-root.service"
    assert changes["boot"]["new"] == [str(unit)]
    assert "mknod" in text(unit)
    assert ["enable", unit.name] in server.ran("systemctl")
    assert quota.compare("/home") == {}
