"""
What a hub leaves on a server outside its prefix: units, a command, rules of the firewall, a network, accounts' groups.
For ``plasma_uninstall``, which decides what goes; each function here finds, or takes away, one kind of thing.
"""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import re
import shutil
from collections.abc import Iterable

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_run
import plasma_systemd

HUB_UNITS = ("jupyterhub.service", "traefik.service")
DROP_INS = (
    "jupyterhub.service.d/plasma.conf",
    "traefik.service.d/plasma-files.conf",
    "traefik.service.d/plasma-dns.conf",
    *(f"{unit}.d/plasma-limits.conf" for unit in HUB_UNITS),
)
TIMERS = ("plasma-backup.timer", "plasma-backup.service")
COMMAND = "usr/bin/tljh-config"
SUDOERS = "etc/sudoers.d/jupyterhub-admins"
GROUPS = ("jupyterhub-admins", "jupyterhub-users")  # made by the installer of The Littlest JupyterHub
# As in the plugin's firewall.py: the kernel may have rules of either family of tools.
_TOOLS = tuple(f"{name}{variant}" for name in ("iptables", "ip6tables") for variant in ("", "-legacy", "-nft"))
_CHAIN = re.compile(r":(PLASMA-(?:IN|FW)-[A-Za-z0-9_.-]+) ")


def files(prefix: str, root: str = "/") -> dict[str, list[str]]:
    """
    Return the files outside the prefix that belong to the hub below it, ``{kind: [path]}`` with the kinds ``units``,
    ``timers``, ``command`` and ``sudoers``. A unit of the hub's name that runs something else is not among them.

    prefix
        Where the hub is installed.
    root
        Another directory than ``/`` holds the server: for tests.
    """
    system, command, sudoers = (pathlib.Path(root, path) for path in ("etc/systemd/system", COMMAND, SUDOERS))
    units = [path for path in map(system.joinpath, HUB_UNITS) if path.is_file() and not path.is_symlink()]
    paths = {
        "units": [path for path in units if f"{prefix}/" in path.read_text(encoding="utf-8", errors="replace")],
        "timers": [path for path in map(system.joinpath, TIMERS) if path.is_file()],
        "command": [command] if command.is_symlink() and os.readlink(command).startswith(f"{prefix}/") else [],
        "sudoers": [sudoers] if sudoers.is_file() and not sudoers.is_symlink() else [],
    }
    paths["units"] += [path for path in map(system.joinpath, DROP_INS) if path.is_file()]
    return {kind: [str(path) for path in found] for kind, found in paths.items()}


def _unit_names(paths: Iterable[str]) -> list[str]:
    return [os.path.basename(path) for path in paths if path.endswith((".service", ".timer"))]


def stop(paths: Iterable[str]) -> None:
    """
    Stop and disable units. Raises CommandExecutionError when one goes on running.

    paths
        Paths of units.
    """
    for name in _unit_names(paths):
        plasma_systemd.run("disable", "--now", name)
        if plasma_systemd.active(name):
            raise CommandExecutionError(f"{name} cannot be stopped: see `systemctl status {name}`, then apply again.")


def remove_files(paths: list[str]) -> None:
    """
    Remove files and links, and directories of drop-ins that are empty then; systemd reads its units again.
    """
    for path in map(pathlib.Path, paths):
        path.unlink(missing_ok=True)
        if path.parent.name.endswith(".service.d") and not any(path.parent.iterdir()):
            path.parent.rmdir()
    if any("/systemd/" in path for path in paths):
        plasma_systemd.run("daemon-reload")
        plasma_systemd.run("reset-failed", *_unit_names(paths))


def chains() -> set[str]:
    """
    Return the names of the chains of the firewall that the hub made.
    """
    return {chain for tool in _TOOLS for chain in _own_chains(_rules(tool))}


def remove_chains() -> None:
    """
    Take the hub's chains out of the firewall, with what leads into them; all other rules stay.

    Raises CommandExecutionError when a tool refuses.
    """
    # One after the other: two names of one tool show the same rules.
    for tool in _TOOLS:
        rules = _rules(tool)
        ours = _own_chains(rules)
        if not ours:
            continue
        jumps = [
            rule.replace("-A", "-D", 1) for rule in rules if rule.endswith(tuple(f" -j {chain}" for chain in ours))
        ]
        ends = [f"-{letter} {chain}" for letter in "FX" for chain in ours]
        text = "\n".join(["*filter", *jumps, *ends, "COMMIT", ""])
        done = plasma_run.run([f"{tool}-restore", "--noflush", "-w", "10"], stdin=text)
        if done.returncode:
            words = " ".join(done.stderr.split()) or "no output"
            raise CommandExecutionError(f"The hub's rules stay in the firewall: {tool}-restore said {words}.")


def _rules(tool: str) -> list[str]:
    if not shutil.which(f"{tool}-save", path=plasma_run.PATH):
        return []
    done = plasma_run.run([f"{tool}-save", "-t", "filter"])
    return [] if done.returncode else done.stdout.splitlines()


def _own_chains(rules: list[str]) -> list[str]:
    return [match[1] for match in map(_CHAIN.match, rules) if match]


def empty_groups() -> dict[str, list[str]]:
    """
    Return which groups of the hub have nobody in them, and which have, ``{"empty": [name], "used": [name]}``.
    """
    primary = {person.pw_gid for person in pwd.getpwall()}
    groups = [group for group in grp.getgrall() if group.gr_name in GROUPS]
    used = [group.gr_name for group in groups if group.gr_mem or group.gr_gid in primary]
    return {"empty": [group.gr_name for group in groups if group.gr_name not in used], "used": used}


def remove_groups(names: Iterable[str]) -> None:
    """
    Remove groups in which there is nobody. Raises CommandExecutionError.
    """
    for name in names:
        done = plasma_run.run(["groupdel", name])
        if done.returncode:
            raise CommandExecutionError(f"The group {name} cannot be removed: {done.last_line}.")


def put_aside(source: str, place: str) -> str:
    """
    Move a directory into another one, by one rename where both are on one file system. Nothing is followed.

    source
        The directory.
    place
        Where it goes; made for root alone.

    Returns where it is then. Raises CommandExecutionError when it cannot be copied; the source is whole then.
    """
    folder = plasma_files.directory(place, 0o700)
    folder.chmod(0o700)
    target = folder / os.path.basename(source)
    number = 1
    while os.path.lexists(target):  # of a run that was interrupted
        target, number = folder / f"{os.path.basename(source)}.{number}", number + 1
    try:
        os.rename(source, target)
        return str(target)
    except OSError:  # another file system
        pass
    half = folder / f".{target.name}.half"
    delete(half)
    done = plasma_run.run(["cp", "--archive", "--no-target-directory", "--", str(source), str(half)], timeout=3600)
    if done.returncode:
        delete(half)
        raise CommandExecutionError(f"{source} cannot be copied to {place}: {done.last_line}.")
    os.rename(half, target)
    delete(source)
    return str(target)


def delete(path: str | os.PathLike[str]) -> None:
    """
    Delete a directory with all that is in it, or a file. A link is removed, and what it leads to is left alone.
    """
    path = pathlib.Path(path)
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
