"""The roster as people break it: one line with file, line and what to do, and nothing of the file."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time
import types

import pytest
import salt.client.ssh
import salt.config
import salt.roster
import salt.scripts
from salt.client.ssh.wrapper import FunctionWrapper

from tests.support.paths import REPOSITORY

MARKER = "Marker-7f3a9c"
ENTRY = "here:\n  host: here\n"
TWO = ENTRY + "there: 203.0.113.10\n"
INDENT = "the line is indented otherwise than those beside it; indent alike what belongs together."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "roster cannot be read: copy roster.example to it, and call salt-ssh in this directory, or ./plasma."),
        ("", "roster names no server: roster.example shows how an entry looks."),
        ("# here:\n", "roster names no server: roster.example shows how an entry looks."),
        (ENTRY + ENTRY, "roster:3: the key stands twice in this mapping; keep one of the two."),
        (ENTRY + "\tuser: a\n", "roster:3: user: a tab indents the line; use spaces."),
        (
            ENTRY + f" passwd: {MARKER}\n",
            f"roster:3: passwd: {INDENT}",
        ),
        (
            ENTRY + f"  passwd: {MARKER}: x\n",
            "roster:3: passwd: a colon followed by a space, within a value; put the whole value in single quotes.",
        ),
        (
            (ENTRY + "  user: jürgen\n").encode("latin-1"),
            "roster:3: the line is not UTF-8 (Latin-1, perhaps); save the file as UTF-8.",
        ),
        ("here:\n  user: a\n", "roster:1: the server has no `host`; roster.example shows how an entry looks."),
        ("here:\n", "roster:1: the server has no `host`; roster.example shows how an entry looks."),
        (f"here: [{MARKER}]\n", "roster:1: the server has no `host`; roster.example shows how an entry looks."),
        (ENTRY + "  usr: a\n", "roster:1: `usr` is unknown; did you mean `user`?"),
        (ENTRY + f"  {MARKER}: a\n", "roster:1: one of its keys is unknown."),
        (ENTRY + f"  ssh_options: {MARKER}\n", "roster:1: `ssh_options` is to be a list."),
    ],
)
def test_a_roster_that_is_wrong(targets, capsys, content, said):
    with pytest.raises(SystemExit) as ended:
        targets(content, "here")
    assert ended.value.code == said
    assert MARKER not in str(capsys.readouterr())


@pytest.mark.parametrize(
    ("tgt", "tgt_type", "said"),
    [
        ("maths", "glob", "No server of roster matches maths. It has: here, there."),
        ("m*", "glob", "No server of roster matches m*. It has: here, there."),
        (["here", "maths", "bio"], "list", "No server of roster matches maths or bio. It has: here, there."),
        ("here,maths", "list", "No server of roster matches maths. It has: here, there."),
        ("m.*", "pcre", "No server of roster matches m.*. It has: here, there."),
    ],
)
def test_an_unknown_server(targets, tgt, tgt_type, said):
    with pytest.raises(SystemExit) as ended:
        targets(TWO, tgt, tgt_type)
    assert ended.value.code == said


def test_servers_that_match(targets):
    assert targets(TWO, "*").keys() == {"here", "there"}
    assert targets(TWO, "the*")["there"]["host"] == "203.0.113.10"
    assert targets(TWO, ["here"], "list").keys() == {"here"}
    # An account at an address is no server of the roster, and not meant as one.
    assert targets(TWO, "root@203.0.113.10") == {}
    assert targets("{% for n in (1, 2) %}\ns{{ n }}: 203.0.113.{{ n }}\n{% endfor %}\n", "*").keys() == {"s1", "s2"}


def test_salt_works_with_an_ordinary_umask_whatever_that_of_sudo_is(targets):
    """So it is for packages and for states of Salt's own; a roster that names another one is left alone."""
    assert {server["cmd_umask"] for server in targets(TWO, "*").values()} == {0o022}
    assert targets(ENTRY + "  cmd_umask: 63\n", "*")["here"]["cmd_umask"] == 0o077


def test_the_example_is_right(targets):
    assert list(targets((REPOSITORY / "roster.example").read_text(encoding="utf-8"), "*")) == ["plasma-server"]


