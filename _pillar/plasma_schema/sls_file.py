"""
A file of pillar on its way through Salt's renderers, which are in `_renderers/`.

A renderer that raises makes Salt log a traceback with the lines around the mistake. So it raises nothing: what is
wrong goes on as data beside what is right, under a key that begins with `FILE`, to `_pillar/plasma.py`, which refuses
it as it refuses a wrong value. Salt itself opens a file before any renderer, and fails where it is not UTF-8; so the
top file names no such file any more when Salt gets it, but itself instead, and tells of it when it is read as pillar.
"""

from __future__ import annotations

import functools
import os
import re
import types
from collections.abc import Collection, Iterable, MutableMapping
from pathlib import Path
from typing import Any

from salt.utils.functools import namespaced_function

from .sls_text import Mistake, check_templates, decoded, key_of, parsed, template_advice, template_line

FILE = "plasma file "
ROSTER = "roster"
SEALED = "a value cannot be decrypted with the keys in conf/gpgkeys (gpg_keydir); encrypt it for one of them again."


def borrow(module: types.ModuleType, into: dict[str, Any]) -> dict[str, Any]:
    """Give a renderer the functions of Salt's own of the same name, to be run with its `__opts__`; return them."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    into.update({function.__name__: namespaced_function(function, into) for function in own})
    return {function.__name__: into[function.__name__] for function in own}


def _above(root: Path) -> Path:
    """What names of pillar files begin below: where salt-ssh is called, when a demo's or another pillar is in there."""
    here = Path.cwd()
    return here if here != Path(here.anchor) and root.parent.is_relative_to(here) else root.parent


class SlsFile:
    """
    One file of pillar, or its top file.

    path, sls, saltenv
        As Salt's renderers get them; no sls is the top file.
    opts
        Salt's options.
    lines
        Whether to tell the lines of its keys.
    """

    def __init__(self, path: str, sls: str, saltenv: str, opts: Any, *, lines: bool = True):
        self.path, self.sls, self.saltenv = Path(os.path.abspath(path)), sls, saltenv
        self.top, self.lines = Path(opts["state_top"]).stem, lines
        roots = (opts.get("pillar_roots") or {}).get(saltenv) or []
        self.roots = [Path(os.path.abspath(root)) for root in roots]

    def shown(self, path: Path) -> str:
        """What people call it: `pillar/servers/maths.sls`."""
        return str(
            path.relative_to(next((_above(root) for root in self.roots if path.is_relative_to(root)), path.parent))
        )

    def wrong(self, mistake: Mistake, path: Path | None = None) -> dict[str, Any]:
        """What this file gives instead of data, when it, or another one that it names, cannot be read."""
        if not self.sls:
            return {self.saltenv: {"*": [self.top]}}
        told = {"line": mistake.line, "key": mistake.key, "why": mistake.why}
        return {FILE + self.shown(path or self.path): {"wrong": told}}

    def check_templates(self, text: str) -> None:
        """Raise Mistake where Jinja would do what nobody meant."""
        decoded(self.path.read_bytes())
        check_templates(text)

    def template_mistake(self, text: str, error: Exception) -> Mistake:
        """What Jinja gave up on, without its words: they quote the file."""
        kind = type(error.__context__ or error).__name__
        line = getattr(error, "line_num", None)
        if kind == "UndefinedError":
            why = template_advice("a template uses a name that is not defined")
        elif kind.startswith("Template"):
            line, why = (
                template_line(text, line),
                template_advice("`{{`, `{%` or `{#` begins a template here that is wrong"),
            )
        else:
            why = f"a function that a template calls failed ({kind}); try it by hand, with `salt-call --local`."
        return Mistake(line or 1, why, key_of(text, line or 1))

    def data(self, text: str) -> dict[Any, Any]:
        """What the file gives; text is what templates made of it."""
        try:
            data, lines = parsed(text)
            if data and not isinstance(data, dict):
                raise Mistake(1, "the file holds no keys; its first one has to be `plasma:`, with a colon and a space.")
            data = data or {}
            if any(str(key).startswith(FILE) for key in data):
                # Its templates were wrong.
                return data
            if self.sls in ("", self.top):
                return self._top(data, text)
            found: dict[Any, Any] = {}
            if isinstance(data.get("include"), list):
                found = self._unreadable(data["include"], text)
                data["include"] = [] if found else data["include"]
            if not self.lines:
                return data
            # Lines that templates made are nobody's.
            same = decoded(self.path.read_bytes()).count("\n") == text.count("\n")
            return {**data, FILE + self.shown(self.path): {"lines": lines if same else {}}, **found}
        except Mistake as mistake:
            return self.wrong(mistake)

    def _top(self, data: dict[Any, Any], text: str) -> dict[Any, Any]:
        """The top file, without what cannot be read; or, read as pillar, what that is."""
        bodies = data.values()
        if not all(
            isinstance(body, dict) and all(isinstance(items, list) for items in body.values()) for body in bodies
        ):
            raise Mistake(1, "a list of files has to stand below a server's id or '*', and that below `base:`.")
        if self.sls:
            return {
                key: told
                for body in bodies
                for items in body.values()
                for key, told in self._unreadable(items, text).items()
            }
        return {
            env: {match: [self.top] if self._unreadable(items, text) else items for match, items in body.items()}
            for env, body in data.items()
        }

    def _unreadable(self, items: Iterable[Any], text: str) -> dict[str, Any]:
        """What is to be told of the files of a list that are missing, or that Salt could not open."""
        items = list(items)
        optional = any(isinstance(item, dict) and item.get("ignore_missing") for item in items)
        found: dict[str, Any] = {}
        for name in items:
            # A pattern, a name relative to this one, and an environment without a directory are left to Salt.
            if not isinstance(name, str) or set(name) & set("*?[]") or name.startswith(".") or not self.roots:
                continue
            below = name.replace(".", "/")
            places = [root / f"{below}{end}" for root in self.roots for end in (".sls", "/init.sls")]
            path = next((place for place in places if place.is_file()), None)
            as_pillar = SlsFile(str(self.path), self.sls or self.top, self.saltenv, {"state_top": self.top})
            as_pillar.roots = self.roots
            try:
                if path is not None:
                    decoded(path.read_bytes())
                elif not optional:
                    named = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])")
                    line = next((number for number, line in enumerate(text.split("\n"), 1) if named.search(line)), 1)
                    raise Mistake(line, "the file that is named here does not exist; see to its name.")
            except Mistake as mistake:
                found.update(as_pillar.wrong(mistake, path))
        return found


