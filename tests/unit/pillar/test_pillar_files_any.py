"""Files as a slip of the hand, another editor or a bad disk leaves them: a line, no traceback, and never a password."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import salt.loader
import salt.template
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.pillar.conftest import MARKER, Site, load_external_pillar, readable

SLS = f"""\
# People and sizes.
plasma:
  limits:
    memory: 2G
    cpu: 2
  users:
    - name: anna
      fullname: Anna Größe
      password: {MARKER}
      groups: [biology, maths]
    - {{name: ben, password: {MARKER}, uid: 2001}}
    - name: eva
      password: '{MARKER}'
  environments:
    - name: course
      repository: https://example.org/course
      credentials:
        username: deploy
        password: {MARKER}
  admins:
    - anna
""".encode()
CSV = f"""\
username,fullname,group,password
anna,"Anna Größe",biology,{MARKER}
ben,Ben,maths,{MARKER}
eva,Eva,,"{MARKER}"
""".encode()
SNIPPETS = [
    *(
        b"{{",
        b"}}",
        b"{%",
        b"%}",
        b"{#",
        b"#}",
        b" #",
        b": ",
        b":",
        b"- ",
        b"\t",
        b"  ",
        b" ",
        b"'",
        b'"',
        b"\\",
        b"\n",
    ),
    *(b"\r", b"\r\n", b"\0", b"\x07", b"\xfc", b"\xef\xbb\xbf", b"\xff\xfe", b"[", b"]", b"{", b"}", b",", b"&", b"*"),
    *(b"!", b"|", b">", b"%", b"@", b"`", b"?", b"---\n", b"...\n", b"<<<<<<< HEAD\n", b"=======\n", b"<<: *a\n", b";"),
    *(
        b"{{ nothing }}",
        b"{{ 7 * 7 }}",
        b"{% for x in [1] %}",
        b"!!binary ",
        b"!!python/object:os.system ",
        b"#!yaml\n",
    ),
    *(b"\xc2\xa0", b"\xe2\x80\xa8", b"\xe2\x80\x9c", b"0x", b"2026-13-45", b"- - - ", b"plasma:\n", b"yes"),
]
slips = st.one_of(
    st.tuples(st.just("insert"), st.floats(0, 1), st.sampled_from(SNIPPETS)),
    st.tuples(st.just("delete"), st.floats(0, 1), st.integers(1, 3)),
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
    st.tuples(st.just("drop line"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("repeat line"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("indent"), st.floats(0, 1), st.sampled_from([b" ", b"   ", b"\t"])),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("encode"), st.just(0), st.sampled_from(["latin-1", "utf-16", "utf-8-sig", "cp437"])),
)


def broken(content: bytes, made: list) -> bytes:
    """The content after some slips."""
    for kind, where, what in made:
        at = int(where * len(content))
        lines = content.split(b"\n")
        line = int(where * (len(lines) - 1))
        match kind:
            case "insert":
                content = content[:at] + what + content[at:]
            case "delete":
                content = content[:at] + content[at + what :]
            case "flip" if at < len(content):
                content = content[:at] + bytes([content[at] ^ what]) + content[at + 1 :]
            case "drop line":
                content = b"\n".join(lines[:line] + lines[line + 1 :])
            case "repeat line":
                content = b"\n".join(lines[: line + 1] + lines[line:])
            case "indent":
                content = b"\n".join([*lines[:line], what + lines[line], *lines[line + 1 :]])
            case "cut":
                content = content[:at]
            case "encode":
                content = content.decode("utf-8", "replace").encode(what, "replace")
    return content


class Heard(logging.Handler):
    """All that is logged as conf/master has it, with tracebacks."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """What Salt and the schema make of the content of pillar/plasma.sls, or of a CSV file beside it."""
    root = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        site = Site(root)
        options = site.options()
        options["id"] = "server"
        renderers = salt.loader.render(options, {})
        # The clone's own: for another one's, the schema would be loaded again each time.
        external = load_external_pillar(root)
        external.__opts__ = options
        files = external.schema("sls_file")
        heard = Heard()
        logging.getLogger().addHandler(heard)

        def run(content: bytes, name: str = "plasma.sls") -> list[str]:
            heard.text = ""
            path: Path = site.pillar / name
            path.write_bytes(content)
            path.chmod(0o600)
            try:
                if name.endswith(".csv"):
                    data = {"plasma": {"users_csv": [name]}}
                else:
                    files.decoded(content)
                    data = salt.template.compile_template(
                        str(path), renderers, "jinja|yaml", [], [], "base", "plasma", _pillar_rend=True
                    )
            except files.Mistake as mistake:
                return [f"pillar/{name}:{mistake.line}: {mistake.why}"]
            data.setdefault("plasma", None)
            lines = external.ext_pillar("server", data).get("_errors", [])
            # Salt says so itself of a file of blanks.
            assert heard.text == "" or not content.strip(), heard.text
            return lines

        yield run
        logging.getLogger().removeHandler(heard)


CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=CHECKS)
@given(made=st.lists(slips, min_size=1, max_size=3))
@example(made=[("insert", 0.5, b"{{ 7 * 7 }}")])
def test_a_file_of_pillar(read, made):
    content = broken(SLS, made)
    for line in read(content):
        assert readable(line), line
        assert MARKER not in line, (line, content)
        assert "cannot be checked" not in line, (line, content)


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=CHECKS)
@given(made=st.lists(slips, min_size=1, max_size=3))
def test_a_csv_file(read, made):
    content = broken(CSV, made)
    for line in read(content, "people.csv"):
        assert readable(line), line
        assert MARKER not in line, (line, content)
        assert "cannot be checked" not in line, (line, content)


def test_the_files_are_right_before(read):
    assert read(SLS) == read(CSV, "people.csv") == []
