"""The build packs, without an engine: which repositories it takes, and the recipe that comes of them."""

from __future__ import annotations

import pytest
from repo2docker.buildpacks import (
    CondaBuildPack,
    DockerBuildPack,
    JuliaProjectTomlBuildPack,
    PipfileBuildPack,
    PythonBuildPack,
    RBuildPack,
)
from tljh_plasma.buildpack import plasma_buildpack
from tljh_plasma.buildpack.install_script import packages
from tljh_plasma.buildpack.packs import packs
from tljh_plasma.buildpack.plasma_buildpack import PYTHON, PlasmaPython
from tljh_plasma.buildpack.plasma_r import PlasmaR
from tljh_plasma.builds.cause import sentence

PYPROJECT = '[project]\nname = "course"\nversion = "1"\ndependencies = ["six"]\n'
BUILD = '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
LOCAL = '[tool.uv.sources]\nhelpers = { path = "helpers" }\n'


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Make a repository of files (their text by name), and go there."""
    monkeypatch.chdir(tmp_path)

    def make(**files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


def picked():
    """The first of repo2docker's ways that takes the repository, as repo2docker finds it."""
    return next((kind for kind in packs() if kind(base_image="x").detect()), None)


def recipe(kind=PlasmaPython):
    pack = kind(base_image="x")
    pack.labels.update({"repo2docker.ref": "main", "name": 'Cours "d\'été" \\ $HOME'})
    return pack.render({"NB_USER": "jovyan", "NB_UID": "1100"})


def runs(text):
    """The steps of a recipe after which notebooks are there, and those before, without uv's options."""
    lines = [line for line in text.splitlines() if line.startswith(("RUN UV", "RUN cd", "RUN if", "COPY"))]
    short = [
        line.replace(plasma_buildpack._SYNC_BY_NAME, "BY-NAME")
        .replace(plasma_buildpack._INSTALL, "INSTALL")
        .replace(plasma_buildpack._SYNC, "SYNC")
        .removeprefix("RUN ")
        for line in lines
    ]
    whole = next(number for number, line in enumerate(short) if line.endswith(" src/ ${REPO_DIR}/"))
    # The first is of repo2docker's own programs.
    return [line.rpartition("/")[2] if line.startswith("COPY") else line for line in short[1:whole]], short[whole + 1 :]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, PlasmaPython),
        ({"course.ipynb": "{}"}, PlasmaPython),
        ({"requirements.txt": "six\n"}, PlasmaPython),
        ({"pyproject.toml": PYPROJECT}, PlasmaPython),
        ({"setup.py": ""}, PlasmaPython),
        ({"apt.txt": "jq\n"}, PlasmaPython),
        ({"binder/postBuild": ""}, PlasmaPython),
        ({"runtime.txt": f"python-{PYTHON}.4\n", "requirements.txt": ""}, PlasmaPython),
        ({"runtime.txt": "python-3"}, PlasmaPython),
        ({"install.R": "", "requirements.txt": "six\n"}, PlasmaR),
        ({"binder/install.R": ""}, PlasmaR),
        ({"install.R": "", "runtime.txt": f"python-{PYTHON}"}, PlasmaR),
        ({"runtime.txt": "r\n"}, PlasmaR),
        ({"runtime.txt": "r-4.2"}, PlasmaR),
        ({"apt.txt": "tree\nr-cran-dplyr  # tables\n"}, PlasmaR),
        ({"apt.txt": "less\nfor-cran-x\n"}, PlasmaPython),
        # As before.
        ({"runtime.txt": "python-3.7\n", "requirements.txt": ""}, PythonBuildPack),
        ({"runtime.txt": "r-2025-06-01\n", "install.R": ""}, RBuildPack),
        ({"DESCRIPTION": "", "install.R": ""}, RBuildPack),
        ({"environment.yml": "dependencies: []\n", "install.R": ""}, CondaBuildPack),
        ({"Dockerfile": "FROM x\n", "install.R": ""}, DockerBuildPack),
        ({"Pipfile": "", "install.R": ""}, PipfileBuildPack),
        ({"runtime.txt": "r-4.4-2025-06-01\n"}, RBuildPack),
        ({"DESCRIPTION": ""}, RBuildPack),
        ({"environment.yml": "dependencies: []\n", "requirements.txt": ""}, CondaBuildPack),
        ({".binder/environment.yml": "dependencies: []\n"}, CondaBuildPack),
        ({"Dockerfile": "FROM x\n", "requirements.txt": ""}, DockerBuildPack),
        ({"Project.toml": "", "requirements.txt": ""}, JuliaProjectTomlBuildPack),
        ({"Pipfile": "", "requirements.txt": ""}, PipfileBuildPack),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else value.__name__,
)
def test_who_takes_a_repository(repository, files, kind):
    repository(**files)
    assert picked() is kind


