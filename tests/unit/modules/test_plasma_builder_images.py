"""The images that builds begin with: what they are made of, when they are made, and what others can see of it."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from salt.exceptions import CommandExecutionError

import plasma_builder_images as images
import plasma_engine
import plasma_run
from tests.support.paths import REPOSITORY

FILES = REPOSITORY / "salt" / "builder" / "files"
RECIPE = {str(path.relative_to(FILES)): path.read_bytes() for path in FILES.rglob("*") if path.is_file()}
LISTED = (
    "http://deb.example.org/debian/ bookworm main Debian\n"
    "http://deb.example.org/debian/ bookworm contrib Debian\n"
    "http://deb.example.org/debian/ bookworm-updates main Debian\n"
    "http://sec.example.org/debian-security bookworm-security main\n"
    "https://download.docker.com/linux/debian bookworm stable Docker\n"
    "https://packages.example.org/apt bookworm main Somebody\n"
    "https://deb.nodesource.com/node_20.x nodistro main\n"
    "file:/srv/mirror bookworm main\n"
)
SOURCES = (
    "deb http://deb.example.org/debian bookworm main contrib\n"
    "deb http://deb.example.org/debian bookworm-updates main\n"
    "deb http://sec.example.org/debian-security bookworm-security main\n"
)
LOGIN = "http://builds:pass-word-9@proxy.example.org:3128"
INDEX = "https://ada:pass-word-8@pypi.example.org/simple"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server with an engine that knows images by their keys; what is run is kept, with what only files say."""
    here = SimpleNamespace(images={}, commands=[], told=[], removed=[], listed=LISTED, fails="", engine="distro")

    def run(command, *, stdin="", timeout=0, env=None):
        here.commands.append(list(command))
        if command[0] == "apt-get":
            return plasma_run.Result(0, here.listed)
        if command[0] == "apt-config":
            return plasma_run.Result(0, f"http_proxy='{LOGIN}'")
        if here.fails:
            return plasma_run.Result(1, here.fails, "The command '/bin/sh' returned a non-zero code: 1", command)
        if command[0] == "bash":
            here.told.append((stdin, env))
            here.images[command[5]] = command[4].partition("=")[2]
        else:
            context = Path(command[-1])
            config = json.loads(Path(env["DOCKER_CONFIG"], "config.json").read_text())
            assert {"Dockerfile", "requirements.txt", "index.sh", "ca"} <= {path.name for path in context.iterdir()}
            here.told.append(((context / "index.sh").read_text(), config))
            words = dict(word.split("=", 1) for word in command if "=" in word)
            here.images[words["--tag"]] = words["--label"].partition("=")[2]
        return plasma_run.Result(0)

    def request(method, target, missing=(404,), **_options):
        if target.startswith("/volumes?"):
            return {"Volumes": [{"Name": "plasma-build-1"}]}
        if method != "GET":
            here.removed.append((method, target))
            return None
        key = here.images.get(target.removeprefix("/images/").removesuffix("/json"))
        return key and {"Id": f"sha256:{key}", "Config": {"Labels": {images.LABEL: key}}}

    release = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr(images.platform, "freedesktop_os_release", lambda: release)
    monkeypatch.setattr(images, "_AUTHORITIES", tmp_path)
    monkeypatch.setattr(images, "_WORK", str(tmp_path))
    monkeypatch.setattr(plasma_run, "run", run)
    monkeypatch.setattr(plasma_engine, "request", request)
    monkeypatch.setattr(plasma_engine, "engine", lambda: here.engine)
    return here


def test_the_root_is_the_distributions_own(server, tmp_path):
    assert images.sources() == ("bookworm", SOURCES)
    # As images of clouds have it.
    (tmp_path / "list").write_text("# by hand\nhttps://mirror.example.org/debian\tpriority:1\n")
    server.listed = f"mirror+file:{tmp_path}/list bookworm main Debian\n"
    assert images.sources()[1] == "deb https://mirror.example.org/debian bookworm main\n"
    server.listed = "file:/srv/mirror bookworm main\n"
    with pytest.raises(CommandExecutionError, match="no http:// or https:// address of bookworm main"):
        images.sources()


@pytest.mark.parametrize("name", ["user/max_user_namespaces", "kernel/unprivileged_userns_clone"])
def test_a_kernel_without_user_namespaces(server, monkeypatch, tmp_path, name):
    monkeypatch.setattr(images, "_SYSCTL", tmp_path)
    (tmp_path / name).parent.mkdir()
    for value, allowed in (("1", True), ("0", False)):
        (tmp_path / name).write_text(f"{value}\n")
        if allowed:
            assert images.compare(RECIPE)
        else:
            with pytest.raises(CommandExecutionError, match=f"^{name.replace('/', '.')} is 0, so builds cannot"):
                images.compare(RECIPE)
    assert server.images == {}


def test_they_are_made_once(server):
    expected = images.compare(RECIPE)
    assert list(expected) == [images.ROOT, images.TOOLS, images.BUILDER, images.BASE]
    assert {change["old"] for change in expected.values()} == {None}
    assert images.make(RECIPE, {}, None) == expected
    assert images.compare(RECIPE) == images.make(RECIPE, {}, None) == {}
    assert images.present() == [images.BASE, images.BUILDER, images.TOOLS, images.ROOT]
    server.engine = None
    assert images.present() == [] and images.compare(RECIPE) == expected


