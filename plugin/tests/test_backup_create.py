"""Making archives: what is in them, that they are whole, and that nothing half done stays."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import signal
import sqlite3
import stat
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest
from support_backup import COMMAND, World
from tljh_plasma.backup import archive


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def inside(path):
    with tarfile.open(path) as tar:
        return {info.name: info for info in tar}


def test_what_is_in_it(world):
    (world.prefix / "config/jupyterhub_config.d/mine.py").symlink_to("/etc/hostname")
    done = world.create()
    path = Path(done["path"])
    members = inside(path)
    assert list(members)[0] == "about.json"
    assert list(members)[-1] == "manifest.json"
    for name in (
        "config/config.yaml",
        "config/jupyterhub_config.d/mine.py",
        "state/jupyterhub.sqlite",
        "state/jupyterhub_cookie_secret",
        "plasma/receipt.json",
        "accounts/passwd",
        "environments.json",
    ):
        assert name in members, name
    assert not [name for name in members if name.startswith(("state/rules", "homes", "images"))]
    assert done["parts"] == ["hub", "accounts", "environments"]
    assert done["bytes"] == path.stat().st_size
    assert [stat.S_IMODE(os.stat(p).st_mode) for p in (path, f"{path}.sha256", world.place)] == [0o600, 0o600, 0o700]
    assert subprocess.run(["sha256sum", "--check", "--status", f"{path}.sha256"], cwd=world.place).returncode == 0
    said = world.run("verify", path)
    assert (said["reason"], said["provider"], said["this_machine"]) == ("manual", "pypi", True)
    listed = world.run("list", "--directory", world.place)
    assert [(entry["path"], entry["reason"], entry["provider"]) for entry in listed] == [(str(path), "manual", "pypi")]


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_the_pair_of_https_wherever_it_is(world, quote):
    (world.root / "key.pem").write_text("KEY")
    (world.prefix / "config/config.yaml").write_text(
        "services:\n  tls:\n    key: /etc/hostname\nhttps:\n  enabled: true\n  letsencrypt:\n    email: a@b.c\n  tls:\n"
        f"    key: {quote}{world.root}/key.pem{quote} # ours\n    cert: {world.root}/missing.pem\nhttp: {{port: 80}}\n"
    )
    path = world.archive()
    assert world.run("verify", path)["tls"] == {"key": f"{world.root}/key.pem", "cert": f"{world.root}/missing.pem"}
    with tarfile.open(path) as tar:
        assert tar.extractfile("tls/key.pem").read() == b"KEY"
    assert "tls/cert.pem" not in inside(path)


def test_a_database_is_one_moment_while_it_is_written_to(world, tmp_path):
    """Two rows are always written together."""
    over = threading.Event()
    with world.database() as database:
        database.execute("create table pairs (n)")

    def write():
        database = sqlite3.connect(world.prefix / "state/jupyterhub.sqlite", timeout=60)
        number = 0
        while not over.is_set():
            database.execute("insert into pairs values (?)", (number,))
            database.execute("insert into pairs values (?)", (number,))
            database.commit()
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        archives = [world.archive() for _ in range(3)]
    finally:
        over.set()
        writer.join()
    for number, path in enumerate(archives):
        world.run("extract", path, "--into", tmp_path / f"out{number}", "--part", "state")
        copy = sqlite3.connect(tmp_path / f"out{number}/state/jupyterhub.sqlite")
        assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
        odd = "select count(*) from (select n from pairs group by n having count(*) != 2)"
        assert copy.execute(odd).fetchone() == (0,)


def test_what_a_crash_left_half_done_is_undone_in_the_copy(world, tmp_path):
    program = (
        "import os, sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('pragma cache_size = 1')\nc.execute('begin')\n"
        "c.executemany('insert into users values (?)', [('x' * 4000,)] * 500)\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run(["/usr/bin/python3", "-c", program, world.prefix / "state/jupyterhub.sqlite"])
    assert (world.prefix / "state/jupyterhub.sqlite-journal").exists()
    world.run("extract", world.archive(), "--into", tmp_path / "out", "--part", "state")
    copy = sqlite3.connect(tmp_path / "out/state/jupyterhub.sqlite")
    assert copy.execute("select name from users").fetchall() == [("ada",)]


def test_a_damaged_database_is_said(world):
    path = world.prefix / "state/jupyterhub.sqlite"
    path.write_bytes(path.read_bytes()[:4096] + b"x" * 4096)
    assert "jupyterhub.sqlite" in world.create()["error"]
    assert not [name for name in world.names() if name != ".lock"]


def test_homes_as_they_are(world, tmp_path):
    """Names of any bytes, links that lead away, what is no file, and directories without end."""
    home = world.homes / "ada"
    (home / "away").symlink_to("/etc/shadow")
    (home / "café\nline").write_text("x")
    with open(os.fsencode(home) + b"/\xff\xfe", "w") as file:
        file.write("bytes")
    (home / ("long" * 50)).write_text("y")
    os.mkfifo(home / "pipe")
    with open(home / "holes", "wb") as file:
        file.truncate(2**43)
    (home / "d").mkdir()
    (home / "d/z").write_text("")
    (home / "d.txt").write_text("")
    handle = os.open(home, os.O_RDONLY)
    for _ in range(1800):
        os.mkdir("o", dir_fd=handle)
        inner = os.open("o", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    path = world.archive("--homes")
    said = world.run("verify", path)
    assert said["left_out"] == 2
    assert set(said["homes"]) == {"ada"}
    members = inside(path)
    assert "homes/ada/pipe" not in members
    assert members["homes/ada/away"].linkname == "/etc/shadow"
    world.run("extract", path, "--into", tmp_path / "out", "--part", "homes/ada", "--seen", said["seen"])
    ours = os.fsencode(tmp_path / "out/homes/ada")
    assert {name for name in os.listdir(ours)} == {name for name in os.listdir(os.fsencode(home))} - {b"pipe", b"holes"}
    with open(ours + b"/\xff\xfe") as file:
        assert file.read() == "bytes"
    subprocess.run(["rm", "-rf", home / "o", tmp_path / "out"], check=True)


def test_names_of_one_file_fill_no_archive(world):
    """Further names cost their owner nothing, and the room of a file each in an archive."""
    size = 20 * 2**20
    for number in range(2):
        home = world.homes / f"{number}"
        home.mkdir()
        (home / "0").write_bytes(os.urandom(size))
        for name in range(1, 30_000):
            os.link(home / "0", home / f"{name}")
    # Some names of a file are as good as others: those of packages and environments are.
    (world.homes / "ada/again.txt").hardlink_to(world.homes / "ada/notes.txt")
    path = world.archive("--homes")
    sizes = world.run("verify", path)["homes"]
    assert all(5 * size <= sizes[home] < 10 * size for home in ("0", "1"))
    assert {"homes/ada/again.txt", "homes/ada/notes.txt"} <= set(inside(path))


HOLD = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
for path in sys.argv[1:]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
signal.pause()
"""