def test_another_python_is_told(repository, caplog):
    repository(**{"runtime.txt": "python-3.7"})
    assert picked() is PythonBuildPack
    said = next(record.getMessage() for record in caplog.records if "runtime.txt" in record.getMessage())
    log = f"{said}\nfatal: conda.anaconda.org: no route\n"
    assert sentence(1, log).endswith(
        f"Python 3.7 has to be brought by conda; python-{PYTHON} in runtime.txt, or no such file, needs none."
    )


def test_r_of_a_day_is_told(repository, caplog):
    repository(**{"runtime.txt": "r-4.4-2025-06-01"})
    assert picked() is RBuildPack
    said = next(record.getMessage() for record in caplog.records if "runtime.txt" in record.getMessage())
    assert sentence(1, f"{said}\ncurl: (6) could not resolve host\n").endswith(
        "R of a day has to be brought from elsewhere; r in runtime.txt takes that of the distribution."
    )


@pytest.mark.parametrize(
    ("files", "before", "after"),
    [
        ({}, [], []),
        ({"requirements.txt": "six\n"}, ["requirements.txt", "INSTALL -r requirements.txt"], []),
        ({"requirements.txt": "six\n".encode("utf-16")}, ["requirements.txt", "INSTALL -r requirements.txt"], []),
        # Others that it names come with it.
        (
            {"requirements.txt": "-r more.txt\n-c deep/limits.txt\n", "more.txt": "six", "deep/limits.txt": "six<2"},
            ["limits.txt", "more.txt", "requirements.txt", "INSTALL -r requirements.txt"],
            [],
        ),
        ({"requirements.txt": "-r more.txt\n", "more.txt": "-r requirements.txt\n"}, None, []),
        # What is of the repository itself comes after its files.
        ({"requirements.txt": "-e .\n", "setup.py": ""}, [], ["INSTALL -r requirements.txt", "INSTALL ."]),
        ({"requirements.txt": "lib/helpers\n", "lib/helpers/setup.py": ""}, [], ["INSTALL -r requirements.txt"]),
        ({"requirements.txt": "-r gone.txt\n"}, [], ["INSTALL -r requirements.txt"]),
        ({"requirements.txt": "-r ../../plasma/credentials\n"}, [], ["INSTALL -r requirements.txt"]),
        ({"setup.py": ""}, [], ["INSTALL ."]),
        ({"pyproject.toml": PYPROJECT}, ["pyproject.toml", "INSTALL -r pyproject.toml"], []),
        (
            {"pyproject.toml": PYPROJECT + BUILD},
            ["pyproject.toml", "INSTALL -r pyproject.toml"],
            ["INSTALL --no-deps ."],
        ),
        ({"pyproject.toml": BUILD}, [], ["INSTALL ."]),
        ({"pyproject.toml": PYPROJECT + LOCAL}, [], ["INSTALL -r pyproject.toml"]),
        # That of tools alone asks for nothing.
        ({"pyproject.toml": "[tool.ruff]\nline-length = 99\n"}, [], []),
        (
            {"pyproject.toml": PYPROJECT, "uv.lock": ""},
            [
                *("pyproject.toml", "uv.lock"),
                'if [ -n "$UV_DEFAULT_INDEX" ]; then BY-NAME; else SYNC --no-install-workspace; fi',
            ],
            [],
        ),
        (
            {"binder/pyproject.toml": PYPROJECT + BUILD, "binder/uv.lock": "", "setup.py": ""},
            [
                *("pyproject.toml", "uv.lock"),
                'cd binder && if [ -n "$UV_DEFAULT_INDEX" ]; then BY-NAME; else SYNC --no-install-workspace; fi',
            ],
            [],
        ),
        (
            {"pylock.toml": "", "pyproject.toml": PYPROJECT + BUILD},
            ["pylock.toml", "INSTALL -r pylock.toml"],
            ["INSTALL --no-deps ."],
        ),
        # repo2docker looks nowhere else where there is one of its directories.
        (
            {".binder/requirements.txt": "six\n", "requirements.txt": "idna\n", "setup.py": ""},
            ["requirements.txt", "INSTALL -r .binder/requirements.txt"],
            [],
        ),
    ],
)
def test_what_is_installed_and_when(repository, files, before, after):
    repository(**files)
    found = runs(recipe())
    assert found[1] == after
    assert before is None or found[0] == before


