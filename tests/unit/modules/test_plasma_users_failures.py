"""What goes wrong with one person keeps nobody else, and is told with what was done; and what the hub still knows."""

from __future__ import annotations

import errno
import os
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_users as users
import plasma_hub_accounts as hub_api
import plasma_users_homes as homes
import plasma_users_leave as leave
import plasma_users_observe as observe
import plasma_users_processes as processes
import plasma_users_write as write
import tljh_settings as tljh_config
from tests.unit.modules.accounts_world import user
from tests.unit.modules.stand_in_accounts import StandInServer


def gone(name, **keys):
    return {"name": name, "absent": True, **keys}


@pytest.fixture
def server(tmp_path, monkeypatch):
    return StandInServer(tmp_path, monkeypatch)


@pytest.fixture
def hub():
    found = {name: create_autospec(getattr(hub_api, name)) for name in ("users", "administrators", "forget")}
    found["users"].return_value = {}
    found["administrators"].return_value = []
    return found


@pytest.fixture
def config():
    return create_autospec(tljh_config.get, return_value=None)


@pytest.fixture
def configure_loader_modules(server, hub, config, monkeypatch):
    monkeypatch.setattr(leave, "protected", lambda root="/": {})
    monkeypatch.setattr(processes, "end", lambda people, timeout=60: {})
    functions = {f"plasma_hub_accounts.{name}": function for name, function in hub.items()}
    return server.loader_modules(**functions, **{"tljh_settings.get": config})


@pytest.fixture
def people(server, hub):
    """Anna, ben and cleo have accounts."""
    users.apply([user("anna"), user("ben"), user("cleo")], root=server.root)
    for function in hub.values():
        function.reset_mock()
    return {name: int(row[2]) for name, row in server.rows("passwd").items()}


def apply(server, *entries, **options):
    return users.apply(list(entries), root=server.root, **options)


def compare(server, *entries, **options):
    return users.compare(list(entries), root=server.root, **options)


def mounted(server, *lines):
    server.write("proc/self/mountinfo", "".join(f"2 1 0:5 / {line}\n" for line in lines))


def hidden(monkeypatch, server, home):
    """Root sees nothing of a home while something is mounted there."""
    real = observe.status

    def status(path, root="/"):
        if path == home and home in server.path("proc/self/mountinfo").read_text():
            return {"kind": "unreadable", "uid": -1, "gid": -1}
        return real(path, root=root)

    monkeypatch.setattr(observe, "status", status)


# Mounts.


def test_a_mount_over_ones_own_home_keeps_nobody(server, monkeypatch, people):
    """Neither the person who mounts it, nor the others; the home with all that is in it goes with its owner."""
    server.path("home/anna/thesis").write_text("work")
    mounted(server, f"/home/anna rw - fuse.x x rw,user_id={people['anna']}")
    hidden(monkeypatch, server, "/home/anna")
    order = []
    monkeypatch.setattr(processes, "end", lambda people, timeout=60: order.append("end") or {})

    def detach(point):
        order.append(f"detach {point}")
        mounted(server)

    monkeypatch.setattr(homes, "_detach", detach)
    done = apply(server, gone("anna"), gone("ben"))
    assert done["error"] is None
    assert order == ["end", "detach /home/anna"]
    assert server.path(f"{done['archives']['anna']}/home/thesis").read_text() == "work"
    assert not {"anna", "ben"} & set(server.rows("passwd"))


def test_a_mount_that_cannot_be_detached_keeps_its_home_alone(server, monkeypatch, people):
    mounted(server, f"/home/anna rw - fuse.x x rw,user_id={people['cleo']}")
    hidden(monkeypatch, server, "/home/anna")
    done = apply(server, gone("anna", remove_home=True), gone("ben"))
    assert done["error"] == ("user anna: /home/anna is mounted in the home: unmount it, and apply again.")
    assert set(done["changes"]) == set(done["archives"]) == {"ben"}
    assert server.rows("shadow")["anna"][7] == "1"  # locked all the same
    assert server.path("home/anna/work.txt").exists() or server.path("home/anna/.profile").exists()
    mounted(server)
    assert set(apply(server, gone("anna", remove_home=True), gone("ben"))["changes"]) == {"anna"}


def test_the_home_of_somebody_present_that_is_hidden_is_left_alone(server, monkeypatch, people):
    mounted(server, f"/home/anna rw - fuse.x x rw,user_id={people['anna']}")
    hidden(monkeypatch, server, "/home/anna")
    done = apply(server, user("anna"), gone("ben"))
    assert (done["error"], set(done["changes"])) == (None, {"ben"})
    assert [path.name for path in server.path("home").iterdir() if path.name.startswith(".plasma-new")] == []