def test_a_lease_of_a_file_holds_up_nothing(world):
    """Its owner may refuse everybody else the file, root included, for 45 seconds at a time."""
    held = [world.homes / "ada" / name for name in ("held", "too")]
    with subprocess.Popen(["/usr/bin/python3", "-c", HOLD, *held], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            path = world.archive("--homes")
        finally:
            holder.kill()
    assert world.run("verify", path)["left_out"] == 2
    assert "homes/ada/notes.txt" in inside(path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTCONN])
def test_a_mount_of_somebodys_is_left_out(world, monkeypatch, number):
    """Whoever has a shell may mount what root may not look into."""
    (world.homes / "ada/mount").mkdir()
    stat_of = os.stat

    def refuse(path, **options):
        if path == "mount":
            raise OSError(number, os.strerror(number))
        return stat_of(path, **options)

    monkeypatch.setattr(archive.os, "stat", refuse)
    writer = archive.Writer(io.BytesIO())
    writer.tree(world.homes, "homes")
    assert (writer.left_out, writer.manifest.homes()["members"]) == (1, 2)


def test_files_of_nothing_do_not_keep_an_archive_from_its_end():
    """Each of them a little too small to be left out for itself."""
    room = archive.Room("homes/ada")
    hollow = os.stat_result((0o100600, 1, 1, 1, 0, 0, 2**30, 0, 0, 0), {"st_blocks": 0})
    assert [room.takes(hollow) for _ in range(3)] == [True, False, False]
    whole = os.stat_result((0o100600, 2, 1, 1, 0, 0, 2**30, 0, 0, 0), {"st_blocks": 2**21})
    assert room.takes(whole)
    assert [room.takes(hollow) for _ in range(20)] == [True] * 16 + [False] * 4


