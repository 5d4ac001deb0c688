"""People who get another name."""

from __future__ import annotations

import os
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_users as users
import plasma_hub_accounts as hub_api
import plasma_users_homes as homes
import plasma_users_leave as leave
import plasma_users_processes as processes
import plasma_users_rename as rename
import plasma_users_tables as tables
import plasma_users_write as write
import tljh_settings as tljh_config
from tests.unit.modules.accounts_world import user
from tests.unit.modules.stand_in_accounts import HASH, StandInServer

GROUPS = [{"name": "biology"}]
ANNA = user("anna", password_hash=HASH, groups=["biology", "video"], fullname="Anna")
HANNA = {**ANNA, "name": "hanna", "was": "anna"}


@pytest.fixture
def server(tmp_path, monkeypatch):
    return StandInServer(tmp_path, monkeypatch)


@pytest.fixture
def hub():
    found = {name: create_autospec(getattr(hub_api, name)) for name in ("users", "administrators", "forget", "rename")}
    found["users"].return_value = {"anna": {"admin": False, "servers": [], "seen": True}}
    found["administrators"].return_value = []
    return found


@pytest.fixture
def ended(monkeypatch):
    """Uids whose processes were ended; what the function returns is to be set."""
    found = create_autospec(processes.end, return_value={})
    monkeypatch.setattr(processes, "end", found)
    return found


@pytest.fixture
def configure_loader_modules(server, hub, ended, monkeypatch):
    monkeypatch.setattr(leave, "protected", lambda root="/": {1000: "is the account this apply comes from"})
    server.write("etc/group", server.text("group") + "biology:x:2000:\n")
    server.write("etc/gshadow", server.text("gshadow") + "biology:!:anna:\n")
    functions = {f"plasma_hub_accounts.{name}": function for name, function in hub.items()}
    settings = {"tljh_settings.get": create_autospec(tljh_config.get, return_value=None)}
    return server.loader_modules(**functions, **settings)


@pytest.fixture
def anna(server, hub):
    """Her account, with work, mail, a crontab and ranges of user namespaces. Returns the uid."""
    hub["users"].return_value = {}
    users.apply([ANNA], groups=GROUPS, root=server.root)
    hub["users"].return_value = {"anna": {"admin": False, "servers": [], "seen": True}}
    server.path("home/anna/work.txt").write_text("of anna\n")
    for place in ("var/mail/anna", "var/spool/cron/crontabs/anna"):
        server.write(place, "hers")
    for kind in ("subuid", "subgid"):
        server.write(f"etc/{kind}", "annalena:1:1\nanna:100000:65536\n")
    server.written()
    return int(server.rows("passwd")["anna"][2])


def apply(server, *entries):
    """Apply, with the dry run before that has to say the same, and the second apply that has to do nothing."""
    before = server.snapshot()
    predicted = users.compare(list(entries), groups=GROUPS, root=server.root)
    assert server.snapshot() == before
    done = users.apply(list(entries), groups=GROUPS, root=server.root)
    assert done["error"] is None
    assert (done["changes"], done["counts"]) == (predicted["changes"], predicted["counts"])
    server.written()
    before = server.snapshot()
    again = users.apply(list(entries), groups=GROUPS, root=server.root)
    assert (again["changes"], again["error"]) == ({}, None)
    assert server.snapshot() == before
    return done


def check_renamed(server, uid):
    """Everything is hers by the new name, and nothing by the old one."""
    assert server.rows("passwd")["hanna"] == ["hanna", "x", str(uid), str(uid), "Anna", "/home/hanna", "/bin/bash"]
    assert server.rows("shadow")["hanna"][1] == HASH and server.rows("shadow")["hanna"][7] == ""
    assert server.rows("group")["hanna"][2] == str(uid)
    assert server.members("biology") == server.members("video") == ["hanna"]
    assert server.rows("gshadow")["biology"][2] == "hanna"
    assert server.path("home/hanna/work.txt").read_text() == "of anna\n"
    for place in ("var/mail", "var/spool/cron/crontabs", "home"):
        assert "anna" not in os.listdir(server.path(place))
        assert "hanna" in os.listdir(server.path(place))
    for kind in ("subuid", "subgid"):
        assert server.path(f"etc/{kind}").read_text() == "annalena:1:1\nhanna:100000:65536\n"
    for kind in ("passwd", "shadow", "group", "gshadow"):
        assert "anna" not in server.rows(kind)
    notes = write.recall(server.root)
    assert notes["renamed"] == {"anna": {"new": "hanna", "uid": uid}}
    assert notes["renaming"] == {} and "hanna" in notes["given"] and "anna" not in notes["given"]


