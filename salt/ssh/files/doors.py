#!/usr/bin/python3
"""
Keeps the host's doors as pillar wants them (plasma.ssh), whoever comes and goes: run by plasma-doors.service.

Every second it looks whether accounts, groups or rules of sudo were changed, and every ten seconds at the rules of the
firewall. Standard library and the modules beside it only: it works without Salt, and where no hub is.

    doors.py keep                   stay, and keep them
    doors.py allows session UID     whether an account may have programs that outlive its login (a condition of systemd)
    doors.py allows job             whether the account PAM_USER may run jobs of cron and at (a module of PAM)
"""

import os
import socket
import sys
import syslog
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import plasma_doors  # noqa: E402
import plasma_doors_files  # noqa: E402
import plasma_doors_rules  # noqa: E402

OWN = (__file__, *(module.__file__ for module in (plasma_doors, plasma_doors_files, plasma_doors_rules)))
WATCHED = (
    *("/etc/passwd", "/etc/group", "/etc/login.defs", "/etc/sudoers", "/etc/sudoers.d", "/etc/subuid"),
    *(plasma_doors.CONFIG, plasma_doors_files.DROP_IN, *plasma_doors_files.PAM),
)
LOOK, RULES, ANYWAY = 1, 10, 60  # seconds; the last for accounts of directories, which are in no file


def stamps(paths):
    """What changes when one of these files does, or one in a directory among them."""
    found = []
    for path in paths:
        try:
            found += [(one.path, one.stat().st_mtime_ns) for one in os.scandir(path)] if path.endswith(".d") else []
            status = os.stat(path)
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
        except OSError:
            found.append(None)
    return found


def say(text):
    print(text, file=sys.stderr, flush=True)


def tell_systemd():
    """The doors are kept: what waits for this unit may start."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            link.send(b"READY=1")


class Keeper:
    """What it knows from one look to the next."""

    def __init__(self):
        self.seen, self.who, self.again, self.rules_at, self.shown = None, None, 0, 0, {}

    def look(self):
        """Mend what is not as it has to be; returns sentences about what cannot be mended."""
        now, seen, problems = time.monotonic(), stamps(WATCHED), []
        config = plasma_doors.read()
        if config is None:  # it is being taken away
            return []
        if seen != self.seen or now >= self.again:
            self.seen, self.again, self.rules_at = seen, now + ANYWAY, 0
            try:
                self.who = plasma_doors.standing(config)
                changed = plasma_doors_files.put(config, self.who)
                if changed:
                    say(f"Written: {', '.join(sorted(changed))}")
                for uid in plasma_doors_files.stop_managers(self.who):
                    say(f"Stopped user@{uid}.service.")
            except (RuntimeError, OSError) as problem:
                problems.append(str(problem))
                self.again = now + RULES
        if self.who and (now - self.rules_at >= RULES or not self.rules_at):
            self.rules_at = now
            try:
                if plasma_doors_rules.put(self.who, self.shown):
                    say("The rules for processes of people were written.")
            except (RuntimeError, OSError) as problem:
                problems.append(str(problem))
                self.rules_at = now - RULES + LOOK
        return problems


def keep():
    keeper, program, said = Keeper(), stamps(OWN), []
    # A new program is started by systemd, which starts this again whenever it ends.
    while stamps(OWN) == program:
        with plasma_doors.lock():
            problems = keeper.look()
        for problem in problems:
            if problem not in said:
                say(problem)
        said = (said + problems)[-10:]
        tell_systemd()
        time.sleep(LOOK)


def main(words):
    if words == ["keep"]:
        keep()
        return 0
    if words[:1] == ["allows"] and words[1:2] in (["session"], ["job"]):
        who = words[2] if len(words) > 2 else os.environ["PAM_USER"]
        if plasma_doors.allows(who, words[1], plasma_doors.read()):
            return 0
        syslog.openlog("plasma-doors")
        syslog.syslog(f"plasma.ssh: no {words[1]} of {who} on this host")
        return 1
    say(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
