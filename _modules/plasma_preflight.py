"""
Facts about a server that decide whether Plasma can be installed on it.

Everything here only reads. :py:func:`problems` collects every reason why an apply would fail, so that
an operator sees all of them at once instead of one a run.
"""

from __future__ import annotations

import os
import pathlib
import platform
import re
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_docker_daemon
import plasma_hub_installed
import plasma_hub_ports
import plasma_listeners
import plasma_mounts
import plasma_reach_needs
import plasma_users_observe
import tljh_service
import tljh_settings

# The Littlest JupyterHub asks for Ubuntu 22.04 or Debian 11 (its installation guide); Docker CE has
# dropped Debian 11, so 12 is the floor here.
_MINIMUM_RELEASE = {"ubuntu": (22, 4), "debian": (12,)}
_ARCHITECTURES = ("x86_64", "aarch64")
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)([KMGT]?)$", re.IGNORECASE)
# Rendering and sending take seconds; certificates are dated back by minutes at most.
_CLOCK_TOLERANCE = 600
# Options of a mount with which neither the hub nor a container starts, with what takes them away.
_MOUNTED = {"noexec": "exec", "ro": "rw"}


def size_to_bytes(size):
    """
    Return a size such as ``10G``, ``512M`` or ``1073741824`` in bytes.

    size
        A number with an optional suffix K, M, G or T (powers of 1024).

    Raises ``SaltInvocationError`` for anything else.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_preflight.size_to_bytes 10G
    """
    match = _SIZE.match(str(size).strip())
    if not match:
        raise SaltInvocationError(f"{size!r} is not a size: write a number with K, M, G or T, such as 10G")
    factor = 1024 ** " KMGT".index(match.group(2).upper() or " ")
    return int(float(match.group(1)) * factor)


def _human(number):
    for suffix in ("", "K", "M", "G"):
        if number < 1024:
            return f"{number:.1f}{suffix}".replace(".0", "")
        number /= 1024
    return f"{number:.1f}T"


def _system_problems():
    release = platform.freedesktop_os_release()
    system, version = release.get("ID", "unknown"), release.get("VERSION_ID", "")
    minimum = _MINIMUM_RELEASE.get(system)
    found = []
    if minimum is None:
        found.append(
            f"the system is {release.get('PRETTY_NAME', system)}: use Ubuntu 22.04 or newer, or Debian 12 or newer"
        )
    elif version and tuple(int(part) for part in re.findall(r"\d+", version)) < minimum:
        # Debian testing and sid carry no VERSION_ID: they are newer than any release.
        needed = "22.04" if system == "ubuntu" else "12"
        found.append(f"the system is {system} {version}: {needed} or newer is needed")
    if os.uname().machine not in _ARCHITECTURES:
        found.append(f"the processor is {os.uname().machine}: only {' and '.join(_ARCHITECTURES)} are supported")
    if not os.path.isdir("/run/systemd/system"):
        found.append("systemd does not run here: the hub and its proxy are systemd services")
    if os.geteuid() != 0:
        found.append("these states need root: set `sudo: true` for this server in the roster")
    return found


def _existing(path):
    """The directory itself, or the one in which it will be made."""
    return next(part for part in (pathlib.Path(path), *pathlib.Path(path).parents) if part.exists())


def _mount_problems(places):
    """Guides to hardening have file systems mounted so: programs fail there with "Permission denied"."""
    mounts = plasma_mounts.mounts()
    for path in places:
        mount = plasma_mounts.holder(os.path.realpath(_existing(path)), mounts) or {"options": ()}
        for option, opposite in _MOUNTED.items():
            if option in mount["options"]:
                yield (
                    f"{mount['target']} is mounted with the option {option}, and {path} is on it, where programs are "
                    f"kept and run: take {option} out of its line in /etc/fstab, and run "
                    f"`mount -o remount,{opposite} {mount['target']}`"
                )


def _resource_problems(places, installed, min_disk, min_memory):
    found = []
    # An installed hub needs room to work, not the room of a first installation.
    needed = size_to_bytes(min_disk) // (10 if installed else 1)
    reported = set()
    for path in places:
        folder = _existing(path)
        device, stats = folder.stat().st_dev, os.statvfs(folder)
        free = stats.f_bavail * stats.f_frsize
        if free < needed and device not in reported:  # mostly one file system: say it once
            reported.add(device)
            found.append(
                f"{_human(free)} free on the file system of {path}: {_human(needed)} is needed "
                "(plasma.preflight.min_disk)"
            )
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # The kernel keeps some memory for itself: a 1G machine reports a little less.
    if total < size_to_bytes(min_memory) * 0.9:
        found.append(f"{_human(total)} of memory: {min_memory} is needed (plasma.preflight.min_memory)")
    return found


