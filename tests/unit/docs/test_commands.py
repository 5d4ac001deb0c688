"""What the pages say exists: states, functions with these arguments, targets, tools, keys of the pillar, files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.pages import Call, Page, pages, salt_call
from tests.support.paths import REPOSITORY
from tests.unit.pillar.conftest import load_external_pillar
from tools import module_reference
from tools.state_reference import states

PAGES = [page for page in pages() if page.name != "CHANGELOG.md"]
COMMANDS = [
    pytest.param(command, id=f"{page.name}:{block.line}: {command[:60]}")
    for page in PAGES
    for block in page.blocks
    for command in block.commands
]
SCHEMA = load_external_pillar()
KEYS = {path for path, _, _ in SCHEMA.schema("base").walk(SCHEMA.schema("site").Plasma, "plasma")}
# In config.yaml of the hub, and not in pillar.
SETTINGS_OF_THE_HUB = {"plasma.cockpit.port"}
# Functions of `plasma`, which looks like a key of the pillar.
FUNCTIONS_OF_PLASMA = {"plasma.status", "plasma.prove"}
OPTIONS_OF_APPLY = {"test", "pillar"}


@cache
def functions() -> dict[str, ast.arguments]:
    """The arguments of every function of our modules and states, by the name that Salt gives it."""
    found = {}
    for folder in ("_states", "_modules"):
        for path in (REPOSITORY / folder).glob("*.py"):
            module = module_reference.read(path)
            for node in module.members:
                if isinstance(node, ast.FunctionDef):
                    found[f"{module.name}.{module.called(node.name)}"] = node.args
    return found


@cache
def targets() -> set[str]:
    return set(
        re.findall(r"^([a-z][a-z0-9 -]*):(?!=)", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )


@cache
def options_of(program: str) -> set[str]:
    """The options that a program of Salt lists."""
    command = [Path(sys.executable).parent / program, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(re.findall(r"(--[a-z-]+)", done.stdout))


def call_fault(call: Call) -> str | None:
    """What is wrong with a call of Salt, if anything is."""
    options = dict(word.split("=", 1) for word in call.arguments if re.match(r"[a-z_]+=", word))
    values = [word for word in call.arguments if not re.match(r"[a-z_]+=", word)]
    if call.function == "state.apply":
        for name in call.states:
            if name not in states() and not re.match("[A-Z]", name):
                return f"there is no state {name}"
        unknown = set(options) - OPTIONS_OF_APPLY
        return f"state.apply takes no {', '.join(sorted(unknown))}" if unknown or len(values) > 1 else None
    if not call.function.startswith(("plasma", "tljh")):
        return (
            None
            if call.function in ("test.ping", "saltutil.sync_all", "MODULE.FUNCTION")
            else f"is {call.function} a function?"
        )
    taken = functions().get(call.function)
    if taken is None:
        return f"there is no function {call.function}"
    names = [argument.arg for argument in taken.args]
    if unknown := set(options) - set(names) - {argument.arg for argument in taken.kwonlyargs}:
        return f"{call.function} takes no {', '.join(sorted(unknown))}"
    if not taken.vararg and len(values) > len(names):
        return f"{call.function} takes {len(names)} arguments at most"
    required = names[: len(names) - len(taken.defaults)]
    missing = [name for name in required[len(values) :] if name not in options]
    return f"{call.function} needs {', '.join(missing)}" if missing else None


def command_fault(command: str) -> str | None:
    """What is wrong with a command, if anything is."""
    call = salt_call(command)
    if call:
        unknown = set(re.findall(r" (--[a-z-]+)", command)) - options_of(call.program)
        return f"{call.program} takes no {', '.join(sorted(unknown))}" if unknown else call_fault(call)
    if make := re.match(r"(?:sudo )?(?:[A-Z_]+=\S* )*make ([a-z][a-z0-9-]*)", command):
        return None if make[1] in targets() else f"there is no target {make[1]}"
    if tool := re.search(r"python3? -m ((?:tools|tests|benchmarks|plugin)[a-z_.]*)", command):
        return tool_fault(tool[1], command)
    return None


def tool_fault(module: str, command: str) -> str | None:
    place = REPOSITORY / module.replace(".", "/")
    source = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    if not source.exists():
        return f"there is no tool {module}"
    text = source.read_text(encoding="utf-8")
    unknown = [option for option in re.findall(r" (--[a-z-]+)", command) if f'"{option}"' not in text]
    return f"{module} takes no {', '.join(unknown)}" if unknown else None


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_given(command):
    assert command_fault(command) is None


def test_there_are_commands():
    assert len(COMMANDS) > 80
    assert sum(bool(salt_call(command.values[0])) for command in COMMANDS) > 50


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("salt-ssh '*' state.apply usres", "there is no state usres"),
        ("salt-ssh '*' state.apply utils,usres test=True", "there is no state usres"),
        ("salt-ssh '*' state.apply users tset=True", "takes no tset"),
        ("salt-ssh '*' plasma_users.archive", "there is no function"),
        ("salt-ssh '*' plasma_backup.verify", "needs path"),
        ("salt-ssh '*' plasma_prune.health now", "arguments at most"),
        ("salt-ssh '*' plasma.status limit=3", "takes no limit"),
        ("salt-ssh '*' plasma.status --statik", "takes no --statik"),
        ("salt-ssh '*' plasma.status > /dev/null || mail root", None),
        ("sudo salt-call --local test.pong", "a function?"),
        ("make tests", "there is no target tests"),
        ("HUB=tljh make demo-up", "there is no target demo-up"),
        ("python -m tools.account names.txt", "there is no tool"),
        ("python -m tools.accounts names.txt --grop biology", "takes no --grop"),
        ("python -m tools.accounts names.txt --group biology", None),
    ],
)
def test_faults_are_found(command, said):
    found = command_fault(command)
    assert found is None if said is None else said in (found or "")


def name_fault(page: Page, name: str) -> str | None:
    """What is wrong with a name in code between words, if it names something of ours that is not there."""
    if re.match(r"(?:[A-Z_]+=\S* )?(?:salt|make|python)\S* ", name):
        return None if "..." in name else command_fault(name)
    if re.match(r"state\.apply ", name):
        return None if "..." in name else command_fault(f"salt-ssh '*' {name}")
    if re.fullmatch(r"plasma(\.[a-z_0-9]+(\[\])?)+", name):
        known = name in KEYS | SETTINGS_OF_THE_HUB | FUNCTIONS_OF_PLASMA
        return None if known else f"there is no key {name}"
    if re.fullmatch(r"(plasma_[a-z_]+|tljh_config|tljh_service)\.[a-z_]+", name):
        return None if name in functions() else f"there is no function {name}"
    if re.fullmatch(r"PLASMA_[A-Z_]+(=.*)?", name):
        return None if _is_read_somewhere(name.split("=")[0]) else f"nothing reads {name}"
    if re.fullmatch(r"[\w.-]+/[\w./*<>-]*", name) and name.split("/")[0] in _top():
        return None if _is_there(page, name) else f"there is no {name}"
    return None


@cache
def _top() -> set[str]:
    return {line.split("/")[0] for line in _git("ls-files").splitlines() if "/" in line}


def _is_there(page: Page, name: str) -> bool:
    # What stands for something else: <capability>, ID, NAME.
    pattern = re.sub(r"<[^>]*>|\b[A-Z]{2,}\b", "*", name).rstrip("/")
    if any(list(folder.glob(pattern)) for folder in (REPOSITORY, page.path.parent)):
        return True
    # People's own files, and what is built.
    return bool(_git("check-ignore", name, f"{name}/"))


@cache
def _is_read_somewhere(variable: str) -> bool:
    return bool(_git("grep", "-l", "--untracked", variable, "--", "*.py", "Makefile", ":!tests/unit/docs"))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_named_exists(page):
    faults = [f"{page.name}:{line}: {said}" for name, line in page.names if (said := name_fault(page, name))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("salt-ssh '*' state.apply usres", "no state"),
        ("state.apply tljh.disabled", "no state"),
        ("plasma.limits.memroy", "no key"),
        ("plasma_users.archive", "no function"),
        ("PLASMA_KEEPS=1", "nothing reads"),
        ("conf/masters", "there is no"),
        ("salt/<capability>/x.sls", "there is no"),
        ("pillar/students.csv", None),
        ("salt/*/*.sls", None),
        ("plasma.users[].name", None),
    ],
)
def test_names_of_nothing_are_found(name, said):
    found = name_fault(PAGES[0], name)
    assert found is None if said is None else said in (found or "")