def test_what_becomes_a_link_meanwhile_is_not_followed(world, tmp_path):
    """Somebody swaps a directory of theirs for a link to somebody else's, all the time."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("SECRET")
    home = world.homes / "ada"
    (home / "d").mkdir()
    (home / "d/file").write_text("hers")
    over = threading.Event()

    def swap():
        while not over.is_set():
            os.rename(home / "d", home / "e")
            os.symlink(secret, home / "d")
            os.unlink(home / "d")
            os.rename(home / "e", home / "d")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(8):
            path = world.archive("--homes")
            with tarfile.open(path) as tar:
                for info in tar:
                    if info.isreg() and info.name.endswith("/file"):
                        assert tar.extractfile(info).read() == b"hers"
            assert "error" not in world.run("verify", path)
    finally:
        over.set()
        swapper.join()


def test_only_scheduled_ones_are_rotated(world):
    kept = world.archive("--keep", "1")
    old = world.archive("--reason", "scheduled", "--keep", "2")
    others = [world.archive("--reason", "scheduled", "--keep", "2") for _ in range(2)]
    paths = [entry["path"] for entry in world.run("list", "--directory", world.place)]
    assert set(paths) == {str(path) for path in (kept, *others)}
    assert not old.exists()
    assert not Path(f"{old}.sha256").exists()


def test_two_at_once(world):
    world.archive()
    with open(world.place / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "Another backup is being made" in world.create()["error"]


def test_killed_in_the_middle_it_leaves_no_archive(world):
    with open(world.homes / "ada/large", "wb") as file:
        for _ in range(200):
            file.write(os.urandom(1024 * 1024))
    process = subprocess.Popen([*COMMAND, *map(str, world.words("--homes"))], stdout=subprocess.DEVNULL)
    while not any(name.endswith(".partial") for name in world.names()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert world.run("list", "--directory", world.place) == []
    (world.homes / "ada/large").unlink()
    (world.place / "plasma-hub-20260101T000000Z-manual.tar.gz.sha256").write_text("of none")
    path = world.archive()
    assert world.names() == sorted([".lock", path.name, f"{path.name}.sha256"])


@pytest.mark.parametrize("kind", ["file", "link", "shared", "no hub"])
def test_places_that_do_not_do(world, kind):
    words = {
        "file": "cannot be used",
        "link": "is not a directory of root's",
        "shared": "has other files in it",
        "no hub": "no hub is installed",
    }
    if kind == "file":
        world.place.write_text("")
    elif kind == "link":
        (world.root / "elsewhere").mkdir()
        world.place.symlink_to(world.root / "elsewhere")
    elif kind == "shared":
        world.place.mkdir(mode=0o755)
        (world.place / "data").write_text("of others")
    else:
        (world.prefix / "config").rename(world.prefix / "away")
    assert words[kind] in world.create()["error"]
    if kind == "shared":
        assert stat.S_IMODE(world.place.stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_disk_that_is_too_full(world):
    world.place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "none", world.place]).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        answer = world.create()
        assert "MB are free" in answer["error"]
        assert "plasma.backup.directory" in answer["error"]
        assert world.names() == [".lock"]
    finally:
        subprocess.run(["umount", world.place], check=True)


@pytest.mark.skipif(os.path.exists("/var/run/docker.sock"), reason="this machine has an engine where servers have it")
def test_images_need_an_engine(world):
    assert "The Docker engine does not answer" in world.create("--images")["error"]
    assert "error" not in world.create()


def test_it_needs_nothing_but_the_standard_library(world):
    """Also when the hub's environment is broken: not even what the system has installed is looked for (-S)."""
    done = subprocess.run([COMMAND[0], "-S", *COMMAND[1:], "list", "--directory", world.place], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"[]\n", b"")