def test_all_that_is_hers_follows(server, hub, ended, anna):
    done = apply(server, HANNA)
    assert done["changes"] == {
        "hanna": {"old": {"name": "anna", "home": "/home/anna"}, "new": {"name": "hanna", "home": "/home/hanna"}}
    }
    assert done["counts"]["changed"] == 1 and done["counts"]["created"] == 0
    check_renamed(server, anna)
    (moves,), options = hub["rename"].call_args
    assert [(move["old"], move["new"], move["group"], move["hub"]) for move in moves] == [("anna", "hanna", True, True)]
    ended.assert_called_once_with({anna: "hanna"}, timeout=60)
    hub["forget"].assert_not_called()


def test_other_changes_come_with_it(server, hub, anna):
    done = apply(server, {**HANNA, "fullname": "Hanna", "groups": ["biology"]}, user("kim"))
    assert done["changes"]["hanna"]["new"] == {
        "name": "hanna",
        "home": "/home/hanna",
        "fullname": "Hanna",
        "groups": ["biology"],
    }
    assert server.members("video") == []


def test_without_somebody_of_the_former_name_it_does_nothing(server, hub):
    """A new server, or one where the rename was done long ago."""
    done = apply(server, {**HANNA, "was": "annette"})
    assert done["changes"]["hanna"]["old"] is None
    hub["rename"].assert_not_called()


def test_a_home_of_another_name_stays(server, hub, anna):
    old = server.text("passwd").replace("/home/anna", "/home/work")
    server.path("home/anna").rename(server.path("home/work"))
    server._owners["home/work"] = (anna, anna)
    server.write("etc/passwd", old)
    apply(server, HANNA)
    assert server.rows("passwd")["hanna"][5] == "/home/work"


def test_a_home_that_somebody_moved_already(server, hub, anna):
    os.rename(server.path("home/anna"), server.path("home/hanna"))
    server._chown(str(server.path("home/hanna")), anna, anna)
    apply(server, HANNA)
    assert server.path("home/hanna/work.txt").exists()


@pytest.mark.parametrize(
    ("more", "entry", "words"),
    [
        ("hanna:x:1500:1500::/home/x:/bin/sh", {}, "was anna, who exists beside hanna: remove one of the two accounts"),
        ("twin:x:UID:1500::/home/twin:/bin/sh", {}, "shares the uid UID with twin"),
        ("", {"home": "/srv/hanna"}, "has the home /home/anna, which stays in its directory"),
        ("", {"uid": 1234}, "which cannot become 1234"),
        ("", {"was": "games"}, "is a system account on this server (uid 5)"),
        ("", {"was": "ubuntu"}, "is the account this apply comes from"),
    ],
)
def test_what_is_refused_before_anything_is_changed(server, hub, anna, more, entry, words):
    if more:
        server.write("etc/passwd", server.text("passwd") + more.replace("UID", str(anna)) + "\n")
    before = server.snapshot()
    for call in (users.compare, users.apply):
        try:
            problems = call([{**HANNA, **entry}], groups=GROUPS, root=server.root)["problems"]
        except CommandExecutionError as error:
            problems = str(error).splitlines()
        assert len(problems) == 1 and words.replace("UID", str(anna)) in problems[0], problems
    assert server.snapshot() == before


