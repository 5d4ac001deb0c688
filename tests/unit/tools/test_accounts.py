"""Accounts for a list of people: names, passwords, the CSV file and the sheet."""

from __future__ import annotations

import csv
import html
import os
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.pillar.conftest import load_external_pillar
from tools import accounts
from tools import accounts_names as names


class Desk:
    def __init__(self, root: Path) -> None:
        self.root, self.list, self.out, self.sheet = root, root / "names.txt", root / "s.csv", root / "sheet.html"

    def run(self, people: str | bytes, *arguments: str, sheet: bool = False) -> int:
        self.list.write_bytes(people if isinstance(people, bytes) else people.encode())
        more = ["--sheet", str(self.sheet)] if sheet else []
        return accounts.main([str(self.list), "--out", str(self.out), *more, *arguments])

    def rows(self) -> list[dict[str, str]]:
        with self.out.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def logins(self) -> list[str]:
        return [row["username"] for row in self.rows()]

    def files(self) -> set[str]:
        return {path.name for path in self.root.iterdir()} - {"names.txt"}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def refused(desk: Desk, capsys: pytest.CaptureFixture[str]):
    """The message of a run that writes nothing."""

    def run(people: str | bytes, *arguments: str, sheet: bool = False) -> str:
        before = {path.name: path.read_bytes() for path in desk.root.iterdir() if path.name != "names.txt"}
        capsys.readouterr()
        assert desk.run(people, *arguments, sheet=sheet) == 1
        after = {path.name: path.read_bytes() for path in desk.root.iterdir() if path.name != "names.txt"}
        assert after == before
        said = capsys.readouterr()
        assert not said.out and "Traceback" not in said.err
        return said.err

    return run


def test_a_list_becomes_accounts(desk):
    people = "Anna Müller\n\n# a comment\nMüller, Anna\nbob\nipetrov: Иван Петров\nAnna Maria Müller\n"
    assert desk.run(people, "--group", "biology", "--group", "sudo", "--quota-soft", "10G", "--quota-hard", "12G") == 0
    rows = desk.rows()
    assert [(row["username"], row["fullname"]) for row in rows] == [
        ("anna.muller", "Anna Müller"),
        ("anna.muller2", "Anna Müller"),
        ("bob", ""),
        ("ipetrov", "Иван Петров"),
        ("anna.muller3", "Anna Maria Müller"),
    ]
    assert {(row["group"], row["quota_soft"], row["quota_hard"]) for row in rows} == {("biology sudo", "10G", "12G")}
    assert len({row["password"] for row in rows}) == 5


def test_the_file_is_what_pillar_reads(desk):
    people = "Zoë O'Neill\nJean-Luc Picard\nbob\n"
    assert desk.run(people, "--group", "biology", "--quota-hard", "12G") == 0
    module = load_external_pillar()
    # The cost of the hashes is not what is looked at here.
    module.__opts__ = {"pillar_roots": {"base": [str(desk.root)]}, "cachedir": None}
    answer = module.ext_pillar("s", {"plasma": {"users_csv": ["s.csv"]}})
    assert "_errors" not in answer, answer
    assert [(user["name"], user.get("fullname"), user["groups"]) for user in answer["plasma"]["users"]] == [
        ("zoe.oneill", "Zoë O'Neill", ["biology"]),
        ("jean-luc.picard", "Jean-Luc Picard", ["biology"]),
        ("bob", None, ["biology"]),
    ]
    assert [entry["limits"] for entry in answer["plasma"]["quotas"]["assigned"]] == [{"hard": 12 * 2**30}]


