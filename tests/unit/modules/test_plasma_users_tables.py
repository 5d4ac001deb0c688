"""The account files as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plasma_users_observe as observe
import plasma_users_tables as tables

LINES = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30),
        st.sampled_from(["+::::::", "# remark", "", "a:x:1:", "a:x:2:b", "b:x", "-x"]),
    ),
    max_size=8,
)


@given(LINES)
def test_what_nobody_changes_is_written_back_byte_for_byte(lines):
    text = "".join(line + "\n" for line in lines)
    assert tables.text(tables.parse("group", text)) == text


@given(LINES, st.dictionaries(st.sampled_from(["a", "b", "c"]), st.one_of(st.none(), st.just(["1"])), max_size=3))
def test_an_edit_touches_no_other_line(lines, wanted):
    table = tables.parse("group", "".join(line + "\n" for line in lines))
    edits = {name: row and [name, "x", "9", ""] for name, row in wanted.items()}
    after = tables.edited(table, edits)
    mine = {table["at"][name] for name in edits if name in table["at"]}
    others = [line for number, line in enumerate(table["lines"]) if number not in mine]
    rest = list(after["lines"])
    for name, row in edits.items():
        if row:
            rest.remove(":".join(row))
            assert after["rows"][name] == row
    assert rest == others


def test_new_entries_come_before_those_of_nis():
    table = tables.edited(tables.parse("group", "a:x:1:\n+:::\n"), {"b": ["b", "x", "2", ""]})
    assert tables.text(table) == "a:x:1:\nb:x:2:\n+:::\n"


def test_a_file_without_a_last_newline_gets_one():
    assert tables.text(tables.edited(tables.parse("group", "a:x:1:"), {"b": ["b", "x", "2", ""]})) == "a:x:1:\nb:x:2:\n"


@pytest.mark.parametrize("text", ["a:x:1:\na:x:2:\n", "a:x:1\n", "a:x:1::\n"])
def test_names_that_stand_twice_or_in_a_damaged_line_are_odd(text):
    assert tables.parse("group", text)["odd"] == {"a"}


def test_bytes_that_are_not_utf_8_survive(tmp_path):
    (tmp_path / "etc").mkdir()
    content = b"old:x:1001:1001:J\xf6rg:/home/old:/bin/sh\n"
    (tmp_path / "etc/passwd").write_bytes(content)
    read = tables.read(str(tmp_path))
    assert tables.text(read["passwd"]).encode("utf-8", "surrogateescape") == content
    assert read["gshadow"]["text"] is None


def test_defaults_of_new_accounts(tmp_path):
    found = tables.defaults(str(tmp_path))
    assert found["UID_MIN"] == 1000
    # Images have files of 1000, 1100 and their like.
    assert (found["UID_FIRST"], found["GID_FIRST"]) == (20000, 20000)
    (tmp_path / "etc").mkdir()
    login_defs = tmp_path / "etc/login.defs"
    login_defs.write_text("#UID_MIN 1\nUID_MIN\t 2000\nHOME_MODE 0777\nPASS_MAX_DAYS 90\nGID_MAX x\n")
    found = tables.defaults(str(tmp_path))
    assert (found["UID_FIRST"], found["GID_FIRST"]) == (20000, 20000)
    assert (found["UID_MIN"], found["GID_MAX"], found["PASS_MAX_DAYS"]) == (2000, 60000, "90")
    assert found["HOME_MODE"] == 0o755  # a home that others may write to is none


@pytest.mark.parametrize(
    ("line", "others"),
    [
        ("passwd: files systemd", []),
        ("passwd:\tfiles sss [NOTFOUND=return] ldap # comment", ["sss", "ldap"]),
        ("group: ldap", []),
    ],
)
def test_other_sources_of_accounts(tmp_path, line, others):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nsswitch.conf").write_text(f"# passwd: nis\n{line}\n")
    assert tables.other_sources(str(tmp_path)) == others


def test_shells(tmp_path):
    (tmp_path / "sh").write_text("")
    (tmp_path / "sh").chmod(0o755)
    (tmp_path / "private").write_text("")
    (tmp_path / "private").chmod(0o700)
    assert observe._runnable("/sh", str(tmp_path))
    assert not any(observe._runnable(path, str(tmp_path)) for path in ("/private", "/", "/none", "/sh/x", "/\0"))


def test_sources_of_groups_are_their_own(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files sss\n")
    assert tables.other_sources(str(tmp_path)) == []
    assert tables.other_sources(str(tmp_path), "group") == ["sss"]


@pytest.mark.parametrize(
    ("home", "path"),
    [
        ("/home/hal/", "/home/hal"),
        ("//home///hal//", "/home/hal"),
        ("/", "/"),
        *[(odd, "") for odd in ("", "hal", "./hal", "/home/./hal", "/home/../etc", "..")],
    ],
)
def test_homes_are_paths_that_say_one_thing(home, path):
    assert tables.home_path(["hal", "x", "1", "1", "", home, ""]) == path


def test_nis_is_another_source_where_the_files_name_it(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nsswitch.conf").write_text("passwd: compat\ngroup: compat\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n+::::::\n")
    assert tables.other_sources(str(tmp_path)) == ["compat"]
    assert tables.other_sources(str(tmp_path), "group") == []
