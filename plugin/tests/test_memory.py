"""What the kernel ended for want of memory, and how people hear of it: with files of either version of cgroups."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from tljh_plasma import disk_quota, failures, memory, notices, watched
from tljh_plasma.disk_quota import Notice

GIB = 1024**3
V1 = "12:pids:/docker/1\n5:memory:/docker/1\n1:name=systemd:/docker/1\n"
V2 = "0::/system.slice/docker-1.scope\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """The kernel's files for the container with process 42."""
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "PROCESSES", tmp_path / "proc")
    (tmp_path / "proc" / "42").mkdir(parents=True)

    class Machine:
        own = tmp_path / "proc" / "42" / "cgroup"

        def count(self, killed: int, version: int = 2) -> None:
            self.own.write_text(V2 if version == 2 else V1)
            place = (
                "system.slice/docker-1.scope/memory.events" if version == 2 else "memory/docker/1/memory.oom_control"
            )
            file = tmp_path / "cgroup" / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"low 0\noom 9\noom_kill {killed}\noom_group_kill 0\n")

    return Machine()


@pytest.mark.parametrize("version", [1, 2])
def test_the_kernel_counts_what_it_ends(machine, version):
    machine.count(3, version)
    path = memory.events_file(42)
    assert memory.killed(path) == 3
    path.unlink()
    assert memory.killed(path) is None
    assert memory.events_file(43) is None


@pytest.fixture
def server(tmp_path, machine, monkeypatch):
    """A running server, without what is JupyterHub's and Docker's."""
    state = {"Pid": 42, "OOMKilled": False, "ExitCode": 0}

    async def docker(method, container):
        assert (method, container) == ("inspect_container", "abc")
        return {"State": state}

    monkeypatch.setattr(disk_quota, "notice_for", lambda name: None)
    monkeypatch.setattr(watched, "find_entry", lambda name: SimpleNamespace(pw_uid=1500))
    monkeypatch.setattr(memory, "_ended", {})
    one = SimpleNamespace(
        state=state, docker=docker, object_id="abc", name="", told={}, _events=None, _killed=0, _log_name="ada",
        user=SimpleNamespace(name="ada"), server=SimpleNamespace(base_url="/user/ada/"), summary={"memory": 2 * GIB},
        notices_dir=str(tmp_path / "notices"), log=logging.getLogger("memory-test"),
    )  # fmt: skip
    for name in ("look_at_memory", "explain_the_end", "_container_state", "tell"):
        method = getattr(watched.WatchedSpawner, name)
        setattr(one, name, method.__get__(one))
    return one


def told(server) -> list[dict[str, str]]:
    """What the page of the server is told."""
    path = Path(server.notices_dir, "1500", notices.FILE)
    return json.loads(path.read_text()).get("servers", {}).get("/user/ada/", []) if path.exists() else []


def test_jupyterlab_and_the_log_say_that_memory_was_the_reason(server, machine, caplog):
    machine.count(0)
    asyncio.run(server.look_at_memory())
    assert (told(server), caplog.text) == ([], "")
    machine.count(1)
    asyncio.run(server.look_at_memory())
    (one,) = told(server)
    assert one["title"] == "Your server ran out of memory"
    assert "had used all of its 2 GB of memory" in one["text"]
    assert "Server ada: Your server ran out of memory, which is 2 GB" in caplog.text
    # Once for each time, and a notice that was dismissed is not the same as the next one.
    caplog.clear()
    asyncio.run(server.look_at_memory())
    assert caplog.text == ""
    machine.count(3)
    asyncio.run(server.look_at_memory())
    assert told(server)[0]["title"] == "Your server ran out of memory (3 times)"


def test_a_look_at_a_container_that_is_gone_says_nothing(server, machine, caplog):
    server.object_id = ""
    asyncio.run(server.look_at_memory())
    server.object_id, server.state["Pid"] = "abc", 0
    asyncio.run(server.look_at_memory())
    assert (told(server), caplog.text) == ([], "")


@pytest.mark.parametrize(
    ("killed", "code", "expected"),
    [
        (True, 137, True),
        # A kernel was ended long ago; the machine was restarted, which kills what does not stop in time.
        (True, 0, False),
        (False, 137, False),
        (False, 1, False),
    ],
)
def test_the_hubs_pages_say_why_a_whole_server_ended(server, caplog, killed, code, expected):
    server.state |= {"OOMKilled": killed, "ExitCode": code}
    asyncio.run(server.explain_the_end())
    page = asyncio.run(notices.for_page("ada"))
    assert bool(page) == expected == ("out of memory" in caplog.text)
    if page:
        assert page.title == "Your server was ended: out of memory"
        assert "2 GB" in page.text
    assert asyncio.run(notices.for_page("bob")) is None
    # Until it starts again.
    memory.forget_end("ada", "")
    assert asyncio.run(notices.for_page("ada")) is None


def test_servers_of_one_person_are_told_their_own_things(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_quota, "notice_for", lambda name: None)
    one, two = Notice("warning", "One", "1"), Notice("error", "Two", "2")

    def read():
        return json.loads(Path(tmp_path, "1500", notices.FILE).read_text())

    notices.refresh(str(tmp_path), "ada", 1500, "/user/ada/", [one])
    notices.refresh(str(tmp_path), "ada", 1500, "/user/ada/lab/", [two])
    assert set(read()["servers"]) == {"/user/ada/", "/user/ada/lab/"}
    notices.refresh(str(tmp_path), "ada", 1500, "/user/ada/", [])
    assert read() == {"servers": {"/user/ada/lab/": [{"level": "error", "title": "Two", "text": "2"}]}}
    # A file that an earlier version or a full disk left behind is no reason to say nothing.
    Path(tmp_path, "1500", notices.FILE).write_text("{")
    notices.refresh(str(tmp_path), "ada", 1500, "/user/ada/", [one])
    assert set(read()["servers"]) == {"/user/ada/"}


def test_an_engine_that_does_not_tell_still_explains_a_failed_start():
    assert failures.is_out_of_memory({"ExitCode": 137})
    assert not failures.is_out_of_memory({"ExitCode": 1, "OOMKilled": False})