@pytest.mark.parametrize(
    ("fullname", "login", "short"),
    [
        ("Anna Müller", "anna.muller", "amuller"),
        ("Łukasz Żółć", "lukasz.zolc", "lzolc"),
        ("Groß STRAẞE", "gross.strasse", "gstrasse"),
        ("Søren Ørsted Ångström", "soren.angstrom", "sangstrom"),
        ("Þórunn Æsa Œ", "thorunn.oe", "toe"),
        ("Đặng Thị Ngọc", "dang.ngoc", "dngoc"),
        ("Işıl İnan", "isil.inan", "iinan"),
        ("Nuñez", "nunez", "nunez"),
        ("3PO C", "po.c", "c"),
        ("- -", "", ""),
        ("Иван", "", ""),
        ("!!!", "", ""),
        ("A" * 50 + " B", "a" * 32, "ab"),
        ("Ann " + "b" * 27 + "-c", "ann." + "b" * 27, "a" + "b" * 27 + "-c"),
    ],
)
def test_names_in_ascii(fullname, login, short):
    assert names.proposal(fullname, "first.last") == login
    assert names.proposal(fullname, "initial") == short


def test_a_number_fits_into_the_longest_name():
    taken = {"a" * 32, "a" * 31 + "2"}
    assert names.unique("a" * 32, taken.__contains__) == "a" * 31 + "3"
    assert names.unique("a" * 30 + ".b", {"a" * 30 + ".b"}.__contains__) == "a" * 30 + "2"


def test_a_person_with_the_name_of_a_system_account(desk):
    assert desk.run("Mail\nRoot\nSync Backup\n") == 0
    assert desk.logins() == ["mail2", "root2", "sync.backup"]


class TestPassword:
    def test_form(self):
        assert re.fullmatch(r"([a-z2-9]{5}-){2}[a-z2-9]{5}", names.password())

    def test_at_least_sixty_bits_and_said(self, capsys):
        assert names.BITS >= 60
        assert len(set(names.ALPHABET)) == len(names.ALPHABET)
        with pytest.raises(SystemExit):
            accounts.main(["--help"])
        assert f"{names.BITS} random bits" in " ".join(capsys.readouterr().out.split())

    def test_nothing_that_looks_alike(self):
        for alike in ("0o", "1li", "2z", "5s", "6b8", "9gq", "uv"):
            assert len(set(alike) & set(names.ALPHABET)) <= (2 if alike == "6b8" else 1), alike

    def test_all_characters_are_used(self):
        assert set("".join(names.password() for _ in range(100))) == set(names.ALPHABET) | {"-"}

    def test_from_the_systems_own_randomness(self, monkeypatch):
        drawn = []
        monkeypatch.setattr(names.secrets, "choice", lambda letters: drawn.append(letters) or "x")
        names.password()
        assert drawn == [names.ALPHABET] * 15


def test_files_are_the_owners_alone(desk):
    old = os.umask(0)
    try:
        assert desk.run("Anna\n", sheet=True) == 0
        assert desk.run("Anna\nBob\n", "--add") == 0
    finally:
        os.umask(old)
    assert desk.files() == {"s.csv", "sheet.html"}
    for path in (desk.out, desk.sheet):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_password_is_printed(desk, capsys):
    assert desk.run("Anna\nBob\n", sheet=True) == 0
    said = capsys.readouterr()
    assert "2 new accounts" in said.out and "users_csv: [s.csv]" in said.out
    assert not [row for row in desk.rows() if row["password"] in said.out + said.err]


class TestNothingIsOverwritten:
    def test_the_file(self, desk, refused):
        desk.run("Anna\n")
        assert "exists: use --add" in refused("Bob\n", sheet=True)

    def test_a_link_to_nowhere(self, desk, refused):
        desk.out.symlink_to("elsewhere.csv")
        (desk.root / "elsewhere.csv").write_text("", encoding="utf-8")
        assert "exists" in refused("Bob\n")

    def test_the_sheet(self, desk, refused):
        desk.sheet.write_text("old", encoding="utf-8")
        assert "exists: print it or remove it" in refused("Bob\n", sheet=True)

    @pytest.mark.parametrize("late", ["link", "sheet"])
    def test_a_file_that_comes_meanwhile(self, desk, monkeypatch, capsys, late):
        def prepared(path, content):
            (desk.out if late == "link" else desk.sheet).write_text("of another run", encoding="utf-8")
            return real(path, content)

        real = accounts.prepared
        monkeypatch.setattr(accounts, "prepared", prepared)
        assert desk.run("Bob\n", sheet=True) == 1
        left = desk.out if late == "link" else desk.sheet
        assert left.read_text("utf-8") == "of another run" and desk.files() == {left.name}
        assert "File exists" in capsys.readouterr().err


