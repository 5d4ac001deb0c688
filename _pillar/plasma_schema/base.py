"""
What every section of the schema is made of.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from . import hub_rules
from .hub_keys import KEYS, HubKeys
from .server_rules import Table


@dataclass(frozen=True)
class Rule:
    """What a value may be, in words. Error messages and the reference page print the same sentence."""

    allowed: str


class Found(NamedTuple):
    """A problem found by a check of several keys."""

    # Where, below the section that checks.
    where: tuple[str | int, ...]
    # The end of a sentence that starts with the value.
    reason: str
    # Another place below that section, to end the sentence with.
    other: tuple[str | int, ...] = ()


class Contradictions(ValueError):
    """Keys of a section do not go together."""

    def __init__(self, found: list[Found]) -> None:
        super().__init__()
        self.found = found


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def option(
    default: Any = ...,
    *,
    example: Any,
    unit: str | None = None,
    secret: bool = False,
    shown_default: str | None = None,
    **constraints: Any,
) -> Any:
    """
    One key of the pillar; the text below it says what it is for.

    default
        Its value when the pillar does not set it; left out, the key is required. A function or a
        section class makes a new value each time.
    example
        A value that is valid, for the reference page and for the tests.
    unit
        Unit of a number.
    secret
        Never print the value.
    shown_default
        What the reference page says when the default follows from other keys.
    constraints
        `ge` and `le` of a number; `description` in place of the text below it.
    """
    extra: JsonDict = {"unit": unit, "secret": secret, "shown_default": shown_default}
    constraints["default_factory" if callable(default) else "default"] = default
    return Field(examples=[example], json_schema_extra=extra, **constraints)


def hub_option(attribute: str, *, example: Any, unit: str | None = None) -> Any:
    """
    One key of the pillar that the hub reads, with default and limits of the table of the hub's keys.

    attribute
        Its name in `HubKeys`.
    """
    default, rule = getattr(HubKeys, attribute), KEYS[attribute].rule
    limits: dict[str, Any] = dict(zip(("ge", "le"), rule.bounds, strict=True)) if rule and rule.bounds else {}
    empty = dict if isinstance(rule, Table) else list
    factory = (lambda: empty(default)) if isinstance(default, tuple) else default
    return option(factory, example=example, unit=unit, **limits)


def checked(check: Callable[[str], Any], words: str) -> Any:
    """
    The type of a text.

    check
        Returns the text, or another one to go on with; raises NotAllowed.
    words
        What is allowed.
    """
    return Annotated[str, AfterValidator(check), Rule(words)]


def number(rule: hub_rules.Rule) -> Any:
    """The type of a whole number that a rule of the hub's keys holds to."""
    return Annotated[int, AfterValidator(rule.check), Rule(rule.words)]


def ruled(rule: hub_rules.Rule) -> Any:
    """The type of a text that a rule of the hub's keys holds to."""
    return checked(rule.check, rule.words)


