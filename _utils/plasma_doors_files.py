"""
The files that close the host's doors: a drop-in of sshd, limits of slices, a condition for sessions' own managers, and
two lines in the PAM configuration of cron and at.

Imported by the keeper of the doors without Salt, as ``plasma_doors`` is.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import re

import plasma_doors
from plasma_doors import Config, Standing

Changes = dict[str, dict[str, "str | None"]]

SSHD_CONFIG, SSHD, SSHD_RUN = "/etc/ssh/sshd_config", "/usr/sbin/sshd", "/run/sshd"
DROP_IN = "/etc/ssh/sshd_config.d/10-plasma.conf"
UNITS, LIMITS = "/etc/systemd/system", "50-plasma.conf"
PAM = ("/etc/pam.d/cron", "/etc/pam.d/crond", "/etc/pam.d/atd")
PROGRAM = "/usr/local/lib/plasma/doors.py"
_HEAD = "# Managed by Plasma on Salt (plasma.ssh).\n"
_BEGIN = "# Plasma (plasma.ssh): people of the hub have no jobs outside of their containers.\n"
_END = "# Plasma: end.\n"
_ASK = f"/usr/bin/python3 -I {PROGRAM} allows"


def texts(config: Config | None, who: Standing) -> dict[str, str | None]:
    """
    Return what the files have to say, ``{path: text, or None for a file that goes}``; doors that this server has not
    are left out.

    config, who
        As of ``plasma_doors.read`` and ``plasma_doors.standing``; no config: all of it goes.
    """
    found = {path: None for path in glob.glob(f"{UNITS}/user-*.slice.d/{LIMITS}")}
    found[f"{UNITS}/user@.service.d/{LIMITS}"] = None
    for path in PAM:
        text = read(path)
        if text is not None:
            found[path] = (_pam(who["first"]) if config else "") + _without_block(text)
    if os.path.exists(SSHD) or os.path.exists(DROP_IN):
        found[DROP_IN] = sshd(who) if config else None
    if not config:
        return found
    found[f"{UNITS}/user@.service.d/{LIMITS}"] = f"{_HEAD}[Service]\nExecCondition=+{_ASK} session %i\n"
    limits = config["limits"]
    found[f"{UNITS}/user-.slice.d/{LIMITS}"] = (
        f"{_HEAD}[Slice]\nMemoryMax={limits['memory']}\nMemorySwapMax=0\nCPUQuota={round(limits['cpu'] * 100)}%\n"
        f"TasksMax={limits['tasks']}\n"
    )
    for uid in who["free_uids"]:
        # In place of the file of that name for all.
        found[f"{UNITS}/user-{uid}.slice.d/{LIMITS}"] = f"{_HEAD}# No limits of plasma.ssh for this account.\n"
    return found


def sshd(who: Standing) -> str:
    """
    Return the text of sshd's drop-in. It names who is let in, so that an account that is made later is not, and holds
    for every way to prove who one is. `Match all` ends it: what follows in sshd's configuration is for everybody.

    who
        As of ``plasma_doors.standing``.
    """
    users, groups = (",".join(["*", *(f"!{name}" for name in who[kind])]) for kind in ("users", "groups"))
    return f"{_HEAD}Match User {users} Group {groups}\n    DenyUsers *\nMatch all\n"


def compare(config: Config | None, who: Standing) -> Changes:
    """
    Return how the files differ, ``{path: {"old": text or None, "new": text or None}}``.

    config, who
        As for ``texts``.
    """
    found = {}
    for path, text in texts(config, who).items():
        current = read(path)
        if current != text:
            found[path] = {"old": current, "new": text}
    return found


def put(config: Config | None, who: Standing) -> Changes:
    """
    Write the files, and have sshd and systemd read them; returns what ``compare`` does.

    config, who
        As for ``texts``.

    Raises RuntimeError, with one sentence, when sshd would not take its file, or would shut out somebody who is to be
    let in: it goes on with what it had.
    """
    changes = compare(config, who)
    # The others first: they do not depend on what sshd makes of its own.
    for path in sorted(set(changes) - {DROP_IN}):
        _replace(path, changes[path]["new"])
    if any(path.startswith(UNITS) for path in changes):
        _check("systemctl", "daemon-reload")
    if DROP_IN in changes:
        _put_sshd(changes[DROP_IN], who)
    return changes


def verdict(name: str) -> bool:
    """
    Return whether sshd's configuration, as it is on the disk, refuses an account whatever it shows.

    name
        Login name.

    Raises RuntimeError when sshd does not take it.
    """
    connection = f"user={name},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22"
    done = plasma_doors.run(SSHD, "-T", "-C", connection)
    if done.returncode:
        raise RuntimeError(f"sshd does not take its configuration: {_last(done)}.")
    return "denyusers *" in done.stdout.splitlines()


def stop_managers(who: Standing) -> list[int]:
    """
    Stop the managers of sessions (``user@UID.service``) that run for people who may have none, with the units that they
    run: those of lingering accounts are there since the server's start. Returns the numbers.

    who
        As of ``plasma_doors.standing``.
    """
    words = ("systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating", "user@*.service")
    listed = plasma_doors.run(*words).stdout
    found = [int(uid) for uid in re.findall(r"^user@(\d+)\.service", listed, re.MULTILINE)]
    found = [uid for uid in found if who["first"] <= uid <= who["last"] and uid not in who["session_uids"]]
    if found:
        _check("systemctl", "stop", *(f"user@{uid}.service" for uid in found))
    return found


def _put_sshd(change, who):
    # Of a server on which systemd waits for connections in sshd's place, and none has come yet.
    _directory(SSHD_RUN)
    try:
        _replace(DROP_IN, change["new"])
        if change["new"] is not None:
            _verify(who)
        done = plasma_doors.run(SSHD, "-t") if os.path.exists(SSHD) else None
        if done and done.returncode:
            raise RuntimeError(f"sshd does not take its configuration: {_last(done)}. Mend it: sshd -t.")
    except RuntimeError:
        _replace(DROP_IN, change["old"])
        raise
    for unit in ("ssh.service", "sshd.service"):
        if plasma_doors.run("systemctl", "is-active", "--quiet", unit).returncode == 0:
            _check("systemctl", "reload", unit)
            break


def _verify(who):
    """Ask sshd itself about those who must be let in, and about one who must not."""
    for name in ["root", *who["privileged"], *who["came_as"]]:
        if verdict(name):
            raise RuntimeError(
                f"SSH is left as it was, because its configuration would shut out {name!r}, who may become root: "
                f"look for DenyUsers in {SSHD_CONFIG} and the files beside it."
            )
    sample = next(iter(who["shut"]), "nobody")
    if not verdict(sample):
        raise RuntimeError(
            f"SSH is left as it was, because {SSHD_CONFIG} does not read {DROP_IN}: put the line "
            f"`Include {os.path.dirname(DROP_IN)}/*.conf` first in it."
        )


def _pam(first):
    return (
        f"{_BEGIN}account [success=1 default=ignore] pam_succeed_if.so quiet uid < {first}\n"
        f"account requisite pam_exec.so quiet {_ASK} job\n{_END}"
    )


def _without_block(text):
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    return before + after if begin and end else text


def read(path: str) -> str | None:
    """Return what a file holds, None when it is not there."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def _replace(path, text):
    """As plasma_files.write does, which the keeper has not: the old content or the new, at every moment."""
    directory = pathlib.Path(path).parent
    if text is None:
        pathlib.Path(path).unlink(missing_ok=True)
        if directory.parent == pathlib.Path(UNITS) and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
        return
    _directory(directory)
    beside = f"{path}.plasma-new"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644), "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text.encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _directory(path):
    """As plasma_files.directory, which the keeper has not: for everybody to look into, whatever the umask is."""
    path = pathlib.Path(path)
    if not path.exists():
        _directory(path.parent)
        with contextlib.suppress(FileExistsError):  # another run is faster
            path.mkdir(0o700)
            path.chmod(0o755)


def _check(*command):
    done = plasma_doors.run(*command)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {_last(done)}.")


def _last(done):
    return (" ".join(done.stderr.split()) or f"exit code {done.returncode}").rstrip(".")
