"""Accounts made, changed and removed on a server in a directory."""

from __future__ import annotations

import json
import shutil
import stat
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_users as users
import plasma_hub_accounts as api
import plasma_users_homes as homes
import plasma_users_leave as leave
import plasma_users_observe as observe
import plasma_users_processes as processes
import plasma_users_write as write
import tljh_settings as tljh_config
from tests.unit.modules.accounts_world import user
from tests.unit.modules.stand_in_accounts import HASH, PASSWD, StandInServer

GROUPS = [{"name": "biology"}]
ANNA = user("anna", password_hash=HASH, groups=["biology", "video"], fullname="Anna")
GONE = {"name": "anna", "absent": True}


@pytest.fixture
def server(tmp_path, monkeypatch):
    return StandInServer(tmp_path, monkeypatch)


@pytest.fixture
def hub():
    """What the hub is asked."""
    return {
        "plasma_hub_accounts.forget": create_autospec(api.forget),
        "plasma_hub_accounts.users": create_autospec(api.users, return_value={}),
        "plasma_hub_accounts.administrators": create_autospec(api.administrators, return_value=None),
        "tljh_settings.get": create_autospec(tljh_config.get, return_value=None),
    }


@pytest.fixture
def configure_loader_modules(server, hub, monkeypatch):
    monkeypatch.setattr(leave, "protected", lambda root="/": {1000: "is the account this apply comes from"})
    monkeypatch.setattr(processes, "end", lambda people, timeout=60: {})
    server.write("etc/group", server.text("group") + "biology:x:2000:\n")
    server.write("etc/gshadow", server.text("gshadow") + "biology:!::\n")
    return server.loader_modules(**hub)


def apply(server, *entries, **options):
    """Apply, with the dry run before that has to say the same, and the second apply that has to do nothing."""
    options = {"groups": GROUPS, "root": server.root, **options}
    predicted = users.compare(list(entries), **options)
    done = users.apply(list(entries), **options)
    assert done["error"] is None
    assert done["changes"] == predicted["changes"]
    assert done["counts"] == predicted["counts"]
    server.written()
    before = server.snapshot()
    again = users.apply(list(entries), **options)
    assert (again["changes"], again["error"]) == ({}, None)
    assert server.snapshot() == before
    return done


def test_a_dry_run_changes_nothing(server):
    before = server.snapshot()
    found = users.compare([ANNA, {"name": "ubuntu", "absent": True}], groups=GROUPS, root=server.root)
    assert found["problems"]
    assert users.compare([ANNA], groups=GROUPS, root=server.root)["changes"]
    assert server.snapshot() == before


def test_an_account_with_home_groups_and_password(server):
    done = apply(server, ANNA)
    assert done["counts"] == {"named": 1, "created": 1, "changed": 0, "removed": 0, "unmanaged": 1}
    assert server.rows("passwd")["anna"] == ["anna", "x", "1001", "1001", "Anna", "/home/anna", "/bin/bash"]
    assert server.rows("shadow")["anna"][1] == HASH
    assert server.members("video") == ["anna"]
    uid = int(server.rows("passwd")["anna"][2])
    assert server.owner("home/anna") == server.owner("home/anna/.profile") == (uid, uid)
    assert stat.S_IMODE(server.path("home/anna").stat().st_mode) == 0o700
    assert server.text("passwd").startswith(PASSWD)
    assert [path.name for path in server.path("home").iterdir() if path.name.startswith(".")] == []


def test_hashes_are_in_shadow_alone(server):
    apply(server, ANNA)
    found = [name for name, content in server.snapshot().items() if HASH in content]
    assert found == ["etc/shadow"]


def test_a_password_that_was_edited_and_is_not_set_is_told(server):
    first, second = ({**ANNA, "password_hash": HASH[:-1] + end, "password_mark": f"here.{end}"} for end in "ab")
    apply(server, first)
    assert apply(server, first)["ignored"] == []
    done = apply(server, second)
    assert (done["ignored"], done["changes"]) == (["anna"], {})
    assert users.compare([second], groups=GROUPS, root=server.root)["ignored"] == ["anna"]
    assert server.rows("shadow")["anna"][1] == first["password_hash"]
    done = apply(server, {**second, "password_policy": "enforce"})
    assert (done["ignored"], done["changes"]["anna"]["new"]) == ([], {"password": "changed"})
    assert apply(server, second)["ignored"] == []
    assert apply(server, first)["ignored"] == ["anna"]


