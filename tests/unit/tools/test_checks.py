"""The checks around the code: what a commit's message says, and the table of what tests run."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.coverage_table import table
from tests.support.paths import REPOSITORY


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("Say what\n\nThis is why.\n", None),
        ("Say what\n\n# A comment of git\nThis is why.\n", None),
        (f"{'x' * 71}\n\nThis is why.\n", None),
        (f"{'x' * 72}\n\nThis is why.\n", "72 characters"),
        ("Say what\n", "no body"),
        ("Say what\n\n# A comment of git\n", "no body"),
        ("Say what\nand more\n", "not blank"),
        ("Merge branch 'main'\n", None),
    ],
)
def test_a_commits_message(tmp_path, message, fault):
    file = tmp_path / "message"
    file.write_text(message, encoding="utf-8")
    done = subprocess.run([REPOSITORY / "tools" / "commit-message", file], capture_output=True, text=True)
    assert done.returncode == (1 if fault else 0)
    assert (fault or "") in done.stderr


def test_the_table_of_coverage():
    figures = {"num_statements": 10, "covered_lines": 5}, {"num_statements": 30, "covered_lines": 30}
    names = ("tools/a.py", "tools/b.py")
    text = table({name: {"summary": summary} for name, summary in zip(names, figures, strict=True)})
    assert [line.split() for line in text.splitlines()[1:]] == [["tools", "40", "88%"], ["all", "40", "88%"]]
