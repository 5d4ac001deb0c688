"""
The throwaway environment of ``plasma.prove``: an image made of this server's own Python and shell, without a network,
that runs ``plasma_prove_agent`` as its Jupyter server. It is open to the two throwaway people before it is there, so it
never is to anybody else.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import pathlib
import re
import shutil
import tarfile
import tempfile
import urllib.parse
from typing import Any, BinaryIO

from salt.exceptions import CommandExecutionError

import plasma_engine
import plasma_hub_containers
import plasma_prove_agent
import plasma_run

REPOSITORY = "plasma-prove"
LABEL = "org.plasma.prove"
DISPLAY = "plasma.prove (throwaway)"
PYTHON = "/usr/bin/python3"
# What the plugin's entrypoint calls, beside a shell.
TOOLS = ("cat", "cp", "find", "grep", "mkdir", "mv", "rm", "sed", "tr")
SKIPPED = {"__pycache__", "test", "idlelib", "lib2to3", "tkinter", "ensurepip", "pydoc_data", "dist-packages"}
DIRECTORIES = ("tmp", "home", "root", "etc", "proc", "sys", "dev", "run", "var", "var/tmp", "srv", "usr/local/bin")
# A directory of an image that everybody may write to, and one whose owner has a person's number.
OPEN, OWNED = "opt/plasma-prove/open", "opt/plasma-prove/owned"
_STORE = """
import pathlib, sys
from tljh_plasma.access import Store
store = Store(pathlib.Path(sys.argv[1]))
if sys.argv[2] == "open":
    store.set_groups({sys.argv[3]: sys.argv[4:]})
else:
    for image in store.all():
        if image.startswith(sys.argv[3] + ":"):
            store.remove(image)
"""


def make(tag: str, groups: list[str], uid: int, key: str, prefix: str = "/opt/tljh") -> str:
    """
    Make the image, open it to these groups, and return its name.

    tag
        Of the image.
    groups
        Names of the groups whose members may start it.
    uid
        Owner of one directory in it.
    key
        What the agent wants to see before it does anything.
    prefix
        Where the hub is installed.

    Raises CommandExecutionError when it cannot be made.
    """
    image = f"{REPOSITORY}:{tag}"
    _store(prefix, "open", image, *groups)
    labels = {
        LABEL: tag,
        "repo2docker.ref": tag,
        "repo2docker.repo": "",
        "tljh_repo2docker.image_name": image,
        "tljh_repo2docker.display_name": DISPLAY,
        "tljh_repo2docker.mem_limit": "512M",
        "tljh_repo2docker.cpu_limit": "1",
    }
    changes = [("changes", f"LABEL {name}={json.dumps(value)}") for name, value in labels.items()]
    query = urllib.parse.urlencode([("fromSrc", "-"), ("repo", REPOSITORY), ("tag", tag), *changes])
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        write(file, uid, key)
        size = file.tell()
        file.seek(0)
        load(query, file, size)
    return image


def load(query: str, file: BinaryIO, size: int) -> None:
    """Have the engine make an image of a tar archive. Raises CommandExecutionError."""
    target, headers = f"/images/create?{query}", {"Content-Length": str(size)}
    status, content = plasma_engine.ask("POST", target, file, headers, timeout=120)
    # What fails while an image is read stands in the last line of an answer that began well.
    last = content.decode(errors="replace").strip().rpartition("\n")[2]
    if status >= 400 or last.startswith('{"error'):
        raise CommandExecutionError(f"Docker did not do what it was asked for: {last[-200:]}")


def left() -> list[str]:
    """Return the ids of the throwaway images that there are. Raises CommandExecutionError where no engine answers."""
    return sorted({image["Id"] for image in _listed("images", label=LABEL)})


def remove(prefix: str = "/opt/tljh") -> list[str]:
    """
    Remove all throwaway images and their permissions. Returns what could not be removed, a list of sentences.

    prefix
        Where the hub is installed.
    """
    problems = []
    for function in (_remove_images, lambda: _store(prefix, "forget", REPOSITORY)):
        try:
            function()
        except CommandExecutionError as exc:
            problems.append(str(exc))
    return problems


def container(name: str) -> str | None:
    """
    Return the address of somebody's container on its network, None when there is none that runs.

    name
        Login name.
    """
    for found in plasma_hub_containers.owned([name]):
        if found["running"]:
            details = plasma_engine.request("GET", f"/containers/{found['id']}/json") or {"NetworkSettings": {}}
            networks = details["NetworkSettings"].get("Networks", {}).values()
            return next((network["IPAddress"] for network in networks if network["IPAddress"]), None)
    return None


def _listed(kind: str, **filters: str) -> list[dict[str, Any]]:
    """The images or containers that the engine has."""
    query = plasma_engine.filters(**{name: [value] for name, value in filters.items()})
    return plasma_engine.request("GET", f"/{kind}/json?all=1&{query}") or []


def _remove_images() -> None:
    for image in left():
        # A start that was under way when its owner was removed may have made a container since.
        for found in _listed("containers", ancestor=image):
            plasma_engine.request("DELETE", f"/containers/{found['Id']}?force=1&v=1")
        plasma_engine.request("DELETE", f"/images/{image}?force=1")


def _store(prefix: str, *arguments: str) -> None:
    """Change the file of permissions with the plugin's own code, which waits for the hub where it has to."""
    root = pathlib.Path(prefix)
    command = [str(root / "hub" / "bin" / "python3"), "-I", "-c", _STORE, str(root / "state" / "plasma.sqlite")]
    done = plasma_run.run([*command, *arguments], timeout=60)
    if done.returncode:
        raise CommandExecutionError(f"The permissions of environments cannot be changed: {done.last_line}.")


