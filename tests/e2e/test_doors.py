"""
The doors of the host itself: a key written in a user server opens no shell, nor do a password, cron, at or lingering.
Each is seen to work with the state taken back. Whom pillar lets in has limits, and no way to other people's servers.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess

import pytest

from tests.e2e.conftest import make_account
from tests.support import paths
from tests.support.environment_image import environment_image, load_into
from tests.support.hub import HubUser
from tests.support.shell import wait_for

STUDENT, FRIEND, OPERATOR = "k9student", "k9friend", "k9ops"
PACKAGES = ("cron", "at", "libpam-systemd", "polkitd", "openssh-client")
PASSWORDS = "/etc/ssh/sshd_config.d/05-k9.conf"
UNIT = "[Service]\nType=oneshot\nExecStart=/usr/bin/touch %h/lingered\n"
# Runs on the host, wherever the person got to: what of these addresses takes a connection.
REACH = """
import socket, sys
for place in sys.argv[1:]:
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        print(place, "open")
    except OSError as error:
        print(place, "refused")
"""
HOG = "import sys; held = bytearray(700 * 2**20); print(len(held))"
FORKS = """
import os, signal, time
made = []
try:
    while len(made) < 400:
        made.append(os.fork())
        if not made[-1]:
            time.sleep(60)
            os._exit(0)
except BlockingIOError:
    print("no more", len(made))
else:
    print("unlimited")
for pid in made:
    os.kill(pid, signal.SIGKILL)
"""


def answers(printed: str) -> dict[str, list[str]]:
    """The places that took a connection, and those that did not."""
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        place, answer = line.split()
        found.setdefault(answer, []).append(place)
    return found


@dataclasses.dataclass
class Door:
    """SSH to the server from outside, as somebody."""

    host: str
    name: str
    password: str

    def command(self, *options: str) -> list[str]:
        given = ["ControlPath=none", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        return [word for option in (*given, "ConnectTimeout=10", *options) for word in ("-o", option)]

    def _run(self, words: list[str], **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **options)

    def by_key(self, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        words = ["ssh", *self.command("IdentitiesOnly=yes", "BatchMode=yes", *options), "-i", str(paths.ssh_key())]
        return self._run([*words, f"{self.name}@{self.host}", "--", shlex.join(command)], stdin=subprocess.DEVNULL)

    def by_password(self, tmp_path, *command: str) -> subprocess.CompletedProcess[str]:
        answer = tmp_path / "answer"
        answer.write_text('#!/bin/sh\nprintf "%s\\n" "$K9_PASSWORD"\n')
        answer.chmod(0o700)
        asked = {"SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force", "K9_PASSWORD": self.password}
        words = ["ssh", *self.command("PubkeyAuthentication=no", "NumberOfPasswordPrompts=1")]
        words += [f"{self.name}@{self.host}", "--", shlex.join(command)]
        return self._run(words, env={**os.environ, **asked}, stdin=subprocess.DEVNULL)

    def sftp(self) -> subprocess.CompletedProcess[str]:
        words = ["sftp", *self.command("IdentitiesOnly=yes", "BatchMode=yes"), "-i", str(paths.ssh_key())]
        return self._run([*words, "-b", "-", f"{self.name}@{self.host}"], input="ls /etc/hostname\n")

    def forwards(self, place: str) -> bool:
        """Whether the server's sshd connects to this place for the person, without any shell."""
        words = ["ssh", *self.command("IdentitiesOnly=yes", "BatchMode=yes"), "-i", str(paths.ssh_key())]
        asked = self._run([*words, "-W", place, f"{self.name}@{self.host}"], input="GET / HTTP/1.0\r\n\r\n")
        return "HTTP/1" in asked.stdout

    def reaches(self, *places: str) -> dict[str, list[str]]:
        return answers(self.by_key("python3", "-c", REACH, *places).stdout)