def _sysctl_problems():
    start = plasma_hub_ports.anybodys()
    sentence = (
        f"net.ipv4.ip_unprivileged_port_start is {start}: anybody could take the hub's ports and so get logins and "
        "tokens. Remove what sets it in /etc/sysctl.d, and run `sysctl -w net.ipv4.ip_unprivileged_port_start=1024`"
    )
    return [sentence] if start < 512 else []


def _clock_problems(controller_time):
    """A wrong clock makes good certificates bad, apt refuse its lists, and logins end at once or never."""
    if controller_time is None:
        return []
    ahead = time.time() - float(controller_time)
    if abs(ahead) <= _CLOCK_TOLERANCE:
        return []
    here = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time()))
    side = "ahead of" if ahead > 0 else "behind"
    return [
        f"the clock says {here} UTC, {_duration(abs(ahead))} {side} that of the machine salt-ssh runs on: set the "
        "wrong one of the two, on a server with `timedatectl set-ntp true`"
    ]


def _duration(seconds):
    for size, unit in ((86400, "days"), (3600, "hours")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _port_problems(prefix, http, https):
    """The ports that the proxy has, or will have: those of pillar, or else of config.yaml, or else the usual ones."""
    try:
        config = tljh_settings.show(prefix)
    except CommandExecutionError:
        config = {}  # what is wrong there is the business of the states that mend it
    for section, given in (("http", http), ("https", https)):
        own = tljh_service.section(config, section)
        if section == "https" and not (own.get("enabled") is True or (given or {}).get("wanted")):
            continue
        listens = {**own, **{key: value for key, value in (given or {}).items() if value is not None}}
        port = tljh_service.place({section: listens}, section == "https")[1]
        yield plasma_listeners.port_problem(port, listens.get("address"), f"plasma.{section}.port")


def problems(
    provider,
    prefix="/opt/tljh",
    min_disk="10G",
    min_memory="1G",
    http=None,
    https=None,
    controller_time=None,
    home_path="/home",
):
    """
    Return every reason why this server cannot take Plasma, one sentence each; an empty list is good.

    provider
        ``tljh`` or ``pypi``: the one pillar asks for.
    prefix
        Where the hub is, or will be, installed.
    min_disk
        Free space a first installation needs, as a size. An installed hub needs a tenth of it.
    min_memory
        Memory of the machine, as a size.
    http, https
        ``{"address", "port"}`` that pillar gives the hub's proxy, which nobody else may hold; without them those of
        config.yaml. ``wanted`` beside them in ``https``: whether pillar switches that on.
    controller_time
        Seconds since 1970 by the clock of the machine that the states come from; the server's must agree with it.
        Without it, no clock is looked at.
    home_path
        Where the homes are, or will be.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_preflight.problems tljh
    """
    current = plasma_hub_installed.provider(prefix)
    found = _system_problems()
    places = (prefix, plasma_docker_daemon.docker_root())
    found += _mount_problems(places)
    found += _resource_problems(places, bool(current), min_disk, min_memory)
    found += filter(None, _port_problems(prefix, http, https))
    found += plasma_docker_daemon.daemon_problems()
    found += _sysctl_problems()
    found += filter(None, [plasma_users_observe.homes_problem(home_path)])
    found += _clock_problems(controller_time)
    if current and current != provider:
        found.append(
            f"{prefix} holds a hub of the provider {current!r}, and pillar asks for {provider!r}: set "
            f"plasma.hub.provider to {current!r}, or uninstall the hub first (a server is never switched in place)"
        )
    if misplaced := plasma_hub_installed.misplaced(prefix):
        found.append(misplaced[0].lower() + misplaced[1:].removesuffix("."))
    return found


def unreachable(plasma, parts, lock=None):
    """
    Return a sentence for each place of the network that an apply needs and that cannot be reached, with the key of
    pillar that helps: ``{"problems": [...], "warnings": [...]}``; empty lists are good. Warnings are what only single
    environments of an installed hub need. Where nothing is left to be fetched, nobody is asked.

    plasma
        The completed pillar below ``plasma``.
    parts
        The folders of states that are applied, such as ``[docker, tljh]``.
    lock
        SHA-256 of the lock that the hub is going to have, where that is known.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_preflight.unreachable '{hub: {provider: tljh}}' '[tljh]'
    """
    return plasma_reach_needs.problems(plasma, parts, __grains__, lock)