@pytest.fixture
def targets(tmp_path, monkeypatch):
    """The servers of a roster with this content that match, as salt-ssh asks for them."""
    for name in ("conf", "_pillar", "_renderers", "_roster"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)

    def run(content, tgt, tgt_type="glob"):
        if content is not None:
            (tmp_path / "roster").write_bytes(content if isinstance(content, bytes) else content.encode())
        options = {**salt.config.client_config("conf/master"), "roster_file": "roster"}
        return salt.roster.Roster(options, options["roster"]).targets(tgt, tgt_type)

    return run


@pytest.fixture
def single(targets, monkeypatch):
    """What salt-ssh does with one server, on one that never takes what it is sent, and says this of its disks."""
    monkeypatch.setattr(salt.client.ssh.Single, "cmd_block", lambda self: sent.append(1) or self.cmd_block())
    sent = []
    targets(ENTRY, "here")

    def run(disks):
        sent.clear()
        one = salt.client.ssh.Single.__new__(salt.client.ssh.Single)
        one.thin_dir, one.target = "/var/lib/.ubuntu_abc_salt", {"host": "here"}
        one.shell = types.SimpleNamespace(exec_cmd=lambda command: (disks, "", 0))
        answer = one.cmd_block()
        assert len(sent) == 3
        return answer

    return run


HEAD = "Filesystem     1024-blocks    Used Available Capacity Mounted on\n"


@pytest.mark.parametrize(
    ("disks", "said"),
    [
        (f"{HEAD}/dev/vda1  9000 9000  0  100% /\n{HEAD}/dev/vda1 600 50 550 9% /\n", "the disk of / is full"),
        (f"{HEAD}/dev/vda1  9000 10 8990 1% /var\n{HEAD}/dev/vda1 600 600 0 100% /var\n", "the disk of /var is full"),
        (f"{HEAD}/dev/vda1  9000 10 8990 1% /\n", "remove /var/lib/.ubuntu_abc_salt"),
        ("", "remove /var/lib/.ubuntu_abc_salt"),
    ],
)
def test_a_server_that_takes_nothing_is_given_up(single, disks, said):
    """As salt-ssh shows it: the sentence, and an exit code."""
    with pytest.raises(salt.client.ssh.wrapper.SSHCommandExecutionError) as caught:
        salt.client.ssh.wrapper.parse_ret(*single(disks))
    answer = caught.value.to_ret()
    assert isinstance(answer, str) and said in answer
    assert caught.value.retcode == 1


TAKEN = "line 231, in unpack_ext\nFileNotFoundError: [Errno 2] No such file or directory: 'salt-ext_mods.tgz'"


@pytest.mark.parametrize(
    ("answers", "asks", "sends"),
    [
        ([("fine", "", 0)], False, 0),
        ([("fine", "", 0)], True, 1),
        ([("", TAKEN, 1), ("fine", "", 0)], False, 1),
        ([("", TAKEN, 1), ("", TAKEN, 1)], False, 1),
        ([("", "in unpack_ext", 0)], False, 0),
        ([("", "something else", 1)], False, 0),
    ],
)
def test_our_modules_are_sent_where_they_are_missing(targets, monkeypatch, answers, asks, sends):
    """Not at each of Salt's two calls; and again where another operator took them away meanwhile."""
    left, sent = list(answers), []

    def salts(self):
        self.deploy_ext()
        if asks:
            self.deploy_ext()
        return left.pop(0)

    monkeypatch.setattr(salt.client.ssh.Single, "cmd_block", salts)
    monkeypatch.setattr(salt.client.ssh.Single, "deploy_ext", lambda self: sent.append(1))
    targets(ENTRY, "here")
    one = salt.client.ssh.Single.__new__(salt.client.ssh.Single)
    one.target = {"host": "203.0.113.10"}
    assert one.cmd_block() == answers[-1]
    assert (left, len(sent)) == ([], sends)