def test_many_accounts_cost_one_edit_of_each_file(server):
    entries = [user(f"s{number:03}", password_hash=HASH, groups=["biology"]) for number in range(300)]
    users.apply(entries, groups=GROUPS, root=server.root)
    assert server.written() == ["gshadow", "group", "shadow", "passwd"]
    assert len(server.members("biology")) == 300


def test_groups_that_are_not_there_yet_are_taken_as_made_in_a_dry_run(server):
    found = users.compare([user("anna", groups=["new"])], groups=[{"name": "new"}], root=server.root)
    assert found["problems"] == []
    assert users.compare([user("anna", groups=["new"])], root=server.root)["problems"]


def test_everything_wrong_is_said_before_anything_is_changed(server):
    before = server.snapshot()
    entries = [ANNA, user("games"), {"name": "ubuntu", "absent": True}]
    assert len(users.problems(entries, groups=GROUPS, root=server.root)) == 2
    with pytest.raises(
        CommandExecutionError, match=r"(?s)user games: .*\nuser ubuntu: is the account this apply comes"
    ):
        users.apply(entries, groups=GROUPS, root=server.root)
    assert server.snapshot() == before
    with pytest.raises(CommandExecutionError, match="password_policy must be on_create or enforce, not 'sometimes'"):
        users.compare([], password_policy="sometimes", root=server.root)


def test_memberships_we_gave_are_taken_back_and_others_stay(server):
    server.write("etc/group", server.text("group").replace("sudo:x:27:ubuntu", "sudo:x:27:ubuntu,anna"))
    apply(server, ANNA)
    apply(server, user("anna"))
    assert server.members("video") == []
    assert server.members("biology") == []
    assert server.rows("group")["sudo"][3] == "ubuntu,anna"
    assert write.recall(server.root)["given"] == {}


def test_people_whom_pillar_no_longer_names_are_left_alone(server):
    apply(server, ANNA)
    before = server.snapshot()
    assert apply(server, user("ben"))["counts"]["unmanaged"] == 2
    after = server.snapshot()
    assert {name for name in before if name.startswith("home/anna")} <= set(after)
    assert server.members("video") == ["anna"]
    apply(server, user("anna"), user("ben"))
    assert server.members("video") == []  # still known to be ours


def test_an_account_made_by_somebody_else_meanwhile_keeps_its_uid(server):
    server.meanwhile("passwd", 'echo "eve:x:1001:100::/home/eve:/bin/sh" >> "$1"')
    done = users.apply([ANNA], groups=GROUPS, root=server.root)
    rows = server.rows("passwd")
    assert (rows["eve"][2], rows["anna"][2]) == ("1001", "1002")
    assert done["error"] is None
    assert server.owner("home/anna")[0] == int(rows["anna"][2])


def test_a_failure_of_the_home_is_told_with_what_was_done(server, monkeypatch):
    monkeypatch.setattr(
        homes, "_fill", create_autospec(homes._fill, side_effect=OSError(28, "No space left on device"))
    )
    done = users.apply([ANNA], groups=GROUPS, root=server.root)
    assert done["error"].startswith("The home /home/anna could not be made")
    assert set(done["changes"]) == {"anna"}
    monkeypatch.undo()


# Killed in the middle: whatever was last, the next run ends where an undisturbed one does.

POINTS = [
    (write, "remember", 1),
    (write, "_swap", 1),
    (write, "_swap", 2),
    (write, "_swap", 3),
    (write, "_swap", 4),
    (homes, "_fill", 1),
    (homes, "_fill", 2),
    (write, "remember", 2),
]


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


def kill_at(monkeypatch, module, name, number):
    real, calls = getattr(module, name), []

    def stops(*args, **kwargs):
        calls.append(None)
        if len(calls) == number:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, stops)


