"""The execution module plasma_preflight."""

from __future__ import annotations

import functools
import os
import pathlib
import platform
import socket
import subprocess
import sys
import types

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _modules.plasma_preflight as plasma_preflight
import plasma_docker_daemon
import plasma_hub_installed as plasma_hub
import plasma_listeners
import plasma_mounts
import plasma_users_observe as observe
import tljh_settings
from tests.support.paths import REPOSITORY
from tests.unit.modules.hub_prefix import HubPrefix

SYSTEMS = {
    "ubuntu-22.04": 'ID=ubuntu\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "ubuntu-24.04": 'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
    "ubuntu-26.04": 'ID=ubuntu\nVERSION_ID="26.04"\nPRETTY_NAME="Ubuntu 26.04 LTS"\n',
    "ubuntu-20.04": 'ID=ubuntu\nVERSION_ID="20.04"\nPRETTY_NAME="Ubuntu 20.04.6 LTS"\n',
    "ubuntu-21.10": 'ID=ubuntu\nVERSION_ID="21.10"\nPRETTY_NAME="Ubuntu 21.10"\n',
    "debian-12": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "debian-13": 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
    "debian-11": 'ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n',
    "debian-testing": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\nVERSION_CODENAME=forky\n',
    "fedora-43": 'ID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43 (Server Edition)"\n',
}


READ_MOUNTS = plasma_mounts.mounts
# A port that nobody listens on.
FREE = {"address": None, "port": 9}


@pytest.fixture
def configure_loader_modules():
    functions = {"plasma_hub_installed.provider": plasma_hub.provider, "plasma_hub_ports.anybodys": lambda: 1024}
    return {plasma_preflight: {"__salt__": functions}}


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Make the server look like a fit one of this system; what is not about the system is really this machine."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "uname", lambda: types.SimpleNamespace(machine="x86_64"))
    real_isdir = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/run/systemd/system" or real_isdir(path))

    def become(name):
        release = dict(line.split("=", 1) for line in SYSTEMS[name].replace('"', "").splitlines())
        monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
        return tmp_path / "prefix"

    become("debian-12")
    return become


def _problems(prefix, provider="pypi", **arguments):
    return plasma_preflight.problems(
        provider, **{"prefix": str(prefix), "min_disk": "0K", "min_memory": "0K", "http": FREE, **arguments}
    )


@pytest.mark.parametrize(
    "size, expected",
    [
        ("0", 0),
        ("1073741824", 1073741824),
        (1073741824, 1073741824),
        ("1K", 1024),
        ("512M", 512 * 1024**2),
        ("10G", 10 * 1024**3),
        ("10g", 10 * 1024**3),
        ("1.5G", 1536 * 1024**2),
        ("2T", 2 * 1024**4),
        (" 3M ", 3 * 1024**2),
    ],
)
def test_size_to_bytes(size, expected):
    assert plasma_preflight.size_to_bytes(size) == expected


@pytest.mark.parametrize("size", ["", "G", "ten", "10GB", "10 G", "-1G", "1e3", "1.G", "1,5G", None, True, [], "1G\n2"])
def test_size_to_bytes_refuses(size):
    with pytest.raises(SaltInvocationError, match=r"is not a size: write a number with K, M, G or T, such as 10G"):
        plasma_preflight.size_to_bytes(size)


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"])
def listening_port(request):
    """A port this process listens on."""
    family, address = request.param
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        try:
            listener.bind((address, 0))
        except OSError as exc:
            pytest.skip(f"this machine has no address {address}: {exc}")
        listener.listen(1)
        yield listener.getsockname()[1]


def test_listeners_finds_this_process(listening_port):
    assert [process["pid"] for process in plasma_listeners.holders(listening_port)] == [os.getpid()]
    assert plasma_listeners.holders(listening_port)[0]["name"] == pathlib.Path("/proc/self/comm").read_text().strip()


def test_listeners_of_a_port_nobody_listens_on():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound:
        bound.bind(("127.0.0.1", 0))
        # Bound is not listening; and a connection from this port is not either.
        assert plasma_listeners.holders(bound.getsockname()[1]) == []


