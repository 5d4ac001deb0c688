"""What the plugin does while TLJH's installer runs, or another Traefik is to take the place of its own."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

# Set by whoever runs the installer with a Traefik of their own.
KEEP_TRAEFIK = "PLASMA_KEEP_TRAEFIK"


def version_for_tljh(program: Path) -> str:
    """Return the version of this Traefik; end with a sentence where the installed TLJH cannot use it."""
    wanted = getattr(importlib.import_module("tljh.traefik"), "traefik_version", "")
    series = wanted.partition(".")[0]
    here = "The Traefik of plasma.hub.sources.traefik"
    try:
        done = subprocess.run([program, "version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        sys.exit(f"{here} does not run on this server ({exc}).")
    found = re.search(r"^Version:\s*v?(\S+)$", done.stdout, re.MULTILINE)
    if not found or found[1].partition(".")[0] != series:
        what = f"is {found[1]}" if found else "does not say its version"
        sys.exit(f"{here} {what}, and this TLJH needs one of the series {series}, such as {wanted}.")
    return found[1]


def keep_traefik() -> None:
    """Let the installer take the Traefik that is there for the one it wants.

    Each TLJH wants one version to the last digit: it removes another one, although the proxy runs it, and downloads
    its own from GitHub. A server that gets Traefik from elsewhere may have no way there. Another major version reads
    another configuration: the installer is ended before it removes anything.
    """
    program = Path(sys.executable).with_name("traefik")
    if os.environ.get(KEEP_TRAEFIK) and program.exists():
        # Of the installer that runs this.
        vars(importlib.import_module("tljh.traefik"))["traefik_version"] = version_for_tljh(program)


if __name__ == "__main__":
    version_for_tljh(Path(sys.argv[1]))
