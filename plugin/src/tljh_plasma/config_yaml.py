"""What a round trip through ruamel.yaml needs to change keys of a YAML file and leave the rest of it alone.

Used by `tljh_plasma.config_file`. ruamel.yaml keeps comments, order and quoting; added here are editing in place (it
ties comments to the values they follow, so replacing a value drops the comment of what comes next), quoting for
readers of YAML 1.1, a check that the text written says exactly what was meant, and diffs without secrets.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
from collections import Counter
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark, MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import FoldedScalarString, LiteralScalarString, ScalarString, SingleQuotedScalarString
from ruamel.yaml.tokens import CommentToken

SECRET = re.compile(r"secret|passw|token", re.IGNORECASE)
HIDDEN = "********"


class ConfigError(Exception):
    """An expected error; its text is one sentence for the person who runs the apply."""


# --- reading ----------------------------------------------------------------------------------------------------


def _yaml() -> YAML:
    # typ="rt" with the Python parser, as TLJH reads the file; every document gets a fresh, unshared instance.
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 4096  # do not fold long values
    return yaml


def parse(text: str, path: Any) -> tuple[CommentedMap, dict[str, Any]]:
    """Return the round-trip tree of *text* and its plain copy. A `ConfigError` names *path* and the line."""
    try:
        tree = _yaml().load(text)
        tree = CommentedMap() if tree is None else tree
        if isinstance(tree, CommentedMap):
            return tree, plain(tree)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1})" if mark else ""
        problem = error.problem or error.context or "it cannot be parsed"
    except (YAMLError, ValueError) as error:
        where, problem = _bad_character(text), str(error) or type(error).__name__
    except RecursionError:
        where, problem = "", "a section contains itself"
    else:
        raise ConfigError(f"{path} must hold sections with keys (a YAML mapping), not a single value or a list.")
    # Only the first line of the problem: below it ruamel gives advice for programmers.
    problem = problem.splitlines()[0].rstrip(".")
    raise ConfigError(f"{path} is not valid YAML, nothing was changed{where}: {problem}.")


def _bad_character(text: str) -> str:
    bad = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return f" (line {text.count(chr(10), 0, bad.start()) + 1})" if bad else ""


def plain(value: Any) -> Any:
    """Round-trip tree -> dicts with string keys, lists, strings, numbers, booleans and None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if type(value).__name__ == "ScalarBoolean":  # a true or false with an anchor; ruamel derives it from int
        return bool(value)
    # Dates and tagged values are text.
    kinds = (bool, int, float)
    return value if value is None else next((kind(value) for kind in kinds if isinstance(value, kind)), str(value))


def same(one: Any, two: Any) -> bool:
    """Equality of plain values that tells 1 from True and from 1.0, at every depth."""
    return json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)


def _says(text: str, config: dict[str, Any], path: Any) -> bool:
    try:
        return same(parse(text, path)[1], config)
    except ConfigError:
        return False


# --- changing ---------------------------------------------------------------------------------------------------


def render(
    text: str,
    tree: CommentedMap,
    after: dict[str, Any],
    assigned: list[tuple[list[str], Any]],
    removed: list[list[str]],
    path: Any,
) -> str:
    """Return the new text of a file.

    Args:
        text: the old text.
        tree: its round-trip tree, which is edited in place.
        after: the plain content that the new text must have.
        assigned: pairs (keys, value) to set.
        removed: lists of keys to remove.
        path: the file, for messages.

    Raises:
        ConfigError: the file cannot take the change without harm to its other keys.
    """
    indentation = _indentation(tree)
    only_comments = not tree
    spreads = ConfigError(
        f"{path} cannot take this change without harm to its other keys, nothing was written: YAML anchors, merge "
        "keys and control characters have to be replaced by hand first."
    )
    try:
        for keys, value in assigned:
            section = tree
            for part in keys[:-1]:
                part = _own_key(section, part)
                if section.get(part) is None:
                    section[part] = CommentedMap()
                section = section[part]
            _assign(section, keys[-1], value)
        for keys in removed:
            remove(tree, keys)
    except KeyError:  # a key that comes from a merge key cannot be deleted where it appears
        raise spreads from None
    yaml = _yaml()
    yaml.indent(**indentation)
    yaml.explicit_start = bool(re.match(r"(?:[ \t]*(?:#[^\n]*)?\n)*---(?:\s|$)", text))
    out = io.StringIO()
    yaml.dump(tree, out)
    new = out.getvalue()
    if only_comments:  # ruamel has nowhere to keep the comments of a file without keys
        new = "".join(f"{line}\n" for line in text.splitlines() if line.lstrip().startswith("#")) + new
    restored = _with_lost_comments(text, new, path)
    # The second is for comments that would land, indented, behind a block of text and become part of it.
    for candidate in (restored, re.sub(r"(?m)^[ \t]+#", "#", restored), new):
        # Whatever the layout of the file was: what is written says exactly what was asked for.
        if _says(candidate, after, path):
            return candidate
    raise spreads


