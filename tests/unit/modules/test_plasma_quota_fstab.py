"""The editor of fstab: what is not meant keeps its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from salt.exceptions import CommandExecutionError

import _modules.plasma_quota_fstab as fstab

WANTED = ["usrjquota=aquota.user", "grpjquota=aquota.group", "jqfmt=vfsv1"]
ADDED = ",".join(WANTED)
CLOUD = """\
LABEL=cloudimg-rootfs   /        ext4   defaults        0 0
LABEL=UEFI      /boot/efi       vfat    defaults        0 0
"""


@pytest.fixture
def configure_loader_modules():
    return {fstab: {}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CLOUD, CLOUD.replace("ext4   defaults ", f"ext4   defaults,{ADDED} ")),
        ("/dev/sda1\t/\text4\terrors=remount-ro\t0\t1", f"/dev/sda1\t/\text4\terrors=remount-ro,{ADDED}\t0\t1"),
        ("UUID=1 / ext4 rw, 0 1\n", f"UUID=1 / ext4 rw,{ADDED} 0 1\n"),
        ("UUID=1 / ext4", f"UUID=1 / ext4 {ADDED}"),
        ("UUID=1 / ext4  # root\n", "UUID=1 / ext4  #," + ADDED + " root\n"),
        ("UUID=1 / ext4 rw\r\n# end\r\n", f"UUID=1 / ext4 rw,{ADDED}\r\n# end\r\n"),
        ("  UUID=1 / ext4 rw 0 1 # say \xff\n\n\n", f"  UUID=1 / ext4 rw,{ADDED} 0 1 # say \xff\n\n\n"),
    ],
)
def test_options_go_behind_those_of_the_line_and_away_again(before, after):
    changed, record = fstab.add_options(before, 1, WANTED)
    assert changed == after
    assert fstab.add_options(changed, 1, WANTED) == (changed, None)
    assert fstab.undo(changed, record) == before


def test_what_is_there_is_not_repeated():
    changed, record = fstab.add_options("UUID=1 / ext4 defaults,usrquota 0 1", 1, ["usrquota", "grpquota"])
    assert changed == "UUID=1 / ext4 defaults,usrquota,grpquota 0 1"
    assert record["options"] == ["grpquota"]
    assert fstab.undo(changed, record) == "UUID=1 / ext4 defaults,usrquota 0 1"


@pytest.mark.parametrize("line", ["# UUID=1 / ext4 rw", "", "UUID=1 none swap sw 0 0", "UUID=1 /", "   "])
def test_a_line_that_mounts_nothing_is_no_entry(line):
    assert fstab.entries(line) == []
    with pytest.raises(CommandExecutionError, match="Line 1 of fstab mounts nothing"):
        fstab.add_options(line, 1, WANTED)


def test_entries_say_what_is_mounted_where():
    text = r"""# comment
