"""
The roster: a file as Salt's own (``flat``), with the directory of Salt on a server where nobody but root can make it.

salt-ssh runs as root what it finds in that directory, whoever made it, if a checksum in it is right; and anybody can
compute that. Salt's own place for it is below ``/var/tmp``, with a name that follows from the controller's: whoever has
a shell on a server could make it before an operator comes from another machine, or after it was tidied away.

What is wrong in the file, or matches nothing, ends salt-ssh with a line that says so. Salt itself would go on with what
is left, and end with 0.

As this is the first of ours that every salt-ssh loads, more of it is mended here: on a server where Salt cannot be put,
it tries again without end; after Ctrl-C it ends with 0; each call sends our modules twice; and it starts Salt on the
server twice, the first time only to learn what the server is.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import importlib.util
import json
import os
import re
import shlex
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

import salt.client.ssh
import salt.config
import salt.loader
import salt.scripts
import salt.utils.network
from salt.client.ssh.wrapper import FunctionWrapper
from salt.roster import get_roster_file
from salt.template import compile_template

__virtualname__ = "plasma_roster"

# Root's on every system, and not tidied.
ABOVE = "/var/lib"
UMASK = 0o022
TYPES = {
    "host": (str, "a name or an address"),
    "user": (str, "the name of an account"),
    "port": (int | str, "a number"),
    "priv": (str, "the path of a key, or agent-forwarding"),
    "sudo": (bool, "true or false"),
    "timeout": (int, "a number of seconds"),
    "ssh_options": (list, "a list"),
    "minion_opts": (dict, "keys and values"),
    "grains": (dict, "keys and values"),
}
KNOWN = {
    *TYPES,
    *("passwd", "priv_passwd", "sudo_user", "tty", "identities_only", "set_path", "thin_dir", "cmd_umask", "relenv"),
    *("ssh_pre_hook", "ssh_pre_flight", "ssh_pre_flight_args", "remote_port_forwards", "disable_wipe"),
    *("keepalive", "keepalive_interval", "keepalive_count_max", "mine_functions", "winrm", "ssh_python_env"),
}
# How often Salt is sent to a server that does not take it.
TRIES = 2
# Seconds for which a server is what it said it is. On the server, Salt keeps for five minutes what it is called.
FRESH = 60
INTERRUPTED = (
    "\nInterrupted. What was begun on the servers goes on there: `make follow ID=...` shows it, and the next apply is "
    "refused until it has ended."
)
EXAMPLE = "roster.example shows how an entry looks."


def __virtual__():
    return __virtualname__


def targets(tgt, tgt_type="glob", **kwargs):
    """
    Return the servers of the roster file that match.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' test.ping
    """
    _mind_signals()
    _mind_transfers()
    _mind_facts()
    servers = _read(**kwargs)
    match = salt.loader.utils(__opts__)["roster_matcher.targets"]
    found = match({name: salt.config.apply_sdb(entry) for name, entry in servers.items()}, tgt, tgt_type, "ipv4")
    asked = tgt.split(",") if isinstance(tgt, str) else list(tgt)
    missing = [name for name in asked if name not in servers] if tgt_type == "list" else []
    # A list of all servers asks for none; root@host asks for one that is in no roster.
    if (missing or not found) and not __opts__.get("list_hosts") and not (tgt_type == "glob" and "@" in tgt):
        wanted = " or ".join(missing) or tgt
        raise SystemExit(f"No server of {_name()} matches {wanted}. It has: {', '.join(sorted(servers))}.")
    for server in found.values():
        # sudo's may be stricter, and all that packages, tools and Salt itself make would be closed to everybody.
        server.setdefault("cmd_umask", UMASK)
    if not (__opts__.get("rand_thin_dir") or __opts__.get("relenv")):
        for server in found.values():
            server.setdefault("thin_dir", _directory(server.get("user") or __opts__["ssh_user"]))
    return found


def _name():
    return Path(__opts__.get("roster_file") or "roster").name


def _text(files, path, name):
    """Salt opens some files itself, and fails where they are not UTF-8, before anything of ours is asked."""
    try:
        files.decoded(Path(path).read_bytes())
    except files.Mistake as mistake:
        raise SystemExit(f"{name}:{mistake.line}: {mistake.why}") from None


def _read(**kwargs):
    """The entries of the file; ends the program with a line for each mistake."""
    try:
        path = get_roster_file(__opts__)
    except OSError:
        raise SystemExit(
            f"{_name()} cannot be read: copy roster.example to it, and call salt-ssh in this directory, or ./plasma."
        ) from None
    spec = importlib.util.spec_from_file_location(
        "plasma_pillar", Path(__file__).resolve().parents[1] / "_pillar" / "plasma.py"
    )
    assert spec and spec.loader
    plasma_pillar = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plasma_pillar)
    files = plasma_pillar.schema("sls_file")
    _text(files, path, _name())
    for root in map(Path, (__opts__.get("pillar_roots") or {}).get("base") or []):
        if (root / "top.sls").is_file():
            _text(files, root / "top.sls", f"{root.name}/top.sls")
    options = (__opts__["renderer"], __opts__["renderer_blacklist"], __opts__["renderer_whitelist"])
    rendered = compile_template(
        path, salt.loader.render(__opts__, {}), *options, sls=files.ROSTER, _pillar_rend=True, **kwargs
    )
    told = files.take(rendered)
    lines = next((one["lines"] for one in told.values() if "lines" in one), {})
    servers = {str(name): entry for name, entry in rendered.items()}
    if wrong := files.mistakes(told, KNOWN) or list(_wrong(servers, lines)):
        raise SystemExit("\n".join(wrong))
    return servers


def _wrong(servers, lines):
    """A line for each mistake in the entries."""
    if not servers:
        yield f"{_name()} names no server: {EXAMPLE}"
    for server, entry in servers.items():
        place = f"{_name()}:{lines.get(server, 1)}: "
        entry = {"host": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, dict) or not entry.get("host"):
            yield f"{place}the server has no `host`; {EXAMPLE}"
        for key, value in entry.items() if isinstance(entry, dict) else ():
            type_, words = TYPES.get(key, (object, ""))
            if key not in KNOWN:
                close = difflib.get_close_matches(str(key), KNOWN, n=1)
                shown = f"`{key}`" if re.fullmatch("[a-z_]{1,20}", str(key)) else "one of its keys"
                yield f"{place}{shown} is unknown{f'; did you mean `{close[0]}`?' if close else '.'}"
            elif value is not None and not isinstance(value, type_):
                yield f"{place}`{key}` is to be {words}."


def _directory(user):
    """For each user and each controller another one: each brings a copy of its own."""
    name = re.sub(r"[^a-zA-Z0-9._@-]", "_", user)
    controller = uuid.uuid3(uuid.NAMESPACE_DNS, salt.utils.network.get_fqhostname()).hex[:6]
    return f"{ABOVE}/.{name}_{controller}_salt"


def _mind_signals():
    """Let an interrupted salt-ssh end as an interrupted program does; Salt's own handler ends it with 0."""
    main = os.getpid()

    def ended(number, _frame):
        # The processes for the servers are copies of this one.
        if os.getpid() == main:
            print(INTERRUPTED, file=sys.stderr, flush=True)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        handler = getattr(signal.getsignal(number), "func", None)
        if handler is salt.scripts._handle_signals and threading.current_thread() is threading.main_thread():
            signal.signal(number, ended)