def remove(config: dict[str, Any], keys: list[str]) -> None:
    """Remove a key, and the sections that this leaves empty. Works on plain mappings and on round-trip trees."""
    sections = [config]
    for part in keys[:-1]:
        sections.append(sections[-1][_own_key(sections[-1], part)])
    for section, part in zip(reversed(sections), reversed(keys), strict=True):
        del section[_own_key(section, part)]
        if section:
            return


def _own_key(section: dict[Any, Any], part: str) -> Any:
    """The key as the file has it: `101:` is an integer there and a string in a request."""
    return part if part in section else next((key for key in section if str(key) == part), part)


_YAML_1_1 = VersionedResolver(version=(1, 1))


def _fancy(value: Any) -> Any:
    """Plain value -> what ruamel writes so that every YAML reader gets the same type back.

    ruamel quotes strings that YAML 1.2 would read as another type ("007"). Those that only readers of YAML 1.1 (as
    PyYAML) take for something else ("yes", "12:30") are quoted here.
    """
    if isinstance(value, dict):
        return CommentedMap((_fancy(key), _fancy(item)) for key, item in value.items())
    if isinstance(value, list):
        return CommentedSeq(map(_fancy, value))
    if isinstance(value, str) and "\n" not in value:
        tag = _YAML_1_1.resolve(ScalarNode, value, (True, False))
        if not str(tag).endswith(":str"):
            return SingleQuotedScalarString(value)
    return value


def _assign(section: CommentedMap, key: str, value: Any) -> None:
    """Set a key, and leave alone what is below it and stays: it keeps its comments and its quotes."""
    key = _own_key(section, key)
    old = section.get(key)
    if key in section and same(plain(old), value):
        return
    if isinstance(old, CommentedMap) and isinstance(value, dict) and old and value:
        for gone in [name for name in old if str(name) not in value]:
            del old[gone]
        for name, item in value.items():
            _assign(old, name, item)
    elif isinstance(old, CommentedSeq) and isinstance(value, list) and old and value:
        _assign_list(old, value)
    else:
        if not section:
            section.fa.set_block_style()  # `{}` would otherwise stay in braces when keys are added
        section.ca.items.pop(key, None)
        if isinstance(old, ScalarString):
            section[key] = None  # or ruamel writes the new text in the style of the old one
        below = "" if key in section or not section else _cut_below(section)
        section[key if key in section else _fancy(key)] = _fancy(value)
        _add_below(section, below)


def _assign_list(items: CommentedSeq, wanted: list[Any]) -> None:
    """Give a list its new items; those that stay keep their comments, which ruamel stores by position."""
    below = _cut_below(items)
    before = [(item, items.ca.items.get(index)) for index, item in enumerate(items)]
    del items[:]
    items.ca.items.clear()
    for value in wanted:
        known = next((entry for entry in before if same(plain(entry[0]), value)), (_fancy(value), None))
        before = [entry for entry in before if entry is not known]
        items.append(known[0])
        if known[1]:
            items.ca.items[len(items) - 1] = known[1]
    _add_below(items, below)


def _last_note(section: Any) -> tuple[list[Any], int, Any]:
    """Where ruamel keeps what follows a section's last value: the notes, the one of them, and that value."""
    while True:
        listed = isinstance(section, CommentedSeq)
        key = len(section) - 1 if listed else next(reversed(section))
        value = section[key]
        if not isinstance(value, CommentedMap | CommentedSeq) or not value or value.fa.flow_style():
            return section.ca.items.setdefault(key, [None] * 4), 0 if listed else 2, value
        section = value