def test_a_home_that_cannot_be_made_keeps_nobody_here(server, monkeypatch, people):
    real = os.rename

    def rename(old, new):
        if new.endswith("/kim"):
            raise OSError(errno.EBUSY, "Device or resource busy")
        real(old, new)

    monkeypatch.setattr(homes.os, "rename", rename)
    done = apply(server, user("kim"), gone("ben"))
    assert done["error"] == "The home /home/kim could not be made: Device or resource busy."
    assert set(done["changes"]) == {"kim", "ben"}
    assert "ben" not in server.rows("passwd")


def test_processes_that_do_not_end_keep_their_owner_alone(server, monkeypatch, people):
    monkeypatch.setattr(processes, "end", lambda people, timeout=60: {"anna": "processes of anna do not end"})
    done = apply(server, gone("anna"), gone("ben"))
    assert done["error"] == "user anna: processes of anna do not end."
    assert set(done["changes"]) == {"ben"}
    assert server.path("home/anna/.profile").exists()


def test_an_archive_that_cannot_be_deleted_is_told_with_those_who_are_gone(server, monkeypatch, people):
    real = homes.delete

    def delete(archive, root="/"):
        if "anna" in archive:
            raise CommandExecutionError("It could not be deleted.")
        return real(archive, root=root)

    with monkeypatch.context() as patched:
        patched.setattr(homes, "delete", delete)
        done = apply(server, gone("anna", remove_home=True), gone("ben", remove_home=True))
    assert done["error"] == "user anna: It could not be deleted."
    assert set(done["changes"]) == {"anna", "ben"}
    assert done["archives"]["anna"]
    assert done["archives"]["ben"] is None
    again = apply(server, gone("anna", remove_home=True), gone("ben", remove_home=True))
    assert (again["error"], again["archives"]) == (None, {"anna": None})


def test_slashes_at_the_end_of_a_home(server, people):
    server.write("etc/passwd", server.text("passwd").replace(":/home/anna:", ":/home/anna/:"))
    assert compare(server, user("anna"), user("ben", home="/home/ben"))["changes"] == {}
    done = apply(server, gone("anna"))
    assert done["archives"]["anna"].startswith("/home/.plasma-removed/anna.")
    assert not server.path("home/anna").exists()


# Disks that are full.


@pytest.mark.parametrize("number", [1, 2])
def test_a_full_disk_is_told_with_what_was_done(server, monkeypatch, people, number):
    real, calls = write.remember, []

    def remember(*arguments, **options):
        calls.append(None)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/plasma/users.json.new")
        return real(*arguments, **options)

    monkeypatch.setattr(write, "remember", remember)
    done = apply(server, user("kim"), gone("ben"))
    assert "No space left on device (/var/lib/plasma/users.json.new): see to that, and apply again." in done["error"]
    assert set(done["changes"]) == ({"kim"} if number == 2 else set())
    assert "ben" in server.rows("passwd")


def test_a_disk_that_is_full_before_anything(server, monkeypatch):
    def recall(root="/"):
        raise OSError(errno.EROFS, "Read-only file system", "/run/plasma-users.lock")

    monkeypatch.setattr(write, "lock", lambda timeout=300, root="/": recall())
    with pytest.raises(CommandExecutionError, match="^Read-only file system .*users.lock.: see to that"):
        apply(server, user("kim"))
    monkeypatch.setattr(write, "recall", recall)
    with pytest.raises(CommandExecutionError, match="^Read-only file system"):
        compare(server, user("kim"))


# What is left.


def test_who_stays_locked_is_told(server, hub, people):
    hub["forget"].side_effect = CommandExecutionError("The hub does not answer: start it.")
    apply(server, gone("ben"))
    hub["forget"].side_effect = None
    assert apply(server, user("anna"))["pending"] == compare(server)["pending"] == ["ben"]
    assert apply(server, user("ben"))["pending"] == []


def test_the_number_of_a_group_of_somebody_who_left_is_not_given_to_others(server, people):
    server.write("etc/passwd", server.text("passwd").replace(f":{people['ben']}:{people['ben']}:", ":3001:3002:"))
    for kind in ("group",):
        server.write(f"etc/{kind}", server.text(kind).replace(f"ben:x:{people['ben']}:", "ben:x:3002:"))
    apply(server, gone("ben"))
    assert write.recall(server.root)["gids"] == {"3002": "ben"}
    done = apply(server, user("kim", uid=3002))
    assert done["error"] is None
    assert server.rows("passwd")["kim"][2] == "3002"
    assert server.rows("passwd")["kim"][3] != "3002"


