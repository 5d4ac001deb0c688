"""A server with file systems and quotas, as far as plasma_quota asks for them and changes them."""

from __future__ import annotations

import csv
import io
import os
import pathlib
import types
from unittest.mock import create_autospec

import salt.modules.cmdmod as cmdmod

import plasma_accounts
import plasma_quota_fs as fs
import plasma_quota_fstab as fstab
import plasma_quota_kernel as kernel
import plasma_quota_limits as limits
import plasma_quota_report as report
import plasma_quota_setup as plasma_quota

MODULES = (plasma_quota, fs, fstab, kernel, limits, report)
ROOT = "LABEL=root  /\text4 defaults 0 1"
DEVICES = {"/dev/sda1": "8:1", "/dev/sdb": "8:16"}
NAMES = {"LABEL=root": "/dev/sda1", "UUID=1-2": "/dev/sda1", "LABEL=homes": "/dev/sdb"}
FIELDS = ("BlockUsed", "BlockSoftLimit", "BlockHardLimit", "FileUsed", "FileSoftLimit", "FileHardLimit")


class QuotaServer:
    """
    One mount ``target``, with a kernel that keeps its quotas.

    busy
        ``umount`` fails. fails: programs that fail, with what they say.
    tables
        ``{sort: {id: [used, soft, hard, files used, soft, hard]}}`` in blocks of 1 KiB.
    """

    def __init__(self, directory, monkeypatch, fstype="ext4", target="/", builtin=False):
        self.directory = directory
        self.fstab = directory / "fstab"
        self.fstab.write_text(ROOT + "\n# end", encoding="utf-8")
        self.fstype, self.target, self.builtin = fstype, target, builtin
        self.device = "/dev/sda1" if target == "/" else "/dev/sdb"
        self.options = ["rw", "relatime"]
        self.state = dict.fromkeys(("user", "group"), "counting" if builtin else "off")
        self.files = set()
        self.installed = {"quota"}
        self.supported, self.container, self.busy, self.mounted = True, None, False, True
        self.fails, self.commands, self.faults = {}, [], ""
        self.tables = {"user": {0: [4, 0, 0, 2, 0, 0]}, "group": {0: [4, 0, 0, 2, 0, 0]}}
        self.graces = {sort: {"block": 604800, "inode": 604800} for sort in ("user", "group")}
        self.accounts = {"root": (0, "/root"), "ada": (1001, "/home/ada"), "games": (5, "/usr/games")}
        self.group_ids = {"root": 0, "maths": 2001}
        monkeypatch.setattr(fstab, "FSTAB", self.fstab)
        monkeypatch.setattr(fstab, "NOTES", directory / "notes")
        monkeypatch.setattr(fstab, "LOCK", directory / "lock")
        monkeypatch.setattr(limits, "NOTES", directory / "notes" / "quota-limits.json")
        monkeypatch.setattr(kernel, "SYSTEMD", directory / "systemd")
        (directory / "systemd").mkdir()
        monkeypatch.setattr(plasma_quota, "_empty", lambda path: path not in self.files)
        monkeypatch.setattr(limits.pwd, "getpwall", self._passwd)
        monkeypatch.setattr(limits.pwd, "getpwnam", {}.__getitem__)
        monkeypatch.setattr(limits.pwd, "getpwuid", {}.__getitem__)
        for attribute in ("PASSWD", "GROUP"):
            (directory / attribute).touch()
            monkeypatch.setattr(plasma_accounts, attribute, str(directory / attribute))
        monkeypatch.setattr(limits.grp, "getgrnam", self._group)
        monkeypatch.setattr(limits.grp, "getgrall", lambda: [self._group(name) for name in self.group_ids])
        self._which = lambda name, path=None: f"/usr/sbin/{name}" if "quota" in self.installed else None
        monkeypatch.setattr(kernel.shutil, "which", self._which)

    def loader_modules(self):
        """For ``configure_loader_modules``."""
        functions = {"cmd.run_all": create_autospec(cmdmod.run_all, side_effect=self.run)}
        for module in MODULES:
            for name, function in vars(module).items():
                if callable(function) and getattr(function, "__module__", "") == module.__name__ and name[0] != "_":
                    functions[f"{module.__name__.rpartition('.')[2]}.{name}"] = function
        functions.update(
            {
                "plasma_mounts.mounts": self.mounts,
                "plasma_quota_fs.holder": lambda path: {**self.entry(), "looked_at": path},
                "plasma_quota_fs.node": lambda mount: self.device,
                "plasma_quota_fs.built_in": lambda path: self.builtin,
                "plasma_quota_fs.identity": lambda path: {"uuid": "1-2", "label": "root"},
                "plasma_quota_fs.state": lambda path: dict(self.state),
                "plasma_quota_fs.grace": lambda path: {
                    sort: None if self.state[sort] == "off" else dict(times) for sort, times in self.graces.items()
                },
                "plasma_quota_fs.container": lambda: self.container,
                "plasma_quota_fs.resolve": self.resolve,
                "plasma_quota_kernel.supported": lambda: self.supported,
                "plasma_quota_kernel.xfs_problem": lambda: None,
            }
        )
        self.functions = functions
        return {module: {"__salt__": functions} for module in MODULES}

    def resolve(self, name):
        path = NAMES.get(name, name)
        if path not in DEVICES:
            raise fs.SaltInvocationError(f"plasma.quotas.device {name}: there is no such block device.")
        return {"path": path, "device": DEVICES[path]}

    def entry(self):
        return {
            "device": DEVICES[self.device],
            "root": "/",
            "target": self.target,
            "options": list(self.options),
            "type": self.fstype,
            "source": self.device,
        }

    def mounts(self):
        return [self.entry()] if self.mounted else []

    def _passwd(self):
        return [
            types.SimpleNamespace(pw_name=name, pw_uid=uid, pw_dir=home) for name, (uid, home) in self.accounts.items()
        ]

    def _group(self, name):
        return types.SimpleNamespace(gr_name=name, gr_gid=self.group_ids[name])

    # What programs do.

    def run(self, command, **options):
        assert all(isinstance(word, str) for word in command)
        self.commands.append(command)
        program = os.path.basename(command[0])
        if program in self.fails:
            return {"retcode": 1, "stdout": "", "stderr": self.fails[program], "pid": 1}
        answer = getattr(self, "_" + program.replace("-", "_"), lambda *_: "")(command[1:], options)
        if isinstance(answer, str):
            return {"retcode": 0, "stdout": answer, "stderr": "", "pid": 1}
        return {"retcode": 1, "stdout": "", "stderr": f"{program}: {answer[0]}", "pid": 1}

    def ran(self, program):
        return [command[1:] for command in self.commands if command[0] == program]

    def _apt_get(self, words, options):
        if "install" in words:
            self.installed |= set(words[words.index("install") + 1 :])
        return ""

    def _modprobe(self, words, options):
        return "" if self.supported or "linux-modules-extra-test" in self.installed else ("Module not found",)

    def _mount_options(self, options):
        for option in options:
            name, equals, value = option.partition("=")
            self.options = [old for old in self.options if old.partition("=")[0] != name]
            if value or not equals:
                self.options.append(option)
        if "noquota" in self.options:
            self.options = [old for old in self.options if "quota" not in old]

    def _mount(self, words, options):
        if "-o" in words and words[words.index("-o") + 1].startswith("remount,"):
            self._mount_options(words[words.index("-o") + 1].split(",")[1:])
            return ""
        lines = {line["target"]: line for line in fstab.entries(self.fstab.read_text(encoding="utf-8"))}
        self.mounted = True
        quota = {"uquota", "gquota", "usrquota", "grpquota"} & set(lines.get(words[-1], {"options": []})["options"])
        if quota and self.fstype == "xfs":
            self.options += ["usrquota", "grpquota"]
            self.state = {"user": "on", "group": "on"}
        return ""

    def _umount(self, words, options):
        if self.busy:
            return ("target is busy.",)
        self.mounted = False
        return ""

    def _quotacheck(self, words, options):
        sorts = {"-u": "user", "-g": "group"}
        for word in words:
            if word in sorts:
                path = os.path.join(self.target, f"aquota.{sorts[word]}")
                if path in self.files and "-c" in words:
                    raise AssertionError("tables that are there must not be created anew: their limits are lost")
                self.files.add(path)
        return ""

    def _quotaon(self, words, options):
        for word, sort in (("-u", "user"), ("-g", "group")):
            if word in words:
                if (
                    self.fstype != "xfs"
                    and not self.builtin
                    and f"{self.target.rstrip('/')}/aquota.{sort}" not in self.files
                ):
                    return ("using aquota on /: No such file or directory",)
                self.state[sort] = "on"
        return ""

    def _quotaoff(self, words, options):
        self.state = dict.fromkeys(self.state, "off" if not self.builtin and self.fstype != "xfs" else "counting")
        return ""

    def _findmnt(self, words, options):
        return self.faults if words[-1].endswith("-new") else ""

    def _systemctl(self, words, options):
        return ""

    def _repquota(self, words, options):
        sort = "user" if "--user" in words else "group"
        assert {"--verbose", "--no-names", "--raw-grace", "--output=csv"} <= set(words)
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(
            [sort.title(), "BlockStatus", "FileStatus", *FIELDS[:3], "BlockGrace", *FIELDS[3:], "FileGrace"]
        )
        for number, row in self.tables[sort].items():
            writer.writerow([f"#{number}", "ok", "ok", *row[:3], "0", *row[3:], "0"])
        return text.getvalue()

    def _setquota(self, words, options):
        sort = "user" if "--user" in words else "group"
        if "--edit-period" in words:
            block, inode = words[words.index("--edit-period") + 1 :][:2]
            self.graces[sort] = {"block": int(block), "inode": int(inode)}
            return ""
        assert "--batch" in words
        for line in options["stdin"].splitlines():
            number, *new = (int(word) for word in line.split())
            row = self.tables[sort].setdefault(number, [0] * 6)
            row[1:3], row[4:6] = new[:2], new[2:]
        return ""


def text(path):
    return pathlib.Path(path).read_text(encoding="utf-8")
