"""Environments in pillar: from an empty hub to built, moved, failed, used and removed ones."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading

import pytest
import requests
import yaml

from tests.e2e.environments_course import STATE, course_of
from tests.support.git_repository import broken, dockerfile, make_repository, slow
from tests.support.shell import SupportError, wait_for


@pytest.fixture(scope="module")
def course(kept_server, tmp_path_factory):
    with course_of(kept_server, tmp_path_factory.mktemp("repositories")) as found:
        yield found


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
        "opens": "/lab/tree/lesson.md",
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
        "opens": "/lab/tree/lesson.md",
        "groups": ["maths"],
        "description": "Means, medians and more",
    }
    item = course.items()["statistics:main"]
    assert (item["status"], item["commit"], item["source"]) == ("built", commit, "pillar")
    assert (item["limits"], item["opens"]) == ({"memory": 512 * 2**20, "cpu": None}, "/lab/tree/lesson.md")
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


def test_pillar_goes_back_to_the_former_image_and_forth_again(course, statistics, entry, built, student):
    """Nothing is built for it, and what runs stays as it is."""
    newest, commit = course.image_id("statistics:main"), statistics.git("rev-parse", "main~1")
    student.start("statistics:main")
    there, back = {"old": {"previous": False}, "new": {"previous": True}}, {"previous": True}
    assert course.agreed({**entry, **back}) == {"statistics": there}
    item = course.items()["statistics:main"]
    assert (item["previous"], item["commit"], item["status"]) == (True, commit, "built")
    read = ["docker", "run", "--rm", "--entrypoint", "cat", "statistics:main", "/home/jovyan/lesson.md"]
    assert course.target.sudo(read).stdout == "# Means\n"
    assert student.server()["ready"]
    student.stop()
    # The timer of leftovers leaves both; what is older than these two has gone.
    course.site.salt("plasma_prune.run")
    labelled = ["docker", "images", "--quiet", "--filter", "label=tljh_repo2docker.image_name=statistics:main"]
    assert len(set(course.target.sudo(labelled).stdout.split())) == 2
    assert course.agreed(entry) == {"statistics": {"old": there["new"], "new": there["old"]}}
    assert course.image_id("statistics:main") == newest


def test_limits_and_words_take_no_build(course, entry, built):
    created = course.items()["statistics:main"]["created"]
    words = {"memory": "1G", "cpu": 0.5, "opens": "lab", "description": "Medians"}
    assert course.agreed({**entry, **words})["statistics"]["new"] == words
    item = course.items()["statistics:main"]
    assert (item["limits"], item["opens"], item["created"]) == ({"memory": 2**30, "cpu": 0.5}, "lab", created)
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


def test_another_reference_takes_the_place_of_the_former_one_when_pillar_says_so(course, statistics, entry, built):
    statistics.commit({"Dockerfile": dockerfile(course.base)})
    statistics.tag("v1")
    tagged = {**{name: value for name, value in entry.items() if name != "groups"}, "ref": "v1"}
    assert course.agreed(tagged)["statistics"]["old"] is None
    items = course.items()
    assert items["statistics:v1"]["groups"] == ["maths"]
    assert "statistics:main" in items
    again = course.apply()
    assert again.changed == {}
    note = "statistics:main stays beside statistics:v1; with `replace: true` an apply removes it."
    assert course.comment(again).splitlines()[1:] == [note]
    changes = course.agreed({**tagged, "replace": True})
    assert changes == {"statistics": {"old": {"images": ["statistics:main"]}, "new": None}}
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


def test_what_was_made_in_the_browser_is_left_alone_and_exported(course, built):
    """As the page makes it: with the token of somebody who administers the hub."""
    make_repository(course.directory / "paged", dockerfile(course.base))
    teacher = course.person("teacher")
    token = teacher.api("POST", "/users/teacher/tokens", json={"note": "test"}).json()["token"]
    api, headers = f"{course.url}/services/plasma/api/environments", {"Authorization": f"token {token}"}
    body = {"repo": f"{course.git}/paged", "ref": "main", "name": "paged", "memory": 1, "groups": ["maths"]}
    body["opens"] = "rstudio"
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
        "opens": "rstudio",
        "groups": ["maths"],
    }
    listed = course.site.salt("plasma_environment.list").value
    assert "paged:main" in listed and "browser" in listed
    # In pillar it is pillar's from then on.
    course.agreed(*[one for one in found if one["name"] in ("paged", "plain")])
    item = course.items()["paged:main"]
    assert (item["source"], item["groups"], item["limits"]["memory"]) == ("pillar", ["maths"], 2**30)
    course.agreed({"name": "paged", "absent": True})


def test_what_nobody_needs_now_is_archived_and_comes_back(course, built, student):
    plain = {"name": "plain", "repository": f"{course.git}/plain"}
    course.agreed(plain)
    changes = course.agreed({**plain, "archived": True})
    assert changes == {"plain": {"old": {"status": "built"}, "new": {"status": "archived"}}}
    item = course.items()["plain:HEAD"]
    assert (item["status"], item["has_image"], item["repo"]) == ("archived", False, plain["repository"])
    assert "plain:HEAD" not in course.target.sudo("docker images --format '{{.Repository}}:{{.Tag}}'").stdout
    with pytest.raises(SupportError, match="400"):
        student.start("plain:HEAD")
    listed = course.site.salt("plasma_environment.list").value
    assert next(line for line in listed.splitlines() if line.startswith("plain:HEAD")).split()[1] == "archived"
    assert course.agreed(plain)["plain"]["new"]["status"] == "built"


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
