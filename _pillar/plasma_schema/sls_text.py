"""
What is wrong in a file that people write, as one line that shows nothing of the file: it may hold passwords.

Salt's own message for a file that is no YAML shows the five lines around the place, and its log a traceback with them.
Nothing here imports pydantic: it works before the schema can.
"""

from __future__ import annotations

import codecs
import re
from typing import Any

import jinja2
import yaml
from salt.utils.yamlloader import SaltYamlSafeLoader
from yaml.reader import ReaderError

SECRETS = ("password", "password_hash", "bind_password", "join_password")
_KEY = re.compile(r"\s*(?:- +)*[{\"']?([A-Za-z_][A-Za-z0-9_]*)[\"']?\s*:")
_CUT = re.compile(rf"\b(?:{'|'.join(SECRETS)})[\"']?\s*:\s+[^\s\"'][^\"']*\s#")
_SECRET = re.compile(
    rf"\s*(?:- +)*(?P<brackets>\{{(?:.*,)?)?\s*[\"']?(?:{'|'.join(SECRETS)})[\"']?\s*:\s+(?P<quote>[\"']?)(?P<value>.*)"
)
_JINJA = jinja2.Environment(autoescape=False)
_TEMPLATE, _REMARK = "\0", "\1"
_MADE = re.compile(rf"{_TEMPLATE}+\s*(?:{_REMARK}\s*)*")
# Where a value ends, by the quotation mark that it begins with; one without, within brackets or not.
_ENDS = {"'": r"(?:[^']|'')*", '"': r"(?:[^\"\\]|\\.)*", "{": r"[^,}]*", "": r"(?:(?!\s#).)*"}
_QUOTES = "put the whole value in single quotes"
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_OPENS = f"a value may not begin with one of % @ ` {{ }} [ ] , ? by itself; {_QUOTES}."
# What PyYAML says, what the line looks like, whether it is the line where the thing began, and what that means.
_WHYS = (
    ("hashable|unacceptable", "", False, _OPENS),
    (
        "quoted scalar; .*(end of stream|document)",
        "",
        True,
        "a quotation mark that begins here is not closed; close it.",
    ),
    ("quoted scalar", "", False, f"a backslash in double quotes begins an escape; {_QUOTES} instead."),
    (
        "flow",
        "",
        True,
        f"a bracket that begins here is not closed, or a value in it has one of , [ ] {{ }} ; {_QUOTES}.",
    ),
    ("block scalar|alias|anchor|tag", "", False, f"a value may not begin with one of & * ! | > by itself; {_QUOTES}."),
    ("start any token|node content|mapping key", "", False, _OPENS),
    ("mapping values", r":\s.*:(\s|$)", False, f"a colon followed by a space, within a value; {_QUOTES}."),
    (
        "mapping values",
        "",
        False,
        "the line is indented deeper than what it belongs to, or a colon above lacks its space.",
    ),
    (
        "simple key",
        "",
        True,
        "a key lacks its colon and space, or a value has a second line; see to the line.",
    ),
    ("another document|directive", "", False, "`---` or `%` at the beginning of a line splits the file; remove it."),
    (
        "block",
        r"^\s*(- +)*[^#:]+:\s+['\"]",
        False,
        "text follows the closing quotation mark; double a quotation mark that belongs to the value.",
    ),
)


class Mistake(Exception):
    """A file cannot be read at this line; the text says why, and what to do."""

    def __init__(self, line: int, why: str, key: str | None = None):
        super().__init__(why)
        self.line, self.why, self.key = line, why, key


