"""Passwords become hashes on the controller, once per change, and nothing else of them is left anywhere."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import multiprocessing
import os
import secrets
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pillar.conftest import MARKER, REPOSITORY, load_external_pillar

EXTERNAL = load_external_pillar()
HASHING: Any = None
CACHE: Any = None
PEOPLE = [("anna", MARKER), ("bob", "zwölf Boxkämpfer")]
# Hashes of the right form that cost nothing.
FAKE = "$y$j9T${:.>22}${:.>43}"


@pytest.fixture(autouse=True)
def modules() -> None:
    """As they are loaded now: other tests load copies of the schema in between."""
    global HASHING, CACHE
    HASHING, CACHE = EXTERNAL.schema("hashing"), EXTERNAL.schema("hash_cache")


def verifies(password: str, hashed: str) -> bool:
    """As PAM does it on the server."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    return library.crypt(password.encode(), hashed.encode()) == hashed.encode()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were hashed, with a stand-in for the hash itself."""
    made: list[str] = []

    def hash_passwords(passwords: list[str]) -> list[str]:
        made.extend(passwords)
        return [FAKE.format(len(made) - len(passwords) + number, "x") for number in range(len(passwords))]

    monkeypatch.setattr(CACHE, "hash_passwords", hash_passwords)
    return made


def place(root: Path) -> Path:
    return root / "plasma" / "passwords"