def test_a_home_or_a_group_in_the_way(server, hub, anna):
    server.home("hanna", 4000)
    assert "cannot get the home /home/hanna" in users.compare([HANNA], groups=GROUPS, root=server.root)["problems"][0]
    server.write("etc/group", server.text("group") + "hanna:x:2500:\n")
    assert "the group of gid 2500" in users.compare([HANNA], groups=GROUPS, root=server.root)["problems"][0]


def test_archives_have_people_by_their_former_names(server, hub, anna):
    apply(server, HANNA)
    apply(server, {**HANNA, "name": "johanna", "was": "hanna"})
    now = {"new": "johanna", "uid": anna}
    assert rename.former(tables.read(server.root), server.root) == {"anna": now, "hanna": now}
    # Somebody else has the name by now.
    apply(server, {**HANNA, "name": "johanna", "was": "hanna"}, user("anna"))
    assert rename.former(tables.read(server.root), server.root) == {"hanna": now}


@pytest.mark.parametrize("place", ["hub", "processes", "home", "group", "passwd", "notes"])
def test_a_run_that_is_killed_is_finished_by_the_next(server, hub, ended, anna, place, monkeypatch):
    """Also where pillar says nothing of it any more; and until then nobody gets in."""

    class Killed(BaseException):
        pass

    def kill(*args, **options):
        raise Killed

    with monkeypatch.context() as patch:
        if place == "hub":
            hub["rename"].side_effect = kill
        elif place == "processes":
            ended.side_effect = kill
        elif place == "home":
            patch.setattr(rename, "_move_files", kill)
        elif place == "notes":
            patch.setattr(rename, "_noted", kill)
        else:
            swap = write._swap

            def until(kind, *rest):
                return kill() if kind == place and "hanna" in rest[1] else swap(kind, *rest)

            patch.setattr(write, "_swap", until)
        with pytest.raises(Killed):
            users.apply([HANNA], groups=GROUPS, root=server.root)
    hub["rename"].side_effect = ended.side_effect = None
    if place != "notes":
        expires = [server.rows("shadow").get(name, [""] * 9)[7] for name in ("anna", "hanna")]
        assert server.rows("passwd")["anna"] and (place == "passwd" or "1" in expires)
    # What the hub knew at the beginning is what counts.
    hub["users"].return_value = {}
    entry = HANNA if place in ("hub", "notes") else {**HANNA, "was": None}
    done = users.apply([entry], groups=GROUPS, root=server.root)
    assert done["error"] is None
    check_renamed(server, anna)
    assert users.apply([entry], groups=GROUPS, root=server.root)["changes"] == {}


def test_one_who_cannot_be_renamed_keeps_nobody_else(server, hub, ended, anna):
    ended.return_value = {"hanna": "processes of hanna do not end (ids 7): end them, and apply again"}
    done = users.apply([HANNA, user("kim")], groups=GROUPS, root=server.root)
    assert done["error"].startswith("user hanna: processes of hanna do not end")
    assert list(done["changes"]) == ["kim"]
    assert "hanna" not in server.rows("passwd") and server.rows("shadow")["anna"][7] == "1"
    ended.return_value = {}
    assert users.apply([HANNA, user("kim")], groups=GROUPS, root=server.root)["error"] is None
    check_renamed(server, anna)


def test_a_home_on_which_something_is_mounted_is_left(server, hub, anna, monkeypatch):
    monkeypatch.setattr(homes, "release", create_autospec(homes.release, side_effect=CommandExecutionError("mounted.")))
    done = users.apply([HANNA], groups=GROUPS, root=server.root)
    assert done["error"] == "user hanna: mounted." and server.path("home/anna/work.txt").exists()


# What comes between the beginning of a rename and its end.


@pytest.fixture
def begun(server, hub, ended, anna):
    """A rename from anna to hanna that failed. Returns the uid."""
    ended.return_value = {"hanna": "processes of hanna do not end (ids 7): end them, and apply again"}
    assert users.apply([HANNA], groups=GROUPS, root=server.root)["error"]
    ended.return_value = {}
    return anna