@dataclasses.dataclass
class World:
    """The server, its people, and what one of them has prepared."""

    kept: object
    student: Door
    operator: Door
    home: str
    uid: int
    inner: list[str]  # what a student must not reach: the hub, the service, the friend's server, Docker's bridge

    def left(self, name: str) -> bool:
        return self.kept.target.sudo(["test", "-e", f"{self.home}/{name}"], check=False).returncode == 0

    def forget(self) -> None:
        self.kept.target.sudo(f"rm -f {self.home}/lingered {self.home}/cron-ran {self.home}/at-ran /root/cron-ran")

    def jobs(self) -> None:
        """Cron begins its day, and a job of the student's is due."""
        target = self.kept.target
        self.forget()
        target.sudo("echo '@reboot touch /root/cron-ran' | crontab -u root -")
        target.ssh(f"sudo crontab -u {STUDENT} -", input=f"@reboot touch {self.home}/cron-ran\n")
        target.ssh(f"sudo runuser -u {STUDENT} -- at now", input=f"touch {self.home}/at-ran\n")
        target.sudo("rm -f /run/crond.reboot; systemctl restart cron")
        wait_for(lambda: target.sudo("test -e /root/cron-ran", check=False).returncode == 0, timeout=20, what="cron")

    def linger(self) -> None:
        """What boot does for whoever lingers."""
        target = self.kept.target
        target.sudo(f"touch /var/lib/systemd/linger/{STUDENT}; systemctl stop user@{self.uid}.service")
        target.sudo(f"systemctl start user@{self.uid}.service", check=False)


@pytest.fixture(scope="module")
def world(kept_server):
    target, site = kept_server.target, kept_server.site
    kept_server.with_pillar()
    target.install(*PACKAGES)
    image = environment_image()
    load_into(target, image)
    people = {name: make_account(target, name) for name in (STUDENT, FRIEND, OPERATOR)}
    target.sudo(f"echo '{OPERATOR} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/k9; chmod 440 /etc/sudoers.d/k9")
    # A server on which sshd takes passwords.
    target.sudo(f"echo 'PasswordAuthentication yes' > {PASSWORDS}; systemctl reload ssh")
    key = paths.public_key_file(paths.ssh_key()).read_text()
    target.ssh(f"sudo runuser -u {OPERATOR} -- sh -c 'mkdir -m 700 ~/.ssh; cat > ~/.ssh/authorized_keys'", input=key)
    url, addresses = f"http://{target.host}", {}
    for name in (STUDENT, FRIEND):
        person = HubUser(url, name)
        person.login(people[name].password)
        person.start(image)
        container = target.sudo(f"docker ps --quiet --filter label=org.plasma.user={name}").stdout.strip()
        shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}"
        addresses[name] = (container, *target.sudo(["docker", "inspect", "-f", shown, container]).stdout.split())
    # From inside, as a student at the keyboard of a notebook.
    script = (
        "umask 077; mkdir -p ~/.ssh ~/.config/systemd/user/default.target.wants; cat > ~/.ssh/authorized_keys; "
        f"cd ~/.config/systemd/user; printf '%s' {shlex.quote(UNIT)} > evil.service; "
        "ln -s ../evil.service default.target.wants/"
    )
    home = people[STUDENT].home
    inside = ["sudo", "docker", "exec", "-i", "-e", f"HOME={home}", addresses[STUDENT][0], "sh", "-c", script]
    target.ssh(inside, input=key)
    _, friend, gateway = addresses[FRIEND]
    listening = target.sudo("ss -Hltn").stdout.split("\n")
    own = [line.split()[3] for line in listening if line and not line.split()[3].startswith(("*", "0.0.0.0", "["))]
    # Name servers answer everybody.
    inner = [place for place in own if not place.endswith(":53")]
    assert any(place.startswith(gateway) for place in inner), inner
    made = World(
        kept_server,
        *(Door(target.host, name, people[name].password) for name in (STUDENT, OPERATOR)),
        home,
        people[STUDENT].uid,
        [*inner, f"{friend}:8888", "127.0.0.1:22"],
    )
    yield made
    target.sudo(
        f"loginctl disable-linger {STUDENT}; crontab -r -u {STUDENT}; crontab -r; rm -f /etc/sudoers.d/k9 {PASSWORDS}",
        check=False,
    )
    target.sudo(f"docker rm --force {addresses[STUDENT][0]} {addresses[FRIEND][0]}")
    for name in people:
        target.sudo(f"pkill -KILL -u {name}; userdel --remove {name} 2>/dev/null || true", check=False)
    kept_server.with_pillar()
    assert not site.apply("ssh").failed


