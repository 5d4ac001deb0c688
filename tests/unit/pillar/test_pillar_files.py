"""Files of pillar as people break them: one line with file, line and what to do, and nothing of the file anywhere."""

from __future__ import annotations

import json
import logging
import shutil

import pytest

from tests.unit.pillar.conftest import MARKER

# Stands above what is wrong: whatever is shown of the file would show it.
HEAD = f"plasma:\n  users:\n    - name: anna\n      password: {MARKER}\n"


@pytest.fixture
def refused(site, caplog):
    """What is said of a file of pillar, or of the top file, when nothing else is said anywhere."""

    def run(text: str | bytes, name: str = "plasma.sls", minion_id: str = "server", **options) -> list[str]:
        content = text if isinstance(text, bytes) else text.encode()
        (site.pillar / name).write_bytes(content)
        for logger, level in site.options()["log_granular_levels"].items():
            caplog.set_level(level.upper(), logger)
        with caplog.at_level(1):
            caplog.clear()
            pillar = site.compile(minion_id, **options)
        assert pillar["plasma"] is None
        assert set(pillar) == {"plasma", "_errors"}
        said = json.dumps(pillar) + "".join(record.getMessage() + str(record.exc_info) for record in caplog.records)
        assert MARKER not in said
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        return pillar["_errors"]

    return run


NO_TEMPLATE = "if it is part of a value and no template is used in this file, make `#!yaml` its first line."
BROKEN = f"`{{{{`, `{{%` or `{{#` begins a template here that is wrong; {NO_TEMPLATE}"
IN_SECRET = f"`{{{{`, `{{%` or `{{#` in it would be read as a template; {NO_TEMPLATE}"
QUOTES = "put the whole value in single quotes"


