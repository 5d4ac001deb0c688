"""
Whole runs of plasma_hub_installer.install: everything is real but the tools, which stand_in_python.py stands for.
"""

from __future__ import annotations

import json
import pathlib
import sys
from unittest.mock import create_autospec

import plasma_files
import plasma_hub_installed as plasma_hub
import plasma_hub_installer as installer
import plasma_systemd
from tests.unit.modules.hub_prefix import HubPrefix

STAND_IN = pathlib.Path(__file__).with_name("stand_in_python.py")
SYSTEMCTL = '#!/bin/sh\necho "$*" >> "$TLJH_INSTALL_PREFIX/systemctl"\n'


def use_python(tools, name):
    """Make this the system's only Python, which python3 leads to."""
    for old in tools.glob("python3*"):
        old.unlink()
    python = tools / name
    python.write_text(f"#!{sys.executable} -IS\n{STAND_IN.read_text(encoding='utf-8')}", encoding="utf-8")
    python.chmod(0o755)
    (tools / "python3").symlink_to(name)


def loader_modules(tmp_path, tools, running):
    """What the installer finds: the stand-ins in ``tools``, and the units ``running``."""
    tools.mkdir()
    use_python(tools, "python3.11")
    (tools / "systemctl").write_text(SYSTEMCTL, encoding="utf-8")
    (tools / "systemctl").chmod(0o755)
    real_environment = installer._environment

    def environment(prefix, sources):
        values = real_environment(prefix, sources)
        return {**values, "PATH": f"{tools}:{values['PATH']}", "PLASMA_TEST_SUDOERS": str(tmp_path / "sudoers")}

    return {
        installer: {
            "LOG": str(tmp_path / "hub-install.log"),
            "_PYTHON": str(tools / "python3"),
            "_SUDOERS": str(tmp_path / "sudoers"),
            "_environment": environment,
            "__salt__": {
                **{
                    f"plasma_hub_installed.{name}": getattr(plasma_hub, name)
                    for name in ("compare", "fingerprints", "locked", "mendable", "packages", "receipt")
                },
                "plasma_files.write": plasma_files.write,
                # Of units that wait: what the installer starts itself comes by its own way.
                "plasma_systemd.run": create_autospec(plasma_systemd.run),
                "plasma_systemd.active": create_autospec(
                    plasma_systemd.active, side_effect=lambda unit: unit in running
                ),
            },
        }
    }


def bare_server(tmp_path):
    """What the states bring to the server before the installer runs."""
    prefix = HubPrefix(tmp_path / "tljh").copy_source()
    prefix.write("plasma/bootstrap.py", "# verified by the states\n")
    return prefix


def install(prefix, provider="pypi", version="", **arguments):
    return installer.install(provider, prefix=str(prefix.root), version=version, timeout=30, **arguments)


def compare(prefix, provider="pypi", version="", source=None, **more):
    return plasma_hub.compare(provider, prefix=str(prefix.root), version=version, source=source, **more)


def calls(prefix):
    """The calls of the stand-in since this was asked last."""
    path = prefix.root / "calls"
    calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return calls


def commands(calls):
    return [" ".join(call["argv"][1:]) for call in calls]


def restarted(prefix):
    path = prefix.root / "systemctl"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines
