"""sudo and root may have a strict umask: what others have to read is readable all the same."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

import _states.plasma_data_directory as plasma_data_directory
import plasma_doors_files
import plasma_files
import plasma_run
from tests.support.paths import REPOSITORY

# Of somebody in their own home, and of one that sets the mode in the next line: how many calls.
EXCEPT = {
    "_utils/plasma_prove_agent.py": 1,
    "_utils/plasma_users_homes.py": 1,
    # In a builder, which has nothing of ours to call.
    "plugin/src/tljh_plasma/buildpack/plasma_rootless.py": 3,
}
MAKERS = {"mkdir", "makedirs"}


@pytest.fixture(params=[0o077, 0o027, 0o000, 0o777], ids=lambda umask: f"{umask:04o}")
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path):
    return path.stat().st_mode & 0o7777


def test_directories_have_the_mode_that_they_are_made_for(tmp_path, umask):
    assert plasma_files.directory(tmp_path / "a" / "b" / "c") == tmp_path / "a" / "b" / "c"
    assert [mode(tmp_path / part) for part in ("a", "a/b", "a/b/c")] == [0o755] * 3
    plasma_files.directory(tmp_path / "a" / "d" / "secret", 0o700)
    assert [mode(tmp_path / part) for part in ("a/d", "a/d/secret")] == [0o755, 0o700]
    plasma_files.directory(tmp_path / "a" / "d" / "secret")  # is there, and stays as somebody wants it
    assert mode(tmp_path / "a" / "d" / "secret") == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        plasma_files.directory(tmp_path / "file")


def test_notes_and_files(tmp_path, umask):
    plasma_files.write_note(tmp_path / "notes" / "one.json", {"a": 1})
    assert (mode(tmp_path / "notes"), mode(tmp_path / "notes" / "one.json")) == (0o700, 0o600)
    plasma_files.write(tmp_path / "unit", "text", 0o644)
    assert mode(tmp_path / "unit") == 0o644
    plasma_doors_files._replace(str(tmp_path / "x.d" / "drop-in"), "text")
    assert (mode(tmp_path / "x.d"), mode(tmp_path / "x.d" / "drop-in")) == (0o755, 0o644)


@pytest.mark.parametrize("test", [False, True])
def test_the_directory_of_shared_data(tmp_path, monkeypatch, umask, test):
    monkeypatch.setattr(plasma_data_directory, "__opts__", {"test": test}, raising=False)
    monkeypatch.setattr(plasma_files, "trouble", lambda path: None)
    path = tmp_path / "srv" / "data"
    ret = plasma_data_directory.present(str(path))
    assert ret["changes"] == {str(path): {"old": None, "new": "directory"}}
    assert ret["result"] is (None if test else True)
    assert path.exists() is not test
    if not test:
        assert mode(path) == 0o755
        assert plasma_data_directory.present(str(path))["changes"] == {}


def test_a_directory_of_a_group(tmp_path, monkeypatch, umask):
    monkeypatch.setattr(plasma_data_directory, "__opts__", {"test": False}, raising=False)
    monkeypatch.setattr(plasma_files, "trouble", lambda path: None)
    given = []
    monkeypatch.setattr(plasma_data_directory.shutil, "chown", lambda *arguments: given.append(arguments))
    monkeypatch.setattr(plasma_data_directory.grp, "getgrnam", lambda name: name)
    path = tmp_path / "bio"
    assert plasma_data_directory.present(str(path), group="bio", mode="2770")["result"] is True
    assert (given, mode(path)) == ([(str(path), "root", "bio")], 0o2770)


@pytest.mark.parametrize("test", [False, True])
def test_a_directory_of_a_group_that_is_not_there_is_made_once_it_is(tmp_path, monkeypatch, test):
    """An empty one of root's would be taken for the operator's from then on."""
    monkeypatch.setattr(plasma_data_directory, "__opts__", {"test": test}, raising=False)
    monkeypatch.setattr(plasma_files, "trouble", lambda path: None)
    path, group = tmp_path / "a" / "bio", "no-such-group"
    ret = plasma_data_directory.present(str(path), group, "2770")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"] == f"{path} is not made: there is no group {group} on this server."
    # A dry run of the apply that makes the group, or may bring it from a directory.
    for coming in ({"coming": [group]}, {"joining": True}):
        ret = plasma_data_directory.present(str(path), group, "2770", **coming)
        assert ret["result"] is (None if test else False)
    assert not path.parent.exists()


@pytest.mark.parametrize("error", [PermissionError(1, "Operation not permitted"), LookupError("no such group")])
def test_a_directory_that_cannot_be_given_to_its_group_goes_again(tmp_path, monkeypatch, error):
    monkeypatch.setattr(plasma_data_directory, "__opts__", {"test": False}, raising=False)
    monkeypatch.setattr(plasma_files, "trouble", lambda path: None)

    def chown(*_):
        raise error

    monkeypatch.setattr(plasma_data_directory.shutil, "chown", chown)
    ret = plasma_data_directory.present(str(tmp_path / "bio"))
    assert (ret["result"], ret["changes"], (tmp_path / "bio").exists()) == (False, {}, False)
    assert "cannot be made" in ret["comment"]


def test_a_directory_of_a_group_that_an_earlier_apply_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(plasma_data_directory, "__opts__", {"test": False}, raising=False)
    tmp_path.chmod(0o700)
    (warning,) = plasma_data_directory.present(str(tmp_path), "bio", "2770")["warnings"]
    assert warning.endswith(f": chgrp bio {tmp_path} && chmod 2770 {tmp_path}")


def test_no_directory_where_somebody_else_can_write(tmp_path, monkeypatch):
    monkeypatch.setattr(plasma_data_directory, "__opts__", {"test": False}, raising=False)
    tmp_path.chmod(0o777)
    ret = plasma_data_directory.present(str(tmp_path / "data"))
    assert (ret["result"], ret["changes"], (tmp_path / "data").exists()) == (False, {}, False)


def test_a_directory_that_an_earlier_apply_closed_is_told_and_left(tmp_path, monkeypatch):
    monkeypatch.setattr(plasma_data_directory, "__opts__", {"test": False}, raising=False)
    for now, warned in ((0o700, True), (0o2770, False), (0o755, False)):
        tmp_path.chmod(now)
        ret = plasma_data_directory.present(str(tmp_path))
        assert (ret["result"], ret["changes"], bool(ret.get("warnings"))) == (True, {}, warned)
        assert mode(tmp_path) == now
    (tmp_path / "file").touch()
    assert plasma_data_directory.present(str(tmp_path / "file" / "data"))["result"] is False


def test_programs_are_run_with_an_ordinary_umask(tmp_path, umask):
    plasma_run.run(["touch", str(tmp_path / "made")]).check()
    assert mode(tmp_path / "made") == 0o644


def test_what_the_hub_makes_for_containers(tmp_path, umask):
    """In a process of its own: the plugin is not installed where these tests run, and this part needs nothing else."""
    code = (
        "import importlib.util as u, pathlib, sys\n"
        "s = u.spec_from_file_location('replace', sys.argv[1]); m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        "m.directory(pathlib.Path(sys.argv[2], 'a', 'b')); m.directory(pathlib.Path(sys.argv[2], 'a', 'c'), 0o700)\n"
        "m.replace(pathlib.Path(sys.argv[2], 'a', 'file'), 'text', 0o644)\n"
    )
    module = REPOSITORY / "plugin" / "src" / "tljh_plasma" / "replace.py"
    subprocess.run([sys.executable, "-B", "-c", code, str(module), str(tmp_path)], check=True)
    found = {part: mode(tmp_path / "a" / part) for part in ("", "b", "c", "file")}
    assert found == {"": 0o755, "b": 0o755, "c": 0o700, "file": 0o644}


def makers(path):
    """Calls that make directories with a mode that the umask may take from: line numbers."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or call.func.attr not in MAKERS:
            continue
        given = {word.arg: word.value for word in call.keywords}
        place = 1 if isinstance(call.func.value, ast.Name) and call.func.value.id == "os" else 0
        wanted = given.get("mode") or (call.args[place] if len(call.args) > place else None)
        private = isinstance(wanted, ast.Constant) and not wanted.value & 0o077
        # Directories above get whatever the umask leaves of 0777.
        if not private or call.func.attr == "makedirs" or "parents" in given:
            yield call.lineno


