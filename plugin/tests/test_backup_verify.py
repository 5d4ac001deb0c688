"""Looking at archives: what is damaged, foreign or hostile is refused, and nothing of it is written."""

from __future__ import annotations

import gzip
import json
import os
import random
import stat
import tarfile
from pathlib import Path

import pytest
from support_backup import World, rewrite


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    (world.homes / "ada/b").mkdir()
    (world.homes / "ada/b/c").write_text("c")
    (world.homes / "ada/run").write_text("#!")
    (world.homes / "ada/run").chmod(0o4755)
    return world


@pytest.fixture
def archive(world):
    return world.archive("--homes")


def refused(world, path):
    """The reason why neither verify nor extract takes it; nothing is left of either."""
    into = world.root / "out"
    words = [
        world.run("verify", path)["error"],
        world.run("extract", path, "--into", into, "--part", "state", "--part", "homes")["error"],
    ]
    assert words[0] == words[1]
    assert not into.exists()
    return words[0]


def test_any_byte_that_is_changed_is_seen(world, archive):
    content = archive.read_bytes()
    bad = archive.with_name("bad")
    for place in {0, 3, len(content) - 1, len(content) - 6, *random.sample(range(20, len(content)), 40)}:
        changed = bytearray(content)
        changed[place] ^= 1 << random.randrange(8)
        bad.write_bytes(changed)
        if "error" not in world.run("verify", bad):
            # Some bits carry nothing: the time in gzip's header (RFC 1952), or codes that a block does not use.
            assert gzip.decompress(bytes(changed)) == gzip.decompress(content), place


@pytest.mark.parametrize("cut", [1, 8, 100, 5000])
def test_one_that_is_not_whole(world, archive, cut):
    bad = archive.with_name("bad")
    bad.write_bytes(archive.read_bytes()[:-cut])
    assert "it is not whole" in refused(world, bad)


def test_something_behind_its_end(world, archive):
    bad = archive.with_name("bad")
    bad.write_bytes(archive.read_bytes() + b"more")
    assert "cannot be read" in refused(world, bad)


def test_not_the_one_that_the_checksum_beside_it_is_of(world, archive):
    other = world.archive()
    os.replace(other, archive)
    assert "is not the file that" in refused(world, archive)


def test_other_archives_and_other_files(world, tmp_path):
    other = tmp_path / "other.tar.gz"
    with tarfile.open(other, "w:gz") as tar:
        tar.add("/etc/hostname", "etc/hostname")
    assert "none of ours" in refused(world, other)
    with tarfile.open(other, "w:gz") as tar:
        tar.add(world.prefix / "config", "config")
    assert "has no manifest of ours" in refused(world, other)
    other.write_bytes(b"")
    assert refused(world, other)
    other.write_bytes(os.urandom(5000))
    assert "none of ours" in refused(world, other)
    other.unlink()
    assert "is no file" in refused(world, other)
    other.symlink_to("/etc/hostname")
    assert "is no file" in refused(world, other)


def manifest(members):
    return next(index for index, (info, _) in enumerate(members) if info.name == "manifest.json")


def with_manifest(**keys):
    def change(members):
        at = manifest(members)
        info, content = members[at]
        members[at] = info, json.dumps({**json.loads(content), **keys}).encode()
        return members

    return change


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"format": 2}, "is of a newer release (format 2, known is 1)"),
        ({"format": "1"}, "is of a newer release"),
        ({"tool": "tar"}, "was made by something else"),
        ({"members": []}, "was changed"),
        ({"members": {}}, "was changed: about.json"),
        ({"homes": {}}, "the homes are not what its manifest says"),
    ],
)
def test_manifests_that_do_not_fit(world, archive, keys, said):
    assert said in refused(world, rewrite(archive, with_manifest(**keys)))


def member(name, kind=tarfile.REGTYPE, target="", content=b"evil"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o755
    return info, content if kind == tarfile.REGTYPE else None


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil")],
        [member("/etc/evil")],
        [member("state/../../evil")],
        [member("state//evil")],
        [member("state/./evil")],
        [member("evil")],
        [member("etc", tarfile.DIRTYPE), member("etc/evil")],
        [member("state/link", tarfile.SYMTYPE, "/etc"), member("state/link/evil")],
        [member("state/link", tarfile.SYMTYPE, "/etc"), member("state/link", tarfile.DIRTYPE)],
        [member("state/hard", tarfile.LNKTYPE, "/etc/shadow")],
        [member("state/device", tarfile.CHRTYPE)],
        [member("state/pipe", tarfile.FIFOTYPE)],
        [member("state/jupyterhub_cookie_secret")],
        [member("state/missing/evil")],
        [member("accounts/link", tarfile.SYMTYPE, "/etc/shadow")],
        [member("images", tarfile.SYMTYPE, "/etc")],
        [member("homes/ada/zz", tarfile.SYMTYPE, "/etc"), member("homes/ada/zz/evil")],
        [member("homes/ada/run")],
        [member("homes/ada")],
        [member("homes/../evil")],
        [member("homes/bob/evil")],
        [member("homes/z", tarfile.SYMTYPE, "/etc"), member("homes/z", tarfile.DIRTYPE), member("homes/z/evil")],
    ],
    ids=lambda members: "+".join(info.name for info, _ in members),
)
def test_members_that_want_out(world, archive, members):
    """Even with a manifest that names them."""

    def change(found):
        at = manifest(found)
        return [*found[:at], *members, *found[at:]]

    assert "has a member" in refused(world, rewrite(archive, change))


def test_the_state_as_a_link_is_refused(world, archive):
    def change(found):
        return [member("state", tarfile.SYMTYPE, "/etc")] + [
            pair for pair in found if not pair[0].name.startswith("state")
        ]

    assert "has a member 'state'" in refused(world, rewrite(archive, change))


def test_what_is_taken_out(world, archive):
    into = world.root / "out"
    answer = world.run("extract", archive, "--into", into, "--part", "state", "--part", "homes/ada")
    assert answer == {"state": 3, "homes/ada": 5}
    assert (into / "homes/ada/b/c").read_text() == "c"
    assert stat.S_IMODE((into / "homes/ada/run").stat().st_mode) == 0o755  # no longer set-user-id
    assert stat.S_IMODE(into.stat().st_mode) == 0o700
    assert (into / "state/jupyterhub_cookie_secret").read_text() == "secret"
    assert not (into / "config").exists()


def test_a_directory_that_exists_is_left_alone(world, archive):
    into = world.root / "mine"
    into.mkdir()
    (into / "file").write_text("mine")
    assert "cannot be made" in world.run("extract", archive, "--into", into, "--part", "state")["error"]
    assert (into / "file").read_text() == "mine"


def test_room_is_asked_for_first(world, archive):
    into = world.root / "out"
    answer = world.run("extract", archive, "--into", into, "--part", "state", "--room", 2**60)
    assert "MB are free" in answer["error"]
    assert not into.exists()


def test_verified_once_it_is_not_read_again_unless_it_changed(world, archive):
    seen = world.run("verify", archive)["seen"]
    Path(f"{archive}.sha256").write_text("0  other\n")  # what verify would object to
    words = ["extract", archive, "--part", "state", "--seen", seen]
    assert world.run(*words, "--into", world.root / "one")["state"] == 3
    os.utime(archive)
    assert "is not the file that" in world.run(*words, "--into", world.root / "two")["error"]