def test_the_recipe_keeps_what_repo2docker_promises(repository):
    repository(**{"requirements.txt": "six\n", "apt.txt": "tree # to see\njq\n", "postBuild": "", "start": ""})
    lines = recipe().strip().splitlines()
    assert lines[0] == "FROM localhost/plasma-base:local"
    text = "\n".join(lines)
    order = [
        "useradd",
        "WORKDIR ${REPO_DIR}",
        'ENTRYPOINT ["/usr/local/bin/repo2docker-entrypoint"]',
        'ENV R2D_ENTRYPOINT="${REPO_DIR}/start"',
        "apt-get install --yes --no-install-recommends jq tree",
        "COPY --chown=1100:1100 src/requirements.txt ${REPO_DIR}/requirements.txt",
        "USER ${NB_USER}\nRUN UV_NO_CACHE=1",
        "USER root\nCOPY --chown=1100:1100 src/ ${REPO_DIR}/",
        "LABEL name=",
        "USER ${NB_USER}\nRUN chmod +x postBuild && ./postBuild",
        'RUN chmod +x "${REPO_DIR}/start"',
    ]
    places = [text.find(part) for part in order]
    assert -1 not in places and places == sorted(places)
    assert 'LABEL name="Cours \\"d\'été\\" \\\\ \\$HOME" repo2docker.ref="main"' in lines
    assert text.rindex("USER ${NB_USER}") > text.rindex("USER root")


