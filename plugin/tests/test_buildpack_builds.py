"""The build pack for Python in the real repo2docker, on the base that the product's recipe makes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support_builds import wait_for_end
from tljh_plasma.buildpack.plasma_buildpack import PYTHON
from tljh_plasma.builds.local import BASE, MISSING

from tests.support.git_repository import NOTEBOOK

pytest_plugins = ["support_local"]
pytestmark = pytest.mark.docker
PYPROJECT = '[project]\nname = "course"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["plasmat-one<2"]\n'


async def test_requirements_and_then_only_a_notebook(local, bench, index):
    repository = local.repository(**{"requirements.txt": "-r more.txt\n", "more.txt": "plasmat-one==1.0\n"})
    request = bench.request(repository, name="Cours d'été")
    async with local.builder(trial=True) as builder:
        row = await bench.build(builder, request)
        assert row.status == "built", row.log
        assert "Using PlasmaPython builder" in row.log and "It answers after" in row.log
        found = local.look(request.image, "plasmat_one")
        assert {".git", "course.ipynb", "more.txt", "requirements.txt"} <= set(found.pop("files"))
        assert found == {
            "versions": {"plasmat_one": "1.0"},
            "lab": True,
            "prefix": "/srv/conda/envs/notebook",
            "user": "jovyan",
            "ids": [1100, 1100],
            "place": "/home/jovyan",
            "began": None,
            "repository": "/home/jovyan",
            "writable": True,
            "index": index.url,
        }
        labels = bench.client.images.get(request.image).labels
        assert labels["tljh_repo2docker.display_name"] == "Cours d'été"
        assert labels["repo2docker.repo"] == request.repo
        # The layers of the base are there once for all.
        base = bench.client.images.get(BASE).attrs["RootFS"]["Layers"]
        assert bench.client.images.get(request.image).attrs["RootFS"]["Layers"][: len(base)] == base

        index.asked.clear()
        changed = {**NOTEBOOK, "cells": []}
        repository.commit({"course.ipynb": json.dumps(changed)})
        begun = time.monotonic()
        row = await bench.build(builder, request)
        print(f"a notebook was changed: built in {time.monotonic() - begun:.1f} s")
        assert row.status == "built" and index.asked == []
        assert json.loads(local.read(request.image, "/home/jovyan/course.ipynb")) == changed

        # One that cannot be had: the environment stays as it is.
        before = bench.image_id(request.image)
        repository.commit({"more.txt": "plasmat-one==1.0\nplasmat-onee\n"})
        row = await bench.build(builder, request)
        assert row.status == "failed"
        assert "The build failed: the index has no package plasmat-onee: look for a mistake in its name" in row.log
        assert bench.image_id(request.image) == before


@pytest.mark.parametrize("named", [True, False], ids=["own-index", "pypi"])
async def test_a_lock_is_kept_to(local, bench, index, tmp_path, named):
    """With the index that it was made with, and by name and hash with another one."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "pyproject.toml").write_text(PYPROJECT)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "lock", "--quiet", "--default-index", index.url], cwd=work, check=True)
    lock = (work / "uv.lock").read_text()
    # A newer one of the same name is no reason to take it.
    index.add("plasmat-one", "1.5")
    try:
        local.use(index.url if named else None)
        request = bench.request(local.repository(**{"pyproject.toml": PYPROJECT, "uv.lock": lock}))
        async with local.builder() as builder:
            row = await bench.build(builder, request)
    finally:
        index.files["plasmat-one"].pop("plasmat_one-1.5-py3-none-any.whl")
    assert row.status == "built", row.log
    found = local.look(request.image, "plasmat_one")
    assert found["versions"] == {"plasmat_one": "1.0"} and found["lab"]
    assert found["index"] == (index.url if named else None)


async def test_packages_of_the_system_a_script_and_what_begins_a_server(local, bench):
    files = {
        "binder/apt.txt": "tree  # to look around\n",
        "binder/requirements.txt": "plasmat-two\n",
        "binder/runtime.txt": f"python-{PYTHON}\n",
        "binder/postBuild": "#!/bin/sh -e\ntree --version >made-by-postBuild\npip --version\n",
        "binder/start": '#!/bin/sh -e\nBEGAN=yes exec "$@"\n',
        # Not looked at, as there is a directory for repo2docker.
        "requirements.txt": "plasmat-onee\n",
    }
    request = bench.request(local.repository(**files))
    async with local.builder() as builder:
        row = await bench.build(builder, request)
    assert row.status == "built", row.log
    found = local.look(request.image, "plasmat_two")
    assert found["began"] == "yes" and "made-by-postBuild" in found["files"]


async def test_what_cannot_be_installed_is_one_sentence(local, bench, index):
    """Each in a build of its own, and all at once."""
    right = index.add("plasmat-two", "1.0")
    wrong = f"plasmat-two==1.0 --hash={right[:-4]}0000\n"
    cases = {
        "plasmat-two==9\n": "the index has no plasmat-two==9: name a version that there is, or none",
        "plasmat-windows\n": "the index has no plasmat-windows for this system and this Python: choose another",
        wrong: "the index has another file of plasmat-two==1.0 than the hash in the repository says: lock",
        "plasmat two\n": "requirements.txt has a line that names no package: plasmat two",
    }
    requests = [
        bench.request(local.repository(**{"requirements.txt": text}), image=bench.image(f"bad{number}"))
        for number, text in enumerate(cases)
    ]
    async with local.builder() as builder:
        for request in requests:
            await builder.submit(request)
        logs = await asyncio.gather(*(wait_for_end(builder, request.image) for request in requests))
        local.use(index.errors)
        broken = bench.request(local.repository(**{"requirements.txt": "plasmat-two\n"}))
        logs.append((await bench.build(builder, broken)).log)
    told = [*cases.values(), "the index answers with an error (500 Internal Server Error, "]
    for log, said in zip(logs, told, strict=True):
        assert log.splitlines()[-1].startswith(f"The build failed: {said}"), log
        assert "Traceback" not in log.splitlines()[-1]


async def test_images_that_were_not_made_yet(local, bench, monkeypatch):
    monkeypatch.setattr("tljh_plasma.builds.local.BASE", "localhost/plasmat-none:local")
    async with local.builder() as builder:
        row = await bench.build(builder, bench.request(local.repository()))
    assert row.status == "failed" and row.log.splitlines()[-1] == MISSING
