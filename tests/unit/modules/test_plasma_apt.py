"""The execution module plasma_apt."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from unittest.mock import create_autospec

import pytest
import salt.modules.cmdmod as cmdmod
from salt.exceptions import CommandExecutionError

import _modules.plasma_apt as plasma_apt
from tests.unit import needs_root

HOLD = """
import fcntl, sys
handle = open(sys.argv[1], "r+b")
fcntl.lockf(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
SETTLED = """\
Package: jq
Status: install ok installed
Architecture: amd64
Version: 1.7

Package: old
Status: deinstall ok config-files
Architecture: amd64
Description: removed, its configuration kept
 Status: install ok half-configured

Package: held
Status: hold ok installed
"""


@pytest.fixture
def run_all():
    return create_autospec(cmdmod.run_all, return_value={"retcode": 0, "stdout": "", "stderr": "", "pid": 1})


@pytest.fixture
def configure_loader_modules(run_all):
    return {plasma_apt: {"__salt__": {"cmd.run_all": run_all}}}


@pytest.fixture
def lock_files(tmp_path, monkeypatch):
    """The lock files the module looks at: three that exist and one that does not."""
    paths = [tmp_path / name for name in ("lock-frontend", "lock", "lists-lock")]
    for path in paths:
        path.write_bytes(b"")
    monkeypatch.setattr(
        plasma_apt, "locked", functools.partial(plasma_apt.locked, [str(tmp_path / "none"), *map(str, paths)])
    )
    return [str(path) for path in paths]


@pytest.fixture
def hold():
    """Let another process hold a lock until ``release`` is called on it."""
    processes = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.communicate()


@pytest.fixture
def dpkg(tmp_path, monkeypatch):
    """dpkg's database: call it with the text of the status file and the names in its journal."""
    status, updates = tmp_path / "status", tmp_path / "updates"
    updates.mkdir()

    def write(text, journal=()):
        status.write_text(text, encoding="utf-8")
        for entry in updates.iterdir():
            entry.unlink()
        for name in journal:
            (updates / name).write_text("Package: jq\n", encoding="utf-8")

    write(SETTLED)
    monkeypatch.setattr(
        plasma_apt, "unsettled", functools.partial(plasma_apt.unsettled, updates=str(updates), status=str(status))
    )
    monkeypatch.setattr(
        plasma_apt, "_need_reinstalling", functools.partial(plasma_apt._need_reinstalling, status=str(status))
    )
    return write


def test_locked_by_nobody(lock_files):
    assert plasma_apt.locked() == []


def test_locked_names_the_held_file(lock_files, hold):
    hold(lock_files[1])
    assert plasma_apt.locked() == [lock_files[1]]


def test_locked_keeps_no_lock_itself(lock_files, hold):
    assert plasma_apt.locked() == []
    # Would wait for ever if this process still held it.
    hold(lock_files[0])
    assert plasma_apt.locked() == [lock_files[0]]


def test_wait_returns_at_once(lock_files):
    assert plasma_apt.wait(timeout=0) < 1


def test_wait_until_the_holder_ends(lock_files, hold):
    holder = hold(lock_files[0])
    waited = []
    waiting = threading.Thread(target=lambda: waited.append(plasma_apt.wait(timeout=30, interval=0.01)))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    holder.communicate()
    waiting.join(10)
    assert 0.1 <= waited[0] < 10


def test_wait_gives_up(lock_files, hold):
    hold(lock_files[2])
    with pytest.raises(CommandExecutionError) as caught:
        plasma_apt.wait(timeout=0.1, interval=0.01)
    assert str(caught.value) == (
        f"Another program has held {lock_files[2]} for 0.1 s: see who with `fuser -v {lock_files[2]}`, "
        "let it finish, and apply again."
    )


def test_unsettled_nothing(dpkg):
    assert plasma_apt.unsettled() == []


@pytest.mark.parametrize(
    "status",
    [
        "install ok half-installed",
        "install ok unpacked",
        "install ok half-configured",
        "install ok triggers-awaited",
        "install reinstreq half-installed",
        "install reinstreq installed",
        "deinstall ok half-configured",
    ],
)
def test_unsettled_package(dpkg, status):
    dpkg(SETTLED + f"\nPackage: broken\nStatus: {status}\nVersion: 1\n")
    assert plasma_apt.unsettled() == ["broken"]


@pytest.mark.parametrize("status", ["install ok not-installed", "purge ok config-files", "install ok triggers-pending"])
def test_settled_package(dpkg, status):
    dpkg(SETTLED + f"\nPackage: fine\nStatus: {status}\n")
    assert plasma_apt.unsettled() == []


def test_unsettled_packages_are_sorted_and_named_once(dpkg):
    dpkg(
        "".join(
            f"Package: {name}\nStatus: install ok unpacked\nArchitecture: {architecture}\n\n"
            for name, architecture in (("zlib1g", "amd64"), ("zlib1g", "i386"), ("bash", "amd64"))
        )
    )
    assert plasma_apt.unsettled() == ["bash", "zlib1g"]


def test_unsettled_journal(dpkg):
    dpkg(SETTLED, journal=["0001", "0002"])
    assert plasma_apt.unsettled() == ["dpkg-journal"]
    # dpkg's scratch files are not entries of its journal.
    dpkg(SETTLED, journal=["tmp.i", ".keep"])
    assert plasma_apt.unsettled() == []


def test_unsettled_survives_text_that_is_not_utf8(dpkg, tmp_path):
    (tmp_path / "status").write_bytes(b"Package: \xe9t\xe9\nStatus: install ok unpacked\n")
    assert len(plasma_apt.unsettled()) == 1


def test_unsettled_without_a_journal_directory(dpkg, tmp_path):
    (tmp_path / "updates").rmdir()
    assert plasma_apt.unsettled() == []


def test_settle(dpkg, run_all):
    broken = SETTLED + "\nPackage: docker-ce\nStatus: install ok half-configured\n"
    dpkg(broken, journal=["0001"])

    def run(command, **options):
        if command[0] == "dpkg":
            # Configures one package; the other needs what only apt can bring.
            dpkg(broken)
        else:
            dpkg(SETTLED)
        return {"retcode": 0, "stdout": "", "stderr": "", "pid": 1}

    run_all.side_effect = run
    assert plasma_apt.settle() == ["docker-ce", "dpkg-journal"]
    commands = [call.args[0] for call in run_all.call_args_list]
    assert [command[0] for command in commands] == ["dpkg", "apt-get"]
    assert {"--configure", "-a", "--force-confold", "--force-confdef"} <= set(commands[0])
    assert {"--yes", "--fix-broken", "install", "DPkg::Lock::Timeout=600"} <= set(commands[1])
    for call in run_all.call_args_list:
        # Nobody is there to answer a question, and no shell reads the command.
        assert call.kwargs["env"]["DEBIAN_FRONTEND"] == "noninteractive"
        assert call.kwargs["timeout"] > 0


@needs_root
def test_settle_reinstalls_what_dpkg_was_killed_in(dpkg, run_all):
    """As seen after a kill -9 while perl-base was unpacked: dpkg and --fix-broken alone go on failing."""
    dpkg(SETTLED + "\nPackage: perl-base\nEssential: yes\nStatus: install reinstreq half-installed\n")

    def run(command, **options):
        if "--reinstall" in command:
            dpkg(SETTLED)
        return {"retcode": 1 if "perl-base" in plasma_apt.unsettled() else 0, "stdout": "", "stderr": "", "pid": 1}

    run_all.side_effect = run
    assert plasma_apt.settle() == ["perl-base"]
    reinstalled = next(call.args[0] for call in run_all.call_args_list if "--reinstall" in call.args[0])
    assert reinstalled[-2:] == ["install", "perl-base"]


def test_settle_again_when_somebody_took_the_locks_in_between(dpkg, run_all, lock_files, hold):
    dpkg(SETTLED + "\nPackage: docker-ce\nStatus: install ok half-configured\n")
    holders, commands = [hold(lock_files[0])], []

    def run(command, **options):
        commands.append(command[0])
        if len(commands) == 2:
            # The other one ends while this waits for it.
            holder = holders.pop()
            threading.Timer(0.2, holder.communicate).start()
        if len(commands) <= 2:
            return {"retcode": 2, "stdout": "", "stderr": "dpkg frontend lock was locked by another process", "pid": 1}
        assert plasma_apt.locked() == []
        dpkg(SETTLED)
        return {"retcode": 0, "stdout": "", "stderr": "", "pid": 1}

    run_all.side_effect = run
    assert plasma_apt.settle() == ["docker-ce"]
    assert commands == ["dpkg", "apt-get"] * 2


def test_settle_fails_once_when_nobody_holds_the_locks(dpkg, run_all, lock_files):
    dpkg(SETTLED + "\nPackage: docker-ce\nStatus: install ok half-configured\n")
    run_all.return_value = {"retcode": 1, "stdout": "", "stderr": "post-installation script failed", "pid": 1}
    with pytest.raises(CommandExecutionError, match="post-installation script failed"):
        plasma_apt.settle()
    assert run_all.call_count == 2


def test_settle_fails_with_the_end_of_the_output(dpkg, run_all, lock_files):
    dpkg(SETTLED + "\nPackage: docker-ce\nStatus: install ok half-configured\n")
    run_all.side_effect = [
        {"retcode": 1, "stdout": "".join(f"line {number}\n" for number in range(40)), "stderr": "dpkg: E1", "pid": 1},
        {"retcode": 100, "stdout": "", "stderr": "E: Sub-process returned an error code", "pid": 1},
    ]
    with pytest.raises(CommandExecutionError) as caught:
        plasma_apt.settle()
    first, *tail = str(caught.value).splitlines()
    assert first == (
        "These packages cannot be configured: docker-ce. Mend them on the server with "
        "`apt-get install --fix-broken`, then apply again."
    )
    assert len(tail) == 15
    assert tail[-2:] == ["dpkg: E1", "E: Sub-process returned an error code"]