@pytest.mark.parametrize(
    ("below", "said"),
    [
        ("    - name: ben\n      password: a{{b\n", f"6: password: {IN_SECRET}"),
        ("    - name: ben\n      password: a{%b\n", f"6: password: {IN_SECRET}"),
        ("    - name: ben\n      password: 'a{#b#}c'\n", f"6: password: {IN_SECRET}"),
        ("    - name: ben\n      password: '{{ 7*7 }}secret'\n", f"6: password: {IN_SECRET}"),
        ("    - name: ben\n      password: {{ 7*7 }} secret\n", f"6: password: {IN_SECRET}"),
        ('    - name: ben\n      password: "{{ 7*7 }}secret{{ 7 }}"  # new\n', f"6: password: {IN_SECRET}"),
        ("    - name: ben\n      password: '{{ 7*7 }}#x'\n", f"6: password: {IN_SECRET}"),
        ("    - {password: '{{ 7*7 }}secret', name: ben}\n", f"5: password: {IN_SECRET}"),
        ("    - {name: ben, password: '{{ 7*7 }}secret', groups: [a]}\n", f"5: name: {IN_SECRET}"),
        ("    - name: ben\n      password: 'it''s{{ 7*7 }}'\n", f"6: password: {IN_SECRET}"),
        ("  directory:\n    bind_password: '{{ 7*7 }}secret'\n", f"6: bind_password: {IN_SECRET}"),
        ("    - {name: ben, password: x{{y}\n", f"5: name: {IN_SECRET}"),
        ("    - {name: ben, fullname: x{{y}\n", f"5: name: {BROKEN}"),
        ("    - name: ben\n      fullname: B{{en\n      groups: [a]\n", f"6: fullname: {BROKEN}"),
        ("    - name: ben\n      fullname: B{#en\n      groups: [a]\n", f"6: fullname: {BROKEN}"),
        ("    - name: ben\n      fullname: B{%en\n", f"6: fullname: {BROKEN}"),
        (
            "    - name: ben\n      fullname: B{{en}}\n",
            f"6: fullname: a template uses a name that is not defined; {NO_TEMPLATE}",
        ),
        ("\t- name: ben\n", "5: name: a tab indents the line; use spaces."),
        ("  limits:\n\tmemory: 2G\n", "6: memory: a tab indents the line; use spaces."),
        (
            "   - name: ben\n",
            "5: name: the line is indented otherwise than those beside it; indent alike what belongs together.",
        ),
        (
            "    - name: ben\n        fullname: Ben\n",
            "6: fullname: the line is indented deeper than what it belongs to, or a colon above lacks its space.",
        ),
        (
            "    - name: ben\n      password: a: b\n",
            f"6: password: a colon followed by a space, within a value; {QUOTES}.",
        ),
        (
            "    - name: ben\n      password: x #y\n",
            "6: password: what follows ` #` is a comment to YAML, so the value would be cut there; "
            f"{QUOTES}, or the comment on a line of its own.",
        ),
        (
            "    - {name: ben, password: x #y}\n",
            f"5: name: what follows ` #` is a comment to YAML, so the value is cut there; {QUOTES}.",
        ),
        (
            "    - name: ben\n      name: eva\n",
            "6: name: the key stands twice in this mapping; keep one of the two.",
        ),
        (
            "    - name: ben\n      password: 'x\n",
            "6: password: a quotation mark that begins here is not closed; close it.",
        ),
        (
            "    - name: ben\n      password: 'it's'\n",
            "6: password: text follows the closing quotation mark; double a quotation mark that belongs to the value.",
        ),
        (
            '    - name: ben\n      password: "a\\qb"\n',
            f"6: password: a backslash in double quotes begins an escape; {QUOTES} instead.",
        ),
        (
            "    - name: ben\n      password: %x\n",
            f"6: password: a value may not begin with one of % @ ` {{ }} [ ] , ? by itself; {QUOTES}.",
        ),
        (
            "    - name: ben\n      password: *x\n",
            f"6: password: a value may not begin with one of & * ! | > by itself; {QUOTES}.",
        ),
        (
            "    - name: ben\n      password: !x y\n",
            f"6: password: a value may not begin with one of & * ! | > by itself; {QUOTES}.",
        ),
        (
            "<<<<<<< HEAD\n    - name: ben\n=======\n    - name: eva\n>>>>>>> theirs\n",
            "5: the mark of a merge conflict; keep one of the two versions, and remove the marks.",
        ),
        (
            "    - name: ben\n      password:secret\n",
            "6: password: a key lacks its colon and space, or a value has a second line; see to the line.",
        ),
        (
            "    - name: ben\n        secret\n",
            "6: the line belongs to the value above; a key needs a colon and a space behind it.",
        ),
        ("    - name: b\x07n\n", "5: name: the line has a character that is no text (a control character); remove it."),
        (
            "    - name: [ben\n",
            f"5: name: a bracket that begins here is not closed, or a value in it has one of , [ ] {{ }} ; {QUOTES}.",
        ),
    ],
)
def test_a_line_that_is_wrong(refused, below, said):
    assert refused(HEAD + below) == [f"pillar/plasma.sls:{said}"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            (HEAD + "    - fullname: Jörg\n").encode("latin-1"),
            "5: the line is not UTF-8 (Latin-1, perhaps); save the file as UTF-8.",
        ),
        (HEAD.encode("utf-16"), "1: the file is in UTF-16; save it as UTF-8."),
        (
            b"\xef\xbb\xbf#!yaml\n" + HEAD.encode(),
            "1: an invisible mark (BOM) stands before `#!`; save the file as UTF-8 without BOM.",
        ),
        (HEAD.encode() + b"\0", "5: the line has a character that is no text (a control character); remove it."),
        (
            f"plasma {MARKER}\n",
            "1: the file holds no keys; its first one has to be `plasma:`, with a colon and a space.",
        ),
        (
            f"- plasma\n- {MARKER}\n",
            "1: the file holds no keys; its first one has to be `plasma:`, with a colon and a space.",
        ),
        (
            f"#!yaml\nplasma: {{{{ {MARKER} }}}}\n",
            f"2: plasma: a value may not begin with one of % @ ` {{ }} [ ] , ? by itself; {QUOTES}.",
        ),
    ],
)
def test_a_file_that_is_wrong(site, refused, content, said):
    for name, minion_id in (("plasma.sls", "server"), ("servers/hub-example-org.sls", "hub.example.org")):
        assert refused(content, name, minion_id) == [f"pillar/{name}:{said}"]
        (site.pillar / name).unlink()
        (site.pillar / "plasma.sls").write_text("plasma:\n", encoding="utf-8")


def test_a_mark_of_its_editor_is_no_mistake(site):
    (site.pillar / "plasma.sls").write_bytes(b"\xef\xbb\xbfplasma:\r\n  limits:\r\n    memory: 3G\r\n")
    assert site.compile()["plasma"]["limits"]["memory"] == "3G"


def test_every_file_that_is_wrong_is_told_of(site, refused):
    (site.pillar / "plasma.sls").write_text("plasma: [\n", encoding="utf-8")
    assert [line.partition(" ")[0] for line in refused("plasma: {\n", "servers/server.sls")] == [
        "pillar/plasma.sls:1:",
        "pillar/servers/server.sls:1:",
    ]


