"""What a round trip through ruamel.yaml needs to change keys of a YAML file and leave the rest of it alone.

Used by `tljh_plasma.config_file`. ruamel.yaml keeps comments, order and quoting; added here are editing in place (it
ties comments to the values they follow, so replacing a value drops the comment of what comes next), quoting for
readers of YAML 1.1, a check that the text written says exactly what was meant, and diffs without secrets.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import re
from collections import Counter

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark, MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarstring import FoldedScalarString, LiteralScalarString, SingleQuotedScalarString
from ruamel.yaml.tokens import CommentToken

SECRET = re.compile(r"secret|passw|token", re.IGNORECASE)
HIDDEN = "********"


class ConfigError(Exception):
    """An expected error; its text is one sentence for the person who runs the apply."""


# --- reading ----------------------------------------------------------------------------------------------------


def _yaml():
    # typ="rt" with the Python parser, as TLJH reads the file; every document gets a fresh, unshared instance.
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 4096  # do not fold long values
    return yaml


def parse(text, path):
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


def _bad_character(text):
    bad = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    return f" (line {text.count(chr(10), 0, bad.start()) + 1})" if bad else ""


def plain(value):
    """Round-trip tree -> dicts with string keys, lists, strings, numbers, booleans and None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if type(value).__name__ == "ScalarBoolean":  # a true or false with an anchor; ruamel derives it from int
        return bool(value)
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)  # also dates and tagged values


def same(one, two):
    """Equality of plain values that tells 1 from True and from 1.0, at every depth."""
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def _says(text, config, path):
    try:
        return same(parse(text, path)[1], config)
    except ConfigError:
        return False


# --- changing ---------------------------------------------------------------------------------------------------


