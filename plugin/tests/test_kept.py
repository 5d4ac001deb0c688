"""A hub whose configuration or permissions are gone stays shut, and has what brings them back (A10)."""

from __future__ import annotations

import pytest
from tljh_plasma import config_file, kept, settings
from tljh_plasma.access import AccessError, Entry, Store


@pytest.fixture
def prefix(tmp_path):
    """A hub that has worked with its configuration and its permissions."""
    (tmp_path / "config").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("users:\n  banned: [eve]  # by hand\n")
    store = Store(tmp_path / "state" / "plasma.sqlite")
    store.upgrade()
    kept.keep(tmp_path / "config" / "config.yaml")
    store.set_groups({"course:1": ["maths"]})
    return tmp_path


@pytest.mark.parametrize("text", [None, "", "\n\n", "# nothing\n", "{}\n"])
def test_no_configuration_lets_nobody_in(prefix, text):
    path = prefix / "config" / "config.yaml"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(settings.SettingsError, match="config.yaml is missing or empty, so nobody is let in"):
        settings.load(prefix)


def test_a_hub_that_never_worked_needs_none(tmp_path):
    assert settings.load(tmp_path).config == {}


@pytest.mark.parametrize("text", [None, "", "# nothing\n"])
def test_the_next_change_brings_it_back(prefix, text):
    path = prefix / "config" / "config.yaml"
    path.unlink() if text is None else path.write_text(text)
    predicted = config_file.update(path, {"limits.memory": "1G"}, dry_run=True)
    done = config_file.update(path, {"limits.memory": "1G"})
    assert predicted["changes"] == done["changes"]
    assert list(done["changes"]) == ["config.yaml", "limits.memory"]
    assert settings.load(prefix).config == {"users": {"banned": ["eve"]}, "limits": {"memory": "1G"}}
    assert "# by hand" in path.read_text()
    assert config_file.update(path, {"limits.memory": "1G"})["changed"] is False


@pytest.mark.parametrize("change", ["unlink", "touch"])
def test_lost_permissions_are_not_made_anew(prefix, change):
    path = prefix / "state" / "plasma.sqlite"
    path.unlink()
    if change == "touch":
        path.touch()
    with pytest.raises(AccessError, match="gone, so nobody is let in: `plasma_databases.mend plasma.sqlite`"):
        Store(path).upgrade()


def test_the_copy_follows_every_change(prefix):
    store = Store(prefix / "state" / "plasma.sqlite")
    copy = kept.copy_of(store.path)
    assert copy.stat().st_mode & 0o777 == 0o600
    store.set_description("course:1", "first")
    store.set_pillar("course:2")
    assert Store(copy).all() == store.all()
    store.remove("course:1")
    assert Store(copy).all() == {"course:2": Entry((), "", True)}