@pytest.mark.parametrize(
    ("changed", "made"),
    [
        ("packages.txt", [images.ROOT, images.BUILDER, images.BASE]),
        ("builder.txt", [images.TOOLS, images.BUILDER, images.BASE]),
        ("builder/requirements.txt", [images.BUILDER, images.BASE]),
        ("base/requirements.txt", [images.BASE]),
        ("base/Dockerfile", [images.BASE]),
    ],
)
def test_what_changed_is_made_again_and_what_it_replaces_goes(server, changed, made):
    images.make(RECIPE, {}, None)
    before = dict(server.images)
    server.removed.clear()
    changes = images.make({**RECIPE, changed: RECIPE[changed] + b"\n# more\n"}, {}, None)
    assert list(changes) == made
    assert all(changes[image] == {"old": before[image], "new": server.images[image]} for image in made)
    assert [target for method, target in server.removed if method == "DELETE"] == [
        f"/images/sha256:{before[image]}" for image in made
    ]
    assert server.removed[-1][0] == "POST" and images.STAGE in server.removed[-1][1]


def test_other_mirrors_are_another_root(server):
    images.make(RECIPE, {}, None)
    server.listed = LISTED.replace("deb.example.org", "mirror.example.org")
    assert list(images.compare(RECIPE)) == [images.ROOT, images.TOOLS, images.BUILDER, images.BASE]


def test_no_login_is_an_argument(server):
    images.make(RECIPE, {"https_proxy": LOGIN, "no_proxy": "localhost"}, INDEX)
    assert "pass-word" not in json.dumps(server.commands)
    *roots, first, second = server.told
    assert roots == [(SOURCES, {"http_proxy": LOGIN})] * 2
    for script, config in (first, second):
        assert script == f"export PIP_INDEX_URL='{INDEX}'\nexport UV_DEFAULT_INDEX='{INDEX}'\n"
        assert config == {"proxies": {"default": {"httpsProxy": LOGIN, "noProxy": "localhost"}}}


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("E: Unable to locate package x\nE: mmdebstrap failed to run\n", "E: Unable to locate package x"),
        ("I: installing\n", "The command '/bin/sh' returned a non-zero code: 1"),
    ],
)
def test_why_the_root_cannot_be_made(server, log, why):
    server.fails = log
    with pytest.raises(CommandExecutionError) as raised:
        images.make(RECIPE, {}, None)
    assert str(raised.value) == f"The root of bookworm for builds cannot be made: {why}."


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("ERROR: Could not find uv\nERROR: No matching distribution found for uv\n", "ERROR: No matching distribution"),
        (
            "error: Request failed\n  cause: Connection refused (os error 111)\n",
            "cause: Connection refused (os error 111)",
        ),
        ("Step 1\n", "The command '/bin/sh' returned a non-zero code: 1"),
    ],
)
def test_why_an_image_cannot_be_made(server, log, why):
    images.make(RECIPE, {}, None)
    server.fails = log
    with pytest.raises(CommandExecutionError) as raised:
        images.make({**RECIPE, "base/Dockerfile": b""}, {}, None)
    assert str(raised.value).startswith(f"The image {images.BASE} cannot be made: {why}")
    # Until it can, what was there is used.
    assert images.present() == [images.BASE, images.BUILDER, images.TOOLS, images.ROOT]
    assert server.removed[-1][0] == "POST"


def test_removing_takes_the_names_alone(server):
    images.make(RECIPE, {}, None)
    server.removed.clear()
    images.remove()
    all_of_them = (images.BASE, images.BUILDER, images.TOOLS, images.ROOT)
    assert server.removed == [
        *(("DELETE", f"/images/{image}") for image in all_of_them),
        ("DELETE", "/volumes/plasma-build-1"),
    ]


def pins(path: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==([^\s;\\]+)", (REPOSITORY / path).read_text(encoding="utf-8")))


def constants(path: str) -> dict[str, object]:
    """Constants of the plugin, which is not installed where these tests run."""
    tree = ast.parse((REPOSITORY / "plugin/src/tljh_plasma" / path).read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names = node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else node.targets
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            pairs = zip(names, values, strict=False)
            found |= {name.id: value.value for name, value in pairs if isinstance(value, ast.Constant)}
    return found


def test_what_two_places_say_of_them_is_the_same():
    hub, base, builder = (
        pins(path)
        for path in (
            "plugin/requirements.txt",
            "salt/builder/files/base/requirements.txt",
            "salt/builder/files/builder/requirements.txt",
        )
    )
    assert base["jupyterhub"] == hub["jupyterhub"]
    assert builder["jupyter-repo2docker"] == hub["jupyter-repo2docker"]
    assert {"uv", "jupyter-repo2docker"} <= builder.keys()
    assert {"jupyterlab", "notebook", "ipykernel", "jupyter-resource-usage", "pip"} <= base.keys()
    service = constants("builds/local.py")
    assert (service["BUILDER"], service["BASE"]) == (images.BUILDER, images.BASE)
    assert constants("buildpack/plasma_buildpack.py")["BASE"] == images.BASE
    # Whose files the environment's are.
    command = (REPOSITORY / "plugin/src/tljh_plasma/builds/container.py").read_text(encoding="utf-8")
    (user,) = re.findall(r"--user-id=(\d+)", command)
    assert f"--chown={user}:{user} /srv/conda".encode() in RECIPE["base/Dockerfile"]
    for folder in ("builder", "base"):
        assert f"LABEL {images.STAGE}={folder}".encode() in RECIPE[f"{folder}/Dockerfile"]
