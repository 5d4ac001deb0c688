"""Files that the hub gives to one container: account entries, the entrypoint, extensions of JupyterLab and its server.

The container runs as the person from its first process on, and its root file system is read-only, so nothing inside can
add the account, and the engine lets nobody put files there. Instead the image's /etc/passwd and /etc/group, with the
person's entries added, are files of root's on the host, for each container its own, and mounted read-only, as is a
directory with the entrypoint, the extension that shows notices, and the one of the server (``singleuser/``).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from importlib import resources
from pathlib import Path, PurePosixPath

from docker.types import Mount

from . import notices, server_rules, trust
from .accounts import Account, Group
from .image_look import Image
from .replace import directory as make_directory

# Accounts under which repo2docker and the Jupyter images run; the person takes over their shell.
IMAGE_USERS = ("jovyan", "joyvan", "rstudio")
# Where the hub's own files are in a container.
OURS = PurePosixPath(server_rules.OURS)
# The same on the host. No container's name has a dot at its beginning.
OURS_ON_HOST = ".plasma"
# What containers trust, below that: only where the operator has authorities of their own.
TRUST = "trust.pem"
# Where notices are mounted, below that.
NOTICES = str(PurePosixPath(notices.TARGET).relative_to(OURS))


def default_base() -> str:
    """Return the directory of the files of all containers, unless the configuration names another one."""
    # A developer's hub is not root.
    return "/run/plasma/servers" if os.geteuid() == 0 else f"{tempfile.gettempdir()}/plasma-{os.geteuid()}"


def bind(target: str, source: str, read_only: bool = True) -> Mount:
    """Return a mount, not a volume: for those Docker would make a missing source directory, as root."""
    return Mount(target, source, type="bind", read_only=read_only, propagation="rprivate")


def _entries(text: str, fields: int) -> list[list[str]]:
    return [line.split(":") for line in text.splitlines() if line.count(":") == fields - 1]


def _text(entries: list[list[str]]) -> str:
    return "".join(":".join(entry) + "\n" for entry in entries)


def passwd_with(text: str, account: Account) -> str:
    """Return a passwd file with an account's entry, which replaces entries of the same name or uid.

    Args:
        text: the image's /etc/passwd.
        account: the person's account on the host.
    """
    entries = _entries(text, 7)
    shell = next((entry[6] for entry in entries if entry[0] in IMAGE_USERS and entry[6]), "/bin/sh")
    others = [entry for entry in entries if entry[0] != account.name and entry[2] != str(account.uid)]
    own = [account.name, "x", str(account.uid), str(account.group.gid), account.name, account.home, shell]
    return _text([*others, own])


def group_with(text: str, account: Account) -> str:
    """Return a group file with an account's groups, which replace groups of the same name or gid.

    The image's remaining groups lose the account as a member: membership comes from the host alone.

    Args:
        text: the image's /etc/group.
        account: the person's account on the host.
    """
    groups: list[Group] = [account.group, *account.groups]
    taken = {name for group in groups for name in (group.name, str(group.gid))}
    entries = []
    for entry in _entries(text, 4):
        if entry[0] not in taken and entry[2] not in taken:
            members = [member for member in entry[3].split(",") if member and member != account.name]
            entries.append([*entry[:3], ",".join(members)])
    for group in groups:
        entries.append([group.name, "x", str(group.gid), "" if group is account.group else account.name])
    return _text(entries)


def entrypoint_script() -> bytes:
    """Return the entrypoint script."""
    return resources.files(__package__).joinpath("entrypoint.sh").read_bytes()


def server_files() -> list[tuple[str, bytes, int]]:
    """Return the files of the extension of Jupyter's servers: path below ours, content, mode."""
    source = resources.files(__package__).joinpath("singleuser")
    enabled = json.dumps({"ServerApp": {"jpserver_extensions": {"plasma_server": True}}})
    return [
        ("lib/plasma_server.py", source.joinpath("plasma_server.py").read_bytes(), 0o644),
        ("etc/jupyter/jupyter_server_config.py", source.joinpath("jupyter_server_config.py").read_bytes(), 0o644),
        ("etc/jupyter/jupyter_server_config.d/plasma_server.json", enabled.encode(), 0o644),
    ]


def write(base: str, container: str, image: Image, account: Account) -> dict[str, str]:
    """Write the files of a container, and return what is to be mounted: path in the container -> on the host.

    Args:
        base: directory of all of them, which this process alone may write to.
        container: the container's name.
        image: what it is made of.
        account: the account it runs as.

    Raises:
        OSError: they cannot be written.
    """
    top = Path(base)
    make_directory(top, 0o700)
    status = top.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{base} belongs to somebody else")
    directory = make_directory(top / container)
    mounted = {str(OURS): str(_ours(top))}
    for name, text in (("passwd", passwd_with(image.passwd, account)), ("group", group_with(image.group, account))):
        _replace(directory / name, text.encode(), 0o644)
        mounted[f"/etc/{name}"] = str(directory / name)
    return mounted


def trusts(base: str) -> dict[str, str]:
    """Return the variables that lead programs of a container to what it trusts, none where that is the image's own.

    Args:
        base: as for ``write``, which was called before.
    """
    return trust.variables(str(OURS / TRUST)) if (Path(base) / OURS_ON_HOST / TRUST).exists() else {}


def forget(base: str, container: str) -> None:
    """Remove the files of a container that is gone."""
    shutil.rmtree(Path(base) / container, ignore_errors=True)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write a new file: the one of before may be mounted yet."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
    os.replace(new, path)


def _ours(top: Path) -> Path:
    """Bring the directory with the entrypoint and the extensions up to date, which all containers share."""
    directory = top / OURS_ON_HOST
    # It is mounted upon, which needs it to be there.
    make_directory(directory / NOTICES)
    prefix = f"{str(OURS)[1:]}/"
    files = (("entrypoint", entrypoint_script(), 0o755), *notices.extension_files(), *server_files())
    for path, content, mode in files:
        file = directory / path.removeprefix(prefix)
        make_directory(file.parent)
        if not file.exists() or file.read_bytes() != content:
            _replace(file, content, mode)
    bundle, place = trust.bundle(), directory / TRUST
    if bundle is None:
        place.unlink(missing_ok=True)
    elif not place.exists() or place.read_bytes() != bundle:
        _replace(place, bundle, 0o644)
    for inner in (directory, *(path for path in directory.rglob("*") if path.is_dir())):
        inner.chmod(0o755)
    return directory