@pytest.mark.parametrize(("module", "name", "number"), POINTS)
@pytest.mark.parametrize("still_wanted", [True, False])
def test_a_killed_run_is_finished_by_the_next(server, monkeypatch, module, name, number, still_wanted):
    entries = [ANNA, user("ben", password_hash=HASH)]
    with monkeypatch.context() as patched:
        kill_at(patched, module, name, number)
        with pytest.raises(Killed):
            users.apply(entries, groups=GROUPS, root=server.root)
    # An account that is there is complete, but for its home.
    for account in ("anna", "ben"):
        if account in server.rows("passwd"):
            assert server.rows("shadow")[account][1] == HASH
            assert account in server.rows("group")
    if not still_wanted:
        existing = [account for account in ("anna", "ben") if account in server.rows("passwd")]
        entries = [{"name": account, "absent": True} for account in existing]
    users.apply(entries, groups=GROUPS, root=server.root)
    assert users.compare(entries, groups=GROUPS, root=server.root)["changes"] == {}
    assert [path.name for path in server.path("home").iterdir() if path.name.startswith(".plasma-new")] == []
    assert write.recall(server.root)["making"] == {}
    found = {kind: set(server.rows(kind)) & {"anna", "ben"} for kind in ("passwd", "shadow", "group", "gshadow")}
    assert all(names == ({"anna", "ben"} if still_wanted else set()) for names in found.values())
    # The same in group and in gshadow.
    assert server.members("video") == server.members("biology") == (["anna"] if still_wanted else [])


# Removal.


@pytest.fixture
def anna(server):
    users.apply([ANNA], groups=GROUPS, root=server.root)
    server.path("home/anna/thesis.txt").write_text("years of work")
    server.written()
    return int(server.rows("passwd")["anna"][2])


def test_removal_keeps_the_home_with_owner_and_date(server, hub, anna):
    done = apply(server, GONE, prefix="/srv/hub")
    hub["plasma_hub_accounts.forget"].assert_called_once_with(["anna"], prefix="/srv/hub", timeout=60)
    archive = done["archives"]["anna"]
    assert archive.startswith(f"/home/.plasma-removed/anna.uid{anna}.20")
    assert server.path(f"{archive}/home/thesis.txt").read_text() == "years of work"
    assert server.owner(f"{archive}/home") == (anna, anna)
    for name in ("home/.plasma-removed", archive):
        assert stat.S_IMODE(server.path(name).stat().st_mode) == 0o700
    account = json.loads(server.path(f"{archive}/account.json").read_text())
    assert (account["name"], account["uid"], account["home"]) == ("anna", anna, "/home/anna")
    assert (account["groups"], account["fullname"], account["date"][:2]) == (["biology", "video"], "Anna", "20")
    assert not server.path("home/anna").exists()
    for kind in ("passwd", "shadow", "group", "gshadow"):
        assert "anna" not in server.text(kind)


def test_the_account_is_locked_before_the_hub_is_asked(server, hub, anna):
    seen_then = []
    hub["plasma_hub_accounts.forget"].side_effect = lambda *args, **kwargs: seen_then.append(
        server.rows("shadow")["anna"]
    )
    apply(server, GONE)
    assert seen_then[0][7] == "1"
    assert seen_then[0][1] == HASH


def test_a_server_that_cannot_be_stopped_keeps_everybody(server, hub, anna):
    hub["plasma_hub_accounts.forget"].side_effect = CommandExecutionError("The hub does not answer: start it.")
    done = users.apply([GONE, user("ben")], groups=GROUPS, root=server.root)
    assert done["error"] == "The hub does not answer: start it."
    assert set(done["changes"]) == {"ben"}
    assert server.path("home/anna/thesis.txt").exists()
    # The next run goes on, or takes it back.
    hub["plasma_hub_accounts.forget"].side_effect = None
    taken_back = users.apply([ANNA], groups=GROUPS, root=server.root)
    assert taken_back["changes"]["anna"] == {"old": {"expires": "1"}, "new": {"expires": ""}}
    assert write.recall(server.root)["removing"] == {}
    apply(server, GONE)


