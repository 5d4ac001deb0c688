"""tests.support.git_repository: repositories that can be cloned, with and without a password."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import git_repository
from tests.support.shell import run

ADDRESS = "127.0.0.1"


@pytest.fixture
def repository(tmp_path):
    return git_repository.make_repository(tmp_path / "served" / "course", git_repository.dockerfile("base:1"))


def clone(url: str, to, *options: str) -> subprocess.CompletedProcess[str]:
    env = {**git_repository.ENVIRONMENT, "GIT_TERMINAL_PROMPT": "0", "NO_PROXY": ADDRESS, "no_proxy": ADDRESS}
    return run(["git", "clone", "--quiet", *options, url, to], env=env, check=False)


def test_git_daemon_serves_every_commit_branch_and_tag(repository, tmp_path):
    repository.tag("v1")
    second = repository.commit({"data/numbers.csv": "1,2\n"})
    other = repository.branch("winter", {"winter.txt": "snow\n"})
    with git_repository.serve(tmp_path / "served", ADDRESS) as url:
        assert clone(f"{url}/course", tmp_path / "main").returncode == 0
        assert clone(f"{url}/course", tmp_path / "winter", "--branch", "winter").returncode == 0
        assert clone(f"{url}/course", tmp_path / "v1", "--branch", "v1").returncode == 0
    assert git_repository.Repository(tmp_path / "main").git("rev-parse", "HEAD") == second
    assert git_repository.Repository(tmp_path / "winter").git("rev-parse", "HEAD") == other
    assert (tmp_path / "main/course.ipynb").exists() and (tmp_path / "main/data/numbers.csv").exists()
    assert not (tmp_path / "v1/data").exists()
    assert clone(f"{url}/course", tmp_path / "late").returncode != 0, "the server is gone"


def test_private_server_asks_for_the_password(repository, tmp_path):
    repository.commit({"more.txt": "more\n"})
    with git_repository.serve_private(tmp_path / "served", ADDRESS, "teacher", "s3cret") as url:
        without = clone(f"{url}/course", tmp_path / "without")
        wrong = clone(f"{url}/course".replace("://", "://teacher:wrong@"), tmp_path / "wrong")
        right = clone(f"{url}/course".replace("://", "://teacher:s3cret@"), tmp_path / "right", "--depth", "1")
    assert without.returncode != 0 and "could not read Username" in without.stderr
    assert wrong.returncode != 0
    assert right.returncode == 0, right.stderr
    assert (tmp_path / "right/more.txt").read_text() == "more\n"


def test_variants_differ_each_time():
    assert git_repository.slow(3) != git_repository.slow(3)
    assert git_repository.broken() != git_repository.broken()
    assert git_repository.dockerfile("a:1", "RUN x").splitlines()[:2] == ["FROM a:1", "RUN x"]
