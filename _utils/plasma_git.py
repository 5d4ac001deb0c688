"""
Which commit a branch or a tag of a Git repository is at.

Git talks to servers of others here, so it runs as ``nobody``, with a group that nothing else runs with: processes of
``nobody`` that have other groups see neither its memory nor its environment, in which a password is, nor the file with
a key. It reads no configuration of this server, asks nobody anything, and speaks no protocol that runs programs.
"""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.parse

from salt.exceptions import CommandExecutionError

import plasma_run

ACCOUNT = "nobody"
GROUPS = range(65500, 61183, -1)  # of systemd's dynamic users: no package and no administrator gives them away
DIRECTORY = "/run"  # in memory
TIMEOUT = 60
PROTOCOLS = "https:http:git:ssh"
PROXIES = ("http_proxy", "https_proxy", "no_proxy")  # in small letters: libcurl reads http_proxy in no other way
_HASH = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")
_LINE = re.compile(r"([0-9a-f]{40})\t(\S+)")
_MAYBE_PORT = re.compile(r"(?P<host>[^/:\[\]]+@(?:[^/:\[\]]+|\[[^]/]+\])):(?P<port>[1-9][0-9]{0,4})/(?P<path>.+)")
# Asked for one host alone: a server that sends us elsewhere gets no password for there.
_HELPER = (
    '!f() { test "$1" != get || '
    'printf "username=%s\\npassword=%s\\n" "$PLASMA_GIT_USERNAME" "$PLASMA_GIT_PASSWORD"; }; f'
)
_MEANINGS = {
    "Host key verification failed": "the key of its host is not one of known_hosts",
    r"Permission denied \(publickey": "its host does not accept the deploy key",
    "could not read (Username|Password)": "it needs credentials, or does not exist",
    "(response|error:) 407": "the proxy of plasma.hub.sources does not accept its login, or wants one",
    "Authentication failed": "its server does not accept the credentials",
}
_SSH = (
    "ssh -F /dev/null -i {0}/key -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes -o ConnectTimeout=20 "
    "-o StrictHostKeyChecking=yes -o UserKnownHostsFile={0}/known_hosts -o GlobalKnownHostsFile=/dev/null "
    "-o UpdateHostKeys=no -o ForwardAgent=no -o ControlPath=none"
)


def available():
    """
    Return whether Git is installed.
    """
    return shutil.which("git", path=_path()) is not None


def commit(repository, ref="HEAD", credentials=None, deploy_key=None, known_hosts=None, timeout=TIMEOUT, proxy=None):
    """
    Return the commit, 40 hexadecimal digits, that a reference is at. Nothing is fetched. A whole hash is its own
    commit, and nobody is asked about it.

    repository
        Its address: https://, http://, git://, ssh:// or git@HOST:PATH.

    ref
        Branch, tag, ``HEAD`` for the default branch, or a commit. Of a branch and a tag of one name it is the tag, as
        for Git itself.

    credentials
        ``{"username", "password"}`` for http:// and https://. Never give one on a command line.

    deploy_key, known_hosts
        Private key, and lines of known_hosts, for SSH. Never give a key on a command line.

    timeout
        Seconds.

    proxy
        ``{"http_proxy", "https_proxy", "no_proxy"}``, those that there are: what http:// and https:// go through. Their
        URLs may hold a login: never give one on a command line.

    Raises CommandExecutionError when Git is not installed, the repository cannot be read, or has no such reference.
    """
    if _HASH.fullmatch(ref):
        return ref
    if not available():
        raise CommandExecutionError("Git is not installed: apply the state environments as a whole, which installs it.")
    names = ["HEAD"] if ref == "HEAD" else [f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}"]
    listed = _listed(repository, names, credentials, deploy_key, known_hosts, timeout, proxy or {})
    commits = {name: hash_ for hash_, name in _LINE.findall(listed)}
    for name in filter(commits.get, names):
        return commits[name]
    if _SHORT.fullmatch(ref):
        raise CommandExecutionError(
            f"{repository} has no branch or tag {ref}: if that is the beginning of a commit, write all 40 digits of it."
        )
    what = "no commit yet" if ref == "HEAD" else f"no branch or tag {ref}"
    raise CommandExecutionError(f"{repository} has {what}.")