def render(text, tree, after, assigned, removed, path):
    """Return the new text of a file.

    :param str text: the old text, and *tree* its round-trip tree, which is edited in place.
    :param dict after: the plain content that the new text must have.
    :param list assigned: pairs (keys, value) to set; *removed*: lists of keys to remove.
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
                    _put(section, part, CommentedMap())
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


def remove(config, keys):
    """Remove a key, and the sections that this leaves empty. Works on plain mappings and on round-trip trees."""
    sections = [config]
    for part in keys[:-1]:
        sections.append(sections[-1][_own_key(sections[-1], part)])
    for section, part in zip(reversed(sections), reversed(keys), strict=True):
        del section[_own_key(section, part)]
        if section:
            return


def _own_key(section, part):
    """The key as the file has it: `101:` is an integer there and a string in a request."""
    return part if part in section else next((key for key in section if str(key) == part), part)


_YAML_1_1 = VersionedResolver(version=(1, 1))


def _fancy(value):
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


def _put(section, key, value):
    """Set a key, and keep the lines that follow (comments, blank lines) behind it."""
    below = ""
    if not section:
        section.fa.set_block_style()  # `{}` would otherwise stay in braces when keys are added
    elif key not in section and not section.fa.flow_style():
        below = _cut_below(section, next(reversed(section)), section.lc.col)
    elif key in section:
        below = _cut_below(section, key)
    if _is_block(section.get(key)):
        # Comments between a key and its block: ruamel writes invalid YAML when the new value has no block.
        # `_with_lost_comments` puts them back.
        note = section.ca.items.get(key) or []
        note[3:] = [None] * len(note[3:])
        if len(note) > 2 and note[2]:
            note[2].value = note[2].value.partition("\n")[0] + "\n"
    if isinstance(section.get(key), _BLOCK_TEXT):
        section[key] = None  # or ruamel writes the new text in the block style of the old one
    section[key if key in section else _fancy(key)] = value
    _add_below(section, key, below)


def _assign(section, key, value):
    """Set a key in place, so that unchanged items below it keep their comments and quoting."""
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
        _assign_list(old, value, section.lc.col)
    else:
        _put(section, key, _fancy(value))


def _assign_list(sequence, value, column):
    """Give a list its new items; those that stay keep their comments, which ruamel stores by position."""
    # A comment that is indented no deeper than the list's key, at *column*, belongs to what follows the list.
    below = _cut_below(sequence, len(sequence) - 1, (column or 0) + 1) if _is_block(sequence) else ""
    before = [(item, sequence.ca.items.get(index)) for index, item in enumerate(sequence)]
    entries = []
    for wanted in value:
        entry = next((entry for entry in before if same(plain(entry[0]), wanted)), None)
        before = [other for other in before if other is not entry]
        entries.append(entry or (_fancy(wanted), None))
    del sequence[:]
    sequence.ca.items.clear()
    for index, (item, note) in enumerate(entries):
        sequence.append(item)
        if note:
            sequence.ca.items[index] = note
    _add_below(sequence, len(sequence) - 1, below)


def _is_block(value):
    return isinstance(value, (CommentedMap, CommentedSeq)) and bool(value) and not value.fa.flow_style()


_BLOCK_TEXT = (FoldedScalarString, LiteralScalarString)


def _last_note(holder, key):
    """Where ruamel stores the rest of the last line of a value, and the comments and blank lines below it.

    Returned as the list of notes, its index, and whether the value is a block of text (its note starts one line lower).
    """
    while _is_block(holder[key]):
        holder = holder[key]
        key = len(holder) - 1 if isinstance(holder, CommentedSeq) else next(reversed(holder))
    note = holder.ca.items.setdefault(key, [None] * 4)
    return note, 0 if isinstance(holder, CommentedSeq) else 2, isinstance(holder[key], _BLOCK_TEXT)


def _cut_below(holder, key, column=None):
    """Take the lines below a value away and return them: all, or from the first comment left of *column*."""
    note, slot, after_block_text = _last_note(holder, key)
    if note[slot] is None:
        return ""
    first, newline, rest = note[slot].value.partition("\n")
    if after_block_text:
        first, newline, rest = "", "", " " * note[slot].column * bool(first) + note[slot].value
    lines = rest.splitlines(keepends=True)
    kept = 0
    for number, line in enumerate(lines):
        if column is None or (line.strip() and len(line) - len(line.lstrip()) < column):
            break
        kept = number + 1 if line.strip() else kept
    note[slot].value = first + newline + "".join(lines[:kept]).lstrip(" " if after_block_text else "")
    if not note[slot].value:
        note[slot] = None
    return "".join(lines[kept:])


def _add_below(holder, key, lines):
    if lines:
        note, slot, after_block_text = _last_note(holder, key)
        if note[slot] is None:
            column = len(lines) - len(lines.lstrip(" ")) if after_block_text else 0
            note[slot] = CommentToken("" if after_block_text else "\n", CommentMark(column), None)
            lines = lines[column:]
        note[slot].value += lines


def _indentation(tree):
    """The file's own indentation, taken from its first nested mapping and its first list."""
    found = {}

    def look(section):
        for value in section.values():
            if isinstance(value, (CommentedMap, CommentedSeq)) and value and not value.fa.flow_style():
                kind = "mapping" if isinstance(value, CommentedMap) else "offset"
                found.setdefault(kind, value.lc.col - section.lc.col)
            if isinstance(value, CommentedMap):
                look(value)

    look(tree)
    mapping, offset = max(found.get("mapping", 2), 1), max(found.get("offset", 0), 0)
    return {"mapping": mapping, "sequence": offset + 2, "offset": offset}


def _with_lost_comments(old, new, path):
    """Put the comment lines back that hung on a removed or replaced value and went with it."""

    def comments(lines):
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


def diff(old, new, path):
    """Unified diff of two texts in which the values of keys that look secret are stars."""
    lines = difflib.unified_diff(_hide(old).splitlines(), _hide(new).splitlines(), path, path, lineterm="")
    return re.sub(r"\0[0-9a-f]+", "", "\n".join(lines))


def _hide(text):
    """Replace secret values by stars, followed by a mark (removed later) that makes different values differ."""

    def stars(value):
        return f"{HIDDEN}\0{hashlib.sha256(value.encode()).hexdigest()}"

    spans, seen = set(), set()

    def walk(node):
        if node is None or id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, MappingNode):
            for key, value in node.value:
                if SECRET.search(str(key.value)):
                    spans.add((value.start_mark.index, value.end_mark.index))
                else:
                    walk(value)
        elif isinstance(node, SequenceNode):
            for value in node.value:
                walk(value)

    if SECRET.search(text):
        walk(_yaml().compose(text))
    for start, stop in sorted(spans, reverse=True):
        inside_another = any(low <= start and stop <= high for low, high in spans - {(start, stop)})
        value = text[start:stop].rstrip()
        if value and not inside_another:
            text = text[:start] + stars(value) + text[start + len(value) :]
    # Also a secret that somebody commented out.
    return re.sub(
        r"(?im)^(\s*#.*(?:secret|passw|token)[^\s:=]*\s*[:=]\s*)(\S.*)$",
        lambda match: match[1] + stars(match[2]),
        text,
    )