/dev/disk/by-label/my\040disk /srv/my\040homes/ ext4 rw,noauto 0 2
/srv/my\040homes /home none bind 0 0
UUID=2 swap swap sw 0 0
"""
    first, second = fstab.entries(text)
    assert (first["number"], first["source"], first["target"]) == (2, "/dev/disk/by-label/my disk", "/srv/my homes")
    assert (first["options"], first["bind"], second["bind"]) == (["rw", "noauto"], False, True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "LABEL=my\\040root / ext4 defaults,usrquota 0 0\n"),
        ("# none\n", "# none\nLABEL=my\\040root / ext4 defaults,usrquota 0 0\n"),
        ("# no end", "# no end\nLABEL=my\\040root / ext4 defaults,usrquota 0 0\n"),
        ("# a\r\n# b\r\n", "# a\r\n# b\r\nLABEL=my\\040root / ext4 defaults,usrquota 0 0\r\n"),
        ("# a\r\n# b", "# a\r\n# b\r\nLABEL=my\\040root / ext4 defaults,usrquota 0 0\r\n"),
    ],
)
def test_a_line_is_added_at_the_end_and_taken_away_again(before, after):
    changed, record = fstab.add_line(before, "LABEL=my root", "/", "ext4", ["defaults", "usrquota"])
    assert changed == after
    assert fstab.undo(changed, record) == before


def test_what_others_wrote_in_between_stays():
    changed, record = fstab.add_options(CLOUD, 1, WANTED)
    theirs = "# by hand\n" + changed + "tmpfs /tmp tmpfs rw 0 0"
    assert fstab.undo(theirs, record) == "# by hand\n" + CLOUD + "tmpfs /tmp tmpfs rw 0 0"


def test_of_a_line_that_others_changed_only_our_options_are_taken():
    changed, record = fstab.add_options("UUID=1 / ext4 defaults 0 1\n", 1, WANTED)
    theirs = changed.replace("defaults,", "noatime,").replace("jqfmt=vfsv1", "jqfmt=vfsv1,nodev")
    assert fstab.undo(theirs, record) == "UUID=1 / ext4 noatime,nodev 0 1\n"
    assert fstab.undo(theirs.replace("noatime,", "").replace(",nodev", ""), record) == "UUID=1 / ext4 defaults 0 1\n"


def test_a_line_that_is_gone_is_not_missed():
    _, record = fstab.add_options(CLOUD, 1, WANTED)
    assert fstab.undo("proc /proc proc rw 0 0", record) == "proc /proc proc rw 0 0"


# Any fstab: what people and installers write, and what nobody should.
blanks = st.text(" \t", min_size=1, max_size=3)
field = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f\x85\xa0"), min_size=1)
entry = st.builds(
    lambda lead, fields, gaps, tail: lead + "".join(f + g for f, g in zip(fields, gaps, strict=False)) + tail,
    st.text(" \t", max_size=2),
    st.lists(field, min_size=3, max_size=7),
    st.lists(blanks, min_size=7, max_size=7),
    st.sampled_from(["", " ", "\t# why", "\r"]),
)
other = st.one_of(
    st.just(""),
    st.builds("#{}".format, st.text(st.characters(max_codepoint=255, exclude_characters="\n"))),
    st.text(st.characters(max_codepoint=255, exclude_characters="\n"), max_size=20),
)
text = st.builds(
    lambda lines, end: "\n".join(lines) + end,
    st.lists(st.one_of(entry, other), max_size=8),
    st.sampled_from(["", "\n"]),
)
options = st.lists(
    st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=6), min_size=1, max_size=4
)


@given(text, options, st.data())
def test_any_options_in_any_line(before, wanted, data):
    found = fstab.entries(before)
    if not found:
        return
    number = data.draw(st.sampled_from([entry["number"] for entry in found]))
    after, record = fstab.add_options(before, number, wanted)
    # Twice is once.
    assert fstab.add_options(after, number, wanted) == (after, None)
    # No other line has changed, and of this one nothing but the options.
    lines, changed = before.split("\n"), after.split("\n")
    assert [line for n, line in enumerate(lines, 1) if n != number] == [
        line for n, line in enumerate(changed, 1) if n != number
    ]
    old = next(entry for entry in found if entry["number"] == number)
    new = next(entry for entry in fstab.entries(after) if entry["number"] == number)
    assert {**old, "line": "", "options": [], "bind": 0} == {**new, "line": "", "options": [], "bind": 0}
    assert set(new["options"]) - {""} == set(old["options"]) - {""} | set(wanted)
    if record:
        # Another line that happens to be the same is the same afterwards, too.
        assert fstab.undo(after, record) == before or record["new"] in lines
    else:
        assert after == before


@given(text, st.text(min_size=1), options)
def test_any_line_at_the_end_of_any_file(before, source, wanted):
    after, record = fstab.add_line(before, source, "/srv/a b", "ext4", wanted)
    assert after.startswith(before)
    added = fstab.entries(after)[-1]
    assert (added["source"], added["target"], added["options"]) == (source, "/srv/a b", wanted)
    assert fstab.undo(after, record) == before


@given(st.text(min_size=1))
def test_any_name_survives_as_a_field(name):
    assert fstab.unescape(fstab.escape(name)) == name
    assert not set(" \t\n") & set(fstab.escape(name))
