"""Starts the entrypoint as a server does, with /home in a mount namespace of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from support_hub import wait_until

UID = 54321
IMAGE_ID = "sha256:" + "a" * 64
# Home of the image and of the person are mounted where a container has them.
NAMESPACE = """
set -e
mount -t tmpfs -o mode=755 tmpfs /home
mkdir /home/jovyan /home/student
cp "$SCRIPT" /home/entrypoint
mount --bind "$IMAGE_HOME" /home/jovyan
if [ -n "$DISK_SIZE" ]; then
    mount -t tmpfs -o "size=$DISK_SIZE,uid=$ID,gid=$ID,mode=700" tmpfs /home/student
else
    mount --bind "$PERSON_HOME" /home/student
fi
mkdir /home/runtime
chown "$ID:$ID" /home/runtime
exec $TRACE setpriv --reuid "$ID" --regid "$ID" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all \\
    env -i HOME=/home/student PATH="$IMAGE_PATH" PLASMA_ENVIRONMENT="$NAME" PLASMA_DIR="$DIRECTORY" \\
    PLASMA_IMAGE_ID="$IMAGE_ID" PLASMA_RUNTIME_DIR=/home/runtime $EXTRA "$@"
"""


@dataclass
class Result:
    """What a start did."""

    stdout: str
    stderr: str


class Start:
    """Starts servers of one person from one image."""

    def __init__(self, base: Path) -> None:
        self.image = base / "image"
        self.home = base / "home"
        self.script = base / "entrypoint"
        for directory in (self.image, self.home):
            directory.mkdir()
        self.script.write_bytes(resources.files("tljh_plasma").joinpath("entrypoint.sh").read_bytes())
        self.script.chmod(0o755)
        base.chmod(0o755)
        os.chown(self.home, UID, UID)
        self.directory = self.home / "course"

    def add(self, name: str, text: str = "from the image\n", mode: int = 0o644) -> Path:
        """Add a file to the image's home, which belongs to somebody else there."""
        path = self.image / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def own(self, name: str, text: str = "the person's work\n") -> Path:
        """Add a file to the person's home."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for made in [path, *path.parents]:
            if made == self.home.parent:
                break
            os.lchown(made, UID, UID)
        return path

    def link(self, name: str, target: str) -> Path:
        """Add a symbolic link to the person's home."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.chown(path.parent, UID, UID)
        path.symlink_to(target)
        return path

    def command(self, command: tuple[str, ...], **values: str) -> tuple[list[str], dict[str, str]]:
        """The command line of a start that runs ``command``, and its environment."""
        defaults = {
            "SCRIPT": str(self.script),
            "IMAGE_HOME": str(self.image),
            "PERSON_HOME": str(self.home),
            "ID": str(UID),
            "IMAGE_ID": IMAGE_ID,
            "NAME": "Course",
            "DIRECTORY": "course",
            "IMAGE_PATH": "/usr/local/bin:/usr/bin:/bin",
            "DISK_SIZE": "",
            "TRACE": "",
            "EXTRA": "",
        }
        env = {**os.environ, **defaults, **values}
        return ["unshare", "--mount", "sh", "-c", NAMESPACE, "sh", "/home/entrypoint", *(command or ("pwd",))], env

    def __call__(self, *command: str, expect: int = 0, **values: str) -> Result:
        """Run the entrypoint with ``command`` as the server; ``values`` replace variables of NAMESPACE."""
        argv, env = self.command(command, **values)
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == expect, done.stderr
        return Result(done.stdout, done.stderr)

    def killed_when(self, condition: Callable[[], bool], slow: str) -> None:
        """Start, and kill every process of it the moment ``condition`` holds.

        Args:
            condition: called again and again.
            slow: system calls that take two seconds each, so that there is time to look.
        """
        argv, env = self.command(("true",), TRACE=f"strace -f -o /dev/null -e inject={slow}:delay_enter=2s")
        process = subprocess.Popen(argv, env=env, start_new_session=True)
        try:
            wait_until(lambda: condition() or process.poll() is not None, 60, "condition", interval=0.01)
            assert process.poll() is None, "the start was over before it could be killed"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def files(self) -> dict[str, str]:
        """Files of the environment's directory, without our own and JupyterLab's settings."""
        return {
            str(path.relative_to(self.directory)): path.read_text()
            for path in self.directory.rglob("*")
            if path.is_file() and path.relative_to(self.directory).parts[0] not in (".plasma", ".jupyter")
        }