def test_the_file_of_another_server_is_its_own_business(site):
    (site.pillar / "servers" / "maths.sls").write_bytes(b"plasma: \xfc")
    assert "_errors" not in site.compile("biology")
    assert site.compile("maths")["_errors"] == [
        "pillar/servers/maths.sls:1: the line is not UTF-8 (Latin-1, perhaps); save the file as UTF-8."
    ]


class TestTop:
    """The file that says which file goes to which server."""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "base:\n  '*':\n  - plasma\n - servers\n",
                "4: the line is indented otherwise than those beside it; indent alike what belongs together.",
            ),
            (
                "base:\n  '*': plasma\n",
                "1: a list of files has to stand below a server's id or '*', and that below `base:`.",
            ),
            ("- base\n", "1: the file holds no keys; its first one has to be `plasma:`, with a colon and a space."),
            (
                "base:\n  '*':\n    - plasma\n    - plasm\n",
                "4: the file that is named here does not exist; see to its name.",
            ),
            ("base:\n  '{{ opts.idd }':\n    - plasma\n", f"2: {BROKEN}"),
        ],
    )
    def test_wrong(self, refused, text, said):
        assert refused(text, "top.sls") == [f"pillar/top.sls:{said}"]

    @pytest.mark.parametrize("text", ["base:\n  biology:\n    - plasma\n", "", "{}\n"])
    def test_nothing_for_this_server(self, refused, text):
        assert refused(text, "top.sls", __master_opts__={}) == [
            "pillar/top.sls names no file for server, or an empty one. Name one below '*', as the repository's does."
        ]

    def test_missing(self, site):
        (site.pillar / "top.sls").unlink()
        assert site.compile(__master_opts__={})["_errors"] == [
            "pillar/top.sls does not exist, so no file of pillar is for any server. "
            "Bring it back: `git checkout pillar/top.sls`."
        ]

    def test_other_minions_of_a_master_get_nothing(self, site):
        (site.pillar / "top.sls").write_text("base:\n  biology:\n    - plasma\n", encoding="utf-8")
        assert site.compile("database") == {}
        assert site.compile("biology")["plasma"]["limits"]


class TestTemplates:
    """Files that use them go on to work."""

    def test_jinja(self, site):
        (site.pillar / "top.sls").write_text("base:\n  '*':\n    - plasma\n    - common\n", encoding="utf-8")
        (site.pillar / "common.sls").write_text("include:\n  - sizes\n", encoding="utf-8")
        (site.pillar / "sizes.sls").write_text("sizes: {small: 1G}\n", encoding="utf-8")
        (site.pillar / "names.jinja").write_text("{% set names = ['ada', 'eva'] %}\n", encoding="utf-8")
        (site.pillar / "plasma.sls").write_text(
            "#!jinja|yaml|gpg\n{% from 'names.jinja' import names with context %}\nplasma:\n  users:\n"
            "{% for name in names %}\n    - name: {{ name }}\n      password: {{ salt['test.echo'](name ~ 12345) }}\n"
            "      fullname: {{ grains.get('id', opts.id) }} {# a remark #}\n{% endfor %}\n",
            encoding="utf-8",
        )
        pillar = site.compile()
        assert [user["name"] for user in pillar["plasma"]["users"]] == ["ada", "eva"]
        assert pillar["sizes"] == {"small": "1G"}

    @pytest.mark.parametrize(
        "line",
        [
            "password: {{ 'correct horse ' ~ 'battery' }}",
            "password: '{{ 'correct horse ' }}{{ 'battery' }}'  # two of them",
            """password: "{{ 'correct horse battery' }}" # {{ 'a remark' }}""",
            "password: {{ {'a': {'b': 'correct horse battery'}}['a']['b'] }} {# a remark #}",
            "password: {% if true %}correct horse battery{% else %}x{% endif %}",
            "{password: '{{ 'correct horse battery' }}', fullname: Ben}",
            "{fullname: Ben {{ 1 }}, password: '{{ 'correct horse battery' }}', shell: /bin/{{ 'bash' }}}",
            "{password: correct-horse-battery, fullname: Ben {{ 1 }}}",
            "{password: {{ 'correct horse battery' }}, fullname: '{{ 'Ben' }}'}",
        ],
    )
    def test_a_password_that_is_all_template(self, site, line):
        entry = f"- {line[:-1]}, name: ben}}" if line.startswith("{") else f"- name: ben\n      {line}"
        text = f"#!jinja|yaml\nplasma:\n  users:\n    {entry}\n"
        (site.pillar / "plasma.sls").write_text(text, encoding="utf-8")
        pillar = site.compile()
        assert "_errors" not in pillar and pillar["plasma"]["users"][0]["password_hash"]

    def test_a_function_that_fails(self, refused):
        text = HEAD + "    - name: {{ salt['test.exception']('" + MARKER + "') }}\n"
        assert refused(text) == [
            "pillar/plasma.sls:5: name: a function that a template calls failed (Exception); "
            "try it by hand, with `salt-call --local`."
        ]

    def test_without_templates(self, site):
        (site.pillar / "plasma.sls").write_text(
            "#!yaml\nplasma:\n  users:\n    - name: anna\n      fullname: A {{ B }} {# C\n", encoding="utf-8"
        )
        assert site.compile()["plasma"]["users"][0]["fullname"] == "A {{ B }} {# C"

    def test_an_included_file(self, site, refused):
        (site.pillar / "more.sls").write_bytes(b"motd: \xfc")
        assert refused("include:\n  - more\n  - less\nplasma: {}\n") == [
            "pillar/plasma.sls:3: the file that is named here does not exist; see to its name.",
            "pillar/more.sls:1: the line is not UTF-8 (Latin-1, perhaps); save the file as UTF-8.",
        ]


