"""Permissions: the file, its upgrades, and the rule."""

from __future__ import annotations

import sqlite3
import stat
import threading
from datetime import datetime, timezone

import pytest
from tljh_plasma import access
from tljh_plasma.access import AccessError, Entry, Store


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "plasma.sqlite")
    made.upgrade()
    return made


def test_a_new_file_is_private_and_empty(store):
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert store.all() == {}
    assert store.get("course:1") == Entry()


def test_18_nothing_is_made_at_import_or_in_the_current_directory(tmp_path, monkeypatch):
    """A SQLite file used to appear in whatever directory the hub was started from."""
    monkeypatch.chdir(tmp_path)
    Store(tmp_path / "elsewhere" / "plasma.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_groups_of_the_named_images_are_replaced_and_others_stay(store):
    store.set_groups({"a:1": ["maths", "biology", "maths"], "b:1": ["maths"]})
    store.set_description("a:1", "Statistics")
    assert store.all() == {"a:1": Entry(("biology", "maths"), "Statistics"), "b:1": Entry(("maths",))}
    store.set_groups({"a:1": []})
    assert store.all() == {"a:1": Entry((), "Statistics"), "b:1": Entry(("maths",))}


def test_13_many_permissions_in_any_order_survive_a_change_of_one(store):
    """Rows that were not sorted by image were dropped by the page, and deleted by the next save."""
    for group in ("x", "y", "z"):
        for image in ("c:1", "a:1", "b:1"):
            store.set_groups({image: [*store.get(image).groups, group]})
    store.set_groups({"b:1": ["y"]})
    assert {image: entry.groups for image, entry in store.all().items()} == {
        "a:1": ("x", "y", "z"),
        "b:1": ("y",),
        "c:1": ("x", "y", "z"),
    }


def test_15_a_removed_environment_takes_everything_along(store):
    store.set_groups({"a:1": ["maths"]})
    store.set_description("a:1", "Statistics")
    store.set_pillar("a:1")
    store.set_pillar("a:1")
    store.set_opens("a:1", "notebook")
    store.set_gpus("a:1", 2)
    store.set_webhook("a:1", "secret")
    assert store.get("a:1") == Entry(("maths",), "Statistics", True, "notebook", True, gpus=2)
    store.set_webhook("a:1", "")
    store.set_opens("a:1", "")
    store.set_gpus("a:1", 0)
    store.set_opens("b:1", "/lab/tree/a.ipynb")
    assert store.all() == {
        "a:1": Entry(("maths",), "Statistics", True),
        "b:1": Entry(opens="/lab/tree/a.ipynb"),
    }
    store.set_opens("a:1", "vscode")
    store.set_gpus("a:1", 1)
    store.set_webhook("a:1", "secret")
    store.remove("a:1")
    assert store.get("a:1") == Entry()
    assert store.webhook("a:1") == ""


def test_17_what_was_read_outlives_its_connection(store):
    """Permissions used to be a query that ran after its session was closed."""
    store.set_groups({"a:1": ["maths"]})
    entries = store.all()
    store.path.unlink()
    assert entries == {"a:1": Entry(("maths",))}


def test_a_file_that_is_put_back_counts_at_once(store, tmp_path):
    """As when a backup is restored while hub and service run."""
    store.set_groups({"a:1": ["maths"]})
    other = Store(tmp_path / "backup.sqlite")
    other.upgrade()
    other.set_groups({"a:1": ["biology"]})
    other.path.replace(store.path)
    assert store.all() == {"a:1": Entry(("biology",))}


def test_a_failing_write_changes_nothing(store):
    store.set_groups({"a:1": ["maths"]})
    with pytest.raises(AccessError):
        store.set_groups({"a:1": ["biology"], "b:1": [None]})
    assert store.all() == {"a:1": Entry(("maths",))}


def test_two_processes_write_at_once(store):
    def write(number):
        for turn in range(20):
            Store(store.path).set_groups({f"image{number}:1": [f"group{turn}"]})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {image: entry.groups for image, entry in store.all().items()} == {
        f"image{number}:1": ("group19",) for number in range(4)
    }


def test_upgrade_of_a_current_file_leaves_it_alone(store):
    store.set_groups({"a:1": ["maths"]})
    before = store.path.read_bytes()
    store.upgrade()
    assert store.path.read_bytes() == before
    assert {path.name for path in store.path.parent.iterdir()} == {"plasma.sqlite", "kept"}


def test_an_older_file_is_copied_before_it_is_migrated(store, tmp_path, monkeypatch):
    """With a further migration beside those there are."""
    store.set_groups({"a:1": ["maths"]})
    later = ("ALTER TABLE descriptions ADD COLUMN note VARCHAR(10)",)
    newest = len(access.MIGRATIONS)
    monkeypatch.setattr(access, "MIGRATIONS", {**access.MIGRATIONS, str(newest + 1): later})
    store.upgrade()
    copy = tmp_path / f"plasma.sqlite.{newest}.bak"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    columns = "PRAGMA table_info(descriptions)"
    assert "note" in {row[1] for row in sqlite3.connect(store.path).execute(columns)}
    assert "note" not in {row[1] for row in sqlite3.connect(copy).execute(columns)}
    assert Store(copy).get("a:1") == store.get("a:1") == Entry(("maths",))


def test_a_file_of_a_former_release_loses_nothing(store, tmp_path):
    """Its tables were made by Alembic, and nobody could say yet what an environment opens with."""
    store.path.unlink()
    with sqlite3.connect(store.path) as connection:
        connection.executescript(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));"
            'CREATE TABLE permissions (image VARCHAR(512) NOT NULL, "group" VARCHAR(64) NOT NULL, '
            'PRIMARY KEY (image, "group"));'
            "CREATE TABLE descriptions (image VARCHAR(512) NOT NULL, text VARCHAR(1024) NOT NULL, PRIMARY KEY (image));"
            "CREATE TABLE pillar (image VARCHAR(512) NOT NULL, PRIMARY KEY (image));"
            "INSERT INTO alembic_version VALUES ('2'); INSERT INTO permissions VALUES ('a:1', 'maths');"
        )
    before = store.path.read_bytes()
    store.upgrade()
    assert (tmp_path / "plasma.sqlite.2.bak").read_bytes() == before
    store.set_description("a:1", "Statistics")
    store.set_opens("a:1", "rstudio")
    store.set_gpus("a:1", 1)
    assert store.get("a:1") == Entry(("maths",), "Statistics", opens="rstudio", gpus=1)
    store.set_gpus("a:1", 0)
    assert store.get("a:1").gpus == 0


