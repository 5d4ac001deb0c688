"""The editor of fstab: what is not meant keeps its bytes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plasma_quota_fstab as fstab

WANTED = ["usrjquota=aquota.user", "grpjquota=aquota.group", "jqfmt=vfsv1"]
ADDED = ",".join(WANTED)
CLOUD = """\
LABEL=cloudimg-rootfs   /        ext4   defaults        0 0
LABEL=UEFI      /boot/efi       vfat    defaults        0 0
"""


def add(text, line, options):
    """The text with options in a line, and what is noted about that."""
    new = fstab._with_options(line, [*line["options"], *options])
    edit = {"target": line["target"], "old": line["line"], "new": new, "options": options}
    return fstab._with_line(text, line, new), edit


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CLOUD, CLOUD.replace("ext4   defaults ", f"ext4   defaults,{ADDED} ")),
        ("/dev/sda1\t/\text4\terrors=remount-ro\t0\t1", f"/dev/sda1\t/\text4\terrors=remount-ro,{ADDED}\t0\t1"),
        ("UUID=1 / ext4 rw\r\n# end\r\n", f"UUID=1 / ext4 rw,{ADDED}\r\n# end\r\n"),
        ("  UUID=1 / ext4 rw 0 1 # say \udcff\n\n\n", f"  UUID=1 / ext4 rw,{ADDED} 0 1 # say \udcff\n\n\n"),
    ],
)
def test_options_go_behind_those_of_the_line_and_away_again(before, after):
    changed, edit = add(before, fstab.entries(before)[0], WANTED)
    assert changed == after
    assert fstab.undo(changed, edit) == before


@pytest.mark.parametrize("line", ["# UUID=1 / ext4 rw", "", "UUID=1 none swap sw 0 0", "UUID=1 / ext4", "   "])
def test_a_line_that_mounts_nothing_or_has_no_options_is_no_entry(line):
    assert fstab.entries(line) == []


def test_entries_say_what_is_mounted_where():
    text = r"""# comment
/dev/disk/by-label/my\040disk /srv/my\040homes/ ext4 rw,noauto 0 2
/srv/my\040homes /home none bind 0 0
UUID=2 swap swap sw 0 0
"""
    [only] = fstab.entries(text)
    assert (only["number"], only["source"], only["target"]) == (1, "/dev/disk/by-label/my disk", "/srv/my homes")
    assert only["options"] == ["rw", "noauto"]


def test_what_others_wrote_in_between_stays():
    changed, edit = add(CLOUD, fstab.entries(CLOUD)[0], WANTED)
    theirs = "# by hand\n" + changed + "tmpfs /tmp tmpfs rw 0 0"
    assert fstab.undo(theirs, edit) == "# by hand\n" + CLOUD + "tmpfs /tmp tmpfs rw 0 0"


def test_of_a_line_that_others_changed_only_our_options_are_taken():
    before = "UUID=1 / ext4 defaults 0 1\n"
    changed, edit = add(before, fstab.entries(before)[0], WANTED)
    theirs = changed.replace("defaults,", "noatime,").replace("jqfmt=vfsv1", "jqfmt=vfsv1,nodev")
    assert fstab.undo(theirs, edit) == "UUID=1 / ext4 noatime,nodev 0 1\n"
    assert fstab.undo(theirs.replace("noatime,", "").replace(",nodev", ""), edit) == before


def test_a_line_that_an_earlier_release_added_keeps_no_options_of_quotas():
    edit = {"target": "/", "old": None, "new": f"UUID=1 / ext4 defaults,{ADDED} 0 0", "options": ["defaults", *WANTED]}
    assert fstab.undo(edit["new"] + "\n", edit) == "UUID=1 / ext4 defaults 0 0\n"


def test_a_line_that_is_gone_is_not_missed():
    _, edit = add(CLOUD, fstab.entries(CLOUD)[0], WANTED)
    assert fstab.undo("proc /proc proc rw 0 0", edit) == "proc /proc proc rw 0 0"


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
    st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=6, max_size=8), min_size=1, max_size=4
)


@given(text, options, st.data())
def test_any_options_in_any_line(before, wanted, data):
    entries = fstab.entries(before)
    if not entries:
        return
    old = data.draw(st.sampled_from(entries))
    after, edit = add(before, old, wanted)
    # No other line has changed, and of this one nothing but the options.
    lines, changed = before.split("\n"), after.split("\n")
    del lines[old["number"]], changed[old["number"]]
    assert lines == changed
    new = next(line for line in fstab.entries(after) if line["number"] == old["number"])
    same = ("number", "source", "target")
    assert [old[key] for key in same] == [new[key] for key in same]
    assert new["options"] == [*old["options"], *wanted]
    # Another line for the same mount point that has these options already loses them too: fstab is refused then.
    if [line["target"] for line in entries].count(old["target"]) == 1:
        assert fstab.undo(after, edit) == before


@given(st.binary().filter(lambda content: b"\0" not in content))
def test_any_bytes_survive(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fstab") / "fstab"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fstab, "FSTAB", path)
        assert os.fsencode(fstab._read()) == content