class TestAdd:
    def test_earlier_accounts_keep_their_passwords(self, desk, capsys):
        desk.run("Anna Müller\nbob\n", "--group", "biology")
        before = desk.out.read_bytes()
        assert desk.run("bob\nAnna Müller\nAnna Müller\nCarl\n", "--add", "--group", "chemistry", sheet=True) == 0
        assert desk.out.read_bytes().startswith(before)
        assert [(row["username"], row["group"]) for row in desk.rows()] == [
            ("anna.muller", "biology"),
            ("bob", "biology"),
            ("anna.muller2", "chemistry"),
            ("carl", "chemistry"),
        ]
        assert "2 new accounts beside 2" in capsys.readouterr().out
        sheet = desk.sheet.read_text("utf-8")
        assert "carl" in sheet and "bob" not in sheet

    def test_nobody_new_changes_nothing(self, desk):
        desk.run("Anna\n")
        before = desk.out.stat()
        assert desk.run("Anna\n", "--add", sheet=True) == 0
        assert desk.out.stat().st_mtime_ns == before.st_mtime_ns and desk.files() == {"s.csv"}

    def test_a_file_in_another_form(self, desk):
        desk.out.write_bytes("\ufeffFullname;Username;Password\r\nZoë;zoe;secret-1".encode())
        desk.out.chmod(0o600)
        assert desk.run("Anna Müller\nZoë\n", "--add") == 0
        text = desk.out.read_bytes().decode()
        assert text.startswith("\ufeffFullname;Username;Password\r\nZoë;zoe;secret-1\r\nAnna Müller;anna.muller;")
        assert text.count("\r\n") == 3

    def test_a_file_without_a_column_for_it(self, desk, refused):
        desk.out.write_text("username,password\nzoe,secret-1\n", encoding="utf-8")
        desk.out.chmod(0o600)
        assert "has no column fullname and group" in refused("Anna Müller\n", "--add", "--group", "x")

    def test_a_file_that_is_not_valid(self, desk, refused):
        desk.out.write_text("username,password\nZoe,secret-1\n", encoding="utf-8")
        desk.out.chmod(0o600)
        said = refused("Anna\n", "--add")
        assert ":2: username is not a Linux user" in said and "secret-1" not in said

    def test_a_file_others_can_read(self, desk, refused):
        desk.run("Anna\n")
        desk.out.chmod(0o644)
        assert "chmod 600" in refused("Bob\n", "--add")

    def test_no_file(self, refused):
        assert "s.csv: No such file" in refused("Bob\n", "--add")

    def test_a_file_that_was_replaced_meanwhile(self, desk, refused, monkeypatch):
        desk.run("Anna\n")
        monkeypatch.setattr(accounts.os.path, "samestat", lambda *_: False)
        assert "was changed by another run meanwhile" in refused("Bob\n", "--add")


