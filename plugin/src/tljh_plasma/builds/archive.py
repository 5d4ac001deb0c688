"""Images on their way between the engine and builders that do not hold its socket.

What comes out of a builder is not trusted: names, labels and the list of layers are written here, and layers must be
what buildah writes. All functions block.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from .. import network
from .images import BuildFailed

# Where a builder finds what is secret.
SECRETS = "/plasma"
# Seconds without a byte.
TIMEOUT = 600
BLOCK = 512
PIECE = 1024 * 1024
MAX_CONFIG = 8 * 1024 * 1024
_LAYER = re.compile(r"[0-9a-f]{64}\.tar")
_OURS = re.compile(r"org\.plasma\.(?!builder\.)|repo2docker\.build$|tljh_repo2docker\.")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MAX_FILES = 1000
# Kinds of entries: files, links, directories and the like, and those that say more of the next one. A file with holes
# is none of them: it may be much larger on a disk than in the archive. What other programs read differently is refused,
# too: they would find such an entry in the contents of another one.
_KINDS = b"0123456xgLK"
_WITHOUT_CONTENTS, _EXTENDED = b"123456", b"xg"
_SIZE = re.compile(rb"[0-7]{11}[ \0]|\x80[\0-\xff]{11}", re.DOTALL)
_STRANGE = re.compile(rb"GNU\.sparse| size=")
NO_IMAGE = "The build failed: what the builder made is no image ({})."


def write_secrets(output: IO[bytes], files: Mapping[str, IO[bytes]]) -> None:
    """Write an archive for "/" with files below SECRETS, by their names there, which only root can read."""
    with tarfile.open(fileobj=output, mode="w") as archive:
        top = SECRETS.strip("/")
        for name in dict.fromkeys([top, *(f"{top}/{name}".rpartition("/")[0] for name in files)]):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o700
            archive.addfile(directory)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.mode, entry.size = 0o600, content.seek(0, os.SEEK_END)
            content.seek(0)
            archive.addfile(entry, content)
    output.seek(0)


def secrets(files: Mapping[str, bytes]) -> bytes:
    """Return such an archive of small files."""
    packed = io.BytesIO()
    write_secrets(packed, {name: io.BytesIO(content) for name, content in files.items()})
    return packed.getvalue()


@contextlib.contextmanager
def _engine() -> Iterator[Any]:
    try:
        with contextlib.closing(network.connect(timeout=0)) as client:
            client.timeout = TIMEOUT
            yield client
    except (network.NetworkError, *network.DOCKER_ERRORS) as error:
        raise BuildFailed(f"The Docker engine refused or went away: {' '.join(str(error).split())}") from error


def shares_layers() -> bool:
    """Whether the engine takes an image without the layers that it has: not with containerd's image store."""
    with _engine() as client:
        return not any("io.containerd" in str(line) for line in client.info().get("DriverStatus") or [])


def put_image(container: str, image: str, path: str) -> None:
    """Unpack an image of the engine, as `docker save` writes it, into a directory of a container.

    Args:
        container: its id.
        image: name of the image.
        path: the directory, which is made.
    """
    with _engine() as client:
        directory = tarfile.TarInfo(path.strip("/"))
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        client.put_archive(container, "/", directory.tobuf() + bytes(2 * BLOCK))
        client.put_archive(container, path, client.get_image(image, chunk_size=PIECE))


def take(container: str, path: str, tag: str, labels: dict[str, str], most: int) -> None:
    """Have the engine take the image that a builder has left.

    Args:
        container: its id.
        path: directory with image.json, the configuration, and the layers that the engine does not have.
        tag: name that the image gets.
        labels: what its labels say, whatever the builder wrote.
        most: bytes that it may have.

    Raises:
        BuildFailed: it is no image, or too large.
    """
    with _engine() as client:
        pieces, _ = client.get_archive(container, path, chunk_size=PIECE)
        for line in client.load_image(_joined(image_archive(pieces, tag, labels, most))):
            if "error" in line:
                raise BuildFailed(NO_IMAGE.format(" ".join(str(line["error"]).split())))


