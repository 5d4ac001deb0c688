"""What people are told about their disk quota: read from the kernel's answer, and put into words."""

from __future__ import annotations

import os
import struct
import time

import pytest
from tljh_plasma import disk_quota
from tljh_plasma.disk_quota import Amount, Usage

GB = 1024**3
NOW = 1_780_000_000
DAY = 86400
FREE = Amount(0)


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def told(space=FREE, files=FREE):
    notice = disk_quota.notice(Usage(space, files), NOW)
    return (notice.level, notice.title, notice.text.removesuffix(f" {disk_quota.ADVICE}")) if notice else None


def test_the_kernels_answer_is_understood():
    # include/uapi/linux/quota.h: limits in blocks of 1 KiB, usage in bytes.
    raw = struct.pack("=8Q2I", 12582912, 10485760, 10 * GB + 4096, 200, 100, 150, NOW + DAY, NOW + 2 * DAY, 63, 0)
    assert disk_quota.unpack(raw) == Usage(
        Amount(10 * GB + 4096, 10 * GB, 12 * GB, NOW + DAY), Amount(150, 100, 200, NOW + 2 * DAY)
    )


@pytest.mark.parametrize(
    "amount",
    [
        FREE,
        Amount(10**15),
        Amount(10 * GB, 10 * GB, 12 * GB),
        Amount(5 * GB, 10 * GB, 12 * GB, NOW - DAY),
        Amount(11 * GB, 0, 12 * GB),
    ],
)
def test_nobody_is_told_anything_below_the_limit(amount):
    assert told(amount) is None


def test_above_the_soft_limit_there_is_time_left():
    assert told(Amount(11 * GB, 10 * GB, 12 * GB, NOW + 6 * DAY)) == (
        "warning",
        "Your disk is nearly full",
        "You use 11 GB of disk space; your limit is 10 GB. Until 3 June 2026, 20:26 UTC you can still save, up to "
        "12 GB; after that no more.",
    )


def test_without_a_hard_limit_or_a_time_nothing_is_made_up():
    assert told(Amount(11 * GB, 10 * GB))[2] == (
        "You use 11 GB of disk space; your limit is 10 GB. For some days you can still save; after that no more."
    )


@pytest.mark.parametrize("until", [NOW, NOW - DAY])
def test_when_the_time_is_over_nothing_can_be_saved(until):
    level, title, text = told(Amount(11 * GB, 10 * GB, 12 * GB, until))
    assert (level, title) == ("error", "You cannot save any more")
    assert text.endswith("The time for that is over, so nothing more can be saved.")


@pytest.mark.parametrize("used", [12 * GB, 12 * GB - 4096, 12 * GB + GB])
@pytest.mark.parametrize("soft", [0, 10 * GB])
def test_at_the_hard_limit_nothing_can_be_saved(used, soft):
    """The last block may be too small for what somebody saves."""
    level, _, text = told(Amount(used, soft, 12 * GB, NOW + DAY))
    assert level == "error"
    assert text.endswith("You have reached 12 GB, so nothing more can be saved.")


def test_files_are_limited_too():
    _, _, text = told(files=Amount(120_000, 100_000, 150_000, NOW + DAY))
    assert text.startswith("You have 120,000 files and directories; your limit is 100,000.")
    assert told(files=Amount(100_000, 100_000, 150_000)) is None
    assert told(files=Amount(150_000, 100_000, 150_000, NOW + DAY))[0] == "error"


def test_both_are_told_and_the_worse_one_counts():
    level, _, text = told(Amount(11 * GB, 10 * GB, 12 * GB, NOW + DAY), Amount(9, 5, 9, NOW + DAY))
    assert level == "error"
    assert "disk space" in text
    assert "files and directories" in text


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 MB"), (512 * 1024**2, "512 MB"), (GB, "1 GB"), (int(1.5 * GB), "1.5 GB")]
)
def test_sizes_read_as_on_the_pages(number, words):
    assert disk_quota.size(number) == words


def test_without_quotas_nothing_is_known(tmp_path):
    """Neither on a file system without them, nor for what is no directory."""
    (tmp_path / "link").symlink_to("/home")
    (tmp_path / "pipe").touch()
    for path in ("/proc", tmp_path / "missing", tmp_path / "link", tmp_path / "pipe"):
        assert disk_quota.read(os.getuid(), str(path)) is None
