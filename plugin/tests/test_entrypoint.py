"""The entrypoint, run as an ordinary user against real files, with /home in a mount namespace of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from support_entrypoint import IMAGE_ID, NAMESPACE, UID, Start

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a mount namespace")


@pytest.fixture
def start(tmp_path):
    return Start(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def programs():
    from tests.support.shell import ensure_packages

    ensure_packages(["strace", "util-linux"])


def calls(trace: Path) -> list[str]:
    """System calls of a start that name files, of all its processes, without what varies by chance."""
    return [re.sub(r"^\d+ +", "", line) for line in trace.read_text().splitlines() if "(" in line]


def test_first_start_copies_the_images_files_once(start):
    start.add("welcome.ipynb")
    start.add("data/table.csv")
    start.add(".binder/environment.yml")
    start.add(".cache/big")
    start.add("tool.sh", mode=0o755)
    (start.image / "latest").symlink_to("data/table.csv")
    result = start()
    assert result.stdout == "/home/student/course\n"
    assert result.stderr == ""
    assert start.files() == dict.fromkeys(
        ["welcome.ipynb", "data/table.csv", ".binder/environment.yml", "tool.sh", "latest"], "from the image\n"
    )
    assert os.readlink(start.directory / "latest") == "data/table.csv"
    assert os.access(start.directory / "tool.sh", os.X_OK)
    assert {path.lstat().st_uid for path in start.home.rglob("*")} == {UID}
    assert not (start.directory / ".plasma" / "new").exists()

    # What the person deletes or changes afterwards stays as they left it.
    (start.directory / "welcome.ipynb").unlink()
    (start.directory / "data" / "table.csv").write_text("mine\n")
    start()
    assert "welcome.ipynb" not in start.files()
    assert start.files()["data/table.csv"] == "mine\n"


def test_existing_work_is_never_overwritten_nor_links_followed(start):
    start.add("notes.txt")
    start.add("data/a.csv")
    start.add("data/b.csv")
    start.add("figures/plot.png")
    start.own("course/notes.txt")
    start.own("course/data/a.csv")
    start.own("elsewhere/keep.txt")
    start.link("course/figures", "../elsewhere")
    start()
    files = start.files()
    assert files["notes.txt"] == "the person's work\n"
    assert files["data/a.csv"] == "the person's work\n"
    assert files["data/b.csv"] == "from the image\n"
    assert [path.name for path in (start.home / "elsewhere").iterdir()] == ["keep.txt"]


def test_linked_directory_is_used_but_not_written_to(start):
    start.add("notes.txt")
    start.own("big-disk/keep.txt")
    start.link("course", "big-disk")
    result = start("pwd", "-P")
    assert result.stdout == "/home/student/big-disk\n"
    assert "is a symbolic link" in result.stderr
    assert [path.name for path in (start.home / "big-disk").iterdir()] == ["keep.txt"]


def test_directory_in_the_way_of_a_file_starts_in_the_home(start):
    start.add("notes.txt")
    start.own("course")
    result = start()
    assert result.stdout == "/home/student\n"
    assert "could not be copied" in result.stderr
    assert "the server starts in /home/student" in result.stderr
    assert (start.home / "course").read_text() == "the person's work\n"


def test_rebuilt_image_adds_its_new_files_once(start):
    start.add("lesson-1.ipynb")
    start()
    (start.directory / "lesson-1.ipynb").write_text("solved\n")
    start.add("lesson-2.ipynb")
    other = "sha256:" + "b" * 64
    start(IMAGE_ID=other)
    assert start.files() == {"lesson-1.ipynb": "solved\n", "lesson-2.ipynb": "from the image\n"}
    (start.directory / "lesson-2.ipynb").unlink()
    # Back and forth between the two: both are known.
    for image_id in (IMAGE_ID, other):
        start(IMAGE_ID=image_id)
        assert "lesson-2.ipynb" not in start.files()


def test_start_killed_while_copying_is_finished_by_the_next(start):
    for number in range(3):
        start.add(f"file-{number}.bin", "x" * 100_000)
    staging = start.directory / ".plasma" / "new"
    start.killed_when(lambda: (staging / "file-0.bin").exists(), slow="copy_file_range,write")
    assert start.files() == {}
    assert not (start.directory / ".plasma" / "copied").exists()
    start()
    assert {name: len(text) for name, text in start.files().items()} == {f"file-{n}.bin": 100_000 for n in range(3)}
    assert not staging.exists()


def test_start_killed_while_moving_is_finished_by_the_next(start):
    for number in range(4):
        start.add(f"part-{number}/file.bin", "x" * 10_000)
    start.killed_when(lambda: (start.directory / "part-0").exists(), slow="rename,renameat,renameat2")
    assert 1 <= len(start.files()) < 4
    assert not (start.directory / ".plasma" / "copied").exists()
    # Half-way through, the person's own view of what is there counts.
    (start.directory / "part-0" / "file.bin").write_text("mine\n")
    start()
    files = start.files()
    assert files.pop("part-0/file.bin") == "mine\n"
    assert {name: len(text) for name, text in files.items()} == {f"part-{n}/file.bin": 10_000 for n in range(1, 4)}


def test_two_servers_at_once_copy_once(start):
    for number in range(50):
        start.add(f"file-{number}.txt")
    argv, env = start.command(("true",))
    both = [subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert errors == [""] * 4
    assert len(start.files()) == 50
    assert (start.directory / ".plasma" / "copied").read_text() == IMAGE_ID + "\n"


def test_full_disk_is_said_and_the_server_starts(start):
    start.add("big.bin", "x" * 3_000_000)
    start.add("a-small.txt")
    # As with a quota: the home's file system has no room for the files.
    result = start("sh", "-c", "pwd; ls -A; ls -A .plasma; df --output=pcent . | tail -1", DISK_SIZE="1m")
    assert "The disk is full or the disk quota is used up" in result.stderr
    lines = result.stdout.split()
    assert lines[0] == "/home/student/course"
    # Nothing half-copied is left, and the space is given back.
    assert lines[1:-1] == [".plasma", "lock"]
    assert int(lines[-1].rstrip("%")) < 10


def test_completely_full_disk_starts_in_the_home(start):
    start.add("notes.txt")
    fill = "head -c 2000000 /dev/zero >/home/student/mine 2>/dev/null;"
    probe = start("sh", "-c", "true", DISK_SIZE="1m")
    assert probe.stderr == ""
    argv, env = start.command(("pwd",), DISK_SIZE="64k")
    # Fill the disk before the entrypoint runs.
    namespace = NAMESPACE.replace("exec $TRACE", f"{{ {fill} }} || true\nexec $TRACE")
    argv[argv.index(NAMESPACE)] = namespace
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("/home/student", "/home/student/course")
    assert "The disk is full or the disk quota is used up" in done.stderr


def test_unreadable_image_home_is_said_and_the_server_starts(start):
    start.add("notes.txt")
    start.image.chmod(0o700)
    result = start()
    assert result.stdout == "/home/student/course\n"
    assert "cannot be read in its image" in result.stderr
    assert start().stderr == "", "said once, not at every start"


def test_unreadable_files_of_the_image_are_left_out_and_said(start):
    start.add("notes.txt")
    start.add(".ssh/key", mode=0o600)
    result = start()
    assert start.files() == {"notes.txt": "from the image\n"}
    assert "Not copied from the image" in result.stderr
    assert start().stderr == ""


def test_settings_are_written_once_and_only_when_absent(start):
    settings = ".jupyter/lab/user-settings"
    text = start.directory / settings / "jupyterlab-topbar-text" / "plugin.jupyterlab-settings"
    usage = start.directory / settings / "@jupyter-server" / "resource-usage" / "topbar-item.jupyterlab-settings"
    start.add(f"{settings}/@jupyter-server/resource-usage/topbar-item.jupyterlab-settings", '{"enable": false}')
    name = 'A "quoted" \\ name\x07'
    start(NAME=name)
    assert json.loads(text.read_text()) == {"editable": False, "text": name.replace("\x07", "")}
    assert json.loads(usage.read_text()) == {"enable": False}
    text.unlink()
    start()
    assert not text.exists(), "what the person removed stays removed"


def test_settings_are_not_written_through_a_link(start):
    start.own("private/keep.txt")
    start.link("course/.jupyter", "../private")
    start()
    assert [path.name for path in (start.home / "private").iterdir()] == ["keep.txt"]


def test_server_gets_the_environments_paths(start):
    result = start("sh", "-c", 'echo "$JUPYTER_CONFIG_DIR|$JUPYTER_PATH|$JUPYTER_RUNTIME_DIR|$PATH|$*"', "sh", "a b")
    assert result.stdout == (
        "/home/student/course/.jupyter|/home/student/course/.local/share/jupyter:/opt/plasma/share/jupyter|"
        "/home/runtime/jupyter|"
        "/usr/local/bin:/usr/bin:/bin|a b\n"
    )


SHOW = 'echo "$PYTHONNOUSERSITE|$JUPYTER_CONFIG_DIR|$JUPYTER_DATA_DIR|$JUPYTER_PATH|$PATH|$PWD"'


def test_safe_mode_leaves_out_what_the_home_brings(start):
    path = "/home/student/.local/bin:/usr/bin:/home/student:/bin:/home/students/bin"
    result = start("/bin/sh", "-c", SHOW, IMAGE_PATH=path, EXTRA="PLASMA_SAFE_MODE=1")
    assert result.stdout == (
        "1|/home/runtime/safe/config|/home/runtime/safe/data|/opt/plasma/share/jupyter|"
        "/usr/bin:/bin:/home/students/bin|/home/student/course\n"
    )
    plain = start("/bin/sh", "-c", SHOW, IMAGE_PATH=path, EXTRA="PLASMA_SAFE_MODE=").stdout
    assert plain.startswith("|/home/student/course/.jupyter||")
    assert f"|{path}|" in plain


# What Jupyter's server does at its start: Python with the person's packages, then the files of settings.
PYTHON = "/usr/bin/python3"
SERVER = """
import os, pathlib
for file in pathlib.Path(os.environ["JUPYTER_CONFIG_DIR"]).glob("*.py"):
    exec(file.read_text())