def _mind_transfers():
    """Let salt-ssh send our modules only where they are missing, and give up on a server that does not take things."""
    salts = salt.client.ssh.Single.cmd_block
    if salts.__name__ == "_cmd_block":
        return

    def _cmd_block(self, *args, **kwargs):
        tries = getattr(self, "plasma_tries", 0)
        if tries > TRIES:
            # In this form Salt shows the sentence alone.
            return json.dumps({"local": _no_room(self)}), "", 1
        self.plasma_tries = tries + 1
        try:
            for self.plasma_asked in (False, True):
                answer = salts(self, *args, **kwargs)
                # Only half of it had arrived, or another operator's salt-ssh took it away.
                if not (answer[2] and "in unpack_ext" in str(answer[1])):
                    break
            why = _host_key(self.target, *answer)
            return (json.dumps({"local": why}), "", 1) if why else answer
        finally:
            self.plasma_tries = tries

    def _deploy_ext(self):
        # Salt sends all of our modules before each of its two calls, though a server with other ones asks for them.
        if self.plasma_asked:
            return sends(self)
        self.plasma_asked = True
        return True

    sends = salt.client.ssh.Single.deploy_ext
    salt.client.ssh.Single.cmd_block = _cmd_block
    salt.client.ssh.Single.deploy_ext = _deploy_ext


