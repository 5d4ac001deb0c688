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
import subprocess

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_uninstall_host"

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
_CHAIN = re.compile(r"PLASMA-(?:IN|FW)-[A-Za-z0-9_.-]+\Z")


def __virtual__():
    return __virtualname__


def files(prefix, root="/"):
    """
    Return the files outside the prefix that belong to the hub below it, ``{kind: [path]}`` with the kinds ``units``,
    ``timers``, ``command`` and ``sudoers``. A unit of the hub's name that runs something else is not among them.

    prefix
        Where the hub is installed.
    root
        Another directory than ``/`` holds the server: for tests.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_host.files /opt/tljh
    """
    root = pathlib.Path(root)
    system = root / "etc/systemd/system"
    found = {"units": [], "timers": [], "command": [], "sudoers": []}
    for unit in HUB_UNITS:
        path = system / unit
        if (
            path.is_file()
            and not path.is_symlink()
            and f"{prefix}/" in path.read_text(encoding="utf-8", errors="replace")
        ):
            found["units"].append(str(path))
    found["units"] += [str(system / name) for name in DROP_INS if (system / name).is_file()]
    found["timers"] = [str(system / name) for name in TIMERS if (system / name).is_file()]
    command = root / COMMAND
    if command.is_symlink() and os.readlink(command).startswith(f"{prefix}/"):
        found["command"].append(str(command))
    sudoers = root / SUDOERS
    if sudoers.is_file() and not sudoers.is_symlink():
        found["sudoers"].append(str(sudoers))
    return found


def stop(paths):
    """
    Stop and disable units. Raises CommandExecutionError when one goes on running.

    paths
        List of paths of units.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_host.stop '[/etc/systemd/system/jupyterhub.service]'
    """
    names = [os.path.basename(path) for path in paths if path.endswith((".service", ".timer"))]
    for name in names:
        _run(["systemctl", "disable", "--now", name], timeout=120)
        if _run(["systemctl", "is-active", "--quiet", name]).returncode == 0:
            raise CommandExecutionError(f"{name} cannot be stopped: see `systemctl status {name}`, then apply again.")


def remove_files(paths):
    """
    Remove files and links, and directories of drop-ins that are empty then; systemd reads its units again.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_host.remove_files '[/usr/bin/tljh-config]'
    """
    for path in map(pathlib.Path, paths):
        path.unlink(missing_ok=True)
        if path.parent.name.endswith(".service.d") and not any(path.parent.iterdir()):
            path.parent.rmdir()
    if any("/systemd/" in str(path) for path in paths):
        _run(["systemctl", "daemon-reload"])
        names = [os.path.basename(path) for path in paths if path.endswith((".service", ".timer"))]
        _run(["systemctl", "reset-failed", *names])


def chains():
    """
    Return the chains of the firewall that the hub made, ``{tool: [chain]}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_host.chains
    """
    found = {}
    for tool in _TOOLS:
        ours = [line.split()[0][1:] for line in _saved(tool) if line.startswith(":")]
        ours = [chain for chain in ours if _CHAIN.match(chain)]
        if ours:
            found[tool] = ours
    return found


def remove_chains():
    """
    Take the hub's chains out of the firewall, with what leads into them; all other rules stay.

    Raises CommandExecutionError when a tool refuses.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_host.remove_chains
    """
    # Again for each: two names of one tool show the same rules.
    for tool in chains():
        lines = _saved(tool)
        ours = [line.split()[0][1:] for line in lines if line.startswith(":")]
        ours = [chain for chain in ours if _CHAIN.match(chain)]
        if not ours:
            continue
        ways = [line.replace("-A", "-D", 1) for line in lines if line.endswith(tuple(f" -j {chain}" for chain in ours))]
        ends = [f"-{letter} {chain}" for letter in "FX" for chain in ours]
        text = "\n".join(["*filter", *ways, *ends, "COMMIT", ""])
        done = _run([f"{tool}-restore", "--noflush", "-w", "10"], text=text)
        if done.returncode:
            said = " ".join(done.stderr.split()) or "no output"
            raise CommandExecutionError(f"The hub's rules stay in the firewall: {tool}-restore said {said}.")


def _saved(tool):
    if not shutil.which(f"{tool}-save", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        return []
    done = _run([f"{tool}-save", "-t", "filter"])
    return done.stdout.splitlines() if done.returncode == 0 else []


def empty_groups(names=GROUPS):
    """
    Return which of these groups have nobody in them, and which have, ``{"empty": [name], "used": [name]}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_host.empty_groups
    """
    found, primary = {"empty": [], "used": []}, {person.pw_gid for person in pwd.getpwall()}
    for name in names:
        try:
            group = grp.getgrnam(name)
        except KeyError:
            continue
        found["used" if group.gr_mem or group.gr_gid in primary else "empty"].append(name)
    return found


def remove_groups(names):
    """
    Remove groups in which there is nobody.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_host.remove_groups '[jupyterhub-users]'
    """
    for name in names:
        done = _run(["groupdel", name])
        if done.returncode:
            raise CommandExecutionError(f"The group {name} cannot be removed: {done.stderr.strip()}.")


def put_aside(source, place):
    """
    Move a directory into another one, by one rename where both are on one file system. Nothing is followed.

    source
        The directory.
    place
        Where it goes; made for root alone.

    Returns where it is then. Raises CommandExecutionError when it cannot be copied; the source is whole then.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_host.put_aside /opt/tljh/state /var/backups/plasma/uninstalled
    """
    source, place = pathlib.Path(source), pathlib.Path(place)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(place, 0o700)
    target = place / source.name
    number = 1
    while os.path.lexists(target):  # of a run that was interrupted
        target, number = place / f"{source.name}.{number}", number + 1
    try:
        os.rename(source, target)
        return str(target)
    except OSError:  # another file system
        pass
    half = place / f".{target.name}.half"
    shutil.rmtree(half, ignore_errors=True)
    done = _run(["cp", "--archive", "--no-target-directory", "--", str(source), str(half)], timeout=3600)
    if done.returncode:
        shutil.rmtree(half, ignore_errors=True)
        raise CommandExecutionError(f"{source} cannot be copied to {place}: {done.stderr.strip()}.")
    os.rename(half, target)
    delete(source)
    return str(target)


def delete(path):
    """
    Delete a directory with all that is in it, or a file. A link is removed, and what it leads to is left alone.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_host.delete /opt/tljh/hub
    """
    path = pathlib.Path(path)
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _run(command, text=None, timeout=60):
    try:
        return subprocess.run(
            command,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"},
            check=False,
        )
    except OSError as exc:
        raise CommandExecutionError(f"{command[0]} cannot be run: {exc.strerror}.") from exc
    except subprocess.TimeoutExpired:
        raise CommandExecutionError(f"{' '.join(command[:3])} did not finish within {timeout} seconds.") from None