def test_a_server_is_asked_once_a_minute_what_it_is(targets, monkeypatch):
    """Salt started there twice in every call."""
    told = []

    def answer():
        if told[-1:] == ["away"]:
            raise salt.client.ssh.wrapper.SSHCommandExecutionError("", "no route", 255)
        told.append("asked")
        return {"grains": {"os": "Debian", "number": len(told)}}

    monkeypatch.setattr(FunctionWrapper, "__getitem__", lambda self, name: answer)
    targets(ENTRY, "here")
    cache = pathlib.Path(salt.config.client_config("conf/master")["cachedir"], "minions", "here")
    cache.mkdir(parents=True)
    target = {"host": "203.0.113.10", "user": "ubuntu", "passwd": MARKER}
    facts = lambda **other: FunctionWrapper({}, "here", **{**target, **other})["test.opts_pkg"]()  # noqa: E731
    assert [facts()["grains"]["number"] for _ in range(3)] == [1, 1, 1]
    # Another server of that name, another account, other options of Salt there: asked anew.
    others = ({"host": "203.0.113.11"}, {"user": "root"}, {"minion_opts": {"log_level": "debug"}})
    assert [facts(**other)["grains"]["number"] for other in others] == [2, 3, 4]
    files = sorted(cache.glob("facts-*"), key=os.path.getmtime)
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600] * 4
    kept = files[0]
    # What is older, or spoilt, is asked again; what fails is not kept.
    os.utime(kept, (time.time() - 61,) * 2)
    assert facts()["grains"]["number"] == 5
    kept.write_text("{")
    assert facts()["grains"]["number"] == 6
    kept.unlink()
    told.append("away")
    with pytest.raises(salt.client.ssh.wrapper.SSHCommandExecutionError):
        facts()
    assert not kept.exists()
    assert FunctionWrapper({}, "here", **target)["test.ping"] is answer


ASKED = (
    "The host key needs to be accepted, to auto accept run salt-ssh with the -i flag:\nED25519 key fingerprint is "
    "SHA256:x.\r\nAre you sure you want to continue connecting (yes/no/[fingerprint])? "
)
STRICT = "No ED25519 host key is known for 203.0.113.10 and you have requested strict checking.\r\n"
REFUSED = "Host key verification failed.\r\n"
CHANGED = f"@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n...\r\n{REFUSED}"
UNKNOWN = "The host key of 203.0.113.10 is not known here: log in once with `ssh {}`, compare the fingerprint, then"


@pytest.mark.parametrize(
    ("answer", "target", "said"),
    [
        ((ASKED, "", 254), {"user": "ubuntu"}, UNKNOWN.format("ubuntu@203.0.113.10")),
        ((ASKED, "", 254), {"user": "a", "port": 2222}, UNKNOWN.format("-p 2222 a@203.0.113.10")),
        (("", STRICT + REFUSED, 255), {"user": "a", "port": 22}, UNKNOWN.format("a@203.0.113.10")),
        (("", CHANGED, 255), {"user": "a"}, "another one than before. .*`ssh-keygen -R 203.0.113.10`, .*`ssh a@203"),
        (("", CHANGED, 255), {"user": "a", "port": "2222"}, "`ssh-keygen -R '[203.0.113.10]:2222'`, .*`ssh -p 2222 a@"),
        # What a server says of another one.
        (('{"local": "Host key verification failed."}', "", 255), {"user": "a"}, None),
        (("", f"fatal: {REFUSED}", 128), {"user": "a"}, None),
    ],
)
def test_a_host_key_that_is_not_known_is_one_sentence(targets, monkeypatch, answer, target, said):
    """Salt's advice is to take whatever key there is."""
    monkeypatch.setattr(salt.client.ssh.Single, "cmd_block", lambda self: answer)
    targets(ENTRY, "here")
    one = salt.client.ssh.Single.__new__(salt.client.ssh.Single)
    one.target = {"host": "203.0.113.10", **target}
    if said is None:
        assert one.cmd_block() == answer
        return
    with pytest.raises(salt.client.ssh.wrapper.SSHCommandExecutionError) as caught:
        salt.client.ssh.wrapper.parse_ret(*one.cmd_block())
    told = caught.value.to_ret()
    assert re.search(re.escape(said).replace("\\.\\*", ".*"), told), told
    assert "-i flag" not in told and caught.value.retcode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_does_not_end_well(tmp_path, number):
    """In a process of its own, with the handlers that salt-ssh sets before it reads the roster."""
    for name in ("conf", "_pillar", "_renderers", "_roster"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "roster").write_text(ENTRY)
    script = """
        import os, signal, time
        import salt.config, salt.roster, salt.scripts
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
        salt.scripts._install_signal_handlers(None)
        options = {**salt.config.client_config("conf/master"), "roster_file": "roster"}
        salt.roster.Roster(options, options["roster"]).targets("here", "glob")
        if not os.fork():  # a signal that comes while Python forks is lost in the child
            print("ready", flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, start_new_session=True, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, number)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number
    # By one process of two.
    assert said.count("Interrupted. What was begun on the servers goes on there") == 1


def test_handlers_of_others_stay(targets):
    before = signal.getsignal(signal.SIGINT)
    targets(ENTRY, "here")
    assert signal.getsignal(signal.SIGINT) is before
