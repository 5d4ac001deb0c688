"""The near end of plasma-follow: the roster, the ssh command line, and what is shown."""

from __future__ import annotations

import io
import shlex
import stat

import pytest
from rich.console import Console

from tests.support.paths import REPOSITORY
from tools import plasma_follow

ENTRY = {
    "host": "203.0.113.10",
    "user": "ubuntu",
    "port": 2222,
    "sudo": True,
    "priv": "/home/anna/.ssh/id_ed25519",
    "ssh_options": ["ControlMaster=auto", "ControlPath=~/.ssh/plasma-%C"],
}


@pytest.fixture
def roster(tmp_path):
    path = tmp_path / "roster"

    def write(text):
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def display(request):
    """A display, and a function that returns what it wrote."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=request.param, width=100, color_system="standard")
    display = plasma_follow.Display(console, "server")
    display.written = stream.getvalue
    return display


def test_ssh_command():
    assert plasma_follow.ssh_command(ENTRY, "python3 -u - 120") == [
        "ssh",
        "-o",
        "BatchMode=yes",
        "-o",
        "ControlMaster=auto",
        "-o",
        "ControlPath=~/.ssh/plasma-%C",
        "-p",
        "2222",
        "-i",
        "/home/anna/.ssh/id_ed25519",
        "ubuntu@203.0.113.10",
        "sudo -n python3 -u - 120",
    ]


def test_ssh_command_of_the_shortest_entry():
    assert plasma_follow.ssh_command({"host": "hub.example.org"}, "true") == [
        "ssh",
        "-o",
        "BatchMode=yes",
        "hub.example.org",
        "true",
    ]


@pytest.mark.parametrize("priv, flags", [("agent-forwarding", []), ("/k", ["-i", "/k"]), ("", []), (None, [])])
def test_ssh_command_with_the_keys_that_ssh_finds_itself(priv, flags):
    command = plasma_follow.ssh_command({"host": "hub.example.org", "priv": priv}, "true")
    assert command[3:-2] == flags


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "names no server"),
        ("# hub:\n", "names no server"),
        ("- hub\n", "names no server"),
        ("hub\n", "names no server"),
        ("hub:\n", "hub has no `host`"),
        ("hub:\n  user: ubuntu\n", "hub has no `host`"),
        ("hub: [\n", "is not valid YAML"),
        ("hub:\n  passwd: Marker-7: x\n", "roster:2 is not valid YAML in UTF-8$"),
    ],
)
def test_read_roster_that_names_no_server(roster, text, words):
    with pytest.raises(SystemExit, match=words):
        plasma_follow.read_roster(roster(text), None)


def test_read_roster_that_is_not_there(tmp_path):
    with pytest.raises(SystemExit, match="cannot be read .*: copy roster.example"):
        plasma_follow.read_roster(str(tmp_path / "roster"), None)


@pytest.mark.parametrize("name", ["hub", None])
def test_read_roster(roster, name):
    path = roster("hub:\n  host: 203.0.113.10\n  user: ubuntu\n")
    assert plasma_follow.read_roster(path, name) == ("hub", {"host": "203.0.113.10", "user": "ubuntu"})


def test_read_roster_of_a_bare_address(roster):
    assert plasma_follow.read_roster(roster("hub: 203.0.113.10\n"), None) == ("hub", {"host": "203.0.113.10"})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("web", "has no server web: name one of alpha, beta"),
        (None, "has 2 servers: say which one, with ID=NAME. They are alpha, beta."),
    ],
)
def test_read_roster_of_several_servers(roster, name, said):
    path = roster("beta: 203.0.113.11\nalpha: 203.0.113.10\n")
    with pytest.raises(SystemExit, match=said):
        plasma_follow.read_roster(path, name)
    assert plasma_follow.read_roster(path, "beta")[1] == {"host": "203.0.113.11"}


def test_read_roster_example():
    name, entry = plasma_follow.read_roster(str(REPOSITORY / "roster.example"), None)
    assert shlex.split(plasma_follow.ssh_command(entry, "true")[-1]) == ["sudo", "-n", "true"]
    assert name == "plasma-server"
    assert "-i" not in plasma_follow.ssh_command(entry, "true")
    assert entry["set_path"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def test_display_counts_states(display):
    display.show({"event": "start", "total": 3, "thin": "/var/tmp/x"})
    for name in ("docker-engine", "hub-installed"):
        display.show({"event": "running", "name": name, "ms": None})
        display.show({"event": "completed", "name": name, "ms": 1500.4})
    task = display.progress.tasks[0]
    assert (task.completed, task.total) == (2, 3)
    assert "docker-engine 1.5 s" in _visible(display)


def test_display_without_a_known_total(display):
    display.show({"event": "start", "total": 0, "thin": "/var/tmp/x"})
    assert display.progress.tasks[0].total is None


def test_display_of_quick_states_is_only_the_bar_on_a_terminal(display):
    display.show({"event": "completed", "name": "hub-prefix", "ms": 6.4})
    display.show({"event": "completed", "name": "hub-prefix", "ms": None})
    assert ("hub-prefix" in _visible(display)) is not display.console.is_terminal
    assert display.progress.tasks[0].completed == 2


@pytest.mark.parametrize(
    "line",
    [
        "[red]x",
        "[/]",
        "[/dim]",
        "[bold]all[/bold]",
        "[link=https://example.org]here[/link]",
        "Collecting sqlalchemy[asyncio]==2.0.44",
        "ends with a backslash \\",
        "\\[escaped]",
        "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://x.example.org jammy stable",
        ":smile: 100%",
    ],
)
def test_display_is_literal(display, line):
    display.show({"event": "installer", "line": line})
    display.show({"event": "running", "name": line, "ms": None})
    display.show({"event": "completed", "name": line, "ms": 2000})
    assert f"    {line}\n" in _visible(display)
    name = line if len(line) <= 60 else line[:59] + "…"
    assert f"  done {name} 2.0 s\n" in _visible(display)
    with display.progress:
        pass
    assert f"server: {name}" in _visible(display).replace("\n", " ")


@pytest.mark.parametrize(
    "line, shown",
    [
        ("\x1b[31mred\x1b[0m text", "red text"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("\x1b]0;title\x07rest", "0;titlerest"),
        ("10%\r50%\r100% done", "100% done"),
        ("a line of Windows\r", "a line of Windows"),
        ("bell \a and backspace \b and null \0", "bell  and backspace  and null "),
        ("one\tof two", "one     of two"),
        ("hidden \u202eright to left", "hidden right to left"),
        ("Ünïcödé 漢字 🎉", "Ünïcödé 漢字 🎉"),
    ],
)
def test_display_sends_nothing_of_the_server_to_the_terminal(display, line, shown):
    display.show({"event": "installer", "line": line})
    assert f"    {shown}\n" in _visible(display)
    assert set(display.written()) & set("\a\b\0\r") == set()


def test_display_cuts_long_lines(display):
    display.show({"event": "installer", "line": "x" * 300})
    assert _visible(display).splitlines() == ["    " + "x" * 95 + "…"]


def _visible(display):
    """What was written, without the colours of the display itself."""
    text = display.written()
    for code in ("\x1b[2m", "\x1b[32m", "\x1b[0m"):
        text = text.replace(code, "")
    return text


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """Put a stand-in for ssh first in PATH: it runs this shell script with the far end on its standard input."""

    def write(script):
        path = tmp_path / "bin" / "ssh"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(path.parent), prepend=":")

    return write


def test_follow(ssh, tmp_path):
    ssh(
        f'cat > {tmp_path}/far-end; echo "$@" > {tmp_path}/arguments\n'
        """
