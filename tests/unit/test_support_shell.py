"""tests.support.shell: time limits, errors a person can read, waiting."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support import shell


def test_run_returns_output_and_reads_input():
    assert shell.run(["tr", "a-z", "A-Z"], input="plasma").stdout == "PLASMA"


def test_run_reads_from_an_open_file(tmp_path):
    (tmp_path / "data").write_bytes(b"one\ntwo\n")
    with (tmp_path / "data").open("rb") as handle:
        assert shell.run(["wc", "-l"], input=handle).stdout.strip() == "2"


def test_failure_shows_the_command_and_only_the_tail():
    with pytest.raises(shell.CommandError) as caught:
        shell.run(["sh", "-c", "seq 100; echo broken >&2; exit 3"])
    error = caught.value
    assert error.returncode == 3
    assert "exit code 3" in str(error)
    assert str(error).startswith("sh -c")
    assert str(error).endswith("broken")
    assert "\n50\n" not in str(error)


def test_without_check_a_failure_is_returned():
    assert shell.run(["false"], check=False).returncode == 1


def test_time_limit_kills_the_children_too(tmp_path):
    pid_file = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(shell.CommandError, match="took longer than 1 s"):
        shell.run(["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"], timeout=1)
    assert time.monotonic() - started < 20
    child = Path("/proc", pid_file.read_text().strip(), "cmdline")
    shell.wait_for(lambda: not child.exists() or not child.read_bytes(), timeout=10, what="the end of the child")


def test_missing_program_is_an_error_of_ours():
    with pytest.raises(shell.CommandError, match="could not be started"):
        shell.run(["/no/such/program"])


def test_log_gets_the_output_and_the_error_its_own_part_of_it(tmp_path):
    log = tmp_path / "job.log"
    log.write_text("an older run\n")
    with pytest.raises(shell.CommandError) as caught:
        shell.run(["sh", "-c", "echo out; echo err >&2; exit 1"], log=log)
    assert log.read_text() == "an older run\nout\nerr\n"
    assert caught.value.output == "out\nerr\n"


def test_wait_for_returns_the_value_and_reports_a_time_out():
    values = iter([None, "", "ready"])
    assert shell.wait_for(lambda: next(values), timeout=5, what="it", interval=0) == "ready"
    with pytest.raises(shell.SupportError, match="the hub: not there after 0 s\nthe reason"):
        shell.wait_for(lambda: False, timeout=0, what="the hub", details=lambda: "the reason")