print("up")
"""


@pytest.mark.parametrize("damaged", [".local/lib/python{}/site-packages/usercustomize.py", "course/.jupyter/config.py"])
def test_safe_mode_starts_a_server_that_the_home_would_end(start, damaged):
    """Packages of `pip install --user` come before those of Python itself, conda's and Debian's alike."""
    version = subprocess.check_output([PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True)
    start.own(damaged.format(version.strip()), "import os\nos._exit(7)\n")
    start(PYTHON, "-c", SERVER, expect=7)
    assert start(PYTHON, "-c", SERVER, EXTRA="PLASMA_SAFE_MODE=1").stdout == "up\n"


@pytest.mark.parametrize(("umask", "mode"), [("", "644"), ("0002", "664"), ("077", "600")])
def test_files_of_a_server_get_the_umask_that_pillar_names(start, umask, mode):
    start.add("notes.txt")
    result = start("sh", "-c", "touch new; stat -c %a new notes.txt", EXTRA=f"PLASMA_UMASK={umask}")
    assert result.stdout == f"{mode}\n644\n"


def test_a_time_zone_that_the_image_does_not_know_is_no_utc(start):
    known = start("sh", "-c", "echo $TZ", EXTRA="TZ=Europe/Berlin PLASMA_TZ=CET-1CEST").stdout
    expected = "Europe/Berlin" if Path("/usr/share/zoneinfo/Europe/Berlin").exists() else "CET-1CEST"
    assert known == f"{expected}\n"
    unknown = "TZ=Europe/Nowhere PLASMA_TZ=CET-1CEST,M3.5.0,M10.5.0/3"
    assert start("date", "-d", "2026-07-01 12:00Z", "+%H", EXTRA=unknown).stdout == "14\n"


def test_planted_programs_are_not_run(start):
    """Weakness 3: the image's PATH begins with a directory of the person."""
    start.add("notes.txt")
    for name in ("cp", "mv", "mkdir", "rm", "find", "sed", "tr", "grep", "flock", "su", "sh", "env"):
        planted = start.own(f".local/bin/{name}", "#!/bin/sh\necho planted >>/home/student/planted\n")
        planted.chmod(0o755)
    start("/bin/true", IMAGE_PATH="/home/student/.local/bin:/usr/bin:/bin")
    assert not (start.home / "planted").exists()
    assert start.files() == {"notes.txt": "from the image\n"}


