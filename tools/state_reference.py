"""
Writes the generated parts of docs/reference/states.md from the comments at the top of salt/*/*.sls.

    python -m tools.state_reference            write the page
    python -m tools.state_reference --check    end with 1 when the page does not match them
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import yaml

from tools import ROOT, generated_page

SALT = ROOT / "salt"


def site() -> list[str]:
    """What salt/top.sls names, in its order."""
    return yaml.safe_load((SALT / "top.sls").read_text(encoding="utf-8"))["base"]["*"]


def states() -> dict[str, Path]:
    """The file of every state by the name that `state.apply` takes; those of the site first."""
    parts = {path: path.relative_to(SALT).with_suffix("").parts for path in SALT.glob("*/*.sls")}
    files = {".".join(part for part in names if part != "init"): path for path, names in parts.items()}
    ordered = [*site(), *sorted(files.keys() - set(site()))]
    return {name: files[name] for name in ordered}


def comment(path: Path) -> str:
    """The sentences at the top of a file, up to what is not a sentence."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line[2:] for line in lines if not line.startswith("#  "))


def table(rows: dict[str, Path]) -> str:
    lines = [f"| `{name}` | {comment(path)} |" for name, path in rows.items()]
    return "\n".join(["", "| state | what it does |", "|---|---|", *lines, ""])


def parts() -> dict[str, str]:
    everything = states()
    undo = {name: path for name, path in everything.items() if name.endswith(".disabled") or name == "uninstall"}
    whole = {name: path for name, path in everything.items() if path.stem == "init" and name not in undo}
    included = {name: path for name, path in everything.items() if name not in {**whole, **undo}}
    return {
        "site": ", ".join(f"`{name}`" for name in site()),
        "states": table(whole),
        "included states": table(included),
        "states that undo": table(undo),
    }


if __name__ == "__main__":
    about, page = __doc__.strip().splitlines()[0], ROOT / "docs" / "reference" / "states.md"
    sys.exit(generated_page.main(about, page, parts, "python -m tools.state_reference"))
