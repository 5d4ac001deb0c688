"""The report: worst first, readable and as data."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_quota_limits as limits
import plasma_quota_report as report
from tests.unit.modules.stand_in_quota import QuotaServer

NOW = 1_800_000_000


def entry(used=0, soft=0, hard=0, files=0, files_soft=0, files_hard=0, grace=0, files_grace=0):
    names = ("used", "soft", "hard", "inodes_used", "inodes_soft", "inodes_hard", "grace", "inodes_grace")
    return dict(zip(names, (used, soft, hard, files, files_soft, files_hard, grace, files_grace), strict=True))


TABLES = {
    "user": {
        0: entry(99999, files=9),
        5: entry(4),
        1001: entry(50, 40, 60, 3, 0, 0, NOW + 3 * 86400),
        1002: entry(10, 40, 60, 60, 50, 60, 0, NOW - 5),
        1003: entry(59, 0, 60),
        1004: entry(7),
        1005: entry(),
        1006: entry(41, 40, 0, grace=NOW + 600),
    },
    "group": {1001: entry(50), 2001: entry(2048, 0, 4096)},
}
READ = limits.read


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = QuotaServer(tmp_path, monkeypatch)
    server.accounts.update({"grace": (1002, "/home/grace"), "near": (1003, "/home/near"), "free": (1004, "/home/free")})
    server.state = {"user": "on", "group": "on"}
    monkeypatch.setattr(report.time, "time", lambda: NOW)
    return server


READ = limits.read


@pytest.fixture
def configure_loader_modules(server):
    modules = server.loader_modules()
    server.functions["plasma_quota_limits.read"] = lambda point, sort: TABLES[sort]
    return modules


def test_worst_first():
    rows = report.rows()
    assert [(row["kind"], row["name"], row["over_hard"], row["over_soft"]) for row in rows] == [
        ("user", "grace", True, True),  # as many files as the limit, and the grace is over
        ("user", None, False, True),
        ("user", "ada", False, True),
        ("user", "near", False, False),
        ("group", "maths", False, False),
        ("user", "free", False, False),
    ]
    ada = rows[2]
    assert (ada["used"], ada["soft"], ada["hard"], ada["percent"]) == (50 * 1024, 40 * 1024, 60 * 1024, 83.3)
    assert (ada["grace"], rows[0]["files_grace"]) == (3 * 86400, 0)
    assert {row["id"] for row in report.rows(everybody=True)} == {0, 5, *range(1001, 1007), 2001}


def test_the_table_can_be_read():
    assert report.report().splitlines() == [
        "/ (/dev/sda1): 5 users and 1 groups, 3 over a limit",
        "   Name    Used  Soft  Hard    %   Grace  Files  Soft  Hard  Grace",
        "X  grace    10K   40K   60K  100       -     60    50    60   over",
        "!  #1006    41K   40K     -  102  10 min      0     -     -      -",
        "!  ada      50K   40K   60K   83  3 days      3     -     -      -",
        "   near     59K     -   60K   98       -      0     -     -      -",
        "   @maths    2M     -    4M   50       -      0     -     -      -",
        "   free      7K     -     -    -       -      0     -     -      -",
    ]


def test_data_is_for_programs():
    assert report.report(output="json") == report.rows()


def test_other_outputs_are_refused():
    with pytest.raises(SaltInvocationError, match="table or json, not 'csv'"):
        report.report(output="csv")


def test_where_quotas_are_off_it_says_so(server):
    server.state["group"] = "off"
    with pytest.raises(CommandExecutionError, match="Quotas of / are not on: apply the state quotas"):
        report.report()


def test_what_repquota_writes_is_read(server):
    server.functions["plasma_quota_limits.read"] = READ
    server.tables["user"] = {1001: [-4, 1, 2, 3, 4, 5]}
    (row,) = report.rows()[:1]
    assert (row["used"], row["soft"], row["hard"], row["files"], row["files_hard"]) == (0, 1024, 2048, 3, 5)