def _mind_facts():
    """Let salt-ssh ask a server what it is once a minute, and not before every call that needs a pillar."""
    salts = FunctionWrapper.__getitem__
    if salts.__name__ == "_getitem":
        return
    cache, again = __opts__["cachedir"], __opts__.get("refresh_cache")

    def _getitem(self, cmd):
        function = salts(self, cmd)
        if cmd != "test.opts_pkg" or again:
            return function
        server = [str(self.kwargs.get(key)) for key in ("host", "port", "user", "thin_dir")]
        asked = hashlib.sha256(json.dumps([server, self.minion_opts], default=str).encode()).hexdigest()
        return functools.partial(_facts, Path(cache, "minions", self.kwargs["id_"], f"facts-{asked[:16]}"), function)

    FunctionWrapper.__getitem__ = _getitem


def _facts(path, function):
    """What a server is (its grains, and the options of Salt there), as it said a minute ago, or as it says now."""
    try:
        if 0 <= time.time() - path.stat().st_mtime < FRESH:
            return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    facts = function()
    with contextlib.suppress(OSError, TypeError):
        text = json.dumps(facts)
        new = path.with_name(f"{path.name}-{os.getpid()}")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        new.replace(path)
    return facts


def _host_key(target, stdout, stderr, code):
    """What to do where ssh went no further than the server's host key; Salt would advise to take any (`-i`)."""
    # What ssh itself says, and Salt to its question; a function of Salt answers with JSON.
    said = "" if code not in (254, 255) or str(stdout).startswith("{") else f"{stdout}\n{stderr}"
    host, port = target["host"], str(target.get("port") or 22)
    login = " ".join(["ssh", *(() if port == "22" else ("-p", port)), f"{target.get('user') or 'root'}@{host}"])
    if "HOST IDENTIFICATION HAS CHANGED" in said:
        known = shlex.quote(host if port == "22" else f"[{host}]:{port}")
        return (
            f"The host key of {host} is another one than before. If the server was installed anew, forget the old key "
            f"with `ssh-keygen -R {known}`, log in once with `{login}`, compare the fingerprint, then call this again. "
            "If not, somebody may be in its place: ask who keeps the server."
        )
    if "The host key needs to be accepted" in said or "Host key verification failed" in said:
        return (
            f"The host key of {host} is not known here: log in once with `{login}`, compare the fingerprint, then call "
            "this again."
        )
    return None


def _no_room(single):
    """Why Salt cannot be put on a server: mostly there is no room for it."""
    place = shlex.quote(os.path.dirname(single.thin_dir))
    told = single.shell.exec_cmd(f"df -P {place}; df -Pi {place}")[0]
    # "Filesystem 1024-blocks Used Available Capacity Mounted on", and the same for files.
    rows = [line.split(None, 5) for line in str(told).splitlines() if re.search(r" \d+% ", line)]
    full = [row[5] for row in rows if len(row) == 6 and int(row[4].rstrip("%")) >= 99]
    if full:
        what = f"the disk of {full[0]} is full: make room there (`df -h`, `df -i`), then call this again"
    else:
        what = f"look there, remove {single.thin_dir}, then call this again"
    return f"Salt could not be put into {single.thin_dir} on this server, {what}. Nothing was changed."
