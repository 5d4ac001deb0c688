"""
The attack of ``plasma.prove`` on builds of environments: what the root of a build could do that got out of its image,
in a builder as the hub's service makes them.
"""

from __future__ import annotations

import json

from salt.exceptions import CommandExecutionError

import plasma_run
from plasma_prove_environment import LABEL
from plasma_prove_scene import attack

SECONDS = 60
# Of the hub's own Python, with the plugin. Its argument is a label, and it reads the program of the builder.
_MAKE = """
import contextlib, json, sys
from tljh_plasma import network, settings
from tljh_plasma.builds import archive, local, rootless

if settings.load().builder_image != "local":
    print(json.dumps(None))
    raise SystemExit
host = rootless.host_config("none", rootless.Limits(512 * 1024**2, 1, 0), {})
host["LogConfig"] = {"Type": "json-file", "Config": {}}
config = {"Image": local.BUILDER, "Cmd": ["python3", "-c", sys.stdin.read()], "User": "0:0", "HostConfig": host}
with contextlib.closing(network.connect(timeout=0)) as client:
    made = client.create_container_from_config({**config, "Labels": {sys.argv[1]: ""}})["Id"]
    try:
        client.put_archive(made, "/", archive.secrets({**local.modules(), "credentials": b"secret"}))
        client.start(made)
        code = client.wait(made, timeout=50)["StatusCode"]
        said = client.logs(made, stderr=bool(code)).decode()
        print(json.dumps(json.loads(said.splitlines()[-1]) if not code else {"problem": said[-300:]}))
    finally:
        client.remove_container(made, force=True, v=True)
"""
# Of the builder. Each attempt that succeeds is named.
_ATTEMPT = """
import ctypes, json, os, socket, sys
sys.path.insert(0, "/plasma")
import plasma_rootless

libc = ctypes.CDLL(None, use_errno=True)

def connect(path):
    socket.socket(socket.AF_UNIX).connect(path)

def call(number, *words):
    if libc.syscall(number, *words) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def device():
    os.mknod("/tmp/disk", 0o60600, os.stat("/").st_dev)
    open("/tmp/disk", "rb").read(1)

tries = {
    "the engine's socket": lambda: connect("/var/run/docker.sock"),
    "containerd's socket": lambda: connect("/run/containerd/containerd.sock"),
    "the credentials of the repository": lambda: open("/plasma/credentials").read(),
    "the environment of repo2docker": lambda: open("/proc/1/environ").read(),
    "a device of the server": device,
    "the kernel's messages": lambda: open("/dev/kmsg").read(1),
    "a setting of the kernel": lambda: open("/proc/sys/kernel/core_pattern", "w").write("core"),
    "a module of the kernel": lambda: call(175, 0, 0, 0) if os.uname().machine == "x86_64" else call(105, 0, 0, 0),
}

def work():
    done = []
    for name, attempt in tries.items():
        try:
            attempt()
            done.append(name)
        except OSError:
            pass
    if open("/proc/self/uid_map").read().split()[1] == "0":
        done.append("root of the server")
    print(json.dumps({"done": done, "tried": len(tries) + 1}), flush=True)
    return 0

raise SystemExit(plasma_rootless.ended(plasma_rootless.inside(work)))
"""


@attack("A18.build", "all refused")
def _build(scene):
    """What a repository brings gets out of its build: to the engine, to secrets, to the kernel"""
    command = [f"{scene.prefix}/hub/bin/python3", "-I", "-c", _MAKE, LABEL]
    env = {"TLJH_INSTALL_PREFIX": scene.prefix}
    found = json.loads(plasma_run.run(command, stdin=_ATTEMPT, timeout=SECONDS, env=env).check().stdout)
    if found is None:
        return None, "DOES NOT HOLD: builds have the Docker engine (plasma.builder.image is not local)"
    if "problem" in found:
        raise CommandExecutionError(" ".join(found["problem"].split()))
    return not found["done"], ", ".join(found["done"]) or f"{found['tried']} refused"