def test_a_home_can_be_deleted_with_the_account(server, anna):
    outside = server.write("srv/precious.txt", "of others")
    server.path("home/anna/link").symlink_to(outside)
    server.path("home/anna/dir").symlink_to(outside.parent)
    done = apply(server, {**GONE, "remove_home": True})
    assert done["archives"] == {"anna": None}
    assert list(server.path("home/.plasma-removed").iterdir()) == []
    assert outside.read_text() == "of others"


def test_a_home_that_is_another_ones_stays(server, anna):
    server._chown(server.path("home/anna"), 4000, 4000)
    assert apply(server, {**GONE, "remove_home": True})["archives"] == {"anna": None}
    assert server.path("home/anna/thesis.txt").exists()


def test_mail_crontab_and_jobs_go_with_their_owner(server, anna):
    server.write("var/mail/anna", "a letter")
    server.write("var/spool/cron/crontabs/anna", "* * * * * date")
    job = server.write("var/spool/cron/atjobs/a0001", "#!/bin/sh")
    server._chown(job, anna, anna)
    other = server.write("var/spool/cron/atjobs/a0002", "#!/bin/sh")
    server.write("var/mail/annabel", "not hers")
    archive = apply(server, GONE)["archives"]["anna"]
    kept = {path.name for path in server.path(archive).iterdir()}
    assert kept == {"home", "account.json", "mail-anna", "crontabs-anna", "atjobs-a0001"}
    assert other.exists()
    assert server.path("var/mail/annabel").exists()
    assert not job.exists()


def test_ranges_of_user_namespaces_go_too(server, anna):
    server.write("etc/subuid", "ubuntu:100000:65536\nanna:165536:65536\n")
    server.write("etc/subgid", "anna:165536:65536\n")
    apply(server, GONE)
    options = ["--del-subuids", "165536-231071", "--del-subgids", "165536-231071"]
    assert server.calls == [["usermod", *options, "--root", server.root, "anna"]]


def test_a_new_anna_is_somebody_else(server, anna):
    apply(server, GONE)
    apply(server, user("anna"))
    again = int(server.rows("passwd")["anna"][2])
    assert again != anna
    assert not server.path("home/anna/thesis.txt").exists()
    first = observe.archives("/home", server.root)
    assert [archive["uid"] for archive in first] == [anna]
    apply(server, GONE)
    assert len(observe.archives("/home", server.root)) == 2


def test_a_home_that_is_put_back_brings_its_owner_back(server, anna):
    archive = apply(server, GONE)["archives"]["anna"]
    server.path(f"{archive}/home").rename(server.path("home/anna"))
    apply(server, user("zoe"), user("anna"))
    assert int(server.rows("passwd")["anna"][2]) == anna
    assert server.path("home/anna/thesis.txt").exists()


def test_an_archive_of_the_same_day_is_not_overwritten(server, anna):
    paths = set()
    for _ in range(3):
        paths.add(apply(server, GONE)["archives"]["anna"])
        apply(server, user("anna"))
    assert len(paths) == 3
    assert all(server.path(f"{path}/home").exists() for path in paths)


def test_a_directory_for_archives_that_others_may_read_is_refused(server, anna):
    server.path("home/.plasma-removed").mkdir(mode=0o755)
    done = users.apply([GONE], groups=GROUPS, root=server.root)
    assert "must be a directory of root's with mode 0700: move away what is there" in done["error"]
    assert server.path("home/anna/thesis.txt").exists()


REMOVAL_POINTS = [
    (write, "remember", 1),
    (write, "_swap", 1),
    (processes, "end", 1),
    (homes, "open_archive", 1),
    (homes.os, "rename", 1),
    (write, "_swap", 2),
    (write, "_swap", 3),
    (write, "_swap", 4),
    (write, "_swap", 5),
    (leave, "_jobs", 1),
    (write, "remember", 2),
]