def write(file: BinaryIO, uid: int, key: str) -> None:
    """Write the image's files as a tar archive."""
    code = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    library = plasma_run.run([PYTHON, "-I", "-c", code], timeout=30).check().stdout
    tools = [shutil.which(tool, path="/usr/bin:/bin") for tool in TOOLS]
    programs = [PYTHON, "/bin/sh", *filter(None, tools)]
    modules = [str(path) for path in pathlib.Path(library, "lib-dynload").glob("*.so")]
    agent = f"#!{PYTHON} -I\n{inspect.getsource(plasma_prove_agent)}"
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                tar.add(f"/{name}", name)
        for name in (*DIRECTORIES, "opt/plasma-prove"):
            _add(tar, name, 0o755)
        for path in sorted({*programs, *_libraries([*programs, *modules])}):
            # Its own name, in the real directory.
            directory, base = os.path.split(path)
            tar.add(os.path.realpath(path), os.path.join(os.path.realpath(directory), base).lstrip("/"))
        tar.add(library, library.lstrip("/"), filter=_wanted)
        _add(tar, "usr/local/bin/jupyterhub-singleuser", 0o755, agent)
        _add(tar, plasma_prove_agent.KEY_FILE.lstrip("/"), 0o644, key)
        _add(tar, OPEN, 0o1777)
        _add(tar, OWNED, 0o755, uid=uid)
    file.flush()


def _libraries(programs: list[str]) -> set[str]:
    """The libraries that the loader would take for these programs."""
    listed = plasma_run.run(["ldd", *programs], timeout=60).stdout
    return set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE))


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = os.path.basename(member.name)
    return None if name in SKIPPED or name.startswith("config-") else member


def _add(tar: tarfile.TarFile, name: str, mode: int, text: str | None = None, uid: int = 0) -> None:
    """Add a file with this text, or a directory."""
    info, data = tarfile.TarInfo(name), (text or "").encode()
    info.type = tarfile.DIRTYPE if text is None else tarfile.REGTYPE
    info.mode, info.uid, info.size = mode, uid, len(data)
    tar.addfile(info, io.BytesIO(data))