def refused(server, *entries, **options):
    """The problems of both the dry run and the apply, which are the same and change nothing."""
    before = server.snapshot()
    options = {"groups": GROUPS, "root": server.root, **options}
    problems = users.compare(list(entries), **options)["problems"]
    with pytest.raises(CommandExecutionError) as caught:
        users.apply(list(entries), **options)
    assert str(caught.value).splitlines() == problems
    assert server.snapshot() == before
    return problems


@pytest.mark.parametrize(
    "entry",
    [
        {**ANNA, "name": "hannah", "was": "anna"},
        {"name": "anna", "absent": True},
        ANNA,
        {**ANNA, "name": "johanna", "was": "hanna"},
        {**ANNA, "was": "berta"},
        {**HANNA, "was": "kim"},
        {"name": "hannah", "was": "anna", "absent": True},
    ],
)
def test_pillar_may_not_contradict_a_rename_that_was_begun(server, begun, entry):
    """Without this: two accounts of one uid, somebody who is to leave and stays, a fresh account of the old name."""
    problems = refused(server, entry, user("kim"))
    assert problems == [
        f"user {entry['name']}: anna is being renamed to hanna since an earlier run: apply "
        "`{name: hanna, was: anna}` first, in the place of this entry"
    ]
    users.apply([HANNA], groups=GROUPS, root=server.root)
    check_renamed(server, begun)


def test_a_rename_that_was_begun_is_finished_where_pillar_names_neither(server, begun):
    done = apply(server, user("kim"))
    assert sorted(done["changes"]) == ["hanna", "kim"]
    check_renamed(server, begun)


def test_who_was_being_renamed_can_leave_by_the_new_name(server, ended, begun):
    gone = {"name": "hanna", "absent": True}
    ended.return_value = {"hanna": "processes of hanna do not end (ids 7): end them, and apply again"}
    done = users.apply([gone], groups=GROUPS, root=server.root)
    # Nothing is noted as removed while the account is there.
    assert done["error"].startswith("user hanna: processes of hanna") and done["archives"] == {}
    assert write.recall(server.root)["removing"] == {} and server.path("home/anna/work.txt").exists()
    ended.return_value = {}
    done = users.apply([gone], groups=GROUPS, root=server.root)
    assert done["error"] is None and server.path(f"{done['archives']['hanna'][1:]}/home/work.txt").exists()
    assert not {"anna", "hanna"} & set(server.rows("passwd"))


@pytest.mark.parametrize("leaver", ["anna", "hanna"])
def test_nobody_is_renamed_while_a_removal_of_either_name_is_not_finished(server, hub, anna, leaver):
    """Without this the account is dropped by what finishes the removal."""
    if leaver == "anna":
        hub["forget"].side_effect = CommandExecutionError("The server of anna does not stop.")
        users.apply([{"name": "anna", "absent": True}], groups=GROUPS, root=server.root)
        hub["forget"].side_effect = None
    else:
        note = {"name": "hanna", "uid": 3000, "gid": 3000, "home": "/home/hanna", "archive": "/home/x", "expire": ""}
        write.remember(
            {**write.recall(server.root), "removing": {"hanna": {**note, "remove_home": False}}}, root=server.root
        )
    (problem,) = refused(server, HANNA)
    assert problem.startswith(f"user hanna: was anna, who cannot become hanna while the removal of {leaver} is not")
    if leaver == "anna":
        # Taken back, and then renamed.
        assert users.apply([ANNA], groups=GROUPS, root=server.root)["error"] is None
        apply(server, HANNA)
        check_renamed(server, anna)


@pytest.mark.parametrize("name", ["anna", "hanna"])
def test_homes_that_were_moved_and_a_rename_in_one_apply(server, hub, anna, name):
    """Without this she has an empty home, beside her own."""
    server.path("srv/homes").mkdir(parents=True)
    server.path("home/anna").rename(server.path(f"srv/homes/{name}"))
    server._chown(str(server.path(f"srv/homes/{name}")), anna, anna)
    options = {"groups": GROUPS, "root": server.root, "home_path": "/srv/homes"}
    predicted = users.compare([HANNA], **options)
    done = users.apply([HANNA], **options)
    assert done["error"] is None and done["changes"] == predicted["changes"]
    assert server.rows("passwd")["hanna"][5] == "/srv/homes/hanna"
    assert server.path("srv/homes/hanna/work.txt").read_text() == "of anna\n"
    assert os.listdir(server.path("srv/homes")) == ["hanna"] and not server.path("home/hanna").exists()
    assert users.apply([HANNA], **options)["changes"] == {}


