"""What a builder without the engine hands over: only an image, and only under the names that the service gives."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from tljh_plasma.builds import archive
from tljh_plasma.builds.images import BuildFailed

LABELS = {"tljh_repo2docker.owner": "ada"}
TAG = "plasma-build/course:1"
MOST = 10_000_000
# What would make a server of somebody a builder, or an image another environment's.
THEIRS = {"org.plasma.build.uid": "x", "org.plasma.user": "x", "repo2docker.build": "x", "tljh_repo2docker.x": "x"}


def packed(entries: dict[str, bytes | tarfile.TarInfo], **options) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", **options) as made:
        for name, what in entries.items():
            if isinstance(what, tarfile.TarInfo):
                what.name = name
                made.addfile(what)
            else:
                entry = tarfile.TarInfo(name)
                entry.size = len(what)
                made.addfile(entry, io.BytesIO(what))
    return content.getvalue()


def link(kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type, entry.linkname = kind, "/plasma/credentials"
    return entry


def image(layer: bytes | None = None, **config) -> dict[str, bytes | tarfile.TarInfo]:
    layer = packed({"etc/motd": b"hello", "a" * 200: b"long name", "usr/link": link()}) if layer is None else layer
    digest = hashlib.sha256(layer).hexdigest()
    told = {"config": {"Labels": {"tljh_repo2docker.owner": "mallory", "own": "kept", **THEIRS}, "Cmd": ["x"]}}
    told |= {"rootfs": {"diff_ids": ["sha256:" + "0" * 64, f"sha256:{digest}"]}, **config}
    return {f"output/{digest}.tar": layer, "output/image.json": json.dumps(told).encode()}


def taken(entries, size: int = 1000, most: int = MOST) -> dict[str, bytes]:
    """What the engine gets, by name, of what comes in pieces of a size."""
    given = packed(entries)
    pieces = [given[at : at + size] for at in range(0, len(given), size)]
    made = b"".join(archive._joined(archive.image_archive(pieces, TAG, LABELS, most)))
    with tarfile.open(fileobj=io.BytesIO(made)) as found:
        return {member.name: found.extractfile(member).read() for member in found}


@pytest.mark.parametrize("size", [1, 511, 4096, 10_000_000])
def test_an_image_with_the_names_and_labels_of_the_service(size):
    entries = image()
    (layer, content), _ = entries.items()
    found = taken(entries, size)
    assert found[layer.removeprefix("output/")] == content
    assert json.loads(found["manifest.json"]) == [
        {
            "Config": "image.json",
            "RepoTags": [TAG],
            "Layers": [f"{'0' * 64}.tar", layer.removeprefix("output/")],
        }
    ]
    assert json.loads(found["image.json"])["config"] == {
        "Labels": {"tljh_repo2docker.owner": "ada", "own": "kept"},
        "Cmd": ["x"],
    }


def test_an_image_without_labels_of_its_own():
    assert json.loads(taken(image(config={}))["image.json"])["config"] == {"Labels": LABELS}


def sparse(header: str) -> bytes:
    """A file of a terabyte that takes one block: by a header of POSIX, or by GNU's own kind of entry."""
    entry = tarfile.TarInfo("holes")
    if header == "GNU":
        entry.type = tarfile.GNUTYPE_SPARSE
    else:
        entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
    return packed({"holes": entry}, format=tarfile.PAX_FORMAT)


def hidden(kind: bytes, *, size: bytes = b"00000001000\0", record: bytes = b"", name: bytes = b"x") -> bytes:
    """A layer in whose first entry only we would see contents: a file with holes of 8 TB for others."""

    def header(kind: bytes, name: bytes, size: bytes) -> bytes:
        block = bytearray(512)
        block[: len(name)], block[100:108], block[124:136], block[156:157] = name, b"0000644\0", size, kind
        block[257:265] = b"ustar\x0000"
        block[148:156] = b" " * 8
        block[148:156] = f"{sum(block):06o}\0 ".encode()
        return bytes(block)

    before = header(b"x", b"p", f"{len(record):011o}\0".encode()) + record.ljust(512, b"\0") if record else b""
    bomb = header(b"S", b"bomb", b"00000000000\0")
    return before + header(kind, name, size) + bomb + bytes(1024)


FORGED = {
    **{f"contents of kind {kind!r}": (image(hidden(kind)), "strange size") for kind in (b"1", b"2", b"5", b"6")},
    "a kind of old": (image(hidden(b"\0", name=b"d/")), "no plain archive"),
    "another size in a record": (image(hidden(b"0", record=b"9 size=0\n")), "more than 8 GB"),
    "a size with a zero in front": (image(hidden(b"0", size=b"\x000000001000")), "strange size"),
    "too many files": ({f"output/{n:064x}.tar": b"" for n in range(archive.MAX_FILES + 2)}, "too many files"),
    "a configuration without an end": ({"output/image.json": b"[" * 200_000}, "is no image"),
    "no configuration": ({"output/" + "1" * 64 + ".tar": packed({})}, "no configuration"),
    "a manifest": ({**image(), "output/manifest.json": b"[]"}, "'manifest.json' is not known"),
    "a link in place of the configuration": ({"output/image.json": link()}, "'image.json' is no file"),
    "a hard link in place of a layer": ({"output/" + "1" * 64 + ".tar": link(tarfile.LNKTYPE)}, "is no file"),
    "a device": ({"output/image.json": link(tarfile.CHRTYPE)}, "is no file"),
    "a configuration that is none": ({"output/image.json": b"[]"}, "is no image"),
    "no JSON": ({"output/image.json": b"{"}, "is no image"),
    "a layer outside": (image(rootfs={"diff_ids": ["sha256:../../../etc/passwd"]}), "no digest"),
    "digests that are none": (image(rootfs={"diff_ids": [7]}), "is no image"),
    "labels that are none": (image(config={"Labels": ["x"]}), "is no image"),
    "a compressed layer": (image(b"\x1f\x8b" + bytes(1022)), "no plain archive"),
    "a layer that is cut": (image(packed({"x": b"y" * 600})[:600]), "damaged"),
    "a layer with holes of GNU": (image(sparse("GNU")), "no plain archive"),
    "a layer with holes of POSIX": (image(sparse("POSIX")), "holes"),
    "too large": (image(packed({"x": bytes(MOST)})), "too large"),
    "a large configuration": ({"output/image.json": bytes(archive.MAX_CONFIG + 1)}, "not known"),
}


@pytest.mark.parametrize("forged", FORGED)
def test_what_is_no_image(forged):
    entries, why = FORGED[forged]
    with pytest.raises(BuildFailed, match="what the builder made is no image") as raised:
        taken(entries)
    assert why in str(raised.value)


def test_an_archive_that_ends_too_early():
    given = packed(image())[:700]
    with pytest.raises(BuildFailed, match="is no image"):
        list(archive.image_archive([given], TAG, LABELS, MOST))
