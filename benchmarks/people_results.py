"""Where the figures of benchmarks/people.py are kept, and what they are called."""

from __future__ import annotations

import pathlib

RESULTS = pathlib.Path(__file__).with_name("people.json")
PICTURE = pathlib.Path(__file__).parents[1] / "docs" / "_static" / "people.svg"
# The runs that are timed for each number of users.
PHASES = {"first": "first run", "no_op": "nothing to do", "one_more": "one user more"}
