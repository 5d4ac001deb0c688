"""Environments in pillar: from an empty hub to built, moved, failed, private, ready and removed ones."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import threading
import time

import pytest
import requests
import yaml

from tests.e2e.conftest import make_account
from tests.support.builder_image import builder_image
from tests.support.engine import docker
from tests.support.environment_image import environment_image, load_into
from tests.support.git_repository import (
    bridge_address,
    broken,
    dockerfile,
    make_repository,
    serve,
    serve_private,
    slow,
)
from tests.support.hub import HubUser
from tests.support.paths import REPOSITORY
from tests.support.shell import SupportError, wait_for

STATE = "environments-managed|environments-managed"
TEMPLATES = REPOSITORY / "docs" / "templates"
# Which of repo2docker's ways to build a repository is the first that takes it.
PICK = """
import json, os
from repo2docker.app import Repo2Docker
os.chdir("/template")
pack = next(pack for pack in (kind("base") for kind in Repo2Docker().buildpacks) if pack.detect())
date = getattr(pack, "checkpoint_date", None)
print(json.dumps([type(pack).__name__, f"{pack.r_version} of {date}" if date else ""]))
"""
# Another one each time: a server that is kept may have the former one in its logs, of a test that failed.
MARKER = f"Marker-{secrets.token_hex(8)}"
READY = "ready/course:2026"


class Class:
    """The server with its repositories, and what pillar says of environments."""

    def __init__(self, kept_server, directory, git, private):
        self.target, self.site = kept_server.target, kept_server.site
        self.kept, self.directory, self.git, self.private = kept_server, directory, git, private
        self.url = f"http://{self.target.host}"
        self.base = environment_image()

    def pillar(self, *environments, **keys):
        self.kept.with_pillar(environments=list(environments), **keys)

    def apply(self, *arguments):
        return self.site.apply("environments", *arguments)

    def agreed(self, *environments, **keys):
        """Predict and apply; what was predicted is what happens, and nothing is left to do then."""
        self.pillar(*environments, **keys)
        predicted, done = self.apply("test=True"), self.apply()
        assert not done.failed, done.failed
        changes = done.changed.get(STATE, {})
        assert predicted.changed.get(STATE, {}) == changes
        assert (STATE in predicted.predicted) is bool(changes)
        assert STATE not in self.apply("test=True").predicted
        again = self.apply()
        assert (again.changed, again.failed) == ({}, {})
        return changes

    def comment(self, result):
        return result.states[STATE]["comment"]

    def items(self):
        return {item["image"]: item for item in self.site.salt("plasma_environment_api.items").value}

    def image_id(self, image):
        return self.target.sudo(["docker", "image", "inspect", "--format", "{{.Id}}", image]).stdout.strip()

    def person(self, name, *options):
        self.target.sudo(f"userdel --remove {name} 2>/dev/null || true")
        account = make_account(self.target, name, *options)
        person = HubUser(self.url, name)
        person.login(account.password)
        assert person.logged_in
        return person


@pytest.fixture(scope="module")
def course(kept_server, tmp_path_factory):
    kept_server.with_pillar()
    directory = tmp_path_factory.mktemp("repositories")
    load_into(kept_server.target, environment_image())
    load_into(kept_server.target, builder_image())
    with (
        serve(directory, bridge_address()) as git,
        serve_private(directory, bridge_address(), "teacher", MARKER) as private,
    ):
        yield Class(kept_server, directory, git, private)


@pytest.fixture(scope="module")
def statistics(course):
    """The repository of the environment that is there all the time."""
    return make_repository(course.directory / "statistics", dockerfile(course.base), {"lesson.md": "# Means\n"})


@pytest.fixture(scope="module")
def entry(course):
    return {
        "name": "statistics",
        "repository": f"{course.git}/statistics",
        "ref": "main",
        "memory": "512M",
        "groups": ["maths"],
        "description": "Means, medians and more",
    }


@pytest.fixture(scope="module")
def student(course):
    return course.person("mathilda", "--groups", "maths")


@pytest.fixture(scope="module")
def built(course, statistics, entry):
    """Dry run and first apply of two environments."""
    make_repository(course.directory / "plain", dockerfile(course.base))
    course.pillar(entry, {"name": "plain", "repository": f"{course.git}/plain"})
    predicted, done = course.apply("test=True"), course.apply()
    assert not done.failed, done.failed
    return predicted, done


def test_a_dry_run_says_what_would_be_built(built):
    predicted, done = built
    assert STATE in predicted.predicted
    comment = predicted.states[STATE]["comment"]
    assert comment.startswith("plain, statistics would be built.")
    if "environments-packages|environments-packages" in predicted.predicted:
        assert "Git is still to be installed here" in comment
    assert set(predicted.changed[STATE]) == {"statistics", "plain"}


def test_both_are_built_at_once_from_the_commits_that_they_are_at(course, statistics, built):
    done = built[1]
    assert done.states[STATE]["comment"] == "plain, statistics built."
    commit = statistics.git("rev-parse", "main")
    assert done.changed[STATE]["statistics"]["new"] == {
        "image_name": "statistics:main",
        "repository": f"{course.git}/statistics",
        "ref": "main",
        "commit": commit,
        "memory": "512M",
        "groups": ["maths"],
        "description": "Means, medians and more",
    }
    item = course.items()["statistics:main"]
    assert (item["status"], item["commit"], item["source"]) == ("built", commit, "pillar")
    assert item["limits"] == {"memory": 512 * 2**20, "cpu": None}
    assert course.items()["plain:HEAD"]["status"] == "built"


def test_a_second_apply_changes_nothing(course, built):
    before = course.image_id("statistics:main")
    again = course.apply()
    assert (again.changed, again.failed) == ({}, {})
    assert course.comment(again) == "All 2 environments are as wanted."
    assert course.apply("test=True").predicted == set()
    assert course.image_id("statistics:main") == before


def test_groups_say_who_may_start_it(course, built, student):
    outsider = course.person("outsider")
    with pytest.raises(SupportError, match="403"):
        outsider.start("statistics:main")
    student.start("statistics:main")
    student.stop()


def test_a_branch_that_has_moved_is_built_again(course, statistics, entry, built):
    before = course.image_id("statistics:main")
    old = statistics.git("rev-parse", "main")
    new = statistics.commit({"lesson.md": "# Medians\n"})
    assert course.agreed(entry) == {"statistics": {"old": {"commit": old}, "new": {"commit": new}}}
    assert course.image_id("statistics:main") != before
    read = ["docker", "run", "--rm", "--entrypoint", "cat", "statistics:main", "/home/jovyan/lesson.md"]
    assert course.target.sudo(read).stdout == "# Medians\n"
    # What left the list stays.
    assert "plain:HEAD" in course.items()


def test_limits_and_words_take_no_build(course, entry, built):
    created = course.items()["statistics:main"]["created"]
    changed = {**entry, "memory": "1G", "cpu": 0.5, "description": "Medians"}
    assert course.agreed(changed)["statistics"]["new"] == {"memory": "1G", "cpu": 0.5, "description": "Medians"}
    item = course.items()["statistics:main"]
    assert (item["limits"], item["created"]) == ({"memory": 2**30, "cpu": 0.5}, created)
    course.agreed(entry)


def test_a_failed_build_leaves_the_old_image_in_use_and_shows_the_end_of_its_log(
    course, statistics, entry, built, student
):
    before, commit = course.image_id("statistics:main"), course.items()["statistics:main"]["commit"]
    statistics.commit({"Dockerfile": dockerfile(course.base, broken())})
    make_repository(course.directory / "other", dockerfile(course.base))
    course.pillar(entry, {"name": "other", "repository": f"{course.git}/other"})
    done = course.apply()
    assert set(done.failed) == {STATE}
    # The others are done.
    assert list(done.changed[STATE]) == ["other"]
    comment = course.comment(done)
    assert comment.startswith("other built.\nstatistics: the build failed. The old image stays in use.")
    assert "does not exist" in comment
    assert 3 < len(comment.splitlines()) <= 23
    item = course.items()["statistics:main"]
    assert (item["status"], item["has_image"], item["commit"]) == ("failed", True, commit)
    assert course.image_id("statistics:main") == before
    student.start("statistics:main")
    student.stop()
    statistics.commit({"Dockerfile": dockerfile(course.base)})
    assert set(course.agreed(entry)) == {"statistics"}


def test_a_run_that_was_cut_off_is_taken_up_by_the_next(course, statistics, entry, built):
    statistics.commit({"Dockerfile": dockerfile(course.base, slow(25))})
    course.pillar(entry)
    process = course.site.start(
        "state.apply", "environments", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    builders = "docker ps --quiet --filter label=repo2docker.build=statistics:main"
    wait_for(lambda: course.target.sudo(builders).stdout.strip(), timeout=120, what="the build", interval=0.5)
    builder = course.target.sudo(builders).stdout.strip()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    course.target.sudo("for i in $(seq 20); do pkill -9 -f '[s]alt-call' || exit 0; sleep 0.5; done")
    assert course.target.sudo(builders).stdout.strip() == builder
    predicted, done = course.apply("test=True"), course.apply()
    assert predicted.changed[STATE]["statistics"]["new"] == {"status": "built"}
    assert not done.failed, done.failed
    # It was waited for, and not begun again.
    assert course.items()["statistics:main"]["commit"] == statistics.git("rev-parse", "main")
    assert course.apply().changed == {}


def test_another_reference_takes_the_place_of_the_former_one_with_its_groups(course, statistics, entry, built):
    statistics.commit({"Dockerfile": dockerfile(course.base)})
    statistics.tag("v1")
    without_groups = {name: value for name, value in entry.items() if name != "groups"}
    changes = course.agreed({**without_groups, "ref": "v1"})
    assert changes["statistics"]["old"]["images"] == ["statistics:main"]
    items = course.items()
    assert "statistics:main" not in items
    assert items["statistics:v1"]["groups"] == ["maths"]


def test_what_is_in_use_is_not_removed_and_waited_for_when_asked(course, built, student):
    student.start("statistics:v1")
    gone = {"name": "statistics", "absent": True}
    course.pillar(gone)
    for done in (course.apply("test=True"), course.apply()):
        assert set(done.failed) == {STATE}
        assert "statistics:v1 cannot be removed while mathilda uses it" in course.comment(done)
        assert done.changed == {}
    assert student.server()["ready"]
    course.pillar({**gone, "wait": 120})
    stopping = threading.Timer(15, student.stop)
    stopping.start()
    done = course.apply()
    stopping.join()
    assert not done.failed, done.failed
    assert done.changed[STATE] == {"statistics": {"old": {"images": ["statistics:v1"]}, "new": None}}
    assert "statistics:v1" not in course.items()
    assert course.apply().changed == {}


class Watch:
    """Looks for a marker in the arguments of all processes of a server."""

    SCRIPT = (
        "import pathlib, sys, time\n"
        "end, seen, looks = time.time() + 600, set(), 0\n"
        "me = pathlib.Path('/proc/self').resolve().name\n"
        "while time.time() < end and not pathlib.Path('/run/watch-ends').exists():\n"
        "    looks += 1\n"
        "    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
        "        try:\n"
        "            text = path.read_bytes()\n"
        "        except OSError:\n"
        "            continue\n"
        "        if path.parent.name != me and sys.argv[1][::-1].encode() in text:\n"
        "            seen.add(text)\n"
        "print(looks, seen)\n"
    )

    def __init__(self, target, marker):
        self.target = target
        target.sudo("rm -f /run/watch-ends")
        # Backwards: its own arguments are those of sudo and of shells, too.
        command = [*target.ssh_command(), "--", "sudo", "python3", "-", marker[::-1]]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(self.SCRIPT)
        self.process.stdin.close()

    def end(self):
        self.target.sudo("touch /run/watch-ends")
        looks, _, seen = self.process.stdout.read().partition(" ")
        self.process.wait(timeout=60)
        return int(looks), seen.strip()


def test_the_token_of_a_private_repository_is_nowhere(course, built):
    make_repository(course.directory / "private", dockerfile(course.base))
    entry = {"name": "private", "repository": f"{course.private}/private/.git", "ref": "main"}
    course.pillar(entry)
    refused = course.apply()
    assert "it needs credentials, or does not exist" in course.comment(refused)

    course.pillar({**entry, "credentials": {"username": "teacher", "password": MARKER}})
    watch = Watch(course.target, MARKER)
    predicted, done = course.apply("test=True"), course.apply()
    looks, seen = watch.end()
    assert not done.failed, done.failed
    assert course.items()["private:main"]["status"] == "built"
    assert looks > 20
    assert seen == "set()"
    for result in (predicted, done, course.apply(), course.site.salt("plasma_environment.export")):
        assert MARKER not in result.stdout + result.stderr
    shown = course.site.salt("state.show_lowstate")
    assert "private:main" not in shown.stdout and "environments-managed" in shown.stdout
    assert MARKER not in shown.stdout

    # On the server: logs, databases, images, containers. Salt keeps what it was sent where its user alone can read.
    places = ["/var/log", "/opt/tljh", "/etc", "/run", "/tmp", "/var/lib/plasma", "/root", "/home"]
    # Not as an argument: sudo writes those down.
    find = ["grep", "-rlsaF", "-f", "-", *places]
    held = course.target.sudo(find, input=f"{MARKER}\n", check=False, timeout=300).stdout.split()
    assert held == []
    assert MARKER not in course.target.sudo("journalctl --no-pager --output=cat", timeout=300).stdout
    inspected = course.target.sudo("docker image inspect private:main; docker history --no-trunc private:main")
    assert MARKER not in inspected.stdout
    assert MARKER not in course.target.sudo("docker ps --all --quiet | xargs -r docker inspect").stdout
    sent = course.target.sudo("find /var/tmp -type f -name 'salt_state.tgz' -perm /077").stdout
    assert sent == ""
    # On the controller: caches and logs.
    cached = subprocess.run(
        ["grep", "-rlsa", MARKER, str(course.site.directory / "salt")], capture_output=True, text=True, check=False
    )
    assert cached.stdout == ""
    course.agreed({"name": "private", "absent": True})


def test_what_was_made_in_the_browser_is_left_alone_and_exported(course, built):
    """As the page makes it: with the token of somebody who administers the hub."""
    make_repository(course.directory / "paged", dockerfile(course.base))
    teacher = course.person("teacher")
    token = teacher.api("POST", "/users/teacher/tokens", json={"note": "test"}).json()["token"]
    api, headers = f"{course.url}/services/plasma/api/environments", {"Authorization": f"token {token}"}
    body = {"repo": f"{course.git}/paged", "ref": "main", "name": "paged", "memory": 1, "groups": ["maths"]}
    answer = requests.post(api, json=body, headers=headers, timeout=60)
    assert answer.status_code == 201, answer.text
    wait_for(lambda: course.items()["paged:main"]["status"] == "built", timeout=180, what="the build", interval=3)
    before = course.items()["paged:main"]
    assert before["source"] == "browser"
    course.agreed({"name": "plain", "repository": f"{course.git}/plain"})
    assert course.items()["paged:main"] == before

    exported = course.site.salt("plasma_environment.export", out="yaml")
    found = yaml.safe_load(exported.stdout)[course.target.name]["plasma"]["environments"]
    (paged,) = [one for one in found if one["name"] == "paged"]
    assert paged == {
        "name": "paged",
        "repository": f"{course.git}/paged",
        "ref": "main",
        "memory": "1G",
        "groups": ["maths"],
    }
    listed = course.site.salt("plasma_environment.list").value
    assert "paged:main" in listed and "browser" in listed
    # In pillar it is pillar's from then on.
    course.agreed(*[one for one in found if one["name"] in ("paged", "plain")])
    item = course.items()["paged:main"]
    assert (item["source"], item["groups"], item["limits"]["memory"]) == ("pillar", ["maths"], 2**30)
    course.agreed({"name": "paged", "absent": True})


def test_a_ready_image_comes_from_a_file(course, built, student):
    target = course.target
    target.sudo(f"mkdir -p /srv/images && docker tag {course.base} {READY}")
    target.sudo(f"docker save --output /srv/images/ready.tar {READY} && docker rmi {READY}", timeout=600)
    entry = {"name": "ready", "image": READY, "image_file": "/srv/images/ready.tar", "memory": "512M"}
    changes = course.agreed(entry)
    assert changes["ready"]["new"] == {"image_name": "ready:2026", "image": READY, "memory": "512M"}
    item = course.items()["ready:2026"]
    assert (item["status"], item["reference"], item["limits"]["memory"]) == ("built", READY, 512 * 2**20)
    student.start("ready:2026")
    student.stop()

    # A newer archive of the same name.
    target.sudo(["sh", "-c", f"printf 'FROM {READY}\\nLABEL newer=yes\\n' | docker build -t {READY} -"], timeout=300)
    target.sudo(f"docker save --output /srv/images/ready.tar {READY} && docker rmi {READY}", timeout=600)
    assert set(course.agreed(entry)["ready"]["new"]) == {"id"}
    shown = target.sudo(["docker", "image", "inspect", "--format", "{{.Config.Labels.newer}}", "ready:2026"])
    assert shown.stdout.strip() == "yes"

    target.sudo("chown mathilda /srv/images/ready.tar")
    refused = course.apply()
    assert "/srv/images/ready.tar is not read: it has to be a file that belongs to root" in course.comment(refused)
    target.sudo("chown root /srv/images/ready.tar")
    course.agreed(
        {"name": "ready", "absent": True}, {"name": "plain", "absent": True}, {"name": "other", "absent": True}
    )
    time.sleep(1)
    assert not {"ready:2026", "plain:HEAD", "other:HEAD"} & set(course.items())


def test_without_the_hub_it_says_what_to_do(course, built):
    course.pillar({"name": "plain", "repository": f"{course.git}/plain"})
    course.target.sudo("systemctl stop jupyterhub")
    try:
        done = course.apply()
        assert set(done.failed) == {STATE}
        assert "is stopped" in course.comment(done) and "systemctl start jupyterhub" in course.comment(done)
    finally:
        course.target.sudo("systemctl start jupyterhub")
        assert course.site.salt("tljh_config.ready").value["ready"]


@pytest.mark.parametrize(
    ("language", "picked"),
    [
        ("python", ["CondaBuildPack", ""]),
        ("r", ["RBuildPack", "4.4 of 2025-06-01"]),
        ("bash", ["PythonBuildPack", ""]),
    ],
)
def test_templates_are_what_repo2docker_takes_them_for(language, picked, tmp_path):
    """As far as it goes without conda-forge and CRAN: the real repo2docker reads them."""
    script = tmp_path / "pick.py"
    script.write_text(PICK)
    made = docker("create", "--network", "none", builder_image(), "/opt/venv/bin/python", "/pick.py").stdout.strip()
    try:
        docker("cp", TEMPLATES / language, f"{made}:/template")
        docker("cp", script, f"{made}:/pick.py")
        assert json.loads(docker("start", "--attach", made).stdout.splitlines()[-1]) == picked
    finally:
        docker("rm", "--force", made)


def test_the_template_for_bash_is_written_down_by_repo2docker(tmp_path):
    made = docker(
        "create", "--network", "none", builder_image(), "jupyter-repo2docker", "--no-build", "--debug",
        "--user-name=jovyan", "--user-id=1100", "/template",
    ).stdout.strip()  # fmt: skip
    try:
        docker("cp", TEMPLATES / "bash", f"{made}:/template")
        written = docker("start", "--attach", made).stdout
    finally:
        docker("rm", "--force", made)
    assert "bash-completion jq less man-db tree" in written
    assert 'pip install --no-cache-dir -r "requirements.txt"' in written
    assert "RUN ./postBuild" in written
