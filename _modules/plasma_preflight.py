"""
Facts about a server that decide whether Plasma can be installed on it.

Everything here only reads. :py:func:`problems` collects every reason why an apply would fail, so that
an operator sees all of them at once instead of one a run.
"""

from __future__ import annotations

import os
import pathlib
import re
import time

from salt.exceptions import SaltInvocationError

__virtualname__ = "plasma_preflight"

# The Littlest JupyterHub asks for Ubuntu 22.04 or Debian 11 (its installation guide); Docker CE has
# dropped Debian 11, so 12 is the floor here.
_MINIMUM_RELEASE = {"ubuntu": (22, 4), "debian": (12,)}
_DOCKER_DATA = "/var/lib/docker"
_ARCHITECTURES = ("x86_64", "aarch64")
_UNITS = {"traefik.service", "jupyterhub.service"}
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)([KMGT]?)$", re.IGNORECASE)
# Rendering and sending take seconds; certificates are dated back by minutes at most.
_CLOCK_TOLERANCE = 600
_TCP_LISTEN = "0A"  # include/net/tcp_states.h


def __virtual__():
    return __virtualname__


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


def os_release(path="/etc/os-release"):
    """
    Return the fields of os-release(5) as a dict.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_preflight.os_release
    """
    fields = {}
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        key, sep, value = line.partition("=")
        if sep:
            fields[key.strip()] = value.strip().strip("'\"")
    return fields


def listeners(port, proc="/proc"):
    """
    Return the processes that listen on a TCP port, as ``[{"pid", "name", "unit"}]``.

    port
        Port number.

    ``unit`` is the systemd unit the process belongs to, or an empty string. A socket whose process
    cannot be found (another network owner, a kernel service) has pid 0 and the name "unknown".

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_preflight.listeners 80
    """
    root = pathlib.Path(proc)
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (root / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split()
            # local_address is HEXADDR:HEXPORT, st the state, field 9 the inode (proc(5)).
            if fields[3] == _TCP_LISTEN and int(fields[1].rsplit(":", 1)[1], 16) == int(port):
                inodes.add(fields[9])
    if not inodes:
        return []
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found = []
    for entry in root.iterdir():
        if entry.name.isdigit() and _holds_socket(entry, wanted):
            found.append(
                {"pid": int(entry.name), "name": _read(entry / "comm"), "unit": _unit(_read(entry / "cgroup"))}
            )
    return found or [{"pid": 0, "name": "unknown", "unit": ""}]


def _holds_socket(process, wanted):
    try:
        with os.scandir(process / "fd") as descriptors:
            for descriptor in descriptors:
                try:
                    if os.readlink(descriptor.path) in wanted:
                        return True
                except OSError:
                    continue  # closed while we looked
    except OSError:
        pass  # the process ended, or is a kernel thread
    return False


def _read(path):
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _unit(cgroup):
    """The systemd unit named last in a /proc/PID/cgroup text."""
    units = re.findall(r"/([^/\s]+\.(?:service|scope|socket))", cgroup)
    return units[-1] if units else ""


def _existing(path):
    """The nearest existing ancestor of path: the file system that path will be on."""
    folder = pathlib.Path(path)
    while not folder.exists():
        folder = folder.parent
    return folder


def _free_bytes(folder):
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize


def _human(number):
    for suffix in ("", "K", "M", "G"):
        if number < 1024:
            return f"{number:.1f}{suffix}".replace(".0", "")
        number /= 1024
    return f"{number:.1f}T"


def _system_problems():
    release = os_release()
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


def _resource_problems(prefix, installed, min_disk, min_memory):
    found = []
    # An installed hub needs room to work, not the room of a first installation.
    needed = size_to_bytes(min_disk) // (10 if installed else 1)
    reported = set()
    for path in (prefix, _DOCKER_DATA):
        folder = _existing(path)
        device, free = os.stat(folder).st_dev, _free_bytes(folder)
        if free < needed and device not in reported:  # mostly one file system: say it once
            reported.add(device)
            found.append(
                f"{_human(free)} free on the file system of {path}: {_human(needed)} is needed "
                "(plasma.preflight.min_disk)"
            )
    meminfo = pathlib.Path("/proc/meminfo").read_text(encoding="ascii")
    total = int(re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE).group(1)) * 1024
    # The kernel keeps some memory for itself: a 1G machine reports a little less.
    if total < size_to_bytes(min_memory) * 0.9:
        found.append(f"{_human(total)} of memory: {min_memory} is needed (plasma.preflight.min_memory)")
    return found


def _port_problems(ports):
    found = []
    for port in ports:
        for process in listeners(port):
            if process["unit"] not in _UNITS:
                found.append(
                    f"port {port} is taken by {process['name']} (pid {process['pid']}"
                    + (f", {process['unit']}" if process["unit"] else "")
                    + "): stop it or move it, the hub's proxy needs this port"
                )
                break
    return found


def _sysctl_problems():
    start = __salt__["plasma_hub_ports.anybodys"]()
    if start >= 512:
        return []
    return [
        f"net.ipv4.ip_unprivileged_port_start is {start}: anybody could take the hub's ports and so get logins and "
        "tokens. Remove what sets it in /etc/sysctl.d, and run `sysctl -w net.ipv4.ip_unprivileged_port_start=1024`"
    ]


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


def problems(provider, prefix="/opt/tljh", min_disk="10G", min_memory="1G", ports=(80,), controller_time=None):
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
    ports
        TCP ports that nobody but the hub's own proxy may hold.
    controller_time
        Seconds since 1970 by the clock of the machine that the states come from; the server's must agree with it.
        Without it, no clock is looked at.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_preflight.problems tljh
    """
    current = __salt__["plasma_hub.provider"](prefix)
    found = _system_problems()
    found += _resource_problems(prefix, bool(current), min_disk, min_memory)
    found += _port_problems(ports)
    found += _sysctl_problems()
    found += _clock_problems(controller_time)
    if current and current != provider:
        found.append(
            f"{prefix} holds a hub of the provider {current!r}, and pillar asks for {provider!r}: set "
            f"plasma.hub.provider to {current!r}, or uninstall the hub first (a server is never switched in place)"
        )
    return found