def _add_below(section: Any, below: str) -> None:
    if below:
        notes, slot, _ = _last_note(section)
        notes[slot] = CommentToken(f"{notes[slot].value if notes[slot] else chr(10)}{below}", CommentMark(0), None)


def _cut_below(section: Any) -> str:
    """Take away what stands below a section, comments and blank lines: a new key comes before them."""
    notes, slot, value = _last_note(section)
    if not notes[slot] or isinstance(value, LiteralScalarString | FoldedScalarString):
        return ""
    first, newline, below = notes[slot].value.partition("\n")
    notes[slot].value = first + newline
    return below


def _indentation(tree: CommentedMap) -> dict[str, int]:
    """The file's own indentation, taken from its first nested mapping and its first list."""
    found: dict[str, int] = {}

    def look(section: CommentedMap) -> None:
        for value in section.values():
            if isinstance(value, (CommentedMap, CommentedSeq)) and value and not value.fa.flow_style():
                kind = "mapping" if isinstance(value, CommentedMap) else "offset"
                found.setdefault(kind, value.lc.col - section.lc.col)
            if isinstance(value, CommentedMap):
                look(value)

    look(tree)
    mapping, offset = max(found.get("mapping", 2), 1), max(found.get("offset", 0), 0)
    return {"mapping": mapping, "sequence": offset + 2, "offset": offset}


def _with_lost_comments(old: str, new: str, path: Any) -> str:
    """Put the comment lines back that hung on a removed or replaced value and went with it."""

    def comments(lines: list[str]) -> Counter[str]:
        return Counter(line.strip() for line in lines if line.lstrip().startswith("#"))

    before, after = old.splitlines(), new.splitlines()
    lost = comments(before) - comments(after)
    if not lost:
        return new
    values = parse(old, path)[1]
    out = []
    for action, start, stop, new_start, new_stop in difflib.SequenceMatcher(None, before, after, False).get_opcodes():
        out += after[new_start:new_stop]
        for number in range(start, stop) if action in ("delete", "replace") else ():
            name = before[number].strip()
            if lost[name] < 1:
                continue
            # In a block of text, a line that starts with # is no comment: without it the values differ.
            without = "".join(f"{line}\n" for line in before[:number] + before[number + 1 :])
            if not _says(without, values, path):
                continue
            lost[name] -= 1
            if number > start and not before[number - 1].strip() and out and out[-1].strip():
                out.append("")
            out.append(before[number])
    return "\n".join(out) + "\n"


# --- diff without secrets ---------------------------------------------------------------------------------------


def diff(old: str, new: str, path: Any) -> str:
    """Unified diff of two texts in which the values of keys that look secret are stars."""
    lines = difflib.unified_diff(_hide(old).splitlines(), _hide(new).splitlines(), str(path), str(path), lineterm="")
    return re.sub(r"\0[0-9a-f]+", "", "\n".join(lines))


def _hide(text: str) -> str:
    """Replace secret values by stars, followed by a mark (removed later) that makes different values differ."""

    def stars(value: str) -> str:
        return f"{HIDDEN}\0{hashlib.sha256(value.encode()).hexdigest()}"

    spans: list[tuple[int, int]] = []

    def walk(node: Any, above: tuple[int, ...] = ()) -> None:
        if id(node) in above:
            return
        for key, value in node.value if isinstance(node, MappingNode) else ():
            if SECRET.search(str(key.value)):
                spans.append((value.start_mark.index, value.end_mark.index))
            else:
                walk(value, (*above, id(node)))
        for value in node.value if isinstance(node, SequenceNode) else ():
            walk(value, (*above, id(node)))

    if SECRET.search(text):
        walk(_yaml().compose(text))
    # From the end on. An alias can lead to a secret that is inside another one.
    for start, stop in sorted(set(spans), reverse=True):
        inside = any(low <= start and stop <= high for low, high in spans if (low, high) != (start, stop))
        if (value := text[start:stop].rstrip()) and not inside:
            text = text[:start] + stars(value) + text[start + len(value) :]
    # Also a secret that somebody commented out.
    return re.sub(
        r"(?im)^(\s*#.*(?:secret|passw|token)[^\s:=]*\s*[:=]\s*)(\S.*)$", lambda match: match[1] + stars(match[2]), text
    )
