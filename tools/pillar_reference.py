"""
Writes the generated parts of docs/reference/pillar.md from the schema in _pillar/plasma_schema.

    python -m tools.pillar_reference            write the page
    python -m tools.pillar_reference --check    end with 1 when the page does not match the schema
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import yaml
from plasma_schema.base import Shape, extras, walk
from plasma_schema.check import check
from plasma_schema.site import Plasma
from pydantic.fields import FieldInfo

from tools import ROOT, generated_page

WRONG = {"plasma": {"limits": {"memory": "2g"}, "cull": {"timeuot": 600}, "users": [{"name": "root"}]}}
# Sections whose example is refused without another one's.
NEEDS = {"cockpit": ("https",)}


def code(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    bare = text.removesuffix("\n").removesuffix("\n...")
    return f"`{bare}`"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def block(value: dict[str, Any]) -> str:
    return f"```yaml\n{yaml.safe_dump({'plasma': value}, sort_keys=False)}```\n"


def example(field: FieldInfo) -> Any:
    assert field.examples
    return field.examples[0]


def default(field: FieldInfo, shape: Shape) -> str:
    if shown := extras(field)["shown_default"]:
        return shown
    if field.is_required():
        return "required"
    if shape.section and not shape.nullable:
        return "its own keys'"
    return code(field.get_default(call_default_factory=True))


def row(path: str, field: FieldInfo, shape: Shape) -> str:
    about = extras(field)
    # The keys of a mapping have rows of their own.
    inner = shape.items.section if shape.items else shape.section
    kind = ("a list of mappings" if shape.items else "a mapping") if inner else shape.allowed
    cells = (
        f"`{path}`",
        kind + (", or null" if inner and shape.nullable else ""),
        about["unit"] or "",
        default(field, shape),
        code(example(field)),
        f"{field.description}{' **Secret.**' if about['secret'] else ''}",
    )
    return "| " + " | ".join(map(cell, cells)) + " |"


def sections() -> Iterator[str]:
    fields = Plasma.model_fields
    keys = list(walk(Plasma, "plasma", described=True))
    for name, field in fields.items():
        yield f"\n## `plasma.{name}`\n\n{cell(field.description or '')}\n"
        yield block({other: example(fields[other]) for other in (name, *NEEDS.get(name, ()))})
        yield "| Key | Allowed | Unit | Default | Example | Description |\n|---|---|---|---|---|---|"
        below = [key for key in keys if key[0].startswith((f"plasma.{name}.", f"plasma.{name}["))]
        yield from (row(*key) for key in below or [(f"plasma.{name}", field, Shape.of_field(field))])


def parts() -> dict[str, str]:
    return {
        "problems": "\n```text\n" + "\n".join(check(WRONG)[1]) + "\n```\n",
        "keys": "\n".join(sections()) + "\n",
        "defaults": "\n" + block(Plasma().model_dump(mode="json")),
    }


if __name__ == "__main__":
    about, page = __doc__.strip().splitlines()[0], ROOT / "docs" / "reference" / "pillar.md"
    sys.exit(generated_page.main(about, page, parts, "python -m tools.pillar_reference"))