class Section(BaseModel):
    """
    A mapping of the pillar with known keys.

    Strict, so that what YAML made of a value is never silently turned into something else: `memory: 2` is not the
    text `2`, `name: no` is not a user.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def found(self) -> Iterable[Found]:
        """Checks that look at several keys; sections override it."""
        return ()

    def complete(self) -> None:
        """Defaults that follow from other keys; sections override it. Called when `found` has nothing to say."""

    @model_validator(mode="after")
    def _check(self) -> Section:
        if found := list(self.found()):
            raise Contradictions(found)
        self.complete()
        return self


@dataclass(frozen=True)
class Shape:
    """A type of the schema taken apart: `list[UserName] | None` is (list[UserName], (), True)."""

    bare: Any
    metadata: tuple[Any, ...] = ()
    nullable: bool = False

    @classmethod
    def of(cls, annotation: Any, metadata: Iterable[Any] = ()) -> Shape:
        """Take `annotation` apart; `metadata` is what pydantic already took off it."""
        shape = cls(annotation, tuple(metadata))
        while True:
            origin, args = get_origin(shape.bare), get_args(shape.bare)
            if origin is Annotated:
                shape = cls(args[0], shape.metadata + args[1:], shape.nullable)
            elif origin in (Union, UnionType) and NoneType in args:
                left = [arg for arg in args if arg is not NoneType]
                shape = cls(left[0] if len(left) == 1 else Union[tuple(left)], shape.metadata, True)  # noqa: UP007
            else:
                return shape

    @classmethod
    def of_field(cls, field: FieldInfo) -> Shape:
        return cls.of(field.annotation, field.metadata)

    @property
    def section(self) -> type[Section] | None:
        return self.bare if isinstance(self.bare, type) and issubclass(self.bare, Section) else None

    @property
    def items(self) -> Shape | None:
        """The shape of the entries of a list or of the values of a mapping."""
        if get_origin(self.bare) is list:
            return Shape.of(get_args(self.bare)[0])
        if get_origin(self.bare) is dict:
            return Shape.of(get_args(self.bare)[1])
        return None

    @property
    def wants_text(self) -> bool:
        return self.bare is str or get_origin(self.bare) is Literal

    @property
    def allowed(self) -> str:
        """What is allowed here, in words."""
        return f"{self.words}, or null" if self.nullable else self.words

    @property
    def words(self) -> str:
        """What is allowed here beside null."""
        rules = [mark.allowed for mark in self.metadata if isinstance(mark, Rule)]
        if rules:
            return rules[-1]
        if self.section:
            return f"a mapping with any of the keys {', '.join(self.section.model_fields)}"
        if self.items and get_origin(self.bare) is list:
            return f"a list; each entry: {self.items.allowed}"
        if self.items:
            names = Shape.of(get_args(self.bare)[0])
            return f"a mapping; each key: {names.allowed}; each value: {self.items.allowed}"
        if get_origin(self.bare) is Literal:
            return " or ".join(str(value) for value in get_args(self.bare))
        if self.bare is bool:
            return "true or false"
        if self.bare is int:
            low = next(mark.ge for mark in self.metadata if isinstance(mark, Ge))
            high = next(mark.le for mark in self.metadata if isinstance(mark, Le))
            return f"a whole number from {low} to {high}"
        raise TypeError(f"no words for {self.bare!r}: give the type a Rule")


def extras(field: FieldInfo) -> dict[str, Any]:
    """What `option` was told of a field beside what pydantic knows: unit, secret, shown_default."""
    assert isinstance(field.json_schema_extra, dict)
    return field.json_schema_extra


def is_secret(field: FieldInfo) -> bool:
    return bool(extras(field)["secret"])


def holds_secrets(shape: Shape | None) -> bool:
    """Whether a secret key exists somewhere below: a wrong value that stands here may then be one."""
    if shape is None:
        return False
    if shape.section:
        return any(
            is_secret(field) or holds_secrets(Shape.of_field(field)) for field in shape.section.model_fields.values()
        )
    return holds_secrets(shape.items)


def descriptions(section: type[Section]) -> Mapping[str, str]:
    """
    What stands below each key of a section, inherited ones too: what the key is for.

    Read when it is asked for: the reference of the pillar wants it, and no apply does.
    """
    texts: dict[str, str] = {}
    for cls in reversed(section.__mro__[: section.__mro__.index(Section)]):
        (parsed,) = ast.parse(inspect.getsource(cls)).body
        assert isinstance(parsed, ast.ClassDef)
        for key, text in pairwise(parsed.body):
            if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[ast.unparse(key.target)] = inspect.cleandoc(str(text.value.value))
    return texts


def walk(section: type[Section], path: str, described: bool = False) -> Iterator[tuple[str, FieldInfo, Shape]]:
    """
    Every key below a section, in order, as (path, field, shape); `[]` stands for the entries of a list.

    described
        Whether fields get their descriptions, for which the schema's source is read.
    """
    texts = descriptions(section) if described else {}
    for name, field in section.model_fields.items():
        field.description = field.description or texts.get(name)
        shape = Shape.of_field(field)
        here = f"{path}.{name}"
        yield here, field, shape
        below = shape
        while below.items:
            here = f"{here}[]" if get_origin(below.bare) is list else here
            below = below.items
        if below.section:
            yield from walk(below.section, here, described)