@pytest.mark.parametrize(
    ("people", "line"),
    [
        ("anna\nBob\nanna\n", "names.txt:3: is the login name of line 1 too."),
        ("x: A\nx: B\n", "names.txt:2: is the login name of line 1 too."),
        ("Anna\nroot: Ruth\n", "names.txt:2: the login name is the name of a system account. Allowed: lower-case"),
        ("A B: x\n", "names.txt:1: the login name is not a Linux user"),
        (f"{'a' * 101}\n", "names.txt:1: the name is longer than 100 characters."),
        ("a: b:c\n", "names.txt:1: the name has a colon"),
        ("A\x1b[2JB\n", "names.txt:1: the name has a line break or another control character."),
        ("\u202eAnna Nana\n", "names.txt:1: the name has a line break or another control character."),
        ("=cmd|' /C calc'!A0\n", "names.txt:1: the name starts as a formula"),
        ("@SUM(A1)\n", "names.txt:1: the name starts as a formula"),
        ("Иван Петров\n", "names.txt:1: the name has no Latin letters."),
        ("", "names.txt names nobody."),
        ("# only\n\n", "names.txt names nobody."),
        (b"Anna\nM\xfcller\n", "names.txt:2: is not UTF-8."),
    ],
)
def test_lists_that_are_refused(refused, people, line):
    assert line in refused(people)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--group", "docker"], "--group is a group whose members can take over the server"),
        (["--group", "a b"], "--group is not a Linux user or group name"),
        (["--quota-soft", "10"], "--quota-soft is not a size. Allowed: a number followed by"),
        (["--quota-soft", "2G", "--quota-hard", "1G"], "quota_soft is more than the hard limit 1G."),
        (["--url", "javascript:alert(1)"], "--url does not start with https:// or http://"),
        (["--out", "s.txt"], "--out does not end with .csv"),
        (["--out", "s.csv.gpg"], "--out is to be encrypted."),
        (["--out", "/no/such/place/s.csv"], "The directory /no/such/place does not exist."),
        (["--column", "Name"], "has no column 'Name'. Allowed: one of 'Anna'"),
    ],
)
def test_options_that_are_refused(refused, arguments, part):
    assert part in refused("Anna\n", *arguments)


def test_a_list_that_does_not_exist(desk, capsys):
    assert accounts.main(["no.txt", "--out", str(desk.out)]) == 1
    assert capsys.readouterr().err == "no.txt: No such file or directory\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_names_from_a_column(desk, delimiter):
    text = 'Id,Full name,Mark\n1,Anna Müller,x\n2,,\n3,"Zoë\nX",\n4,Bob\n'.replace(",", delimiter)
    assert desk.run("\ufeff" + text, "--column", "Full name") == 0
    assert desk.logins() == ["anna.muller", "zoe.x", "bob"]


def test_relative_names_of_files_count_from_where_one_is(desk, monkeypatch):
    monkeypatch.chdir(desk.root)
    desk.list.write_text("Anna\n", encoding="utf-8")
    (desk.root / "pillar").mkdir()
    assert accounts.main(["names.txt", "--out", "pillar/s.csv", "--sheet", "sheet.html"]) == 0
    assert accounts.main(["names.txt", "--out", "pillar/../pillar/s.csv", "--add"]) == 0
    assert [path.name for path in (desk.root / "pillar").iterdir()] == ["s.csv"]


class Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words.append(data)


def test_the_sheet(desk):
    people = "Anna <script>alert(1)</script> & Müller\nbob\n"
    assert desk.run(people, "--url", "https://hub.example.org/?a&b", sheet=True) == 0
    text = desk.sheet.read_text("utf-8")
    page = Words()
    page.feed(text)
    assert page.tags == {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "section",
        "h2",
        "dl",
        "dt",
        "dd",
        "kbd",
    }
    assert text.count("<section>") == 2 and "@media print" in text and "break-inside: avoid" in text
    rows = desk.rows()
    for row in rows:
        assert {row["username"], row["password"], row["fullname"] or row["username"]} <= set(page.words)
    assert page.words.count("https://hub.example.org/?a&b") == 2
    assert html.escape(rows[0]["fullname"]) in text


words = st.text(st.characters(codec="utf-8"), max_size=40)


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(words, max_size=5))
def test_any_list_is_refused_or_makes_a_valid_file(desk, people):
    desk.out.unlink(missing_ok=True)
    if desk.run("\n".join(people)) == 0:
        found, problems = accounts.csv_people.load(str(desk.out), None)
        assert found and not problems
    else:
        assert not desk.out.exists()
    assert desk.files() <= {"s.csv"}
