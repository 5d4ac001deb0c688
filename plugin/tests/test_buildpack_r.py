"""The build pack for R in the real repo2docker, with R and packages of the distribution."""

from __future__ import annotations

import asyncio
import json

import pytest
from support_builds import wait_for_end

pytest_plugins = ["support_local"]
pytestmark = pytest.mark.docker
# What an environment for R has: "who" installs it, and where R finds what.
LOOK = """
cat(Sys.info()[["effective_user"]], file.access("/usr/local/lib/R/site-library", 2), getwd(), "\\n")
for (name in commandArgs(TRUE)) cat(name, system.file(package = name), "\\n")
"""
KERNELS = "import json; from jupyter_client.kernelspec import find_kernel_specs as f; print(json.dumps(sorted(f())))"


async def test_packages_of_the_distribution_and_nothing_else(local, bench):
    """Also where a script asks in other ways, needs another file, can do without, or wants Python besides."""
    files = {
        "install.R": 'source("more.R")\ninstall.packages(wanted)\nremotes::install_version("evaluate", ">= 0.1")\n'
        'try(install.packages("plasmatnone"))\n',
        "more.R": 'wanted <- c("jsonlite", "xtable")\n',
        "apt.txt": "r-cran-xtable\n",
        "requirements.txt": "plasmat-one==1.0\n",
        "look.R": LOOK,
        "postBuild": "#!/bin/sh -e\nRscript -e 'dir.create(file.path(.libPaths()[1], \"mine\"))'\n",
    }
    request = bench.request(local.repository(**files))
    async with local.builder() as builder:
        row = await bench.build(builder, request)
    assert row.status == "built", row.log
    assert "Using PlasmaR builder" in row.log and "cannot open file 'more.R'" in row.log
    found = local.look(request.image, "plasmat_one")
    assert found["versions"] == {"plasmat_one": "1.0"} and found["lab"] and found["user"] == "jovyan"
    assert json.loads(local.say(request.image, "python", "-c", KERNELS)) == ["ir", "python3"]
    said = local.say(request.image, "Rscript", "look.R", "jsonlite", "xtable", "remotes", "mine", "MASS").splitlines()
    assert said == [
        "jovyan 0 /home/jovyan ",
        *(f"{name} /usr/lib/R/site-library/{name} " for name in ("jsonlite", "xtable", "remotes")),
        "mine  ",
        "MASS /usr/lib/R/library/MASS ",
    ]


async def test_what_r_does_not_get_is_one_sentence(local, bench):
    cases = {
        'install.packages(c("jsonlite", "plasmatnone"))\n': "plasmatnone, which neither the distribution of this ",
        # A name that the script makes.
        'install.packages(paste0("xta", "ble"))\n': "xtable, which the distribution of this server has as "
        "r-cran-xtable: name that in apt.txt",
        'remotes::install_version("jsonlite", "99.1")\n': "jsonlite 99.1, and the distribution of this server has",
    }
    repositories = [local.repository(**{"install.R": text}) for text in cases]
    repositories.append(local.repository(**{"runtime.txt": "r-99.1"}))
    said = [
        *(f"install.R asks for {text}" for text in cases.values()),
        "runtime.txt asks for R 99.1, and the distributi",
    ]
    requests = [bench.request(one, image=bench.image(f"bad{number}")) for number, one in enumerate(repositories)]
    async with local.builder() as builder:
        for request in requests:
            await builder.submit(request)
        logs = await asyncio.gather(*(wait_for_end(builder, request.image) for request in requests))
    for log, text in zip(logs, said, strict=True):
        assert log.splitlines()[-1].startswith(f"The build failed: {text}"), log