def test_profiles_are_not_run(start):
    """Weakness 1: nothing of the person runs before the server does."""
    for name in (".bash_profile", ".profile", ".bashrc", ".shrc"):
        start.own(name, "echo planted >>/home/student/planted\n")
    start("true", EXTRA="ENV=/home/student/.shrc")
    assert not (start.home / "planted").exists()


def test_repositories_start_script_runs_around_the_server(start):
    script = start.add("start", '#!/bin/sh\nexport FROM_START=yes\nexec "$@"\n', mode=0o755)
    result = start("sh", "-c", "echo $FROM_START $PWD", EXTRA=f"R2D_ENTRYPOINT=/home/jovyan/{script.name}")
    assert result.stdout == "yes /home/student/course\n"


def test_later_starts_take_the_same_however_many_files_there_are(start, tmp_path):
    """With the marker there, the number of files in the home makes no difference to what is asked of the system."""
    start.add("notes.txt")
    start()
    traces = {}
    for count in (10, 100_000):
        directory = start.directory / "results"
        directory.mkdir(exist_ok=True)
        for number in range(count):
            (directory / str(number)).touch()
        log = tmp_path / f"trace-{count}"
        start("/bin/true", TRACE=f"strace -f -e trace=file,getdents64,clone,clone3,vfork,fork -o {log}")
        traces[count] = calls(log)
        assert not [call for call in traces[count] if "getdents64" in call], "no directory is listed"
    assert len(traces[10]) == len(traces[100_000])
    assert sum("clone" in call or "fork" in call for call in traces[100_000]) == 0, "no program is run but the server"


def test_first_start_does_not_look_at_the_persons_other_files(start, tmp_path):
    """The first copy costs what the image holds, not what the person has."""
    start.add("notes.txt")
    directory = start.directory / "results"
    directory.mkdir(parents=True)
    os.chown(start.directory, UID, UID)
    for number in range(1000):
        (directory / str(number)).touch()
    log = tmp_path / "trace"
    start("/bin/true", TRACE=f"strace -f -e trace=file -o {log}")
    assert start.files()["notes.txt"] == "from the image\n"
    assert not [call for call in calls(log) if "results" in call]