def port_hint(repository: str) -> str | None:
    """Return what to write for an address whose path begins with a number, if that was meant as a port; else None."""
    found = _MAYBE_PORT.fullmatch(repository)
    if not found or int(found["port"]) > 65535:
        return None
    host, port, path = found["host"], found["port"], found["path"]
    return f"{port} is a folder in {repository}: with that port it is ssh://{host}:{port}/{path}"


def _listed(repository, names, credentials, deploy_key, known_hosts, timeout, proxy):
    """What ``git ls-remote`` prints of these references."""
    account, group = pwd.getpwnam(ACCOUNT), _own_group()
    variables = {
        "PATH": _path(),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
        **{name: proxy[name] for name in PROXIES if proxy.get(name)},
    }
    if credentials:
        parts = urllib.parse.urlsplit(repository)
        variables |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"credential.{parts.scheme}://{parts.netloc}.helper",
            "GIT_CONFIG_VALUE_0": _HELPER,
            "PLASMA_GIT_USERNAME": credentials.get("username") or "git",
            "PLASMA_GIT_PASSWORD": credentials["password"],
        }
    command = ["git", "ls-remote", "--quiet", "--", repository, *names]
    with tempfile.TemporaryDirectory(prefix="plasma-git-", dir=DIRECTORY) as directory:
        # Of root and for that group: whoever runs with it can read what is in there and change nothing.
        os.chown(directory, -1, group)
        os.chmod(directory, 0o710)
        if deploy_key:
            for name, text in (("key", deploy_key), ("known_hosts", known_hosts or "")):
                _put(pathlib.Path(directory, name), text, group)
            variables["GIT_SSH_COMMAND"] = _SSH.format(directory)
        return _run(command, variables, account.pw_uid, group, repository, timeout)


def _run(command, variables, uid, gid, repository, timeout):
    """Run Git as somebody else, with all that it starts ended when the time is over."""
    process = subprocess.Popen(
        command,
        env=variables,
        cwd="/",
        user=uid,
        group=gid,
        extra_groups=[],
        umask=0o077,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    hint = f" {hint}." if (hint := port_hint(repository)) else ""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise CommandExecutionError(f"{repository} does not answer within {timeout} seconds.{hint}") from None
    if process.returncode == 0:
        return out
    raise CommandExecutionError(f"{repository} cannot be read ({_reason(_without_logins(err, variables))}).{hint}")


def _without_logins(text, variables):
    """What Git said, without the login of a proxy: libcurl repeats an address that it does not understand."""
    for name in PROXIES:
        login, at, _ = variables.get(name, "").rpartition("://")[2].rpartition("@")
        if at:
            text = text.replace(f"{login}@", "")
            _, _, password = login.partition(":")
            for form in {password, urllib.parse.unquote(password)} - {""}:
                text = text.replace(form, "***")
    return text


def _reason(text):
    """What Git said, in a few words. It never prints a password, and what a server sends is cut."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    for needle, meaning in _MEANINGS.items():
        if re.search(needle, text):
            return meaning
    told = next((line for line in lines if line.startswith(("fatal: ", "ssh: "))), lines[-1] if lines else "no reason")
    plain = "".join(char if char.isprintable() else "?" for char in told.removeprefix("fatal: "))
    return plain[:300].rstrip(".")


def _put(path, text, group):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.chown(path, -1, group)
    path.chmod(0o440)


def _own_group():
    """The number of a group that nobody is in, and that no process runs with but ours."""
    taken = {group.gr_gid for group in grp.getgrall()} | {account.pw_gid for account in pwd.getpwall()}
    return next(number for number in GROUPS if number not in taken)


def _path():
    return plasma_run.PATH
