"""Archives of ready images: read by root, so only root's; loaded, so only with what pillar names."""

from __future__ import annotations

import http.client
import io
import json
import os
import tarfile
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import plasma_engine
import plasma_environment_image as image
import plasma_files as files

NAME = "registry.example.org/course:2026"
CONFIG, MANIFEST = "c" * 64, "d" * 64


class StandInEngine:
    """Answers like the engine, with images and what was loaded."""

    def __init__(self):
        self.images, self.loaded, self.refuses, self.away = {}, [], None, False

    def connection(self, path, timeout):
        return self

    def request(self, method, target, body=None, headers=None):
        if self.away:
            raise ConnectionRefusedError(111, "Connection refused")
        self.asked = (method, target)
        if method == "POST":
            content = body.read()
            assert str(len(content)) == headers["Content-Length"]
            self.loaded.append(content)
            if not self.refuses:
                self.images[NAME] = f"sha256:{CONFIG}"

    def getresponse(self):
        method, target = self.asked
        if method == "POST":
            text = {"errorDetail": {}, "error": self.refuses} if self.refuses else {"stream": "Loaded image"}
            return _Answer(200, text)
        found = self.images.get(target.removeprefix("/images/").removesuffix("/json"))
        return _Answer(200, {"Id": found}) if found else _Answer(404, {"message": "No such image"})

    def close(self):
        pass


class _Answer:
    def __init__(self, status, content):
        self.status, self.content = status, json.dumps(content).encode()

    def read(self):
        return self.content


@pytest.fixture
def engine():
    return StandInEngine()


@pytest.fixture
def configure_loader_modules(engine, monkeypatch):
    functions = {
        "plasma_engine.connection": create_autospec(plasma_engine.connection, side_effect=engine.connection),
        "plasma_files.trouble": create_autospec(files.trouble, return_value=None),
        "plasma_files.check": files.check,
    }
    return {image: {"__salt__": functions}, files: {"__salt__": functions}}


@pytest.fixture
def archive(tmp_path):
    def make(tags=((NAME,),), index=True, mode="w", name="course.tar"):
        lists = {"manifest.json": [{"Config": f"blobs/sha256/{CONFIG}", "RepoTags": list(each)} for each in tags]}
        if index:
            lists["index.json"] = {"manifests": [{"digest": f"sha256:{MANIFEST}"}]}
        path = tmp_path / name
        with tarfile.open(path, mode) as made:
            for entry, content in (("layer.tar", "x" * 100_000), *lists.items()):
                data = json.dumps(content).encode()
                info = tarfile.TarInfo(entry)
                info.size = len(data)
                made.addfile(info, io.BytesIO(data))
        path.chmod(0o644)
        return str(path)

    return make


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_ids_are_those_of_every_kind_of_engine(archive, mode):
    assert image.archive_ids(archive(mode=mode), NAME) == [f"sha256:{CONFIG}", f"sha256:{MANIFEST}"]


def test_archives_of_older_engines(archive):
    assert image.archive_ids(archive(index=False), NAME) == [f"sha256:{CONFIG}"]


@pytest.mark.parametrize(
    ("inside", "wanted"), [("course:1", "docker.io/library/course:1"), ("a/course:1", "docker.io/a/course:1")]
)
def test_names_that_mean_the_same(archive, inside, wanted):
    assert image.archive_ids(archive(tags=[(inside,)]), wanted)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ([(NAME, "python:HEAD")], "python:HEAD, registry.example.org/course:2026"),
        ([(NAME,), ("other:1",)], "other:1, registry"),
        ([("other:1",)], "but holds other:1"),
        ([()], "but holds images without a name"),
    ],
)
def test_an_archive_with_anything_else_is_not_loaded(archive, engine, tags, words):
    """It would take the place of an environment of that name."""
    for function in (image.archive_ids, image.load):
        with pytest.raises(CommandExecutionError, match=words):
            function(archive(tags=tags), NAME)
    assert engine.loaded == []


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_archive(tmp_path, content):
    path = tmp_path / "course.tar"
    if content is None:
        with tarfile.open(path, "w") as made:
            made.addfile(tarfile.TarInfo("manifest.json"))
    else:
        path.write_bytes(content)
    with pytest.raises(CommandExecutionError, match=r"is no archive of `docker save`\.$"):
        image.archive_ids(str(path), NAME)


@pytest.mark.parametrize("spoilt", ["writable", "somebody's", "link", "directory", "missing"])
def test_a_file_that_others_may_have_put_there_is_not_read(archive, tmp_path, engine, spoilt):
    path = archive()
    if spoilt == "writable":
        os.chmod(path, 0o664)
    elif spoilt == "somebody's":
        if os.geteuid():
            pytest.skip("needs root")
        os.chown(path, 12345, -1)
    elif spoilt == "link":
        os.rename(path, tmp_path / "real.tar")
        os.symlink(tmp_path / "real.tar", path)
    else:
        os.unlink(path)
        if spoilt == "directory":
            os.mkdir(path)
    for function in (image.archive_ids, image.load):
        with pytest.raises(CommandExecutionError, match="is not read|cannot be read"):
            function(path, NAME)
    assert engine.loaded == []


def test_a_directory_that_others_can_write_to_is_trouble(archive):
    path = archive()
    image.__salt__["plasma_files.trouble"].return_value = "/srv can be written by others than root (mode 0777)"
    with pytest.raises(CommandExecutionError, match="is not read: /srv can be written by others"):
        image.archive_ids(path, NAME)
    image.__salt__["plasma_files.trouble"].assert_called_with(os.path.dirname(path))


def test_an_image_is_loaded(archive, engine):
    path = archive()
    assert image.engine_id(NAME) is None
    assert image.load(path, NAME) == f"sha256:{CONFIG}"
    with open(path, "rb") as file:
        assert engine.loaded == [file.read()]
    assert image.engine_id(NAME) == f"sha256:{CONFIG}"


def test_an_engine_that_does_not_take_it(archive, engine):
    engine.refuses = "no space left on device"
    with pytest.raises(CommandExecutionError, match="Docker does not take .*no space left on device"):
        image.load(archive(), NAME)


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "x"), http.client.RemoteDisconnected("x")])
def test_an_engine_that_is_away(engine, error):
    engine.away = True
    with pytest.raises(
        CommandExecutionError, match=r"Docker does not answer: start it with: systemctl start docker\.$"
    ):
        image.engine_id(NAME)