def test_listeners_ignores_connections(listening_port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        with socket.create_connection(server.getsockname()) as client:
            assert plasma_listeners.holders(client.getsockname()[1]) == []


@pytest.fixture
def fake_proc(tmp_path):
    """Write a /proc tree: processes as (pid, name, cgroup, inodes of their sockets) and listening (port, inode)."""

    def write(processes, listening):
        root = tmp_path / "proc"
        (root / "net").mkdir(parents=True)
        (root / "self").mkdir()
        header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        (root / "net" / "tcp").write_text(
            header
            + "".join(
                f"   {number}: 00000000:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 0 0 0 {inode} 1\n"
                for number, (port, inode) in enumerate(listening)
            ),
            encoding="ascii",
        )
        for pid, name, cgroup, inodes in processes:
            (root / str(pid) / "fd").mkdir(parents=True)
            (root / str(pid) / "comm").write_text(name + "\n", encoding="utf-8")
            (root / str(pid) / "cgroup").write_text(cgroup, encoding="utf-8")
            (root / str(pid) / "fd" / "0").symlink_to("/dev/null")
            for number, inode in enumerate(inodes, 3):
                (root / str(pid) / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
        return root

    return write


@pytest.mark.parametrize(
    "cgroup, unit",
    [
        ("0::/system.slice/traefik.service\n", "traefik.service"),
        ("12:pids:/x\n1:name=systemd:/system.slice/nginx.service\n0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/user.slice/user-0.slice/session-2.scope\n", "session-2.scope"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n", "web.service"),
        ("0::/docker/0123456789abcdef\n", ""),
        ("0::/\n", ""),
    ],
)
def test_listeners_names_the_unit(fake_proc, cgroup, unit):
    root = fake_proc([(1, "systemd", "0::/init.scope\n", [7]), (42, "web", cgroup, [11, 12])], [(80, 12), (22, 7)])
    assert plasma_listeners.holders(80, proc=root) == [{"pid": 42, "name": "web", "unit": unit}]


def test_listeners_of_a_socket_without_a_process(fake_proc):
    root = fake_proc([(1, "systemd", "0::/init.scope\n", [7])], [(80, 99)])
    assert plasma_listeners.holders(80, proc=root) == [{"pid": 0, "name": "unknown", "unit": ""}]


@pytest.mark.parametrize(
    "name", ["ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04", "debian-12", "debian-13", "debian-testing"]
)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_supported_systems(system, monkeypatch, name, machine):
    monkeypatch.setattr(os, "uname", lambda: types.SimpleNamespace(machine=machine))
    assert _problems(system(name)) == []


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("ubuntu-20.04", "the system is ubuntu 20.04: 22.04 or newer is needed"),
        ("ubuntu-21.10", "the system is ubuntu 21.10: 22.04 or newer is needed"),
        ("debian-11", "the system is debian 11: 12 or newer is needed"),
        (
            "fedora-43",
            "the system is Fedora Linux 43 (Server Edition): use Ubuntu 22.04 or newer, or Debian 12 or newer",
        ),
    ],
)
def test_unsupported_systems(system, name, sentence):
    assert _problems(system(name)) == [sentence]


@pytest.mark.parametrize("machine", ["i686", "armv7l", "riscv64", "s390x"])
def test_unsupported_processor(system, monkeypatch, machine):
    monkeypatch.setattr(os, "uname", lambda: types.SimpleNamespace(machine=machine))
    assert _problems(system("debian-12")) == [f"the processor is {machine}: only x86_64 and aarch64 are supported"]


def test_no_systemd(system, monkeypatch):
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    assert _problems(system("debian-12")) == ["systemd does not run here: the hub and its proxy are systemd services"]


def test_not_root(system, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _problems(system("debian-12")) == ["these states need root: set `sudo: true` for this server in the roster"]


def test_too_little_disk_is_said_once(system, monkeypatch, tmp_path):
    monkeypatch.setattr(plasma_docker_daemon, "docker_root", lambda: str(tmp_path / "docker"))
    found = _problems(system("debian-12"), min_disk="100000T")
    assert len(found) == 1
    assert "100000.0T is needed (plasma.preflight.min_disk)" in found[0]
    assert str(system("debian-12")) in found[0]


def test_every_short_file_system_is_said(system, monkeypatch):
    prefix = system("debian-12")
    assert os.stat("/dev/shm").st_dev != os.stat(prefix.parent).st_dev, "these tests run in a directory in memory"
    monkeypatch.setattr(plasma_docker_daemon, "docker_root", lambda: "/dev/shm/plasma-none/docker")
    found = _problems(prefix, min_disk="100000T")
    assert [
        f"of {path}: 100000.0T is needed" in line
        for path, line in zip((prefix, "/dev/shm/plasma-none/docker"), found, strict=True)
    ] == [True, True]


def test_a_second_file_system_alone_may_be_short(system, monkeypatch):
    prefix = system("debian-12")
    monkeypatch.setattr(plasma_docker_daemon, "docker_root", lambda: "/dev/shm/plasma-none/docker")
    rooms = {"/dev/shm": 2, str(prefix.parent): 20}
    monkeypatch.setattr(
        os, "statvfs", lambda path: types.SimpleNamespace(f_bavail=rooms[str(path)] * 1024**3 // 4096, f_frsize=4096)
    )
    assert _problems(prefix, min_disk="10G") == [
        "2G free on the file system of /dev/shm/plasma-none/docker: 10G is needed (plasma.preflight.min_disk)"
    ]


def _mounted(monkeypatch, tmp_path, *lines):
    table = tmp_path / "mountinfo"
    table.write_text("".join(f"{number} 1 8:{number} / {line} - ext4 /dev/x rw\n" for number, line in enumerate(lines)))
    mounted = READ_MOUNTS(table)
    monkeypatch.setattr(plasma_mounts, "mounts", lambda: mounted)


def test_file_systems_on_which_no_program_runs(system, monkeypatch, tmp_path):
    prefix = system("debian-12")
    monkeypatch.setattr(plasma_docker_daemon, "docker_root", lambda: "/dev/shm/plasma-none/docker")
    _mounted(monkeypatch, tmp_path, "/ rw,relatime", "/dev/shm rw,nodev,noexec")
    assert _problems(prefix) == [
        "/dev/shm is mounted with the option noexec, and /dev/shm/plasma-none/docker is on it, where programs are kept "
        "and run: take noexec out of its line in /etc/fstab, and run `mount -o remount,exec /dev/shm`"
    ]
    _mounted(monkeypatch, tmp_path, "/ ro,relatime", "/dev/shm rw,nosuid")
    (told,) = _problems(prefix)
    assert told.startswith("/ is mounted with the option ro, and ")
    _mounted(monkeypatch, tmp_path, "/ rw,nosuid", "/dev/shm rw,nosuid", "/home rw,noexec")
    assert _problems(prefix) == []


def test_the_room_is_that_of_the_engines_own_directory(system, monkeypatch, tmp_path):
    """A small /var does not matter to whoever has moved it to a disk of its own."""
    daemon = tmp_path / "daemon.json"
    daemon.write_text('{"data-root": "/dev/shm/plasma-none/docker"}')
    root = plasma_docker_daemon.docker_root
    monkeypatch.setattr(plasma_docker_daemon, "docker_root", lambda: root(str(daemon)))
    told = _problems(system("debian-12"), min_disk="100000T")
    assert told[1].endswith("of /dev/shm/plasma-none/docker: 100000.0T is needed (plasma.preflight.min_disk)")


def test_an_installed_hub_needs_a_tenth_of_the_disk(system, monkeypatch, tmp_path):
    prefix = system("debian-12")
    monkeypatch.setattr(plasma_docker_daemon, "docker_root", lambda: str(tmp_path / "docker"))
    monkeypatch.setattr(os, "statvfs", lambda path: types.SimpleNamespace(f_bavail=2 * 1024**3 // 4096, f_frsize=4096))
    assert _problems(prefix, min_disk="10G") == [
        f"2G free on the file system of {prefix}: 10G is needed (plasma.preflight.min_disk)"
    ]
    HubPrefix(prefix).install()
    assert _problems(prefix, min_disk="10G") == []
    assert _problems(prefix, min_disk="21G") == [
        f"2G free on the file system of {prefix}: 2.1G is needed (plasma.preflight.min_disk)"
    ]


def test_too_little_memory(system):
    found = _problems(system("debian-12"), min_memory="100000T")
    assert len(found) == 1
    assert found[0].endswith("of memory: 100000T is needed (plasma.preflight.min_memory)")


def test_what_the_kernel_keeps_of_the_memory_is_no_problem(system):
    total = int(pathlib.Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert _problems(system("debian-12"), min_memory=str(int(total * 1.05))) == []
    assert len(_problems(system("debian-12"), min_memory=str(int(total * 1.2)))) == 1


def test_port_taken_by_somebody_else(system, listening_port):
    found = _problems(system("debian-12"), http={"address": None, "port": listening_port})
    assert len(found) == 1
    assert found[0].startswith(f"port {listening_port} is taken by ")
    assert f"(pid {os.getpid()}" in found[0]
    assert found[0].endswith(
        "): stop it or move it, the hub's proxy needs this port, or give the proxy another one with plasma.http.port"
    )


@pytest.mark.parametrize(
    "unit, fine", [("traefik.service", True), ("jupyterhub.service", True), ("apache2.service", False), ("", False)]
)
def test_port_taken_by_a_unit(system, fake_proc, monkeypatch, unit, fine):
    root = fake_proc([(42, "web", f"0::/system.slice/{unit}\n" if unit else "0::/\n", [12])], [(80, 12)])
    monkeypatch.setattr(plasma_listeners, "holders", functools.partial(plasma_listeners.holders, proc=root))
    found = _problems(system("debian-12"), http=None)
    named = f"pid 42, {unit}" if unit else "pid 42"
    assert found == (
        []
        if fine
        else [
            f"port 80 is taken by web ({named}): stop it or move it, the hub's proxy needs this port, or give the "
            "proxy another one with plasma.http.port"
        ]
    )


@pytest.mark.parametrize(
    ("pillar", "config", "fine"),
    [
        # nginx has port 80, as TLJH's documentation wants it for a hub behind it.
        ({}, {}, False),
        ({}, {"http": {"address": "127.0.0.1", "port": 8000}}, True),
        ({"port": 8000}, {}, True),
        ({"port": 80}, {"http": {"port": 8000}}, False),
        ({"port": 80, "address": "192.0.2.1"}, {}, False),
    ],
)
def test_the_port_in_use_is_looked_at(system, fake_proc, monkeypatch, pillar, config, fine):
    root = fake_proc([(42, "nginx", "0::/system.slice/nginx.service\n", [12])], [(80, 12)])
    monkeypatch.setattr(plasma_listeners, "holders", functools.partial(plasma_listeners.holders, proc=root))
    monkeypatch.setattr(tljh_settings, "show", lambda prefix: config)
    found = _problems(system("debian-12"), http=pillar)
    assert bool(found) is not fine
    assert fine or found[0].startswith("port 80 is taken by nginx (pid 42, nginx.service)")


def test_a_port_of_https_counts_where_that_is_on(system, fake_proc, monkeypatch):
    root = fake_proc([(42, "apache2", "0::/\n", [12])], [(443, 12)])
    monkeypatch.setattr(plasma_listeners, "holders", functools.partial(plasma_listeners.holders, proc=root))
    prefix = system("debian-12")
    assert _problems(prefix, https={"wanted": False}) == []
    assert "plasma.https.port" in _problems(prefix, https={"wanted": True})[0]
    assert _problems(prefix, https={"wanted": True, "port": 444}) == []
    monkeypatch.setattr(tljh_settings, "show", lambda prefix: {"https": {"enabled": True}})
    assert len(_problems(prefix)) == 1


def test_a_hub_that_does_not_tell_its_settings_is_for_others_to_mend(system, monkeypatch):
    def broken(prefix):
        raise CommandExecutionError("The hub's configuration helper failed.")

    monkeypatch.setattr(tljh_settings, "show", broken)
    assert _problems(system("debian-12")) == []


def test_settings_of_the_engine(system, monkeypatch):
    monkeypatch.setattr(plasma_docker_daemon, "daemon_problems", lambda: ["it has iptables off"])
    assert _problems(system("debian-12")) == ["it has iptables off"]


@pytest.mark.parametrize("installed, wanted", [("pypi", "tljh"), ("tljh", "pypi")])
def test_other_provider(system, installed, wanted):
    prefix = system("debian-12")
    HubPrefix(prefix).install(installed)
    assert _problems(prefix, installed) == []
    (sentence,) = _problems(prefix, wanted)
    assert sentence.startswith(f"{prefix} holds a hub of the provider {installed!r}, and pillar asks for {wanted!r}")


UNIT = "[Service]\nUser=root\nWorkingDirectory={0}/state\nExecStart={0}/hub/bin/python3 -m jupyterhub\n"


@pytest.mark.parametrize("provider", ["tljh", "pypi"])
def test_other_prefix(system, tmp_path, monkeypatch, provider):
    prefix, unit = system("debian-12"), tmp_path / "jupyterhub.service"
    HubPrefix(prefix).install(provider)
    unit.write_text(UNIT.format(prefix))
    monkeypatch.setattr(plasma_hub, "_UNIT", unit)
    assert _problems(prefix, provider) == []
    (tmp_path / "link").symlink_to(prefix)
    assert _problems(tmp_path / "link", provider) == []
    (sentence,) = _problems(tmp_path / "elsewhere", provider)
    assert sentence.startswith(f"the hub of this server is in {prefix}, and pillar says {tmp_path}/elsewhere: set ")
    assert f"plasma.hub.prefix to {prefix}" in sentence


@pytest.mark.parametrize("text", ["", "[Service]\nExecStart=/srv/hub/bin/jupyterhub\n", UNIT.format("/nonexistent")])
def test_a_unit_that_leads_to_no_hub_of_ours_binds_nobody(system, tmp_path, monkeypatch, text):
    monkeypatch.setattr(plasma_hub, "_UNIT", tmp_path / "jupyterhub.service")
    assert _problems(system("debian-12")) == []
    (tmp_path / "jupyterhub.service").write_text(text)
    assert _problems(system("debian-12")) == []


def test_all_faults_at_once(system, fake_proc, monkeypatch):
    prefix = system("debian-11")
    HubPrefix(prefix).install("pypi")
    monkeypatch.setattr(os, "uname", lambda: types.SimpleNamespace(machine="i686"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    root = fake_proc([(42, "apache2", "0::/\n", [12])], [(80, 12), (443, 12)])
    monkeypatch.setattr(plasma_listeners, "holders", functools.partial(plasma_listeners.holders, proc=root))
    found = _problems(prefix, "tljh", min_disk="100000T", min_memory="100000T", http=None, https={"wanted": True})
    for part in ("debian 11", "i686", "systemd", "root", "min_disk", "min_memory", "port 80", "port 443", "provider"):
        assert sum(part in sentence for sentence in found) >= 1, part
    assert len(found) == 9
    assert not any("\n" in sentence for sentence in found)


WATCH = """
import sys
seen = []
CHANGING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown",
            "os.utime", "os.truncate", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
            "socket.connect"}
def hook(event, arguments):
    if event in CHANGING or (event == "open" and (arguments[2] or 0) & 3):  # O_WRONLY or O_RDWR
        seen.append((event, repr(arguments)))
sys.path.append("_utils")
import plasma_hub_ports
from _modules import plasma_preflight
plasma_hub_ports.anybodys = lambda: 1024
sys.dont_write_bytecode = True
sys.addaudithook(hook)
plasma_preflight.problems("pypi", prefix=sys.argv[1], min_disk="100000T", https={"wanted": True})
print(seen)
open(sys.argv[1] + "-canary", "w").close()
assert seen, "the hook sees nothing"
"""


def test_nothing_is_written_or_started(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(tmp_path / "prefix")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "prefix").exists()


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (0, None),
        (599, None),
        (-599, None),
        (1800, "30 minutes ahead of"),
        (-3 * 3600, "3 hours behind"),
        (-400 * 86400, "400 days behind"),
    ],
)
def test_a_wrong_clock(system, monkeypatch, ahead, said):
    monkeypatch.setattr(plasma_preflight.time, "time", lambda: 1_800_000_000.0)
    found = plasma_preflight.problems("pypi", http=FREE, controller_time=str(1_800_000_000 - ahead))
    clock = [problem for problem in found if "clock" in problem]
    assert len(clock) == (1 if said else 0)
    if said:
        assert "2027-01-15 08:00:00 UTC" in clock[0]
        assert said in clock[0]
        assert "timedatectl" in clock[0]


def test_without_the_time_of_a_controller_no_clock_is_wrong(system, monkeypatch):
    monkeypatch.setattr(plasma_preflight.time, "time", lambda: 0.0)
    assert not [problem for problem in plasma_preflight.problems("pypi", http=FREE) if "clock" in problem]


def test_a_place_of_homes_that_others_can_write_to_is_told(monkeypatch):
    wrong = "/srv/homes can be written by others than root (mode 2775)"
    monkeypatch.setattr(observe.plasma_files, "trouble", lambda path: wrong if path == "/srv/homes" else None)
    assert observe.homes_problem("/home") is None
    assert observe.homes_problem("/srv/homes") == (
        f"{wrong}, so that somebody could put another home in the place of one, and the hub lets nobody in whose home "
        "is in /srv/homes: `chmod go-w /srv/homes`"
    )
    belongs = "/srv belongs to uid 1000 and not to root"
    monkeypatch.setattr(observe.plasma_files, "trouble", lambda path: belongs)
    assert observe.homes_problem("/srv/homes").endswith("`chown root:root /srv`")
