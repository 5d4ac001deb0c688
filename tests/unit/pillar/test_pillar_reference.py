"""The schema says everything the reference page needs, its examples are true, and the page matches."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError, create_model

from tests.unit.pillar.conftest import REPOSITORY, load_external_pillar

SITE = load_external_pillar().schema("site")
BASE = load_external_pillar().schema("base")
KEYS = list(BASE.walk(SITE.Plasma, "plasma", described=True))
IDS = [path for path, _, _ in KEYS]
PAGE = REPOSITORY / "docs" / "reference" / "pillar.md"


def validate(field: Any, value: Any) -> Any:
    """What becomes of a value in a section that has this key alone."""
    return create_model("Alone", __base__=BASE.Section, key=(field.annotation, field))(key=value).key


@pytest.mark.parametrize(("path", "field", "shape"), KEYS, ids=IDS)
class TestEveryKey:
    def test_is_described(self, path, field, shape):
        assert field.description.endswith((".", "is never."))
        assert len(field.examples) == 1
        assert field.json_schema_extra.keys() == {"unit", "secret", "shown_default"}

    def test_has_words_for_what_is_allowed(self, path, field, shape):
        assert len(shape.allowed) > 4
        assert "<" not in shape.allowed

    def test_has_a_valid_example(self, path, field, shape):
        validate(field, field.examples[0])

    def test_has_a_valid_default(self, path, field, shape):
        if not field.is_required():
            default = field.get_default(call_default_factory=True)
            assert validate(field, default) == default

    @pytest.mark.parametrize("value", [object(), b"bytes", {"x": {"y": 1}}, [[]], -1, 10**30, True, "\n"])
    def test_refuses_what_it_cannot_be(self, path, field, shape, value):
        if isinstance(value, bool) and shape.bare is bool:
            return
        with pytest.raises(ValidationError):
            validate(field, value)


@pytest.mark.parametrize("unit", ["seconds", "bytes"])
def test_durations_and_sizes_have_their_unit(unit):
    names = {
        "seconds": ("timeout", "every", "max_age", "grace"),
        "bytes": ("memory", "soft", "hard", "min_disk", "min_memory"),
    }
    paths = [(path, field) for path, field, _ in KEYS if "inodes" not in path]
    found = [(path, field) for path, field in paths if path.rpartition(".")[2].endswith(names[unit])]
    assert len(found) >= 5
    assert {path: field.json_schema_extra["unit"] for path, field in found} == dict.fromkeys(dict(found), unit)


def test_what_must_never_be_printed_is_marked():
    secret = {path for path, field, _ in KEYS if field.json_schema_extra["secret"]}
    assert secret == {
        "plasma.users[].password",
        "plasma.users[].password_hash",
        "plasma.environments[].build_args",
        "plasma.environments[].credentials.password",
        "plasma.environments[].deploy_key",
        "plasma.https.dns.environment",
        "plasma.builder.http_proxy",
        "plasma.builder.https_proxy",
        "plasma.directory.bind_password",
        "plasma.directory.join_password",
    }


def test_the_examples_together_are_a_valid_pillar(complete):
    examples = {name: field.examples[0] for name, field in SITE.Plasma.model_fields.items()}
    # The files do not exist here.
    assert examples.pop("users_csv") == ["students.csv"]
    assert examples.pop("trust") == ["own-ca.pem"]
    complete(examples)


def reference(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.pillar_reference", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_page_matches_the_schema():
    result = reference("--check")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_check_finds_a_page_that_does_not(tmp_path):
    page = tmp_path / "pillar.md"
    parts = re.sub("(?s)(<!-- generated: .*? -->).*?(<!-- end of )", r"\1\2", PAGE.read_text(encoding="utf-8"))
    page.write_text(parts, encoding="utf-8")
    assert reference("--check", "--page", str(page)).returncode == 1
    assert page.read_text(encoding="utf-8") == parts
    assert reference("--page", str(page)).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert text == PAGE.read_text(encoding="utf-8")
    assert all(
        f"`{path}`" in text for path in IDS if path not in {f"plasma.{name}" for name in SITE.Plasma.model_fields}
    )
    page.write_text(text.replace("3600", "3601"), encoding="utf-8")
    result = reference("--check", "--page", str(page))
    assert result.returncode == 1
    assert "3601" in result.stdout


def test_files_stay_readable():
    files = [*(REPOSITORY / "_pillar").rglob("*.py")]
    assert len(files) > 5
    assert {path.name: lines for path in files if (lines := len(path.read_text("utf-8").splitlines())) > 400} == {}
