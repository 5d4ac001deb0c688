"""
The throwaway environment of ``plasma.prove``: an image made of this server's own Python and shell, without a network,
that runs ``plasma_prove_agent`` as its Jupyter server. It is open to the two throwaway people before it is there, so it
never is to anybody else.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import tarfile
import tempfile
import urllib.parse

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_prove_environment"

REPOSITORY = "plasma-prove"
LABEL = "org.plasma.prove"
DISPLAY = "plasma.prove (throwaway)"
PYTHON = "/usr/bin/python3"
# What the plugin's entrypoint calls, beside a shell.
TOOLS = ("cat", "cp", "find", "grep", "mkdir", "mv", "rm", "sed", "tr")
SKIPPED = {"__pycache__", "test", "idlelib", "lib2to3", "tkinter", "ensurepip", "pydoc_data", "dist-packages"}
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


def __virtual__():
    return __virtualname__


def make(tag, groups, uid, key, prefix="/opt/tljh"):
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

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_environment.make x '[maths]' 59990 y  # not from the command line: it holds a key
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
    changes = [f"LABEL {name}={json.dumps(value)}" for name, value in labels.items()]
    query = [("fromSrc", "-"), ("repo", REPOSITORY), ("tag", tag), *(("changes", change) for change in changes)]
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        _write(file, uid, key)
        size = file.tell()
        file.seek(0)
        _docker("POST", f"/images/create?{urllib.parse.urlencode(query)}", file, {"Content-Length": str(size)})
    return image


def hostile():
    """
    Return the headers that the agent sends with each page, ``[[name, value], ...]``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_environment.hostile
    """
    agent = runpy.run_path(str(_agent()))
    return [list(one) for one in agent["HOSTILE"]]


def _agent():
    return pathlib.Path(__file__).with_name("plasma_prove_agent.py")


def left():
    """
    Return the throwaway images that there are; none where no engine answers.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_environment.left
    """
    filters = urllib.parse.quote(json.dumps({"label": [LABEL]}))
    return sorted({image["Id"] for image in json.loads(_docker("GET", f"/images/json?all=1&filters={filters}"))})


def remove(prefix="/opt/tljh"):
    """
    Remove all throwaway images and what was said of them. Returns what could not be removed, a list of sentences.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_environment.remove
    """
    problems = []
    try:
        for image in left():
            # A start that was under way when its owner was removed may have made one since.
            filters = urllib.parse.quote(json.dumps({"ancestor": [image]}))
            for found in json.loads(_docker("GET", f"/containers/json?all=1&filters={filters}")):
                _docker("DELETE", f"/containers/{found['Id']}?force=1&v=1")
            _docker("DELETE", f"/images/{image}?force=1")
    except CommandExecutionError as exc:
        problems.append(str(exc))
    try:
        _store(prefix, "forget", REPOSITORY)
    except CommandExecutionError as exc:
        problems.append(str(exc))
    return problems


def container(name):
    """
    Return the address of somebody's container on its network, None when there is none that runs.

    name
        Login name.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_environment.container anna
    """
    for found in __salt__["plasma_hub_containers.owned"]([name]):
        if found["running"]:
            networks = json.loads(_docker("GET", f"/containers/{found['id']}/json"))["NetworkSettings"]["Networks"]
            return next((one["IPAddress"] for one in networks.values() if one["IPAddress"]), None)
    return None


def _store(prefix, *arguments):
    """Change the file of permissions with the plugin's own code, which waits for the hub where it has to."""
    root = pathlib.Path(prefix)
    command = [str(root / "hub" / "bin" / "python3"), "-I", "-c", _STORE, str(root / "state" / "plasma.sqlite")]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, cwd="/")
    if done.returncode:
        said = (done.stderr.strip() or "no output").splitlines()[-1]
        raise CommandExecutionError(f"The permissions of environments cannot be changed: {said}.")


def _docker(method, target, body=None, headers=None):
    connection = __salt__["plasma_docker.connection"](timeout=120)
    try:
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        content = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as exc:
        raise CommandExecutionError(f"Docker does not answer ({exc}): see systemctl status docker.") from exc
    finally:
        connection.close()
    # What fails while an image is read stands in the last line of an answer that began well.
    if answer.status >= 400 and answer.status != 404 or content.strip().rpartition("\n")[2].startswith('{"error'):
        raise CommandExecutionError(f"Docker did not do what it was asked for: {content.strip()[-200:]}")
    return content


def _write(file, uid, key):
    """Write the image's files as a tar archive."""
    agent = _agent().read_text(encoding="utf-8")
    library = subprocess.run(
        [PYTHON, "-I", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"],
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout.strip()
    if not library:
        raise CommandExecutionError(f"{PYTHON} does not run: the throwaway environment is made of it.")
    tools = [shutil.which(tool, path="/usr/bin:/bin") for tool in TOOLS]
    programs = [PYTHON, "/bin/sh", *filter(None, tools)]
    modules = [str(path) for path in pathlib.Path(library, "lib-dynload").glob("*.so")]
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                tar.add(f"/{name}", name)
        for name in (
            "tmp",
            "home",
            "root",
            "etc",
            "proc",
            "sys",
            "dev",
            "run",
            "var",
            "var/tmp",
            "srv",
            "usr/local/bin",
        ):
            _directory(tar, name)
        for path in sorted({*programs, *_libraries([*programs, *modules])}):
            tar.add(os.path.realpath(path), _place(path))
        tar.add(library, library.lstrip("/"), filter=_wanted)
        _file(tar, "usr/local/bin/jupyterhub-singleuser", f"#!{PYTHON} -I\n{agent}", 0o755)
        _directory(tar, "opt/plasma-prove")
        _file(tar, "opt/plasma-prove/key", key, 0o644)
        _directory(tar, OPEN, 0o1777)
        _directory(tar, OWNED, 0o755, uid)
    file.flush()


def _libraries(programs):
    """The libraries that the loader would take for these programs."""
    done = subprocess.run(["ldd", *programs], capture_output=True, text=True, timeout=60)
    return set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE))


def _place(path):
    """Where a file goes: its own name in the real directory."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)).lstrip("/")


def _wanted(member):
    name = os.path.basename(member.name)
    return None if name in SKIPPED or name.startswith("config-") else member


def _directory(tar, name, mode=0o755, uid=0):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid = tarfile.DIRTYPE, mode, uid
    tar.addfile(info)


def _file(tar, name, text, mode):
    data = text.encode()
    info = tarfile.TarInfo(name)
    info.mode, info.size = mode, len(data)
    tar.addfile(info, io.BytesIO(data))
