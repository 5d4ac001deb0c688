"""The repository's own configuration and pillar, through Salt's pillar compiler as salt-ssh uses it."""

from __future__ import annotations

import json
import sys

import pytest
import salt.client.ssh.wrapper.state
import salt.utils.secret

from tests.unit.pillar.conftest import MARKER


def test_a_fresh_clone_is_valid_and_has_all_defaults(site, complete):
    assert site.compile() == {"plasma": complete({})}


def test_every_commented_line_of_the_shipped_file_is_valid_and_a_default(site, complete):
    """An operator removes `# ` from any of them: the file must be right then too."""
    path = site.pillar / "plasma.sls"
    lines = path.read_text(encoding="utf-8").splitlines()
    keys = [line.replace("# ", "", 1) if line.startswith("  # ") and not line[4].isupper() else line for line in lines]
    settings = [line for line in keys if line.startswith("  ") and not line.lstrip().startswith("#")]
    assert len(settings) > 20
    path.write_text("\n".join(keys), encoding="utf-8")
    assert site.compile() == {"plasma": complete({})}


def test_a_server_has_its_own_file(site):
    (site.pillar / "servers" / "hub-example-org.sls").write_text(
        "plasma:\n  limits:\n    memory: 4G\n", encoding="utf-8"
    )
    mine = site.compile("hub.example.org")["plasma"]
    assert mine["limits"] == {"memory": "4G", "cpu": 2}
    assert site.compile("other.example.org")["plasma"]["limits"]["memory"] == "2G"


def test_the_example_of_a_server_is_valid(site):
    assert site.compile("example")["plasma"]["limits"] == {"memory": "4G", "cpu": 4}


def write(site, text: str) -> None:
    (site.pillar / "plasma.sls").write_text(text, encoding="utf-8")


def test_problems_reach_salt_as_lines_without_the_pillar(site):
    write(site, f"plasma:\n  cull: {{timeuot: 5}}\n  users: [{{name: anna, pasword: {MARKER}}}]\n")
    pillar = site.compile()
    assert pillar["_errors"] == [
        "pillar/plasma.sls:2: plasma.cull.timeuot: unknown key; did you mean 'timeout'?",
        "pillar/plasma.sls:3: plasma.users[0].pasword: unknown key; did you mean 'password'?",
    ]
    assert MARKER not in json.dumps(pillar)
    assert pillar["plasma"] is None


def test_salt_ssh_runs_no_state_with_such_a_pillar(site):
    """salt-ssh's state functions ask this before they compile or send anything."""
    allowed = salt.client.ssh.wrapper.state._check_pillar
    assert allowed({}, site.compile()) is True
    write(site, "plasma:\n  limits: {memory: 2g}\n")
    assert allowed({}, site.compile()) is False


@pytest.mark.parametrize("merge_lists", [False, True])
def test_a_plain_password_is_not_in_what_salt_sends(site, merge_lists):
    write(site, f"plasma:\n  users:\n    - name: anna\n      password: {MARKER}\n")
    pillar = site.compile(pillar_merge_lists=merge_lists)
    assert [user["name"] for user in pillar["plasma"]["users"]] == ["anna"]
    assert MARKER not in json.dumps(pillar)


def test_values_of_the_command_line_are_checked(site):
    pillar = site.compile(override={"plasma": {"limits": {"memory": "2g"}}})
    assert [line.split(":")[0] for line in pillar["_errors"]] == ["plasma.limits.memory"]
    assert site.compile(override={"plasma": {"limits": {"memory": "3G"}}})["plasma"]["limits"] == {
        "memory": "3G",
        "cpu": 2,
    }


def test_masked_pillars_are_read_too(external_pillar, complete):
    """Salt hands pillar around in a mapping that hides its values when printed."""
    masked = salt.utils.secret.hide({"plasma": {"limits": {"memory": "3G"}, "groups": ["biology"]}})
    plasma = external_pillar.ext_pillar("server", masked)["plasma"]
    assert plasma["limits"]["memory"] == "3G"
    assert type(plasma["groups"]) is list


def test_other_pillar_is_left_alone(site):
    write(site, "plasma: {}\nmotd: hello\n")
    assert site.compile()["motd"] == "hello"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plasm:\n  limits: {memory: 4G}\n", "1: plasm: unknown key; did you mean 'plasma'?"),
        ("Plasma: {}\n", "1: Plasma: unknown key; did you mean 'plasma'?"),
        ("plamsa: {}\nplasma: {}\n", "1: plamsa: unknown key; did you mean 'plasma'?"),
        (
            "plasma:\nlimits: {memory: 4G}\n",
            "2: limits: stands beside 'plasma:', not below it; indent it by two spaces.",
        ),
    ],
)
def test_a_misplaced_namespace(site, text, said):
    write(site, text)
    assert site.compile()["_errors"] == [f"pillar/plasma.sls:{said}"]


def test_names_that_only_resemble_are_nobodys_business(site):
    write(site, "plasma: {}\nplasmodium: 1\nplatform: 2\nlimits: 3\n")
    assert "_errors" not in site.compile()


class TestFailure:
    """Salt goes on without an external pillar that fails, and would send passwords: this one has to answer."""

    @pytest.fixture
    def secret_site(self, site):
        write(site, f"plasma:\n  users: [{{name: anna, password: {MARKER}}}]\n")
        yield site
        for name in [name for name in sys.modules if name.partition(".")[0] == "plasma_schema"]:
            del sys.modules[name]

    def test_a_missing_library(self, secret_site, monkeypatch):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("plasma_schema", "pydantic")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "pydantic", None)
        pillar = secret_site.compile()
        assert len(pillar["_errors"]) == 1
        assert "pydantic" in pillar["_errors"][0] and "is missing in the Python that runs Salt" in pillar["_errors"][0]
        assert MARKER not in json.dumps(pillar)

    def test_a_mistake_in_the_schema_itself(self, secret_site, caplog):
        check = secret_site.own_schema() / "check.py"
        check.write_text(
            "def check(pillar, opts):\n    raise KeyError(pillar['plasma']['users'][0]['password'])\n", encoding="utf-8"
        )
        pillar = secret_site.compile()
        assert pillar["_errors"] == ["The pillar cannot be checked: KeyError (the log says where)."]
        assert MARKER not in json.dumps(pillar)
        said = [record.getMessage() for record in caplog.records if record.name.endswith("pillar.plasma")]
        assert len(said) == 1
        assert "check.py" in said[0] and MARKER not in said[0]


def test_two_clones_in_one_process_do_not_mix(site, complete):
    """A Salt master, or a test run, may load more than one copy."""
    before = complete({})
    keys = site.own_schema() / "hub_keys.py"
    keys.write_text(keys.read_text(encoding="utf-8").replace('"/srv/data"', '"/srv/other"'), encoding="utf-8")
    assert site.compile()["plasma"]["shared_data"] == "/srv/other"
    assert complete({}) == before
    assert site.compile()["plasma"]["shared_data"] == "/srv/other"