@pytest.mark.parametrize(("module", "name", "number"), REMOVAL_POINTS)
@pytest.mark.parametrize("remove_home", [False, True])
def test_a_killed_removal_is_finished_by_the_next(server, monkeypatch, anna, module, name, number, remove_home):
    entry = {**GONE, "remove_home": remove_home}
    with monkeypatch.context() as patched:
        kill_at(patched, module, name, number)
        with pytest.raises(Killed):
            users.apply([entry], groups=GROUPS, root=server.root)
    kept = [path for path in server.path("home").rglob("thesis.txt")]
    assert len(kept) == 1 or remove_home
    apply(server, entry)
    assert "anna" not in "".join(server.text(kind) for kind in ("passwd", "shadow", "group", "gshadow"))
    assert len(list(server.path("home").rglob("thesis.txt"))) == (0 if remove_home else 1)
    assert write.recall(server.root)["removing"] == {}
    assert write.recall(server.root)["uids"] == {str(anna): "anna"}


@pytest.mark.parametrize(("module", "name", "number"), REMOVAL_POINTS)
def test_a_killed_removal_can_be_taken_back(server, monkeypatch, anna, module, name, number):
    with monkeypatch.context() as patched:
        kill_at(patched, module, name, number)
        with pytest.raises(Killed):
            users.apply([GONE], groups=GROUPS, root=server.root)
    there = "anna" in server.rows("passwd")
    users.apply([ANNA], groups=GROUPS, root=server.root)
    assert users.compare([ANNA], groups=GROUPS, root=server.root)["changes"] == {}
    assert server.rows("shadow")["anna"][7] == ""
    assert write.recall(server.root)["removing"] == {}
    assert len(list(server.path("home").rglob("thesis.txt"))) == 1
    # Where the account was still there, it is the same person with everything; else somebody new.
    assert server.path("home/anna/thesis.txt").exists() is there
    assert (int(server.rows("passwd")["anna"][2]) == anna) is there


def test_the_last_administrator_of_the_hub(server, hub, anna):
    hub["tljh_settings.get"].return_value = ["anna"]
    found = users.compare([GONE], groups=GROUPS, prefix="/srv/hub", root=server.root)
    assert "no administrator of the hub would be left" in found["problems"][0]
    hub["tljh_settings.get"].assert_called_once_with("users.admin", prefix="/srv/hub")
    assert users.compare([GONE], groups=GROUPS, admins=["anna", "ubuntu"], root=server.root)["problems"] == []


def test_the_hub_is_not_asked_where_nobody_leaves(server, hub):
    apply(server, ANNA, {"name": "nobody-there", "absent": True})
    hub["tljh_settings.get"].assert_not_called()
    hub["plasma_hub_accounts.forget"].assert_not_called()


def test_accounts_follow_when_all_homes_were_moved(server):
    apply(server, ANNA)
    server.path("home/anna/thesis.txt").write_text("...")
    server.path("srv/homes").mkdir(parents=True)
    server.path("home/anna").rename(server.path("srv/homes/anna"))
    done = apply(server, ANNA, home_path="/srv/homes")
    assert done["changes"] == {"anna": {"old": {"home": "/home/anna"}, "new": {"home": "/srv/homes/anna"}}}
    assert not server.path("home/anna").exists()
    assert server.path("srv/homes/anna/thesis.txt").read_text() == "..."


def test_a_moved_home_goes_into_the_archive_of_who_leaves(server):
    apply(server, ANNA)
    server.path("srv/homes").mkdir(parents=True)
    server.path("home/anna").rename(server.path("srv/homes/anna"))
    (archive,) = apply(server, GONE, home_path="/srv/homes")["archives"].values()
    assert archive.startswith("/srv/homes/.plasma-removed/anna.")
    assert not server.path("srv/homes/anna").exists()


def test_a_home_that_is_gone_while_another_is_where_it_should_be_is_refused(server):
    apply(server, ANNA)
    shutil.rmtree(server.path("home/anna"))
    server.path("srv/homes").mkdir(parents=True)
    server.path("srv/homes/anna").write_text("")
    (problem,) = users.compare([ANNA], groups=GROUPS, root=server.root, home_path="/srv/homes")["problems"]
    assert problem == (
        "user anna: home /home/anna is gone, and /srv/homes/anna, where pillar has homes, is a file: give it to the "
        "account (chown), or move it away"
    )
