"""Links and pictures of every page lead somewhere; those to other hosts are looked at and not fetched."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.pages import Link, Page, pages
from tests.support.paths import REPOSITORY

PAGES = pages()
LOOPBACK = ("127.0.0.1", "localhost")
HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")


def fault(page: Page, link: Link) -> str | None:
    """What is wrong with a link, if anything is."""
    parts = urlsplit(link.target)
    if parts.scheme or parts.netloc:
        return _outer_fault(link.target)
    path = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
    if not path.is_relative_to(REPOSITORY) or not path.exists():
        return f"there is no {link.target}"
    if link.picture and path.suffix not in (".png", ".svg"):
        return f"{link.target} is no picture"
    if parts.fragment and (path.suffix != ".md" or parts.fragment not in Page(path).anchors):
        return f"{link.target}: there is no such heading"
    return None


def _outer_fault(target: str) -> str | None:
    try:
        parts = urlsplit(target)
        port = parts.port
    except ValueError as error:
        return f"{target}: {error}"
    if parts.scheme == "http" and parts.hostname in LOOPBACK and port:
        return None
    if parts.scheme != "https":
        return f"{target} is not https"
    if not HOST.fullmatch(parts.hostname or "") or parts.username or port or re.search(r"[\s<>\"]", target):
        return f"{target} is not well-formed"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    faults = [f"{page.name}:{link.line}: {said}" for link in page.links if (said := fault(page, link))]
    assert not faults, "\n".join(faults)


def test_there_are_links():
    assert sum(len(page.links) for page in PAGES) > 150


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere.md", "there is no nowhere.md"),
        ("index.md#nothing-like-it", "no such heading"),
        ("../../../../etc/passwd", "there is no"),
        ("http://example.org/", "is not https"),
        ("https://example/", "is not well-formed"),
        ("https://user@example.org/", "is not well-formed"),
        ("https://example.org:port/", "ort"),
        ("ftp://example.org/", "is not https"),
        ("mailto:somebody", "is not https"),
        ("add.md", None),
        ("add.md#in-a-csv-file", None),
        ("https://example.org/page#part", None),
        ("http://127.0.0.1:8000", None),
    ],
)
def test_faults_are_found(target, said):
    found = fault(Page(REPOSITORY / "docs" / "people" / "index.md"), Link(target, 1, False))
    assert found is None if said is None else said in (found or "")


def test_a_page_is_no_picture():
    assert fault(Page(REPOSITORY / "docs" / "people" / "index.md"), Link("add.md", 1, True)) == "add.md is no picture"


def test_every_picture_is_shown_somewhere():
    shown = {(page.path.parent / link.target).resolve() for page in PAGES for link in page.links if link.picture}
    pictures = {path for path in (REPOSITORY / "docs" / "_static").iterdir() if path.suffix in (".png", ".svg")}
    assert not pictures - shown