def test_what_is_known_of_the_past_of_environments(store):
    assert store.history() == {}
    store.note_build("a:1", 61.6)
    store.note_build("a:1", 12.2)
    for user in ("anna", "ben", "anna"):
        store.note_use("b:1", user)
    found = store.history()
    assert found["a:1"] == access.History(12)
    assert (found["b:1"].build_seconds, found["b:1"].used_by) == (None, 2)
    began = datetime.fromisoformat(found["b:1"].last_used)
    assert began.tzinfo and abs((datetime.now(timezone.utc) - began).total_seconds()) < 60
    # People get other names, and go; environments go.
    store.rename_user("ben", "anna")
    assert store.history()["b:1"].used_by == 1
    store.forget_user("anna")
    assert "b:1" not in store.history()
    store.remove("a:1")
    assert store.history() == {}
    # Nothing of it decides who may start what.
    store.note_use("c:1", "anna")
    assert store.all() == {}


def test_what_is_archived_is_noted_and_forgotten(store):
    store.set_archived("a:1", True)
    assert store.all() == {"a:1": Entry(archived=True)}
    store.set_archived("a:1", False)
    assert store.all() == {}
    store.set_archived("a:1", True)
    store.remove("a:1")
    assert store.all() == {}


def test_a_file_of_the_release_before_gets_the_tables_for_the_past(store, tmp_path):
    with sqlite3.connect(store.path) as connection:
        connection.executescript(
            "DROP TABLE archived; DROP TABLE builds; DROP TABLE uses; DROP TABLE gpus;"
            "UPDATE alembic_version SET version_num = '4';"
            "INSERT INTO webhooks VALUES ('a:1', 'secret');"
        )
    store.upgrade()
    assert (tmp_path / "plasma.sqlite.4.bak").exists()
    store.note_use("a:1", "anna")
    assert store.all() == {"a:1": Entry(webhook=True)} and store.history()["a:1"].used_by == 1


def test_a_file_of_a_newer_release_is_refused(store):
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '99'")
    with pytest.raises(AccessError, match="newer release"):
        store.upgrade()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "plasma.sqlite"
    path.write_text("something else" * 100)
    with pytest.raises(AccessError, match="not a database"):
        Store(path).upgrade()
    assert path.read_text() == "something else" * 100


@pytest.mark.parametrize(
    ("groups", "mine", "admin", "open_by_default", "expected"),
    [
        ((), (), False, True, True),
        ((), (), False, False, False),
        ((), (), True, False, True),
        (("maths",), ("maths", "biology"), False, False, True),
        (("maths",), ("biology",), False, True, False),
        (("maths",), ("biology",), True, False, True),
    ],
)
def test_who_may_start(groups, mine, admin, open_by_default, expected):
    assert access.may_start(Entry(groups), mine, admin=admin, open_by_default=open_by_default) is expected


def test_a_group_with_another_name_keeps_its_permissions(store):
    store.set_groups({"course:1": ["anna", "maths"], "course:2": ["anna", "hanna"]})
    store.rename_group("anna", "hanna")
    assert {image: entry.groups for image, entry in store.all().items()} == {
        "course:1": ("hanna", "maths"),
        "course:2": ("hanna",),
    }
