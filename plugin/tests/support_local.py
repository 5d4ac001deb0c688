"""Builds of a server that makes its images itself; tests ask for the fixtures with ``pytest_plugins``."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support_index import serve
from tljh_plasma.builds import Builder

from tests.support.builder_image import local_images
from tests.support.git_repository import bridge_address, make_repository

pytest_plugins = ["support_builds_fixtures"]
# Of an environment: what it brings, beside the packages that a test installs.
LOOK = """
import getpass, importlib.util, json, os, sys
print(json.dumps({
    "versions": {name: importlib.import_module(name).VERSION for name in sys.argv[1:]},
    "lab": importlib.util.find_spec("jupyterlab") is not None,
    "prefix": sys.prefix, "user": getpass.getuser(), "ids": [os.getuid(), os.getgid()], "place": os.getcwd(),
    "files": sorted(os.listdir()), "began": os.environ.get("BEGAN"), "repository": os.environ["REPO_DIR"],
    "writable": os.access(sys.prefix + "/lib", os.W_OK), "index": os.environ.get("PIP_INDEX_URL"),
}))
"""


class Local:
    """Builds of a server that makes its images itself."""

    def __init__(self, bench, prefix: Path):
        self.bench, self.prefix = bench, prefix

    def repository(self, **files):
        return make_repository(self.bench.served / f"pack-{time.monotonic_ns()}", None, files)

    def use(self, url: str | None) -> None:
        """Name an index in pillar."""
        (self.prefix / "plasma").mkdir(exist_ok=True)
        (self.prefix / "plasma" / "builds.json").write_text(json.dumps({"index": url} if url else {}))

    @asynccontextmanager
    async def builder(self, trial: bool = False):
        options = {"image": "local", "parallel": 3, "trial": trial}
        settings = dataclasses.replace(self.bench.settings(**options), prefix=self.prefix)
        made = Builder(self.bench.context, self.bench.manager, settings)
        try:
            yield made
        finally:
            await made.close()

    def look(self, image: str, *modules: str):
        """What Python in a container of an environment says of itself."""
        return json.loads(self.say(image, "python", "-c", LOOK, *modules).splitlines()[-1])

    def say(self, image: str, *words: str) -> str:
        """What a program in a container of an environment prints, begun as repo2docker begins it."""
        container = self.bench.client.containers.run(image, list(words), detach=True, network_mode="none")
        try:
            assert container.wait()["StatusCode"] == 0, container.logs()
            return container.logs(stderr=False).decode()
        finally:
            container.remove()

    def read(self, image: str, path: str) -> bytes:
        """A file of an image. Not by a container that prints it: the engine loses what one says that ends at once."""
        container = self.bench.client.containers.create(image)
        try:
            archive = io.BytesIO(b"".join(container.get_archive(path)[0]))
        finally:
            container.remove()
        with tarfile.open(fileobj=archive) as files:
            return files.extractfile(files.getmembers()[0]).read()


@pytest.fixture(scope="module")
def index(docker_host):
    with serve(bridge_address()) as made:
        made.add("plasmat-one", "1.0")
        made.add("plasmat-one", "2.0")
        made.add("plasmat-two", "1.0")
        made.add("plasmat-windows", "1.0", "py3-none-win_amd64")
        local_images()
        yield made


@pytest.fixture
def local(bench, index, tmp_path):
    made = Local(bench, tmp_path)
    made.use(index.url)
    return made