class TestPlaces:
    """A wrong value is told with the file and the line it stands in."""

    def test_of_one_file(self, refused):
        assert refused(HEAD + "      pasword: x\n  limts: {}\n") == [
            "pillar/plasma.sls:5: plasma.users[0].pasword: unknown key; did you mean 'password'?",
            "pillar/plasma.sls:6: plasma.limts: unknown key; did you mean 'limits'?",
        ]

    def test_in_a_pillar_below_the_one_of_the_repository(self, site, refused):
        """That of a demo; pillar/plasma.sls is there as well, and nothing is wrong in it."""
        site.pillar = site.root / ".plasma" / "demo" / "pillar"
        shutil.copytree(site.root / "pillar", site.pillar)
        own = {"pillar_roots": {"base": [str(site.pillar)]}}
        for text in (HEAD + "      pasword: x\n", HEAD + "\t- name: ben\n"):
            (line,) = refused(text, **own)
            assert line.startswith(".plasma/demo/pillar/plasma.sls:5: ")
        (line,) = refused("base: {}\n", "top.sls", **own, __master_opts__={})
        assert line.startswith(".plasma/demo/pillar/top.sls names no file for server")

    def test_of_a_server(self, site, refused):
        (site.pillar / "plasma.sls").write_text(
            "plasma:\n  users:\n    - {name: ben}\n    - {name: eva}\n  limits: {cpu: 3}\n", encoding="utf-8"
        )
        lines = refused("plasma:\n  limits:\n    memory: much\n  users:\n    - {groups: [a]}\n", "servers/server.sls")
        assert [line.partition(": ")[0] for line in lines] == [
            "pillar/servers/server.sls:3",
            "pillar/servers/server.sls:5",
        ]
        assert "plasma.users[0].name is required" in lines[1]

    def test_a_value_with_umlauts(self, refused):
        """Letters that only look like others are still told by their numbers."""
        lines = sorted(refused("plasma:\n  home_path: größe\n  hub: {prefix: '\u0430bc'}\n"))
        assert lines[0].startswith('pillar/plasma.sls:2: plasma.home_path: "größe" ')
        assert lines[1].startswith('pillar/plasma.sls:3: plasma.hub.prefix: "\\u0430bc" ')

    def test_lines_that_templates_made(self, refused):
        text = "plasma:\n  users:\n{% for name in ['a', 'b'] %}\n    - name: {{ name }}\n      uid: x\n{% endfor %}\n"
        assert [line.partition(":")[0] for line in refused(text)] == ["plasma.users[0].uid", "plasma.users[1].uid"]


def test_a_value_that_cannot_be_decrypted(refused):
    text = "#!yaml|gpg\nplasma:\n  users:\n    - name: anna\n      password: |\n        -----BEGIN PGP MESSAGE-----\n"
    assert refused(text + "\n        abcd\n        -----END PGP MESSAGE-----\n") == [
        "pillar/plasma.sls:1: a value cannot be decrypted with the keys in conf/gpgkeys (gpg_keydir); "
        "encrypt it for one of them again."
    ]