def test_directories_are_made_by_the_ground_helper():
    """Whatever is for more than root gets its mode by name."""
    wrong = []
    folders = ("_utils", "_modules", "_states", "plugin/src")
    for path in sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")):
        name = str(path.relative_to(REPOSITORY))
        found = list(makers(path))
        # Of the backups' program, which has the standard library alone: below what is root's.
        if "/backup/" not in name and len(found) != EXCEPT.get(name, 0):
            wrong += [f"{name}:{line}" for line in found] or [f"{name}: no exception is needed any more"]
    assert wrong == []


def test_the_check_finds_what_it_looks_for(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import os, pathlib\n"
        "pathlib.Path('a').mkdir()\n"
        "pathlib.Path('a').mkdir(mode=0o755)\n"
        "pathlib.Path('a').mkdir(mode=0o700)\n"
        "os.mkdir('a', 0o755)\n"
        "os.mkdir('a', 0o700)\n"
        "os.makedirs('a', mode=0o700)\n"
        "pathlib.Path('a').mkdir(0o700, parents=True)\n"
    )
    assert list(makers(path)) == [2, 3, 5, 7, 8]


def test_states_of_files_say_their_modes():
    """Salt takes the umask where a state says none."""
    wrong = []
    for path in sorted((REPOSITORY / "salt").rglob("*.sls")):
        for block in path.read_text(encoding="utf-8").split("\n\n"):
            lines = [line for line in block.splitlines() if "{%" not in line and not line.lstrip().startswith("#")]
            function = next((line.strip().rstrip(":") for line in lines if line.startswith("  file.")), "")
            wanted = {"file.recurse": {"dir_mode", "file_mode"}}.get(function, {"mode"})
            keys = {line.strip()[2:].partition(":")[0] for line in lines if line.strip().startswith("- ")}
            if function in ("file.managed", "file.directory", "file.recurse", "file.serialize") and not wanted <= keys:
                wrong.append(f"{path.relative_to(REPOSITORY)}: {function} without {', '.join(sorted(wanted - keys))}")
    assert wrong == []
