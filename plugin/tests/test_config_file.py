"""The configuration helper on real files, in real processes."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from support_config import HANDWRITTEN
from tljh_plasma.config_file import ConfigError, load, restore, update

SOURCE = Path(__file__).resolve().parents[1] / "src"
COMMAND = [sys.executable, "-m", "tljh_plasma.config_file"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE)}


def ask(request, **options):
    """One request in a process of its own; returns the answer and the exit code."""
    text = request if isinstance(request, str) else json.dumps(request)
    done = subprocess.run(COMMAND, input=text, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, **options)
    assert done.stderr == ""
    return json.loads(done.stdout), done.returncode


# --- the protocol -----------------------------------------------------------------------------------------------


def test_update_show_and_restore_by_the_protocol(path):
    path.write_text("limits:\n  memory: 1G\n")
    answer, code = ask({"action": "update", "path": str(path), "set": {"limits.memory": "2G", "limits.cpu": 2}})
    assert code == 0
    assert answer == {
        "changed": True,
        "changes": {"limits.memory": {"old": "1G", "new": "2G"}, "limits.cpu": {"old": None, "new": 2}},
        "diff": f"--- {path}\n+++ {path}\n@@ -1,2 +1,3 @@\n limits:\n-  memory: 1G\n+  memory: 2G\n+  cpu: 2",
        "previous": "limits:\n  memory: 1G\n",
    }
    assert ask({"action": "show", "path": str(path)}) == ({"config": {"limits": {"memory": "2G", "cpu": 2}}}, 0)
    assert ask({"action": "restore", "path": str(path), "text": answer["previous"]}) == ({"restored": True}, 0)
    assert path.read_text() == "limits:\n  memory: 1G\n"
    assert ask({"action": "restore", "path": str(path), "text": None}) == ({"restored": True}, 0)
    assert not path.exists()
    assert ask({"action": "show", "path": str(path)}) == ({"config": {}}, 0)


@pytest.mark.parametrize(
    "request_, words",
    [
        ('{"action": "update", "path": "/x", "set": {"a..b": 1}}', "is not a key"),
        ('{"action": "update", "path": "/x", "set": {"a": 1, "a.b": 1}}', "contradict"),
        ('{"action": "update", "path": "/x", "set": {"a.b": 1}, "unset": ["a"]}', "contradict"),
        ('{"action": "update", "path": "/nowhere/config/config.yaml", "set": {"a": 1}}', "No such file"),
    ],
)
def test_what_is_asked_wrongly_is_one_sentence_and_exit_code_1(request_, words):
    answer, code = ask(request_)
    assert code == 1
    assert list(answer) == ["error"]
    assert words in answer["error"]
    assert "\n" not in answer["error"]


def test_keys_given_as_lists_may_contain_dots(path):
    pairs = [[["users", "extra_user_groups", "course.a"], ["anna"]], ["users.admin", ["bob"]]]
    answer, _ = ask({"action": "update", "path": str(path), "set": pairs})
    assert list(answer["changes"]) == ["users.extra_user_groups.course.a", "users.admin"]
    assert load(path) == {"users": {"extra_user_groups": {"course.a": ["anna"]}, "admin": ["bob"]}}
    answer, _ = ask({"action": "update", "path": str(path), "unset": [["users", "extra_user_groups", "course.a"]]})
    assert load(path) == {"users": {"admin": ["bob"]}}


def test_it_starts_fast_and_without_the_hub(handwritten):
    code = (
        "import sys, runpy\n"
        "try: runpy.run_module('tljh_plasma.config_file', run_name='__main__', alter_sys=True)\n"
        "except SystemExit: pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    request = json.dumps({"action": "show", "path": str(handwritten)})
    done = subprocess.run([sys.executable, "-c", code], input=request, capture_output=True, text=True, env=ENVIRONMENT)
    assert json.loads(done.stdout)["config"]["limits"] == {"memory": "1G"}
    for slow in ("jupyterhub", "traitlets", "tornado", "dockerspawner", "docker", "jsonschema", "filelock"):
        assert f"'{slow}'" not in done.stderr
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ask({"action": "update", "path": str(handwritten), "set": {"limits.cpu": 1}, "dry_run": True})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5, times  # 0.16 s where this was written; jupyterhub alone would take a second


# --- doing nothing, and trying --------------------------------------------------------------------------------


def test_nothing_is_written_when_nothing_changes(handwritten):
    before = handwritten.stat()
    result = update(handwritten, {"limits": {"memory": "1G"}, "users.admin": ["anna", "007"]}, unset=["http", "a.b.c"])
    assert result == {"changed": False, "changes": {}, "diff": "", "previous": HANDWRITTEN}
    after = handwritten.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_dry_run_predicts_the_write(handwritten):
    wanted, unwanted = {"limits": {"cpu": 0.5}, "users.allowed": ["x"]}, ["base_url"]
    predicted = update(handwritten, wanted, unwanted, dry_run=True)
    assert handwritten.read_text() == HANDWRITTEN
    assert update(handwritten, wanted, unwanted) == predicted
    assert load(handwritten)["limits"] == {"cpu": 0.5}


def test_a_dry_run_leaves_no_trace_on_a_bare_server(tmp_path):
    result = update(tmp_path / "opt" / "tljh" / "config.yaml", {"limits.cpu": 1}, dry_run=True)
    assert result["changes"] == {"limits.cpu": {"old": None, "new": 1}}
    assert result["previous"] is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [None, "", "\n", "{}\n", "---\n", "null\n"])
def test_an_empty_or_missing_file_counts_as_empty(path, text):
    if text is not None:
        path.write_text(text)
    assert load(path) == {}
    result = update(path, {"users.admin": ["anna"], "https.enabled": False})
    assert result["previous"] == text
    assert load(path) == {"users": {"admin": ["anna"]}, "https": {"enabled": False}}


def test_an_empty_section_is_filled_and_one_left_empty_is_removed(path):
    path.write_text("limits:\nhttps: {letsencrypt: {email: a@b.c}}\nbase_url: /\n")
    update(path, {"limits.cpu": 1}, unset=["https.letsencrypt.email"])
    assert load(path) == {"limits": {"cpu": 1}, "base_url": "/"}
    update(path, unset=["limits", "base_url"])
    assert path.read_text().strip() == "{}"  # tljh-config cannot read an empty file


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, words",
    [
        ("limits:\n  memory: 1G\n cpu: 2\n", "(line 3)"),
        ("limits:\n\tmemory: 1G\n", "(line 2)"),
        ("limits: {}\nlimits: {}\n", "duplicate key"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: 1\nb: \x07\n", "(line 2)"),
        ("- a\n", "must hold sections"),
        ("text\n", "must hold sections"),
    ],
)
def test_broken_yaml_is_one_sentence_and_left_alone(path, text, words):
    path.write_text(text)
    for request in ({"action": "show"}, {"action": "update", "set": {"limits.cpu": 1}}):
        answer, code = ask({**request, "path": str(path)})
        assert code == 1
        assert words in answer["error"]
        assert str(path) in answer["error"]
        assert "\n" not in answer["error"]
    assert path.read_text() == text


def test_a_file_that_is_not_utf_8_is_refused(path):
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"line 2.*UTF-8"):
        update(path, {"limits.cpu": 1})


def test_a_value_in_the_way_is_not_overwritten(handwritten):
    for options in ({"set": {"base_url.x": 1}}, {"set": {"users.admin.x": 1}}, {"unset": ["base_url.x"]}):
        with pytest.raises(ConfigError, match="not a section with keys"):
            update(handwritten, **options)
    assert handwritten.read_text() == HANDWRITTEN


def test_shared_values_are_not_changed_behind_the_back_of_others(path):
    text = "limits: &shared\n  cpu: 1\nauth:\n  limits: *shared\n  more:\n    <<: *shared\n    x: 1\n"
    path.write_text(text)
    for options in ({"set": {"limits.cpu": 2}}, {"set": {"auth.limits.cpu": 2}}, {"unset": ["auth.more.cpu"]}):
        with pytest.raises(ConfigError, match="anchors"):
            update(path, **options)
        assert path.read_text() == text
    update(path, {"auth.more.cpu": 3, "base_url": "/"})
    assert load(path)["limits"] == load(path)["auth"]["limits"] == {"cpu": 1}
    assert load(path)["auth"]["more"] == {"cpu": 3, "x": 1}


@pytest.mark.parametrize("target", ["real.yaml", "missing.yaml"])
def test_a_symbolic_link_is_refused(tmp_path, path, target):
    (tmp_path / "real.yaml").write_text("limits: {}\n")
    path.symlink_to(tmp_path / target)
    for action in (lambda: load(path), lambda: update(path, {"limits.cpu": 1}), lambda: restore(path, "x: 1\n")):
        with pytest.raises(ConfigError, match="symbolic link"):
            action()
    assert path.is_symlink()
    assert (tmp_path / "real.yaml").read_text() == "limits: {}\n"
    assert not (tmp_path / "missing.yaml").exists()


def test_a_pipe_or_directory_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "directory"):
        with pytest.raises(ConfigError, match="not a regular file"):
            update(tmp_path / name, {"limits.cpu": 1})


# --- the file on disk -------------------------------------------------------------------------------------------


def test_a_new_file_is_private_and_so_is_its_directory(tmp_path):
    path = tmp_path / "config" / "config.yaml"
    old = os.umask(0)
    try:
        update(path, {"limits.cpu": 1})
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_mode_and_owner_are_kept(handwritten, mode):
    handwritten.chmod(mode)
    owner = (12345, 23456) if os.geteuid() == 0 else (os.getuid(), os.getgid())
    os.chown(handwritten, *owner)
    previous = update(handwritten, {"limits.cpu": 1})["previous"]
    for _ in ("after the update", "after the restore"):
        info = handwritten.stat()
        assert stat.S_IMODE(info.st_mode) == mode
        assert (info.st_uid, info.st_gid) == owner
        restore(handwritten, previous)
    assert handwritten.read_text() == HANDWRITTEN


def test_restore_writes_the_very_same_bytes(path):
    text = "a:   1\r\n# é\r\nb: [ 1,2 ]"
    path.write_bytes(text.encode())
    previous = update(path, {"limits.cpu": 1})["previous"]
    assert path.read_bytes() != text.encode()
    restore(path, previous)
    assert path.read_bytes() == text.encode()


def test_nothing_but_the_file_and_its_lock_is_left(handwritten):
    (handwritten.parent / ".config.yaml.0123.new").write_text("left by a killed writer")
    update(handwritten, {"limits.cpu": 1})
    with pytest.raises(ConfigError):
        update(handwritten, {"limits.cpu": -1})
    assert sorted(item.name for item in handwritten.parent.iterdir()) == ["config.yaml", "config.yaml.lock"]


def test_a_link_in_the_place_of_what_is_written_is_not_followed(handwritten, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / ".config.yaml.0123.new").symlink_to(victim)
    update(handwritten, {"limits.cpu": 1})
    assert victim.read_text() == "untouched"
    assert load(handwritten)["limits"]["cpu"] == 1


# --- several writers, and killed ones -----------------------------------------------------------------------------


def test_eight_parallel_writers_all_land(path):
    def start(number):
        process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        wanted = {f"services.writer{number}": {"value": number}, "users.admin": ["anna"]}
        process.stdin.write(json.dumps({"action": "update", "path": str(path), "set": wanted}))
        return process

    # All are waiting for the end of their input before the first one gets it.
    processes = [start(number) for number in range(8)]
    for process in processes:
        process.stdin.close()
    answers = [json.loads(process.stdout.read()) for process in processes]
    assert [process.wait(60) for process in processes] == [0] * 8
    assert all(answer["changed"] for answer in answers)
    assert load(path) == {"services": {f"writer{n}": {"value": n} for n in range(8)}, "users": {"admin": ["anna"]}}


def test_a_busy_lock_is_waited_for_and_then_reported(handwritten):
    with FileLock(f"{handwritten}.lock"):
        started = time.monotonic()
        answer, code = ask(
            {"action": "update", "path": str(handwritten), "set": {"limits.cpu": 1}, "lock_timeout": 0.5}
        )
        assert time.monotonic() - started >= 0.5
        assert code == 1
        assert "lock" in answer["error"]
        assert ask({"action": "show", "path": str(handwritten)})[1] == 0  # reading needs no lock
    assert handwritten.read_text() == HANDWRITTEN
    update(handwritten, {"limits.cpu": 1}, lock_timeout=0.5)


WRITER = """
import itertools, sys
sys.modules["rfc3987_syntax"] = None  # as the command does
from tljh_plasma.config_file import update
for number in itertools.count(int(sys.argv[2])):
    update(sys.argv[1], {"auth.first": number, "auth.last": number})
    print("written", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_a_valid_file(path):
    # Long enough for a write to take a while.
    path.write_text("auth:\n  first: 0\n" + "".join(f"  key{n}: {'x' * 60}\n" for n in range(100)) + "  last: 0\n")
    moments = random.Random(1)
    for attempt in range(1, 13):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(attempt * 1000)],
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert process.stdout.readline() == "written\n"
        time.sleep(moments.uniform(0, 0.5))  # not a wait for something: the moment of the kill
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        process.stdout.close()
        config = load(path)["auth"]
        assert config["first"] == config["last"]
        assert len(config) == 102
        assert config["last"] >= attempt * 1000
    update(path, {"auth.first": -1}, lock_timeout=5)  # neither the lock nor a temporary file is in the way
    assert load(path)["auth"]["first"] == -1
