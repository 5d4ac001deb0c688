"""
Join this server to a directory of people with sssd, and take that back.

What was done here is noted in /var/lib/plasma/directory.json, root's alone: which packages came with it, and the domain
that was joined. A configuration of sssd that is not ours is never touched, and what was in one of ours is kept below
/var/backups/plasma.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import ssl
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_directory_conf as conf
import plasma_directory_dns
import plasma_directory_join
import plasma_files
import plasma_quota_kernel
import plasma_run
import plasma_systemd
import plasma_trust

NOTE = pathlib.Path("/var/lib/plasma/directory.json")
KEYTAB = pathlib.Path("/etc/krb5.keytab")
BACKUPS = pathlib.Path("/var/backups/plasma/directory")
CACHE = pathlib.Path("/var/lib/sss/db")
PAM_AUTH = pathlib.Path("/etc/pam.d/common-auth")
UNIT = "sssd.service"
ONLINE = 60  # seconds until sssd has reached the directory
CONNECT = 10  # seconds for one server
# A request to go on with TLS: message 1, extended request 1.3.6.1.4.1.1466.20037 (RFC 4511, 4.14).
_START_TLS = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"

# Not gone with sssd: whatever asks the network needs them.
_KEPT = {"ca-certificates", "openssl"}
_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}

Changes = dict[str, dict[str, Any]]


def compare(wanted: conf.Wanted) -> Changes:
    """
    Return what ``apply`` would change, ``{what: {"old", "new"}}``; no secret is in it. Nothing is asked of the network.

    Raises CommandExecutionError, with one sentence, where sssd is set up by somebody else.
    """
    note, old = _note(), _read(conf.SSSD)
    if foreign():
        raise CommandExecutionError(
            f"{conf.SSSD} is there and not from here: this server asks a directory already, whose people may use the "
            "hub as they are, so take plasma.directory out; or move that file away first."
        )
    changes: Changes = {}
    missing = [name for name in wanted.packages if not _installed(name)]
    if missing:
        changes["packages"] = {"old": None, "new": missing}
    if wanted.kind == "ad" and (note.get("joined") != wanted.domain or not KEYTAB.exists()):
        changes["joined"] = {"old": note.get("joined"), "new": wanted.domain}
    changes |= conf.difference(old, conf.text(wanted))
    if wanted.ca_source and _bytes(conf.CA) != _bytes(wanted.ca_source):
        changes[conf.CA] = {"old": _read(conf.CA) and "another", "new": "written"}
    if _read(conf.PAM) != conf.PAM_TEXT:
        changes[conf.PAM] = {"old": _read(conf.PAM) and "another", "new": "written"}
    if not missing and not _guarded():
        changes["PAM"] = {"old": "a directory answers for accounts of this server", "new": "it does not"}
    if not missing and old is not None and not plasma_systemd.active(UNIT):
        changes[UNIT] = {"old": "stopped", "new": "running"}
    return changes


def foreign() -> bool:
    """Return whether sssd is set up, and not by Plasma: before, or by hand after an apply that failed."""
    return not (_read(conf.SSSD) or conf.OURS).startswith(conf.OURS)


def problems(wanted: conf.Wanted, changes: Changes, trusted: Sequence[str] = ()) -> list[str]:
    """
    Return why the directory cannot be used, one sentence each, before anything is changed.

    changes
        What ``compare`` returned: a server that is to join needs what it takes for that.
    trusted
        Authorities that the system is going to trust, in PEM.
    """
    found = []
    if "joined" in changes and "join_password" not in wanted.secrets:
        found.append("plasma.directory.join_password is not set, and this server has not joined the domain yet")
    ca = wanted.ca_source or wanted.ca
    if ca and not os.path.isfile(ca):
        found.append(f"plasma.directory.ca: there is no file {ca} on this server")
    elif ca and not _has_certificates(ca):
        found.append(
            f"plasma.directory.ca: {ca} has no certificate in PEM in it: of a file in DER, `openssl x509 -inform DER "
            "-in FILE -out FILE.pem` makes one"
        )
    elif wanted.kind == "ldap":
        tried = {server: _unreachable(server, ca, trusted) for server in wanted.servers}
        # One that answers is enough to go on; one whose certificate is wrong never is.
        if all(tried.values()):
            found += [f"{server} cannot be used: {why}" for server, why in tried.items()]
    elif why := plasma_directory_dns.problem(wanted.domain):
        found.append(why)
    return found


def _has_certificates(path: str) -> bool:
    try:
        ssl.create_default_context(cafile=path)
    except OSError:
        return False
    return True


def _unreachable(server: str, ca: str | None, trusted: Sequence[str] = ()) -> str | None:
    """Why a server of LDAP cannot be spoken to by TLS with a certificate that is good, or None."""
    url = urllib.parse.urlsplit(server)
    host, port = url.hostname or "", url.port or {"ldaps": 636, "ldap": 389}[url.scheme]
    try:
        context = plasma_trust.context(ca, trusted)
        with socket.create_connection((host, port), CONNECT) as plain:
            if url.scheme == "ldap":
                plain.sendall(_START_TLS)
                answer = plain.recv(4096)
                # An extended response (0x78), whose first element is the result: 0 is success.
                if b"\x78" not in answer or b"\x0a\x01\x00" not in answer:
                    return "it does not take StartTLS: write ldaps:// where it speaks TLS from the start"
            with context.wrap_socket(plain, server_hostname=host):
                return None
    except ssl.SSLCertVerificationError as exc:
        return f"its certificate is not good ({exc.verify_message}): set plasma.directory.ca, or mend the certificate"
    except (OSError, ValueError) as exc:
        return str(getattr(exc, "strerror", None) or exc)


def apply(wanted: conf.Wanted) -> Changes:
    """
    Join this server to a directory, or change how it asks it, and wait until it is reached.

    Returns the changes, as ``compare`` does. Raises CommandExecutionError, with one sentence; sssd then goes on with
    what it had before.
    """
    changes = compare(wanted)
    if not changes:
        return {}
    note, before = _note(), _bytes(conf.SSSD)
    # Before anything is done: what is begun can be taken back.
    plasma_files.write_note(NOTE, {**note, "domain": wanted.domain})
    try:
        _prepare(wanted, changes)
    except (CommandExecutionError, OSError) as exc:
        raise CommandExecutionError(f"{exc} {_take_back(note, before)}") from exc
    try:
        if before not in (None, conf.text(wanted).encode()):
            _keep(conf.SSSD)
        _write(conf.text(wanted).encode())
        plasma_systemd.check("enable", UNIT)
        _restart(wanted.domain, fresh=wanted.domain.encode() not in (before or b""))
    except CommandExecutionError as exc:
        _put_back(before)
        if before is None:
            # Its logs say why; they would go with the packages.
            raise CommandExecutionError(
                f"{exc} The packages of sssd and its lines of PAM stay for now: mend that and apply again, or take "
                "them away with `state.apply directory.disabled`."
            ) from exc
        _name(note)
        raise CommandExecutionError(f"{exc} It goes on with what it had before.") from exc
    return changes


def _prepare(wanted: conf.Wanted, changes: Changes) -> None:
    """All that comes before sssd is told of the directory: packages, the authority, PAM and the domain."""
    if "packages" in changes:
        had = _packages()
        try:
            plasma_quota_kernel.install(changes["packages"]["new"])
        finally:
            came = sorted({*_note().get("packages", ()), *(_packages() - had - _KEPT)})
            plasma_files.write_note(NOTE, {**_note(), "packages": came})
    if wanted.ca_source:
        plasma_files.write(conf.CA, pathlib.Path(wanted.ca_source).read_bytes(), 0o644)
    if conf.PAM in changes:
        plasma_files.directory(pathlib.Path(conf.PAM).parent)
        plasma_files.write(conf.PAM, conf.PAM_TEXT, 0o644)
    plasma_run.run(["pam-auth-update", "--package"], env=_QUIET).check()
    if not _guarded():
        # It leaves files alone that somebody has changed by hand.
        raise CommandExecutionError(
            f"{PAM_AUTH} was changed by hand, so pam_sss and pam_localuser cannot be put into it: run `pam-auth-update "
            "--force` on the server, which makes it anew, and apply again."
        )
    if "joined" in changes:
        if KEYTAB.exists():
            # Keys of other services, to which adcli adds those of the domain.
            plasma_files.write_note(NOTE, {"keytab": str(_keep(KEYTAB)), **_note()})
        plasma_directory_join.join(wanted)
        plasma_files.write_note(NOTE, {**_note(), "joined": wanted.domain})


def _take_back(note: dict[str, Any], before: bytes | None) -> str:
    """Leave nothing half done, and say how the server is now: one that asked no directory has nothing of one."""
    if before is not None:
        _name(note)
        return "sssd goes on with what it had before."
    came = _note().get("packages")
    try:
        gone = remove()
    except (CommandExecutionError, OSError) as exc:
        return f"What came with it could not be taken away ({exc}): run `state.apply directory.disabled`."
    if came and "packages" not in gone:
        return "PAM is as it was before; packages that came with it stay, as others need them now."
    return "What came with it was taken away again: packages, PAM and nsswitch.conf are as they were."


def _name(note: dict[str, Any]) -> None:
    """Note the domain again that was asked before."""
    if "domain" in note:
        plasma_files.write_note(NOTE, {**_note(), "domain": note["domain"]})


def _keep(path: str | os.PathLike[str]) -> pathlib.Path:
    """A copy of what is changed or goes, for root alone."""
    plasma_files.directory(BACKUPS, 0o700)
    return pathlib.Path(shutil.copy2(path, BACKUPS / f"{os.path.basename(path)}.{time.time_ns()}"))


def _write(content: bytes) -> None:
    path = pathlib.Path(conf.SSSD)
    plasma_files.directory(path.parent, 0o711)
    plasma_files.write(path, content)


def _restart(domain: str, fresh: bool) -> None:
    plasma_systemd.run("stop", UNIT)
    if fresh and CACHE.is_dir():
        # Of another directory, whose people and ids are not those of this one.
        for file in (*CACHE.glob("*.ldb"), *CACHE.glob("ccache_*")):
            file.unlink(missing_ok=True)
    plasma_systemd.check("restart", UNIT)
    deadline = time.monotonic() + ONLINE
    while not online(domain):
        if time.monotonic() > deadline:
            raise CommandExecutionError(
                f"sssd does not reach {domain} within {ONLINE} seconds: see `journalctl -u sssd` and /var/log/sssd on "
                "the server."
            )
        time.sleep(1)


def online(domain: str) -> bool:
    """Return whether sssd has reached a directory. It is asked for somebody who is not there, so that it tries."""
    plasma_run.run(["getent", "passwd", "plasma-is-nobody"], timeout=30)
    done = plasma_run.run(["sssctl", "domain-status", "--online", domain], timeout=30)
    return "Online status: Online" in done.stdout


def _put_back(before: bytes | None) -> None:
    if before is None:
        plasma_systemd.run("stop", UNIT)
        pathlib.Path(conf.SSSD).unlink(missing_ok=True)
        return
    _write(before)
    plasma_systemd.run("restart", UNIT)


def compare_removed() -> Changes:
    """Return what ``remove`` would take away, ``{what: {"old", "new"}}``; nothing where nothing was done here."""
    note = _note()
    if not note:
        return {}
    changes: Changes = {note.get("domain", "directory"): {"old": "asked", "new": None}}
    packages = [] if foreign() else _removable(note)
    if packages:
        changes["packages"] = {"old": packages, "new": None}
    return changes


def remove() -> Changes:
    """
    Ask the directory no more, and remove the packages that came with it, unless others need them now. Homes stay. The
    keytab and sssd.conf are kept below /var/backups/plasma, and the machine's account in the domain stays. An sssd that
    somebody has set up by hand since then goes on, with all that it needs.

    Returns the changes. Raises CommandExecutionError.
    """
    changes, note = compare_removed(), _note()
    if not changes:
        return {}
    others = foreign()
    if not others:
        plasma_systemd.run("disable", "--now", UNIT)
        if os.path.exists(conf.SSSD):
            _keep(conf.SSSD)
            os.unlink(conf.SSSD)
    plasma_run.run(["pam-auth-update", "--package", "--remove", os.path.basename(conf.PAM)], env=_QUIET)
    pathlib.Path(conf.PAM).unlink(missing_ok=True)
    if not others:
        pathlib.Path(conf.CA).unlink(missing_ok=True)
        if note.get("joined") and KEYTAB.exists():
            _keep(KEYTAB)
            KEYTAB.unlink()
            if os.path.exists(note.get("keytab", "")):
                shutil.copy2(note["keytab"], KEYTAB)
    if "packages" in changes:
        # PAM and nsswitch.conf are put in order by the packages themselves.
        apt = ["apt-get", "--yes", "-o", "DPkg::Lock::Timeout=600", "purge", *changes["packages"]["old"]]
        plasma_run.run(apt, timeout=1800, env=_QUIET).check()
    plasma_run.run(["pam-auth-update", "--package"], env=_QUIET).check()
    NOTE.unlink()
    return changes


def health() -> dict[str, Any] | None:
    """
    Return how the directory is, ``{"domain", "online": bool, "problem": a sentence with what mends it, or None}``; None
    where this server was joined to none by Plasma.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_directory.health
    """
    note = _note()
    if not note or foreign():
        return None
    domain, problem = note["domain"], None
    reached = plasma_systemd.active(UNIT) and online(domain)
    if not os.path.exists(conf.SSSD):
        problem = f"People of {domain} cannot log in, as the last apply did not reach it: run `state.apply directory`"
    elif not plasma_systemd.active(UNIT):
        problem = f"People of {domain} cannot log in, as sssd does not run: systemctl restart {UNIT}"
    elif not reached:
        problem = f"People of {domain} cannot log in, as sssd does not reach it: journalctl -u {UNIT}"
    return {"domain": domain, "online": reached, "problem": problem}


def _note() -> dict[str, Any]:
    return plasma_files.read_note(NOTE, "it says what the state directory did; move it away, and apply again") or {}


def _bytes(path: str | os.PathLike[str]) -> bytes | None:
    try:
        return pathlib.Path(path).read_bytes()
    except FileNotFoundError:
        return None


def _read(path: str | os.PathLike[str]) -> str | None:
    content = _bytes(path)
    return None if content is None else content.decode(errors="replace")


def _guarded() -> bool:
    """Whether PAM asks the directory, and not about accounts of this server."""
    lines = [line for line in (_read(PAM_AUTH) or "").splitlines() if not line.startswith("#")]
    own = [number for number, line in enumerate(lines) if "pam_localuser.so" in line and "success=die" in line]
    asked = [number for number, line in enumerate(lines) if "pam_sss.so" in line]
    return bool(own and asked) and own[0] < asked[0]


def _packages() -> set[str]:
    return set(plasma_run.run(["dpkg-query", "--show", "--showformat=${Package}\\n"]).stdout.split())


def _removable(note: dict[str, Any]) -> list[str]:
    """The packages that came with the directory; none where something else would have to go with them."""
    came = [name for name in note.get("packages", ()) if _installed(name)]
    done = plasma_run.run(["apt-get", "--simulate", "purge", *came]) if came else None
    goes = (
        {words[1] for words in map(str.split, done.stdout.splitlines()) if words[:1] in (["Purg"], ["Remv"])}
        if done
        else ()
    )
    return came if came and not set(goes) - set(came) else []


def _installed(package: str) -> bool:
    done = plasma_run.run(["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package])
    return done.returncode == 0 and done.stdout.startswith("ii")