def read_by_us(path: str | None, sls: str, saltenv: str, opts: Any, pillar: bool | None) -> SlsFile | None:
    """The file that a renderer was given, if what is wrong in it is ours to tell: one of pillar, or the roster."""
    if pillar and path:
        return SlsFile(path, sls, saltenv, opts)
    return SlsFile(path, ROSTER, saltenv, opts, lines=False) if path and path == opts.get("roster_file") else None


def take(pillar: MutableMapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """Take what renderers told of files out of a pillar: {"pillar/plasma.sls": {...}}, as they were read."""
    names = [name for name in pillar if isinstance(name, str) and name.startswith(FILE)]
    return {name.removeprefix(FILE): dict(pillar.pop(name)) for name in names}


def mistakes(files: dict[str, dict[str, Any]], known: Collection[str] = ()) -> list[str]:
    """
    One line for each file that cannot be read.

    known
        The keys that may be named, if not those of pillar.
    """
    wrong = {name: told["wrong"] for name, told in files.items() if "wrong" in told}
    known = known or (_keys() if wrong else ())
    return [
        f"{name}:{told['line']}: {told['key'] + ': ' if told['key'] in known else ''}{told['why']}"
        for name, told in wrong.items()
    ]


@functools.cache
def _keys() -> set[str]:
    """The keys that may be named; what only looks like a key may be a password that went astray."""
    try:
        from .base import walk
        from .site import Plasma
    except ImportError:
        return set()
    return {where.rpartition(".")[2].removesuffix("[]") for where, _, _ in walk(Plasma, "plasma")} | {"plasma"}


def unmatched(minion_id: str, files: dict[str, Any], pillar: dict[Any, Any], opts: dict[str, Any]) -> list[str] | None:
    """
    A line when no file of pillar is for this server: its mistake would be taken for a wish to have all defaults.

    Returns None for a minion of a Salt master: there, most are no servers of ours.
    """
    ours = any(Path(folder).name == "_renderers" for folder in opts.get("render_dirs") or [])
    if files or "plasma" in pillar or not ours or opts.get("ext_pillar_first"):
        return []
    if opts.get("__role") == "master" and "__master_opts__" not in opts:
        return None
    tops = [Path(os.path.abspath(root)) / "top.sls" for root in (opts.get("pillar_roots") or {}).get("base") or []]
    name = str(tops[0].relative_to(_above(tops[0].parent))) if tops else "top.sls"
    if not any(top.is_file() for top in tops):
        return [f"{name} does not exist, so no file of pillar is for any server. Bring it back: `git checkout {name}`."]
    return [f"{name} names no file for {minion_id}, or an empty one. Name one below '*', as the repository's does."]


def located(lines: list[str], files: dict[str, dict[str, Any]]) -> list[str]:
    """Lines about keys, each with the file and the line where its key stands, if a file has it."""
    places: dict[str, str] = {}
    for name, told in files.items():
        keys = told.get("lines") or {}
        # A list of a later file replaces the earlier one.
        gone = tuple(f"{key}[" for key in keys if f"{key}[0]" in keys)
        places = {key: place for key, place in places.items() if not key.startswith(gone)}
        places.update({key: f"{name}:{number}: " for key, number in keys.items()})
    return [_place(line, places) + line for line in lines]


def _place(line: str, places: dict[str, str]) -> str:
    # The key itself may be missing: what it would be in is there. A section that no file has came with the command.
    ends = {key: line[len(key) : len(key) + 1] for key in places if line.startswith(key)}
    fitting = (key for key, end in ends.items() if end in (":", " ") or (end in (".", "[") and key != "plasma"))
    return places.get(max(fitting, key=len, default=""), "")