# The hub.


def test_the_last_administrator_by_the_database_of_the_hub(server, hub, config, people):
    hub["administrators"].return_value = ["anna"]
    assert "no administrator of the hub" in compare(server, gone("anna"), prefix="/srv/hub")["problems"][0]
    hub["administrators"].assert_called_once_with(prefix="/srv/hub")
    hub["administrators"].return_value = ["anna", "cleo"]
    assert compare(server, gone("anna"))["problems"] == []
    # It does not answer: config.yaml says it.
    hub["administrators"].side_effect = CommandExecutionError("The hub does not answer.")
    config.return_value = ["anna"]
    assert "no administrator of the hub" in compare(server, gone("anna"))["problems"][0]
    hub["administrators"].side_effect = None
    hub["administrators"].return_value = None  # no hub
    assert compare(server, gone("ben"))["problems"] == []


def test_the_hub_is_asked_only_where_it_may_know_too_much(server, hub, people):
    apply(server, user("anna"), user("ben", fullname="Ben"))
    compare(server, gone("cleo"))
    hub["users"].assert_not_called()
    hub["forget"].assert_not_called()
    apply(server, gone("cleo"))
    apply(server, gone("cleo"))  # it forgot cleo with the account
    hub["users"].assert_not_called()


def known(admin=False, seen=True):
    return {"admin": admin, "servers": [], "seen": seen}


def test_an_account_deleted_by_hand_is_forgotten_by_the_hub_once(server, hub, people):
    hub["users"].return_value = {
        "dora": {"admin": True, "servers": [], "seen": True},
        "anna": {"admin": False, "servers": [], "seen": True},
    }
    predicted = compare(server, gone("dora"), gone("eve"))
    done = apply(server, gone("dora"), gone("eve"), prefix="/srv/hub")
    assert done["changes"] == predicted["changes"] == {"dora": {"old": {"hub": "known"}, "new": {"hub": "forgotten"}}}
    hub["forget"].assert_called_once_with(["dora"], prefix="/srv/hub", timeout=60)
    hub["users"].reset_mock()
    assert apply(server, gone("dora"), gone("eve"))["changes"] == {}
    hub["users"].assert_not_called()


def test_a_new_account_gets_nothing_of_who_had_the_name(server, hub, people):
    hub["users"].return_value = {
        "Dora": {"admin": True, "servers": [], "seen": True},
        "kim": {"admin": False, "servers": [], "seen": True},
    }
    without = []
    hub["forget"].side_effect = lambda *args, **options: without.append("Dora" not in server.rows("passwd"))
    predicted = compare(server, user("Dora"), user("kim"), user("lea"))
    done = apply(server, user("Dora"), user("kim"), user("lea"))
    assert done["changes"] == predicted["changes"]
    assert {name: change["new"].get("hub") for name, change in done["changes"].items()} == {
        "Dora": "forgotten",
        "kim": "forgotten",
        "lea": None,
    }
    hub["forget"].assert_called_once_with(["Dora", "kim"], prefix="/opt/tljh", timeout=60)
    assert without == [True]  # before there is an account to log in with


def test_who_was_never_at_the_hub_leaves_nothing(server, hub, people):
    """The hub knows the administrators of pillar from its own start on, before they have accounts."""
    hub["users"].return_value = {"dora": known(admin=True, seen=False)}
    assert "hub" not in apply(server, user("dora"))["changes"]["dora"]["new"]
    hub["forget"].assert_not_called()


def test_two_accounts_that_differ_in_capitals(server, hub, people):
    """Two names that differ in capitals are two people there, too."""
    hub["users"].return_value = {"anna": known()}
    apply(server, user("anna"), user("ANNA"))
    hub["forget"].assert_not_called()


def test_a_hub_that_does_not_answer_keeps_new_names_out(server, hub, people):
    hub["users"].side_effect = CommandExecutionError("The hub is stopped: start it.")
    before = server.snapshot()
    with pytest.raises(CommandExecutionError, match="user kim, lea: .* cannot be asked. The hub is stopped: start it."):
        apply(server, user("kim"), user("lea"), gone("dora"))
    assert server.snapshot() == before
    # Nobody is kept from being removed by a name that is to be absent.
    done = apply(server, gone("dora"), gone("ben"))
    assert done["error"] == "The hub is stopped: start it."
    assert set(done["changes"]) == {"ben"}
    hub["users"].side_effect = None
    assert apply(server, gone("dora"))["error"] is None