echo '{"event": "start", "total": 1, "thin": "/var/tmp/x"}'
echo '{"event": "running", "name": "hub-installed", "ms": null}'
echo '{"event": "installer", "line": "Successfully installed [all]"}'
echo '{"event": "completed", "name": "hub-installed", "ms": 61000}'
echo '{"event": "end"}'
"""
    )
    stream = io.StringIO()
    assert plasma_follow.follow("hub", ENTRY, 5, Console(file=stream, width=100)) == 0
    assert "    Successfully installed [all]\n" in stream.getvalue()
    assert "  done hub-installed 61.0 s\n" in stream.getvalue()
    assert (tmp_path / "far-end").read_text() == plasma_follow.REMOTE.read_text()
    assert (tmp_path / "arguments").read_text().endswith("ubuntu@203.0.113.10 sudo -n python3 -u - 5\n")


def test_follow_passes_over_what_is_no_event(ssh):
    ssh(
        """cat > /dev/null
echo 'Welcome to {"event"'
echo '{"event": "installer", "line": "whole"}'
printf '{"event": "installer", "li'
exit 255
"""
    )
    stream = io.StringIO()
    assert plasma_follow.follow("hub", ENTRY, 5, Console(file=stream, width=100)) == 255
    assert "    whole\n" in stream.getvalue()


def test_follow_when_nothing_runs(ssh):
    ssh("""cat > /dev/null; echo '{"event": "idle"}'; exit 3\n""")
    stream = io.StringIO()
    assert plasma_follow.follow("hub", ENTRY, 2.5, Console(file=stream, width=100)) == 3
    assert "No apply ran on hub within 2.5 s." in stream.getvalue()


def test_follow_when_ssh_fails(ssh):
    ssh("cat > /dev/null; exit 255\n")
    assert plasma_follow.follow("hub", ENTRY, 2.5, Console(file=io.StringIO())) == 255