def test_the_recipe_of_r(repository):
    """What is the same for all comes first, then the system's packages, then those that the repository installs."""
    script = 'install.packages(c("Rcpp", "data.table"))\n'
    repository(**{"install.R": script, "apt.txt": "tree\n", "requirements.txt": "six\n", "runtime.txt": "r-4.2"})
    text = recipe(PlasmaR)
    order = [
        "FROM localhost/plasma-base:local",
        "/usr/local/lib/plasma/install.R\n",
        "r-base-core r-recommended r-cran-irkernel",
        "USER ${NB_USER}\nRUN Rscript -e 'IRkernel::installspec",
        "runtime.txt asks for R 4.2,",
        "USER root\nRUN apt-get -qq update",
        "--no-install-recommends tree",
        "apt-cache show --no-all-versions r-cran-rcpp r-bioc-rcpp r-cran-data.table r-bioc-data.table 2>/dev/null",
        "src/install.R ${REPO_DIR}/install.R",
        "USER ${NB_USER}\nRUN UV_NO_CACHE=1",
        "Rscript install.R && touch /tmp/.preassembled || true",
        "COPY --chown=1100:1100 src/ ${REPO_DIR}/",
        "test -f /tmp/.preassembled || R_PROFILE_USER=/usr/local/lib/plasma/install.R Rscript install.R",
    ]
    places = [text.find(part) for part in order]
    assert -1 not in places and places == sorted(places)


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("", []),
        ("install.packages('ggplot2')", ["ggplot2"]),
        (
            'install.packages(c("ggplot2", # "nothing"\n "dplyr"), repos = "https://cran.example.org")',
            ["dplyr", "ggplot2"],
        ),
        ('utils::install.packages(pkgs = r"---(readr)---")', ["readr"]),
        # What is loaded is not installed.
        ('library("ggplot2")\nrequire(dplyr)\n# install.packages("readr")\nx <- "tidyr"', []),
        ('wanted <- c(\n  "ggplot2",\n  "dplyr")\ninstall.packages(wanted)', ["dplyr", "ggplot2"]),
        (
            'all = c("aa1", "bb1")\nleft <-\n  setdiff(all, rownames(installed.packages()))\ninstall.packages(left)',
            ["aa1", "bb1"],
        ),
        ('for (one in c("aa1", "bb1")) {\n  install.packages(one)\n}', ["aa1", "bb1"]),
        ('invisible(lapply(c("aa1", "bb1"), install.packages))', ["aa1", "bb1"]),
        ('need <- function(p) if (!require(p)) install.packages(p)\nneed("aa1"); need("bb1")', ["aa1", "bb1"]),
        ('remotes::install_version("ggplot2", "3.4.1")', ["ggplot2", "remotes"]),
        ('devtools::install_cran("ggplot2"); devtools::install_github("owner/repo")', ["devtools", "ggplot2"]),
        (
            'library(pak)\npkg_install(c("any::dplyr", "tibble@3.1", "owner/repo", "./here"))',
            ["dplyr", "pak", "tibble"],
        ),
        ('pak::pak("dplyr")', ["dplyr", "pak"]),
        ('BiocManager::install("limma")', ["BiocManager", "limma"]),
        # Nothing that a shell would take for more.
        ("install.packages(c(\"$(id)\", 'a b', '; id', '-o', '../x', 'ok1'))", ["ok1"]),
        # What R would not read, either.
        ('install.packages(c("aa1"', ["aa1"]),
        (')))\n"', []),
        ('install.packages("aa1', []),
    ],
)
def test_which_packages_a_script_installs(script, names):
    assert packages(script) == names


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "Error: install.R asks for x1, which CRAN does not have: leave it out\nExecution halted\n",
            "install.R asks for x1, w",
        ),
        (
            "Error in library(a.b) : there is no package called ‘a.b’\nExecution halted\n",
            "R has no package a.b by then: in",
        ),
        ("Error in loadNamespace(x) : \n  there is no package called ‘pak’\n", "R has no package pak by then: in"),
        # Asked for and done without.
        (
            "Loading required package: x1\nWarning:\nIn library(x1) : there is no package called ‘x1’\nerror: b\n",
            "error: b",
        ),
        ("Error : install.R asks for x1, which nobody has\nfatal: no network\n", "fatal: no network"),
        # Of apt, without its mirror.
        (
            "E: Failed to fetch http://deb.example.org/InRelease  Temporary failure\n"
            "E: Some index files failed to download. They have been ignored, or old ones used instead.\n",
            "E: Failed to fetch http://deb.example.org/InRelease Temporary failure.",
        ),
    ],
)
def test_what_r_says_is_one_sentence(log, said):
    assert sentence(1, log).startswith(f"The build failed: {said}")


def test_a_broken_pyproject_is_one_sentence(repository):
    repository(**{"pyproject.toml": "[project\n"})
    with pytest.raises(ValueError, match=r"^pyproject.toml cannot be read: .*line 1") as raised:
        recipe()
    assert sentence(1, f"ValueError: {raised.value}").startswith("The build failed: ValueError: pyproject.toml cannot")