def image_archive(pieces: Iterable[bytes], tag: str, labels: dict[str, str], most: int) -> Iterator[bytes]:
    """Make of a builder's archive one that the engine loads.

    Args:
        pieces: the builder's, a directory with image.json and layers.
        tag, labels, most: see ``take``.

    Raises:
        BuildFailed: see ``take``.
    """
    config, room = None, most
    try:
        with tarfile.open(fileobj=_Stream(pieces), mode="r|", bufsize=PIECE) as archive:
            for number, member in enumerate(archive):
                archive.members = []  # type: ignore[misc]
                if number > MAX_FILES:
                    raise BuildFailed(NO_IMAGE.format("too many files"))
                name = member.name.rpartition("/")[2]
                if member.isdir():
                    continue
                room -= member.size
                if not member.isreg() or room < 0:
                    raise BuildFailed(NO_IMAGE.format("too large" if room < 0 else f"{name!r} is no file"))
                content = archive.extractfile(member)
                if name == "image.json" and member.size <= MAX_CONFIG:
                    config = _config(content.read(), labels)
                elif _LAYER.fullmatch(name):
                    yield _header(name, member.size)
                    yield from _layer(content)
                    yield bytes(-member.size % BLOCK)
                else:
                    raise BuildFailed(NO_IMAGE.format(f"{name!r} is not known"))
    except (tarfile.TarError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BuildFailed(NO_IMAGE.format(error)) from error
    if config is None:
        raise BuildFailed(NO_IMAGE.format("it has no configuration"))
    layers = [f"{digest.removeprefix('sha256:')}.tar" for digest in config["rootfs"]["diff_ids"]]
    manifest = [{"Config": "image.json", "RepoTags": [tag], "Layers": layers}]
    for name, text in (("image.json", config), ("manifest.json", manifest)):
        content = json.dumps(text).encode()
        yield _header(name, len(content)) + content + bytes(-len(content) % BLOCK)
    yield bytes(2 * BLOCK)


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in large pieces, each of which is sent by itself."""
    joined = bytearray()
    for piece in pieces:
        joined += piece
        if len(joined) >= PIECE:
            yield bytes(joined)
            joined.clear()
    yield bytes(joined)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf()


def _config(content: bytes, labels: dict[str, str]) -> dict[str, Any]:
    config = json.loads(content)
    if not all(_DIGEST.fullmatch(digest) for digest in config["rootfs"]["diff_ids"]):
        raise ValueError("a layer has no digest")
    inner = config["config"]
    # Ours say what containers are: nobody else's may be taken for them.
    theirs = {name: text for name, text in (inner.get("Labels") or {}).items() if not _OURS.match(name)}
    inner["Labels"] = {**theirs, **labels}
    return config


def _layer(content: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a layer, which must be a plain archive with entries of the kinds that buildah writes."""
    while block := content.read(BLOCK):
        yield block
        if not block.strip(b"\0"):
            continue  # the end, and what fills it up
        kind = block[156:157]
        if len(block) < BLOCK or block[257:262] != b"ustar" or not kind or kind not in _KINDS:
            raise ValueError("a layer is no plain archive")
        size = tarfile.nti(block[124:136])
        extended = kind in _EXTENDED
        too_much = (size and kind in _WITHOUT_CONTENTS) or (extended and size > PIECE)
        if size < 0 or too_much or not _SIZE.fullmatch(block[124:136]):
            raise ValueError("an entry of a layer has a strange size")
        left = size + -size % BLOCK
        while left:
            piece = content.read(min(left, PIECE))
            if not piece or (extended and _STRANGE.search(piece)):
                raise ValueError("a layer is damaged, or has files with holes or of more than 8 GB")
            left -= len(piece)
            yield piece


class _Stream(io.RawIOBase):
    """Pieces of any size as a file."""

    def __init__(self, pieces: Iterable[bytes]):
        self._pieces = iter(pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        found, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return found