def decoded(content: bytes) -> str:
    """A file's text; raises Mistake where it is none."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Mistake(1, "the file is in UTF-16; save it as UTF-8.")
    if content.startswith(codecs.BOM_UTF8 + b"#!"):
        raise Mistake(1, "an invisible mark (BOM) stands before `#!`; save the file as UTF-8 without BOM.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Mistake(line, "the line is not UTF-8 (Latin-1, perhaps); save the file as UTF-8.") from None


def key_of(text: str, line: int) -> str | None:
    """The key that a line begins with, if it looks like one; whether it is one of ours is for others to say."""
    lines = text.split("\n")
    found = _KEY.match(lines[line - 1]) if 0 < line <= len(lines) else None
    return found and found[1]


def parsed(text: str) -> tuple[Any, dict[str, int]]:
    """
    The data of a YAML text, as Salt reads it, and the line of each key of the site: `plasma.users[0].name`.

    Raises Mistake.
    """
    loader = None
    try:
        loader = SaltYamlSafeLoader(text)
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        if node is not None:
            _walk(node, "", lines, text.split("\n"), set())
        return (None if node is None else loader.construct_document(node)), lines
    except Mistake as mistake:
        mistake.key = mistake.key or key_of(text, mistake.line)
        raise
    except yaml.YAMLError as error:
        line, why = _why(error, text)
        raise Mistake(line, why, key_of(text, line)) from None
    except RecursionError:
        raise Mistake(1, "the file is nested too deeply; no key needs that.") from None
    except (ValueError, OverflowError, TypeError):
        # A date, a number or an own type that is none.
        raise Mistake(1, f"a value in the file looks like a number or a date and is none; {_QUOTES}.") from None
    finally:
        if loader is not None:
            loader.dispose()


def _walk(node: yaml.Node, path: str | None, found: dict[str, int], lines: list[str], seen: set[int]) -> None:
    """
    Note the line of each key below `plasma`, and of those beside it.

    path
        The key of the node; none for what is below other keys.

    Raises Mistake for a key that stands twice, and for a value that is not what somebody wrote.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    ours = bool(path) and path.startswith("plasma")
    if isinstance(node, yaml.ScalarNode) and ours and not node.style:
        _check_second_line(node, path or "", lines)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            here = f"{path}[{index}]" if ours else None
            if here:
                found[here] = item.start_mark.line + 1
            _walk(item, here, found, lines, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    names = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line, name = key.start_mark.line + 1, key.value
        if (key.tag, name) in names and not key.tag.endswith(":merge"):
            raise Mistake(line, "the key stands twice in this mapping; keep one of the two.")
        names.add((key.tag, name))
        if name in SECRETS and isinstance(value, yaml.ScalarNode) and not value.style:
            end = value.end_mark
            if end.line < len(lines) and re.match(r"\s+#", lines[end.line][end.column :]):
                raise Mistake(
                    end.line + 1,
                    "what follows ` #` is a comment to YAML, so the value would be cut there; "
                    "put the whole value in single quotes, or the comment on a line of its own.",
                )
        here = name if path == "" else f"{path}.{name}" if ours else None
        if here:
            found.setdefault(here, line)
        _walk(value, here, found, lines, seen)


def _check_second_line(node: yaml.ScalarNode, path: str, lines: list[str]) -> None:
    """Raise Mistake for `password:secret`: without its space it belongs to the value in the line above."""
    assert node.start_mark and node.end_mark
    first, last = node.start_mark.line + 1, min(node.end_mark.line + 1, len(lines))
    for number in range(first, last):
        if lines[number].strip() and (path.startswith("plasma.users") or re.match(r"\s*[\w-]+:", lines[number])):
            raise Mistake(number + 1, "the line belongs to the value above; a key needs a colon and a space behind it.")


def _why(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """Where a text is no YAML, and what to do: in words of ours, as PyYAML's may quote it."""
    lines = text.split("\n")
    if isinstance(error, ReaderError):
        control = _CONTROL.search(text)
        line = text[: control.start()].count("\n") + 1 if control else 1
        return line, "the line has a character that is no text (a control character); remove it."
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    at = min(mark.line, len(lines) - 1) if mark else 0
    while at > 0 and not lines[at].strip():
        at -= 1
    start = min(context.line, at) if context else at
    for number, line in enumerate(lines[: at + 2]):
        if re.match(r"(<{7}|={7}|>{7}|\|{7})(\s|$)", line):
            return number + 1, "the mark of a merge conflict; keep one of the two versions, and remove the marks."
    for number in range(start, at + 1):
        if re.match(r" *\t", lines[number]):
            return number + 1, "a tab indents the line; use spaces."
        if _CUT.search(lines[number]):
            return number + 1, f"what follows ` #` is a comment to YAML, so the value is cut there; {_QUOTES}."
    said = f"{getattr(error, 'context', '')}; {getattr(error, 'problem', '')}"
    for pattern, line_pattern, begins, why in _WHYS:
        number = start if begins else at
        if re.search(pattern, said) and re.search(line_pattern, lines[number]):
            return number + 1, why
    return at + 1, "the line is indented otherwise than those beside it; indent alike what belongs together."


def check_templates(text: str) -> None:
    """Raise Mistake for a secret in which Jinja would change something without a word."""
    for number, line in enumerate(text.split("\n"), 1):
        found = _SECRET.match(line)
        if found and _partly_made(found["value"], found["quote"] or (found["brackets"] or "")[:1]):
            raise Mistake(
                number, template_advice("`{{`, `{%` or `{#` in it would be read as a template"), key_of(text, number)
            )


def _partly_made(rest: str, mark: str) -> bool:
    """
    Whether a template makes a part of a value, and not all of it, as it is meant then.

    rest
        The line from the value on, without its first quotation mark.
    mark
        That mark, or a brace for a value without one in a mapping within braces.
    """
    begins = {"data": None, "variable_begin": _TEMPLATE, "block_begin": _TEMPLATE, "comment_begin": _REMARK}
    if not re.search(r"\{[{%#]", rest) or rest.startswith("{%"):
        return False
    try:
        flat = "".join(begins[kind] or text for _, kind, text in _JINJA.lex(rest) if kind in begins)
    except jinja2.TemplateError:
        # Of what begins with a template, Jinja says so itself.
        return not rest.startswith("{{")
    value = re.match(_ENDS[mark], flat)
    assert value  # it may be empty
    made = value[0] if mark in ("'", '"') else value[0].strip(" ")
    return any(sign in made for sign in (_TEMPLATE, _REMARK)) and not _MADE.fullmatch(made)


def template_advice(why: str) -> str:
    """The end of a line about Jinja."""
    return f"{why}; if it is part of a value and no template is used in this file, make `#!yaml` its first line."


def template_line(text: str, line: int | None) -> int:
    """Where a template begins that Jinja gave up on at this line, or at the end."""
    lines = text.split("\n")
    for number in range(min(line or len(lines), len(lines)), 0, -1):
        if any(
            lines[number - 1].count("{" + sign) > lines[number - 1].count(end + "}") for sign, end in ("{}", "%%", "##")
        ):
            return number
    return line or 1