def test_without_the_state_a_key_from_a_notebook_opens_the_host(world, tmp_path):
    target = world.kept.target
    assert not world.kept.site.apply("ssh.disabled").failed
    assert target.sudo("iptables -S | grep PLASMA-OUT || true").stdout == ""
    assert world.student.by_key("id", "-un").stdout == f"{STUDENT}\n"
    assert world.student.by_password(tmp_path, "id", "-un").stdout == f"{STUDENT}\n"
    assert "/etc/hostname" in world.student.sftp().stdout
    assert world.student.reaches(*world.inner) == {"open": world.inner}
    assert any(world.student.forwards(place) for place in world.inner)
    assert world.student.by_key("python3", "-c", FORKS).stdout == "unlimited\n"
    world.jobs()
    wait_for(lambda: world.left("cron-ran") and world.left("at-ran"), timeout=30, what="the student's jobs")
    world.linger()
    wait_for(lambda: world.left("lingered"), timeout=30, what="the student's unit")


def test_the_doors_are_closed_and_whoever_loses_one_is_told(world, tmp_path):
    target, site = world.kept.target, world.kept.site
    # Logins with a terminal are on record.
    assert world.student.by_key("true", options=("RequestTTY=force",)).returncode == 0
    predicted = site.apply("ssh", "test=True")
    assert world.student.by_key("true").returncode == 0
    first = site.apply("ssh")
    assert not first.failed
    for result in (predicted, first):
        state = result.states["ssh-closed|ssh-closed"]
        told = next(text for text in state["changes"]["shut out"]["new"] if text.startswith(STUDENT))
        for word in ("keys for SSH", "logged in on", "crontab", "lingering"):
            assert word in told
        assert told in state["comment"]
        assert not any(OPERATOR in text for text in state["changes"]["shut out"]["new"])
    # Their units have run until now, as they linger.
    running = ["systemctl", "is-active", f"user@{world.uid}.service"]
    wait_for(lambda: target.ssh(running, check=False).returncode != 0, timeout=20, what="the end of what lingers")
    assert not site.apply("ssh").changed

    assert world.student.by_key("true").returncode == 255
    assert world.student.by_password(tmp_path, "true").returncode == 255
    assert world.student.sftp().returncode == 255
    assert not any(world.student.forwards(place) for place in world.inner)
    began = target.ssh("date +%s").stdout.strip()
    world.linger()
    world.jobs()
    said = "journalctl -o cat -t plasma-doors --since"
    wait_for(
        lambda: target.sudo(f"{said} @{began}").stdout.count(f"no job of {STUDENT}") == 2,
        timeout=30,
        what="cron and at say no",
    )
    assert f"no session of {world.uid}" in target.sudo(f"{said} @{began}").stdout
    for trace in ("cron-ran", "at-ran", "lingered"):
        assert not world.left(trace)
    # What still runs under the person's name, wherever it came from, reaches nothing either.
    there = target.sudo(["runuser", "-u", STUDENT, "--", "python3", "-c", REACH, *world.inner]).stdout
    assert answers(there) == {"refused": world.inner}

    # Those who look after the server come in as before, and reach what they did; an account that is made now does not.
    assert world.operator.by_key("sudo", "-n", "id", "-u").stdout == "0\n"
    assert world.operator.reaches(*world.inner) == {"open": world.inner}
    assert target.ssh(["sudo", "-n", "id", "-u"]).stdout == "0\n"
    late = make_account(target, "k9late")
    try:
        assert Door(target.host, late.name, late.password).by_password(tmp_path, "true").returncode == 255
    finally:
        target.sudo(["userdel", "--remove", late.name])
    shown = site.salt("plasma.status").value["ssh"]
    assert (shown["open"], shown["problem"]) == ([], None)
    assert {OPERATOR, "ubuntu"} <= set(shown["privileged"])