def content(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


class TestHashing:
    def test_a_hash_that_the_server_verifies(self):
        first, second = HASHING.hash_passwords([MARKER, MARKER])
        assert verifies(MARKER, first) and verifies(MARKER, second) and not verifies(MARKER + "x", first)
        assert first != second
        assert HASHING.HASH.fullmatch(first)

    @pytest.mark.parametrize("password", ["x", "zwölf Boxkämpfer", "\U0001f600" * 125, "a" * 256, " ", "%n{}\\"])
    def test_every_password_the_schema_accepts(self, complete, password):
        (user,) = complete({"users": [{"name": "anna", "password": password}]})["users"]
        assert verifies(password, user["password_hash"])

    def test_the_order_is_kept(self):
        passwords = [f"p{number}" for number in range(6)]
        assert all(map(verifies, passwords, HASHING.hash_passwords(passwords)))

    def test_all_of_the_salts_randomness_is_used(self):
        salts = [HASHING.hash_password("x").split("$")[3] for _ in range(12)]
        assert len(set(salts)) == 12
        # 22 characters hold 132 bits: of the last one 2 are salt.
        assert all(len(salt) == 22 and salt[-1] in "./01" for salt in salts)
        assert all(len({salt[index] for salt in salts}) > 3 for index in range(21))

    @pytest.mark.parametrize("answer", [None, b"*0", b"$1$abc$xyz", b"", b"$y$j9T$short$x"])
    def test_a_library_without_the_scheme(self, monkeypatch, external_pillar, answer):
        class Library:
            @staticmethod
            def crypt_gensalt_rn(*_):
                return b"$y$j9T$abcdefghijklmnopqrstu."

            @staticmethod
            def crypt_rn(*_):
                return answer

        monkeypatch.setattr(HASHING, "_library", Library)
        result = external_pillar.ext_pillar("s", {"plasma": {"users": [{"name": "anna", "password": MARKER}]}})
        (line,) = result["_errors"]
        assert "does not know yescrypt" in line and "password_hash" in line and MARKER not in line
        assert result["plasma"] is None

    def test_no_library(self, monkeypatch):
        monkeypatch.setattr(HASHING, "_LIBRARIES", ("libno-such-thing.so",))
        HASHING._library.cache_clear()
        try:
            with pytest.raises(HASHING.HashingError):
                HASHING.hash_passwords(["x"])
        finally:
            HASHING._library.cache_clear()


class TestCache:
    def test_a_hash_is_made_once(self, tmp_path, made):
        first = CACHE.hashes(PEOPLE, str(tmp_path))
        assert CACHE.hashes(PEOPLE, str(tmp_path)) == first
        assert made == [password for _, password in PEOPLE]

    def test_what_changed_is_made_anew_and_nothing_else(self, tmp_path, made):
        first = CACHE.hashes(PEOPLE, str(tmp_path))
        made.clear()
        second = CACHE.hashes([PEOPLE[0], ("bob", "new"), ("carl", MARKER)], str(tmp_path))
        assert made == ["new", MARKER]
        assert second["anna"] == first["anna"] and second["bob"] != first["bob"]
        # Back to the earlier password: it is still known.
        assert CACHE.hashes(PEOPLE, str(tmp_path)) == first

    def test_the_same_password_of_two_people_has_nothing_in_common(self, tmp_path):
        found = CACHE.hashes([("anna", "x"), ("bob", "x")], str(tmp_path))
        assert found["anna"].split("$")[3] != found["bob"].split("$")[3]
        assert len(json.loads((place(tmp_path) / "hashes.json").read_bytes())["hashes"]) == 2

    def test_names_and_passwords_do_not_run_into_each_other(self, tmp_path, made):
        CACHE.hashes([("ab", "c"), ("a", "bc")], str(tmp_path))
        assert len(made) == 2

    def test_nothing_of_a_password_is_written(self, tmp_path):
        CACHE.hashes(PEOPLE, str(tmp_path))
        written = content(tmp_path)
        for name, password in PEOPLE:
            assert password.encode() not in written and name.encode() not in written

    def test_the_owner_alone_may_look(self, tmp_path, made):
        old = os.umask(0)
        try:
            CACHE.hashes(PEOPLE, str(tmp_path))
        finally:
            os.umask(old)
        for path in [tmp_path / "plasma", *(tmp_path / "plasma").rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert len((place(tmp_path) / "key").read_bytes()) == 32

    def test_another_machine_has_another_key(self, tmp_path, made):
        for name in ("one", "two"):
            CACHE.hashes(PEOPLE, str(tmp_path / name))
        one, two = (json.loads((place(tmp_path / name) / "hashes.json").read_bytes()) for name in ("one", "two"))
        assert not set(one["hashes"]) & set(two["hashes"])

    @pytest.mark.parametrize(
        "damage",
        [
            b"",
            b"{",
            b"[]",
            b"\xff\x00",
            b'{"format": 1}',
            b'{"format": 2, "hashes": {}}',
            b'{"format": 1, "hashes": []}',
            b'{"format": 1, "hashes": {"a": 1}}',
            b"[" * 100_000,
        ],
    )
    def test_a_damaged_file_is_written_anew(self, tmp_path, made, damage):
        CACHE.hashes(PEOPLE, str(tmp_path))
        (place(tmp_path) / "hashes.json").write_bytes(damage)
        again = CACHE.hashes(PEOPLE, str(tmp_path))
        assert CACHE.hashes(PEOPLE, str(tmp_path)) == again
        assert len(made) == 4

    @pytest.mark.parametrize("hashed", ["$6$a$b", "", "x:0:0::/:/bin/sh", None, FAKE.format("\n", "x"), FAKE + ":"])
    def test_an_entry_that_is_no_such_hash_is_not_believed(self, tmp_path, made, hashed):
        CACHE.hashes(PEOPLE, str(tmp_path))
        path = place(tmp_path) / "hashes.json"
        stored = json.loads(path.read_bytes())
        for entry in stored["hashes"].values():
            entry[0] = hashed
        path.write_text(json.dumps(stored), encoding="utf-8")
        assert all(HASHING.HASH.fullmatch(one) for one in CACHE.hashes(PEOPLE, str(tmp_path)).values())
        assert len(made) == 4

    @pytest.mark.parametrize("name", ["key", "hashes.json"])
    @pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
    def test_a_file_others_could_read_or_write_is_not_believed(self, tmp_path, made, name, mode):
        CACHE.hashes(PEOPLE, str(tmp_path))
        path = place(tmp_path) / name
        before = path.read_bytes()
        path.chmod(mode)
        CACHE.hashes(PEOPLE, str(tmp_path))
        assert len(made) == 4
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_bytes() != before

    @pytest.mark.parametrize("name", ["key", "hashes.json"])
    @pytest.mark.parametrize("kind", ["symlink", "hard link"])
    def test_a_link_leads_nowhere(self, tmp_path, made, name, kind):
        CACHE.hashes(PEOPLE, str(tmp_path))
        victim = tmp_path / "victim"
        shutil.copy(place(tmp_path) / name, victim)
        victim.chmod(0o600)
        before = victim.read_bytes()
        (place(tmp_path) / name).unlink()
        if kind == "symlink":
            (place(tmp_path) / name).symlink_to(victim)
        else:
            (place(tmp_path) / name).hardlink_to(victim)
        CACHE.hashes(PEOPLE, str(tmp_path))
        assert victim.read_bytes() == before
        assert not (place(tmp_path) / name).is_symlink() and (place(tmp_path) / name).stat().st_nlink == 1
        assert len(made) == 4

    def test_the_lock_is_no_way_to_another_file(self, tmp_path, made):
        place(tmp_path).mkdir(parents=True, mode=0o700)
        (tmp_path / "plasma").chmod(0o700)
        (place(tmp_path) / "lock").symlink_to(tmp_path / "victim")
        with pytest.raises(CACHE.CacheError, match="remove it"):
            CACHE.hashes(PEOPLE, str(tmp_path))
        assert not (tmp_path / "victim").exists()

    @pytest.mark.parametrize("part", ["plasma", "plasma/passwords"])
    def test_a_directory_that_is_a_link_is_refused(self, tmp_path, made, part):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CACHE.CacheError, match="no directory: remove it"):
            CACHE.hashes(PEOPLE, str(tmp_path))
        assert not list((tmp_path / "elsewhere").iterdir()) and not made

    def test_a_directory_others_can_write_to_is_closed_and_not_believed(self, tmp_path, made):
        CACHE.hashes(PEOPLE, str(tmp_path))
        place(tmp_path).chmod(0o777)
        CACHE.hashes(PEOPLE, str(tmp_path))
        assert stat.S_IMODE(place(tmp_path).stat().st_mode) == 0o700 and len(made) == 4

    def test_a_directory_others_could_read_is_closed(self, tmp_path, made):
        CACHE.hashes(PEOPLE, str(tmp_path))
        place(tmp_path).chmod(0o755)
        CACHE.hashes(PEOPLE, str(tmp_path))
        assert stat.S_IMODE(place(tmp_path).stat().st_mode) == 0o700 and len(made) == 2

    def test_a_directory_of_somebody_else_is_refused(self, tmp_path, made, monkeypatch):
        CACHE.hashes(PEOPLE, str(tmp_path))
        monkeypatch.setattr(CACHE.os, "geteuid", lambda: 4242)
        with pytest.raises(CACHE.CacheError, match=r"belongs to the user with id .* run Salt as that user, or remove"):
            CACHE.hashes(PEOPLE, str(tmp_path))

    def test_a_full_disk(self, tmp_path, made, monkeypatch):
        def full(*args):
            raise OSError(28, "No space left on device")

        CACHE.hashes(PEOPLE[:1], str(tmp_path))
        monkeypatch.setattr(CACHE.os, "fsync", full)
        with pytest.raises(CACHE.CacheError, match=r"No space left on device"):
            CACHE.hashes(PEOPLE, str(tmp_path))
        assert {path.name for path in place(tmp_path).iterdir()} == {"key", "hashes.json", "lock"}

    def test_what_a_killed_run_left_is_swept_away(self, tmp_path, made):
        CACHE.hashes(PEOPLE[:1], str(tmp_path))
        (place(tmp_path) / ".hashes.json.0123").write_bytes(b"half")
        CACHE.hashes(PEOPLE, str(tmp_path))
        assert {path.name for path in place(tmp_path).iterdir()} == {"key", "hashes.json", "lock"}

    def test_an_interrupted_run_keeps_what_it_has_done(self, tmp_path, made, monkeypatch):
        monkeypatch.setattr(CACHE, "_AT_A_TIME", 2)
        many = [(f"s{number}", "x") for number in range(5)]
        real = CACHE.hash_passwords

        def interrupted(passwords):
            if len(made) == 4:
                raise KeyboardInterrupt
            return real(passwords)

        monkeypatch.setattr(CACHE, "hash_passwords", interrupted)
        with pytest.raises(KeyboardInterrupt):
            CACHE.hashes(many, str(tmp_path))
        monkeypatch.setattr(CACHE, "hash_passwords", real)
        assert set(CACHE.hashes(many, str(tmp_path))) == {name for name, _ in many}
        assert len(made) == 5

    def test_entries_nobody_uses_any_more_go(self, tmp_path, made, monkeypatch):
        day = CACHE._today()
        CACHE.hashes(PEOPLE, str(tmp_path))
        for later in (200, 390, 580):
            monkeypatch.setattr(CACHE, "_today", lambda later=later: day + later)
            CACHE.hashes(PEOPLE[:1], str(tmp_path))
        assert len(json.loads((place(tmp_path) / "hashes.json").read_bytes())["hashes"]) == 1
        assert len(made) == 2

    def test_a_second_run_writes_nothing(self, tmp_path, made):
        CACHE.hashes(PEOPLE, str(tmp_path))
        before = {path.name: path.stat().st_mtime_ns for path in place(tmp_path).iterdir()}
        CACHE.hashes(PEOPLE, str(tmp_path))
        assert {path.name: path.stat().st_mtime_ns for path in place(tmp_path).iterdir()} == before

    def test_nothing_to_hash_makes_no_cache(self, tmp_path, made):
        assert CACHE.hashes([], str(tmp_path)) == {}
        assert not list(tmp_path.iterdir())

    def test_runs_at_once_agree(self, tmp_path):
        """salt-ssh compiles the pillars of several servers in processes of their own."""
        people = [(f"s{number}", f"x{number}") for number in range(12)]
        context = multiprocessing.get_context("fork")
        answers = context.Queue()

        def run() -> None:
            answers.put(CACHE.hashes(people, str(tmp_path)))

        # Salt's own processes may be daemons, which may have no processes of their own.
        workers = [context.Process(target=run, daemon=True) for _ in range(4)]
        for worker in workers:
            worker.start()
        found = [answers.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join(60)
        assert all(one == found[0] for one in found) and len(found[0]) == 12

    def test_a_run_waits_for_another(self, tmp_path, made):
        CACHE.hashes(PEOPLE[:1], str(tmp_path))
        done: list[Any] = []
        with open(place(tmp_path) / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            thread = threading.Thread(target=lambda: done.append(CACHE.hashes(PEOPLE, str(tmp_path))))
            thread.start()
            # What is known needs no lock.
            assert CACHE.hashes(PEOPLE[:1], str(tmp_path))
            time.sleep(0.2)
            assert not done
        thread.join(30)
        assert done

    def test_patience_has_an_end(self, tmp_path, made, monkeypatch):
        CACHE.hashes(PEOPLE[:1], str(tmp_path))
        monkeypatch.setattr(CACHE, "_PATIENCE", 0)
        with open(place(tmp_path) / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(CACHE.CacheError, match="Another run"):
                CACHE.hashes(PEOPLE, str(tmp_path))


class TestPillar:
    """The whole of it, as Salt calls it."""

    def pillar(self) -> dict[str, Any]:
        return {
            "plasma": {
                "users": [{"name": "anna", "password": MARKER}, {"name": "gone", "absent": True, "password": MARKER}]
            }
        }

    @pytest.fixture
    def module(self, tmp_path):
        module = load_external_pillar()
        module.__opts__ = {"cachedir": str(tmp_path / "cache")}
        return module

    def test_the_same_hash_each_time(self, module):
        first, second = (module.ext_pillar("s", self.pillar()) for _ in range(2))
        assert first == second
        anna, gone = first["plasma"]["users"]
        assert verifies(MARKER, anna["password_hash"])
        assert gone == {"name": "gone", "absent": True}

    def test_a_mark_goes_with_the_password_on_one_controller(self, module, tmp_path):
        def mark(password: str, name: str = "anna") -> str:
            pillar = {"plasma": {"users": [{"name": name, "password": password}]}}
            return module.ext_pillar("s", pillar)["plasma"]["users"][0]["password_mark"]

        first = mark(MARKER)
        # It is the password's, not the hash's, which may be lost and made again.
        (place(tmp_path / "cache") / "hashes.json").unlink()
        assert mark(MARKER) == first
        others = [mark(f"{MARKER}1"), mark(MARKER, "bea")]
        assert len({first, *others}) == 3
        assert {one.partition(".")[0] for one in others} == {first.partition(".")[0]}
        # Another controller has another key, and says so.
        module.__opts__ = {"cachedir": str(tmp_path / "elsewhere")}
        assert not set(first.split(".")) & set(mark(MARKER).split("."))

    def test_the_cache_is_the_controllers(self, tmp_path, module):
        """Beside a pillar on the command line salt-ssh hands over the configuration of the server."""
        module.__opts__ = {
            "cachedir": str(tmp_path / "server"),
            "__master_opts__": {"cachedir": str(tmp_path / "cache")},
        }
        module.ext_pillar("s", self.pillar())
        assert place(tmp_path / "cache").is_dir() and not (tmp_path / "server").exists()

    @pytest.mark.parametrize("failure", [ValueError(MARKER), KeyError(MARKER), MemoryError(MARKER)])
    def test_no_failure_shows_a_password(self, module, monkeypatch, caplog, failure):
        def fail(*args):
            raise failure

        monkeypatch.setattr(CACHE, "_identity", fail)
        pillar = self.pillar()
        answer = module.ext_pillar("s", pillar)
        assert answer["_errors"] and answer["plasma"] is None and pillar == {}
        assert MARKER not in json.dumps(answer) and MARKER not in caplog.text

    def test_a_cache_that_cannot_be_used_stops_the_run(self, module, tmp_path):
        (tmp_path / "cache").write_text("in the way", encoding="utf-8")
        (line,) = module.ext_pillar("s", self.pillar())["_errors"]
        assert line.startswith("plasma.users: The hashes of passwords cannot be kept in ")

    def test_nothing_is_left_anywhere(self, site, caplog):
        """Salt's own compiler, with logs at their loudest: files, log, result."""
        (site.pillar / "plasma.sls").write_text(
            f"plasma:\n  users: [{{name: anna, password: '{MARKER}'}}]\n  users_csv: [s.csv]\n", encoding="utf-8"
        )
        (site.pillar / "s.csv").write_text(f"username,password\nbob,{MARKER}\n", encoding="utf-8")
        (site.pillar / "s.csv").chmod(0o600)
        with caplog.at_level(1), caplog.at_level("INFO", "salt.template"):
            pillar = site.compile()
        assert all(verifies(MARKER, user["password_hash"]) for user in pillar["plasma"]["users"])
        assert MARKER not in json.dumps(pillar)
        left = [
            str(path.relative_to(site.root))
            for path in site.root.rglob("*")
            if path.is_file() and MARKER.encode() in path.read_bytes()
        ]
        assert sorted(left) == ["pillar/plasma.sls", "pillar/s.csv"]
        # Salt would log the pillar file itself, but for conf/master.
        said = {record.name for record in caplog.records if MARKER in record.getMessage()}
        assert said == set() and site.options()["log_granular_levels"]["salt.template"] == "info"

    def test_no_password_in_an_argument_or_the_environment(self, tmp_path):
        """Looked for from outside, while many are hashed. The marker of other tests is in names of theirs."""
        word = secrets.token_urlsafe(16)
        script = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from plasma_schema.hash_cache import hashes\n"
            "word = sys.stdin.read()\n"
            "hashes([(f's{n}', word) for n in range(60)], sys.argv[2])\n"
        )
        command = [sys.executable, "-c", script, str(REPOSITORY / "_pillar"), str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
            process.stdin.write(word)
            process.stdin.close()
            looked = 0
            while process.poll() is None:
                for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
                    for part in ("cmdline", "environ"):
                        with contextlib.suppress(OSError):
                            assert word.encode() not in Path("/proc", pid, part).read_bytes()
                            looked += 1
                time.sleep(0.02)
        assert process.returncode == 0 and looked
        assert word.encode() not in content(tmp_path)
