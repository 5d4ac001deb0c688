"""Template repositories of docs/templates: what repo2docker takes for what, and notebooks that open."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess

import nbformat
import pytest
import yaml

from tests.support.paths import REPOSITORY

TEMPLATES = REPOSITORY / "docs" / "templates"
KERNELS = {"python": "python3", "r": "ir", "bash": "bash"}
# What shows memory, processor and the environment's name in JupyterLab.
TOP_BAR = {"jupyter-resource-usage", "jupyterlab-topbar-text"}
LINE = re.compile(r"[a-z0-9][a-z0-9+.-]*")


def lines(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def test_there_is_a_template_for_each_language():
    assert {path.name for path in TEMPLATES.iterdir()} == set(KERNELS)


@pytest.mark.parametrize("language", KERNELS)
def test_notebooks_are_valid_and_name_a_kernel_of_the_environment(language):
    notebooks = list((TEMPLATES / language).glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert notebook.metadata.kernelspec.name == KERNELS[language]
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert cells
        # Nobody's results, and nothing that changes with every run.
        assert not any(cell.outputs or cell.execution_count for cell in cells)


def test_the_environment_of_python_has_what_a_hub_starts():
    found = yaml.safe_load((TEMPLATES / "python" / "environment.yml").read_text(encoding="utf-8"))
    conda = [entry for entry in found["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in found["dependencies"] if isinstance(entry, dict)]
    assert {"jupyterhub-singleuser=5.*", "jupyterlab=4.*", "pip"} <= set(conda)
    assert {*conda, *pip} >= {*TOP_BAR, "nbgitpuller"}
    assert "defaults" not in found["channels"]


def test_the_environment_of_r_is_of_one_day():
    (runtime,) = lines(TEMPLATES / "r" / "runtime.txt")
    assert re.fullmatch(r"r-4\.[0-9]+-20[0-9]{2}-[01][0-9]-[0-3][0-9]", runtime)
    assert "install.packages(" in (TEMPLATES / "r" / "install.R").read_text(encoding="utf-8")
    # repo2docker takes a repository with that file for one of conda's.
    assert not (TEMPLATES / "r" / "environment.yml").exists()


@pytest.mark.parametrize("language", ["r", "bash"])
def test_lists_of_packages(language):
    directory = TEMPLATES / language
    assert all(LINE.fullmatch(line) for line in lines(directory / "apt.txt"))
    assert set(lines(directory / "requirements.txt")) >= TOP_BAR


def test_the_environment_of_bash_registers_its_kernel():
    directory = TEMPLATES / "bash"
    assert "bash_kernel" in lines(directory / "requirements.txt")
    script = directory / "postBuild"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    assert "python -m bash_kernel.install --sys-prefix" in lines(script)


def test_the_notebook_of_bash_runs(tmp_path):
    directory = TEMPLATES / "bash"
    shutil.copy(directory / "people.csv", tmp_path)
    notebook = nbformat.read(directory / "course.ipynb", as_version=4)
    said = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", cell.source],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=True,
            )
            said.append(done.stdout)
    with (tmp_path / "people.csv").open(encoding="utf-8") as file:
        first = min(csv.DictReader(file), key=lambda row: int(row["year"]))
    assert said[1] == f"{first['name']},{first['team']},{first['year']}\n"
    assert said[2].count("\n") == 4


@pytest.mark.parametrize("language", KERNELS)
def test_read_me_names_every_file(language):
    directory = TEMPLATES / language
    text = (directory / "README.md").read_text(encoding="utf-8")
    for path in directory.iterdir():
        if path.name != "README.md":
            assert f"`{path.name}`" in text