def test_whom_pillar_lets_in_has_limits_and_no_way_to_others(world):
    target, site = world.kept.target, world.kept.site
    world.kept.with_pillar(ssh={"open_to": {"users": [STUDENT]}, "limits": {"memory": "512M", "tasks": 128}})
    opened = site.apply("ssh")
    assert not opened.failed
    assert world.student.by_key("id", "-un").stdout == f"{STUDENT}\n"
    assert world.student.by_key("python3", "-c", FORKS).stdout.startswith("no more")
    assert world.student.by_key("python3", "-c", HOG).stdout == ""
    assert world.student.reaches(*world.inner) == {"refused": world.inner}
    assert not any(world.student.forwards(place) for place in world.inner)
    assert list(world.student.reaches(f"{target.host}:80")) == ["open"]
    slices = "systemctl show --property=TasksMax --value user-{}.slice"
    assert target.ssh(slices.format(world.uid)).stdout == "128\n"
    assert target.ssh(slices.format("$(id -u)")).stdout != "128\n"
    # A firewall that is flushed is whole again before somebody has typed much.
    asked = shlex.join(["runuser", "-u", STUDENT, "--", "python3", "-c", REACH, *world.inner])
    flushed = target.sudo(f"iptables -F OUTPUT; iptables -F PLASMA-OUT; {asked}").stdout
    assert "open" in answers(flushed)
    wait_for(lambda: list(world.student.reaches(*world.inner)) == ["refused"], timeout=15, what="the rules are back")
    # sshd would not start with that: it goes on with what it has, and one sentence says why.
    target.sudo("echo 'NoSuchOption yes' > /etc/ssh/sshd_config.d/90-broken.conf")
    try:
        world.kept.with_pillar()
        refused = site.apply("ssh").failed
        assert "NoSuchOption" in next(iter(refused.values()))
        assert world.student.by_key("true").returncode == 0
    finally:
        target.sudo("rm /etc/ssh/sshd_config.d/90-broken.conf")


# What Salt runs as root, in the place of a program of its own.
EVIL = "import os; open('/root/k9-was-here', 'w').write(str(os.getuid()))"


def test_salt_runs_nothing_that_somebody_put_where_it_goes(world):
    """Its directory has a name that is known, and holds a checksum that anybody can compute."""
    target, site = world.kept.target, world.kept.site
    assert site.salt("test.ping").value is True
    (there,) = target.sudo("ls -d /var/tmp/.*_salt /var/lib/.*_salt 2>/dev/null", check=False).stdout.split()
    checksum = target.sudo(["cat", f"{there}/code-checksum"]).stdout.strip()
    # As for an operator who comes from a machine of another name, or after it was tidied away.
    target.sudo(["rm", "-r", there])
    name = os.path.basename(there)
    put = (
        f"mkdir -m 777 $0/{name} && cd $0/{name} && mkdir py3 && echo {checksum} > code-checksum "
        f"&& echo py3:3:0 > supported-versions && echo {shlex.quote(EVIL)} > salt-call"
    )
    try:
        done = {
            place: target.sudo(["runuser", "-u", STUDENT, "--", "sh", "-c", put, place], check=False).returncode
            for place in ("/var/tmp", "/var/lib")
        }
        assert done["/var/tmp"] == 0
        assert site.salt("test.ping").value is True
        assert target.sudo("test -e /root/k9-was-here", check=False).returncode != 0
        assert done["/var/lib"] != 0
    finally:
        target.sudo(f"rm -rf /var/tmp/{name} /root/k9-was-here")