@pytest.mark.parametrize("place", ["/var/mail", "/var/spool/cron/crontabs", "/var/lib/systemd/linger"])
def test_mail_or_a_crontab_in_the_way_is_said_before(server, hub, anna, place):
    for name in ("anna", "hanna"):
        server.write(f"{place[1:]}/{name}", "")
    (problem,) = refused(server, HANNA)
    assert problem == (
        f"user hanna: was anna, who has {place}/anna, and {place}/hanna exists beside it: move one of them away"
    )
    hub["rename"].assert_not_called()


# What comes after a rename, where pillar has the former name again.

JOHANNA = {**ANNA, "name": "johanna", "was": "anna"}
UNDO = (
    "user anna: became hanna here, and would be made anew with an empty home: write `{name: anna, was: hanna}` to undo "
    "the rename, or, for somebody else of the name anna, `{name: hanna}` beside it, or a `uid` in it"
)
AGAIN = (
    "user johanna: was anna, who became hanna here: write `{name: johanna, was: hanna}` to rename hanna, or take `was` "
    "away to make somebody else"
)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([ANNA], UNDO),
        ([{**ANNA, "was": "annette"}], UNDO),
        ([JOHANNA], AGAIN),
        ([JOHANNA, HANNA], AGAIN),
        ([{**JOHANNA, "uid": 4321}], AGAIN),
        # The next apply would refuse this pillar: two accounts, of the former and of the new name.
        ([HANNA, ANNA], UNDO),
    ],
)
def test_a_rename_that_is_undone_or_corrected_makes_no_second_person(server, hub, anna, entries, problem):
    """Without this: a fresh account beside the one with the files."""
    apply(server, HANNA)
    assert refused(server, *entries, user("kim")) == [problem]
    check_renamed(server, anna)


def test_the_ways_out_are_those_of_the_message(server, hub, anna):
    apply(server, HANNA)
    undone = apply(server, {**ANNA, "was": "hanna"})
    assert undone["changes"]["anna"]["old"]["name"] == "hanna"
    assert int(server.rows("passwd")["anna"][2]) == anna and server.path("home/anna/work.txt").exists()
    # And there and back once more: nothing of that is in the way.
    apply(server, HANNA)
    corrected = apply(server, {**JOHANNA, "was": "hanna"})
    assert int(server.rows("passwd")["johanna"][2]) == anna and corrected["counts"]["created"] == 0
    # Of both former names, the last name is said.
    assert "anna became johanna" in refused(server, ANNA)[0].replace("user anna: ", "anna ")
    assert "hanna became johanna" in refused(server, {**ANNA, "name": "hanna"})[0].replace("user hanna: ", "hanna ")


@pytest.mark.parametrize(
    "entries",
    [
        [{**ANNA, "name": "hanna"}, ANNA],
        [{**ANNA, "uid": 4321}],
        [{**JOHANNA, "was": "hanna"}, ANNA],
        [{**JOHANNA, "was": None}, user("kim")],
    ],
)
def test_somebody_new_can_have_a_former_name(server, hub, anna, entries):
    apply(server, HANNA)
    done = apply(server, *entries)
    assert done["counts"]["created"] == (2 if entries[-1]["name"] == "kim" else 1)
    assert not server.path("home/anna/work.txt").exists()


def test_a_former_name_is_free_when_its_person_is_gone(server, hub, anna):
    apply(server, HANNA)
    apply(server, {"name": "hanna", "absent": True})
    assert apply(server, ANNA)["counts"]["created"] == 1


def test_who_is_to_be_absent_is_no_second_person(server, hub, anna):
    apply(server, HANNA)
    hub["users"].return_value = {}
    assert apply(server, {"name": "anna", "absent": True})["counts"]["created"] == 0
