"""`make setup` on a machine with what the README asks for and nothing else: no compiler above all."""

from __future__ import annotations

import pathlib
import subprocess
import tempfile

import pytest

from tests.support import debian, images
from tests.support.engine import docker, ensure_engine
from tests.support.environment_image import PACKAGES
from tests.support.paths import REPOSITORY

TRY = """
set -e
for compiler in cc gcc clang rustc; do ! command -v $compiler; done
mkdir /tree && tar -C /tree -xf /tree.tar && cd /tree
make setup
. .venv/bin/activate
salt-ssh --version
salt-ssh --help >/dev/null
python -m pytest --collect-only -q tests/unit | tail -n 1
"""


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_without_a_compiler(suite):
    ensure_engine()
    with tempfile.TemporaryDirectory(prefix="plasma-build-") as scratch:
        context = pathlib.Path(scratch)
        images.add_authorities(context, debian.extra_authorities())
        (context / "Dockerfile").write_bytes((images.FILES / "controller" / "Dockerfile").read_bytes())
        image = f"{images.REPOSITORY}-controller:{suite}"
        images.build(context, image, {"ROOT": images.root_image(suite, PACKAGES, slim=True)}, log_name=f"setup-{suite}")
        tree = context / "tree.tar"
        files = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-cf", tree, "--null", "-T", "-"], cwd=REPOSITORY, input=files, check=True)
        done = docker(
            *("run", "--rm", "--network", "host", "--volume", f"{tree}:/tree.tar:ro", image, "sh", "-c", TRY),
            check=False,
            timeout=600,
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "salt-ssh 3008" in done.stdout
    # It says what it does meanwhile.
    assert "packages of requirements-dev.txt" in done.stdout
