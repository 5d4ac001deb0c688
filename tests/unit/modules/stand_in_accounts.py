"""A server's account files and homes in a directory, with stand-ins for vipw and vigr, for tests that need no root."""

from __future__ import annotations

import os
import pathlib

import _modules.plasma_groups as groups
import _modules.plasma_users as users
import plasma_files
import plasma_run
import plasma_users_homes as homes
import plasma_users_observe as observe

REAL_RUN = plasma_run.run
HASH = "$6$rounds=5000$saltsaltsalt$0123456789abcdefghijklmnopqrstuvwxyzABCDEF./"
OTHER_HASH = "$y$j9T$ZkZ3ZkZ3ZkZ3ZkZ3ZkZ3Z.$0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
PASSWD = """\
root:x:0:0:root:/root:/bin/bash
games:x:5:60:games:/usr/games:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
ubuntu:x:1000:1000:Ubuntu,,,:/home/ubuntu:/bin/bash
"""
SHADOW = """\
root:*:19000:0:99999:7:::
games:*:19000:0:99999:7:::
nobody:*:19000:0:99999:7:::
ubuntu:$6$a$b:19000:0:99999:7:::
"""
GROUP = """\
root:x:0:
sudo:x:27:ubuntu
video:x:44:
nogroup:x:65534:
ubuntu:x:1000:
"""
GSHADOW = """\
root:*::
sudo:*::ubuntu
video:*::
nogroup:*::
ubuntu:!::
"""
# What vipw(8) of shadow 4.13 does, as far as it matters here. `before-KIND` in the root is somebody else, who changes
# the file just before; `KIND.lock` is a lock that somebody else holds.
VIPW = """\
#!/bin/sh
case $0 in *vigr) kind=group shadow=gshadow ;; *) kind=passwd shadow=shadow ;; esac
while [ $# -gt 0 ]; do
    case $1 in -s) kind=$shadow ;; -R) root=$2; shift ;; esac
    shift
done
file=$root/etc/$kind
[ -x "$root/before-$kind" ] && "$root/before-$kind" "$file"
if [ -e "$file.lock" ]; then
    echo "vipw: Couldn't lock file: File exists" >&2
    exit 1
fi
cp -p "$file" "$file.edit"
if ! sh -c "$VISUAL $file.edit"; then
    echo "vipw: $VISUAL returned with status 1" >&2
    rm -f "$file.edit"
    exit 1
fi
if [ "$(stat -c %Y "$file")" = "$(stat -c %Y "$file.edit")" ]; then
    rm -f "$file.edit"
    exit 0
fi
cp -p "$file" "$file-"
mv "$file.edit" "$file"
echo "$kind" >> "$root/written"
"""


class StandInServer:
    """
    ``root`` is the directory. ``owners`` holds what was given to whom, by path within the server; everything else is
    root's. ``calls`` of commands other than vipw and vigr.
    """

    def __init__(self, directory: pathlib.Path, monkeypatch):
        self.root, self.calls, self._owners = str(directory / "server"), [], {}
        tools = directory / "tools"
        for path in (tools, *(self.path(name) for name in ("etc/skel", "run", "home", "bin", "var/lib"))):
            path.mkdir(parents=True)
        for name in ("vipw", "vigr"):
            (tools / name).write_text(VIPW)
            (tools / name).chmod(0o755)
        monkeypatch.setattr(plasma_run, "PATH", f"{tools}:{plasma_run.PATH}")
        for name, content in (("passwd", PASSWD), ("shadow", SHADOW), ("group", GROUP), ("gshadow", GSHADOW)):
            self.write(f"etc/{name}", content)
        self.write("etc/skel/.profile", "# profile\n")
        self.write("proc/self/mountinfo", "")
        # So few numbers that none are left out at the beginning.
        self.write("etc/login.defs", "UID_MAX 30000\nGID_MAX 30000\n")
        for shell in ("bash", "zsh"):
            self.write(f"bin/{shell}", "#!/bin/sh\n").chmod(0o755)
        monkeypatch.setattr(plasma_files, "_ROOT_UID", os.getuid())
        monkeypatch.setattr(observe, "status", self._status)
        for name in ("chown", "lchown"):
            monkeypatch.setattr(homes.os, name, self._chown)
        self.home("ubuntu", 1000)

    def path(self, name: str) -> pathlib.Path:
        return pathlib.Path(self.root, name.lstrip("/"))

    def write(self, name: str, content: str) -> pathlib.Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
        return path

    def home(self, name: str, uid: int) -> pathlib.Path:
        """A home that is there already, with a file in it."""
        path = self.path(f"home/{name}")
        path.mkdir()
        (path / "work.txt").write_text(f"of {name}\n")
        self._chown(path, uid, uid)
        return path

    def text(self, kind: str) -> str:
        return self.path(f"etc/{kind}").read_text(encoding="utf-8", errors="surrogateescape")

    def rows(self, kind: str) -> dict[str, list[str]]:
        return {line.split(":")[0]: line.split(":") for line in self.text(kind).splitlines()}

    def members(self, group: str) -> list[str]:
        found = [self.rows(kind)[group][3] for kind in ("group", "gshadow")]
        assert found[0] == found[1]
        return found[0].split(",") if found[0] else []

    def snapshot(self) -> dict[str, str]:
        """Everything on the server but its lock: paths with what they hold."""
        found = {}
        for base, _, names in os.walk(self.root):
            for name in names:
                path = pathlib.Path(base, name)
                if not name.endswith(".lock"):
                    found[str(path.relative_to(self.root))] = path.read_text(errors="replace")
            found[str(pathlib.Path(base).relative_to(self.root)) + "/"] = ""
        return found

    def written(self) -> list[str]:
        """Which of the four files were written, in order, since the last call."""
        path = self.path("written")
        found = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def meanwhile(self, kind: str, script: str) -> None:
        """Somebody else does this (`$1` is the file) just before the file is opened for editing; once."""
        path = self.write(f"before-{kind}", f'#!/bin/sh\nrm -- "$0"\n{script}\n')
        path.chmod(0o755)

    def owner(self, name: str) -> tuple[int, int] | None:
        found = os.lstat(self.path(name))
        return self._owners.get((found.st_dev, found.st_ino))

    def _chown(self, path, uid, gid):
        found = os.lstat(path)
        self._owners[(found.st_dev, found.st_ino)] = (uid, gid)

    def _status(self, path, root="/"):
        full = pathlib.Path(root, path.lstrip("/"))
        if not os.path.lexists(full):
            return None
        kind = "symbolic link" if full.is_symlink() else "directory" if full.is_dir() else "file"
        found = os.lstat(full)
        uid, gid = self._owners.get((found.st_dev, found.st_ino), (os.getuid(), os.getgid()))
        return {"kind": kind, "uid": uid, "gid": gid}

    def run(self, command, **options):
        """`cmd.run_all` of tools that only root may use."""
        if command[0] in ("vipw", "vigr", "rm"):
            done = REAL_RUN(command, **options)
            return {"retcode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
        self.calls.append(command)
        return {"retcode": 0, "stdout": "", "stderr": ""}

    def loader_modules(self, **others) -> dict:
        """For ``configure_loader_modules``."""
        functions = {"cmd.run_all": self.run, **others}
        return {module: {"__salt__": functions} for module in (groups, users)}
