"""CSV files of people: read, refused line by line, and never shown."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.unit.pillar.conftest import MARKER, load_external_pillar

HASH = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"
HEADER = "username,password_hash,group,quota_soft,quota_hard,fullname\n"
USER = f"anna,{HASH},,,,\n"


class Files:
    """A directory of pillar files, and what becomes of a pillar that names CSV files in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.module = load_external_pillar()
        # None is no cache: hashes are made and forgotten.
        self.module.__opts__ = {"pillar_roots": {"base": [str(root)]}, "cachedir": None}

    def write(self, content: str | bytes, name: str = "s.csv", mode: int = 0o600) -> None:
        path = self.root / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)

    def answer(self, *names: Any, **plasma: Any) -> dict[str, Any]:
        return self.module.ext_pillar("server", {"plasma": {"users_csv": list(names or ("s.csv",)), **plasma}})

    def complete(self, *names: Any, **plasma: Any) -> dict[str, Any]:
        answer = self.answer(*names, **plasma)
        assert "_errors" not in answer, answer["_errors"]
        return answer["plasma"]

    def users(self, content: str | bytes) -> list[dict[str, Any]]:
        self.write(content)
        return self.complete()["users"]

    def problems(self, content: str | bytes, **plasma: Any) -> list[str]:
        self.write(content)
        return self.lines("s.csv", **plasma)

    def lines(self, *names: Any, **plasma: Any) -> list[str]:
        answer = self.answer(*names, **plasma)
        assert answer.get("_errors"), "accepted"
        assert answer["plasma"] is None
        for line in answer["_errors"]:
            assert line.isascii() and line.isprintable(), line
            assert MARKER not in line and HASH not in line
        return answer["_errors"]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_what_becomes_of_a_file(files):
    files.write(
        HEADER
        + f"anna,{HASH},biology,1G,2G,Anna Müller\n"
        + f"bob,{HASH},biology  sudo,,,\n"
        + "\n"
        + f'carl,{HASH},"",,3G,"Carl ""Charly"" O\'Neill"\n'
    )
    plasma = files.complete(users=[{"name": "zoe", "shell": "/bin/zsh"}], groups=["chemistry"], quota={"soft": "1G"})
    assert plasma["users"] == [
        {"name": "zoe", "groups": [], "shell": "/bin/zsh"},
        {
            "name": "anna",
            "groups": ["biology"],
            "shell": "/bin/bash",
            "password_hash": HASH,
            "fullname": "Anna Müller",
        },
        {"name": "bob", "groups": ["biology", "sudo"], "shell": "/bin/bash", "password_hash": HASH},
        {
            "name": "carl",
            "groups": [],
            "shell": "/bin/bash",
            "password_hash": HASH,
            "fullname": 'Carl "Charly" O\'Neill',
        },
    ]
    assert [group["name"] for group in plasma["groups"]] == ["chemistry", "biology"]
    assert {name: entry["limits"] for entry in plasma["quotas"]["assigned"] for name in entry["users"]} == {
        "zoe": {"soft": 2**30},
        "anna": {"soft": 2**30, "hard": 2**31},
        "bob": {"soft": 2**30},
        "carl": {"soft": 2**30, "hard": 3 * 2**30},
    }
    assert "users_csv" not in plasma


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_the_forms_spreadsheets_write(files, mark, end, delimiter):
    text = f'fullname,username,password_hash\nZoë A,anna,{HASH}\n"Bob, or; not",bob,{HASH}\n"C",carl,"{HASH}"\n'
    if delimiter == ";":
        text = text.replace('"Bob, or; not"', "Bob or not").replace(",", ";")
    else:
        text = text.replace("Bob, or; not", "Bob or; not")
    users = files.users(mark + text.replace("\n", end).encode())
    assert [user["name"] for user in users] == ["anna", "bob", "carl"]
    assert users[0]["fullname"] == "Zoë A"


def test_what_a_spreadsheet_leaves_behind(files):
    """Columns and lines that were emptied, spaces around cells, names of columns in capitals."""
    users = files.users(f"Username, Password_Hash ,GROUP,,\n anna , {HASH},  biology ,,\n,,,,\n   \nbob,{HASH},,,\n")
    assert [(user["name"], user["groups"]) for user in users] == [("anna", ["biology"]), ("bob", [])]


def test_without_a_line_break_at_the_end(files):
    assert len(files.users((HEADER + USER).rstrip("\n"))) == 1


def test_a_header_alone_names_nobody(files):
    assert files.users(HEADER) == []


def test_student_numbers_and_former_names(files):
    found = files.users(f"username,was,password_hash\n20231234,anna,{HASH}\nben,,{HASH}\n")
    assert [(user["name"], user.get("was")) for user in found] == [("20231234", "anna"), ("ben", None)]
    (line,) = files.problems(f"username,was,password_hash\nben,,{HASH}\nkim,ben,{HASH}\n")
    assert line.startswith("s.csv:3: was is the name of a user: s.csv:2: username.")


def test_a_policy_for_one_person(files):
    users = files.users(f"username,password_hash,password_policy\nanna,{HASH},enforce\nbob,{HASH},\n")
    assert [user.get("password_policy") for user in users] == ["enforce", None]


NAME = "Allowed: lower-case letters"


@pytest.mark.parametrize(
    ("rows", "starts"),
    [
        (["Anna,H,,,,"], [f"2: username is not a Linux user or group name. {NAME}"]),
        ([",H,,,,"], ["2: username is required."]),
        (["root,H,,,,"], ["2: username is the name of a system account."]),
        (["=cmd|' /C calc'!A0,H,,,,", "+1,H,,,,", "@x,H,,,,", "-1,H,,,,"], ["2: username", "3: u", "4: u", "5: u"]),
        (["änna,H,,,,"], ["2: username has characters outside ASCII."]),
        (["anna,,,,,"], ["2: password_hash is empty. Allowed: a hash in crypt(3) format"]),
        (["anna,hunter2,,,,"], ["2: password_hash is not a hash of an accepted kind."]),
        (["anna,H,docker,,,"], ["2: group is a group whose members can take over the server"]),
        (["anna,H,a b a,,,"], ["2: group names a group twice."]),
        (["anna,H,A,,,"], ["2: group is not a Linux user or group name."]),
        (["anna,H,,10,,"], ["2: quota_soft is not a size. Allowed: a number followed by K, M, G or T"]),
        (["anna,H,,2G,1G,"], ["2: quota_soft is more than the hard limit 1G."]),
        (["anna,H,,,,a:b"], ["2: fullname has a colon or a comma"]),
        (["anna,H,,,,a\x1bb"], ["2: fullname has a line break or another control character."]),
        (["anna,H"], ["2: cells: 2. Allowed: 6, as in the header."]),
        (["anna,H,,,,,x"], ["2: cells: 7. Allowed: 6, as in the header."]),
        (["anna;H;;;;"], ["2: cells: 1."]),
        (["anna,H,,,,", "bob,H,,,,", "", "anna,H,,,,"], ["5: username is already the value of s.csv:2: username."]),
        # Line breaks in quotation marks count as lines of the file.
        (['anna,H,,,,"a', "", 'b"', "Bob,H,,,,"], ["2: fullname has a line break", "5: username is not"]),
        (["anna,H,,,,", 'bob,"H,,,,', "carl,H,,,,"], ["3: a quotation mark is not closed"]),
        (['"anna"x,H,,,,'], ["2: a quotation mark is not closed, or stands alone"]),
        (['"anna,H,,,,' + "x" * 200_000], ["2: a cell is too long, or a quotation mark is not closed."]),
        (["anna\u202e,H,,,,"], ["2: username has characters outside ASCII."]),
        (["\ufeffanna,H,,,,"], ["2: username has characters outside ASCII."]),
    ],
)
def test_lines_that_are_refused(files, rows, starts):
    lines = files.problems(HEADER + "\n".join(rows).replace("H", HASH) + "\n")
    assert len(lines) == len(starts), lines
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(f"s.csv:{start}"), line


ALLOWED = " Allowed: a first line with the names of the columns, of username, password, password_hash, group, "


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("username,password,grup", ["column 3: unknown column; did you mean 'group'?"]),
        (
            "name,password,groups",
            ["column 1: unknown column; did you mean 'username'?", "column 3: unknown column; did"],
        ),
        ("username,password,gid", ["column 3: unknown column; did you mean 'uid'?"]),
        ("username,password,,group", ["column 3: has no name."]),
        ("username,password,username", ["column 3 has the name of an earlier one."]),
        ("username,Password,password", ["column 3 has the name of an earlier one."]),
        ("username,group", ["the column password (or password_hash) is missing."]),
        ("password,group", ["the column username is missing."]),
        (f"anna,{MARKER},biology", ["is no header."]),
        (f"group,{MARKER}", ["column 2: unknown column."]),
        ("username\tpassword\tgroup", ["is no header."]),
        ("sep=;\nusername;password", ["is no header."]),
        ("\x1b[2J", ["is no header."]),
    ],
)
def test_headers_that_are_refused(files, header, parts):
    lines = files.problems(f"\n{header}\nanna,x,y\n")
    assert len(lines) == len(parts)
    for line, part in zip(lines, parts, strict=True):
        assert line.startswith(f"s.csv:2: {part}") and ALLOWED in line


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (b"", " is empty. Allowed: a header with username, password"),
        (b"\n\n , \n", " is empty."),
        (b"\xff\xfeu\0s\0", " is in UTF-16. Allowed: UTF-8"),
        (b"\xfe\xff\0u", " is in UTF-16."),
        (b"username,password\nanna,x\0y\n", ":2: byte 7 of the line is NUL."),
        (
            b"username,password\r\nj\xfcrgen,x\r\n",
            ":2: byte 2 of the line is not UTF-8. Allowed: UTF-8 (in a spreadsheet",
        ),
        (b"\xef\xbb\xbfusername,password\nanna,x\n\xffx,y", ":3: byte 1 of the line is not UTF-8."),
        (b"\xef\xbb\xbfuser\xff", ":1: byte 8 of the line is not UTF-8."),
        (b"username,password\n" + b"a" * (8 * 2**20), " is larger than 8 MB."),
    ],
)
def test_files_that_are_no_text_to_read(files, content, start):
    (line,) = files.problems(content)
    assert line.startswith(f"s.csv{start}")


def test_a_file_without_end(files):
    lines = files.problems("username,password_hash\n" + "a\n" * 70_000)
    assert len(lines) == 51


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "does not exist in "),
        (lambda path: path.mkdir(), "is a directory. Allowed: a file in CSV format."),
        (os.mkfifo, "is no regular file."),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file."),
        (lambda path: path.symlink_to("nowhere"), "cannot be read (No such file or directory)."),
    ],
)
def test_what_is_no_file(files, make, reason):
    make(files.root / "s.csv")
    (line,) = files.lines()
    assert line.startswith(f"s.csv {reason}")


def test_a_file_that_cannot_be_read(files, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    files.write(HEADER + USER)
    monkeypatch.setattr(files.module.schema("csv_file").os, "open", refuse)
    (line,) = files.lines()
    assert line.startswith("s.csv cannot be read by the user who runs Salt.") and "chmod 600" in line


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o604, 0o602, 0o620, 0o777])
def test_a_file_others_can_read_or_change_is_refused(files, mode):
    files.write(HEADER + USER, mode=mode)
    (line,) = files.lines()
    assert line == (
        "s.csv can be read or changed by other users of this machine, and has passwords in it. "
        "Allowed: access for its owner alone (chmod 600)."
    )


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_the_operators_is_taken(files, mode):
    files.write(HEADER + USER, mode=mode)
    assert files.complete()["users"]


def test_a_file_of_somebody_else_is_refused(files, monkeypatch):
    """Whoever can write it makes accounts, with sudo too."""
    files.write(HEADER + USER)
    monkeypatch.setattr(files.module.schema("csv_file").os, "geteuid", lambda: 4711)
    real = os.fstat
    monkeypatch.setattr(
        files.module.schema("csv_file").os,
        "fstat",
        lambda descriptor: os.stat_result([*real(descriptor)[:4], 4712, *real(descriptor)[5:10]]),
    )
    (line,) = files.lines()
    assert "by other users of this machine" in line


@pytest.mark.parametrize(
    "name", ["", "s.txt", "../s.csv", "a/../s.csv", "s.csv\n", "s\x1b.csv", "/..", "~.csv/", 7, None, ["s.csv"], True]
)
def test_names_of_files_that_are_refused(files, name):
    assert files.lines(name)[0].startswith("plasma.users_csv[0]")


def test_names_of_files_that_are_not_a_list(files):
    answer = files.module.ext_pillar("server", {"plasma": {"users_csv": "s.csv"}})
    assert answer["_errors"][0].startswith('plasma.users_csv: "s.csv" is not a list.')


def test_absolute_names_and_folders(files, tmp_path_factory):
    other = tmp_path_factory.mktemp("other folder") / "people here.csv"
    other.write_text(HEADER + USER.replace("anna", "bob"), encoding="utf-8")
    other.chmod(0o600)
    (files.root / "course").mkdir()
    files.write(HEADER + USER, "course/s.csv")
    assert [user["name"] for user in files.complete("course/s.csv", str(other))["users"]] == ["anna", "bob"]


def test_the_same_person_in_two_places(files):
    files.write(HEADER + USER, "a.csv")
    files.write(HEADER + USER, "b.csv")
    assert files.lines("a.csv", "b.csv", users=[{"name": "anna", "absent": True}]) == [
        "a.csv:2: username is already the value of plasma.users[0].name.",
        "b.csv:2: username is already the value of plasma.users[0].name.",
    ]
    assert files.lines("a.csv", "b.csv") == ["b.csv:2: username is already the value of a.csv:2: username."]


def test_the_same_file_twice(files):
    files.write(HEADER + USER)
    assert files.lines("s.csv", "s.csv") == [
        'plasma.users_csv[1].file: "s.csv" is already the value of plasma.users_csv[0].file.'
    ]


def test_everybody_of_a_file_is_removed(files):
    files.write(HEADER + f"anna,{HASH},old,1G,,\nbob,{HASH},,,,\n", "old.csv")
    files.write(HEADER + f"carl,{HASH},,,,\n")
    plasma = files.complete({"file": "old.csv", "absent": True}, {"file": "s.csv"})
    assert [(user["name"], user.get("absent")) for user in plasma["users"]] == [
        ("anna", True),
        ("bob", True),
        ("carl", None),
    ]
    assert plasma["users"][0] == {"name": "anna", "absent": True}
    assert plasma["groups"] == [] and not plasma["quotas"]["enabled"]


def test_nobody_goes_and_stays_at_once(files):
    files.write(HEADER + USER, "old.csv")
    files.write(HEADER + USER)
    assert files.lines({"file": "old.csv", "absent": True}, "s.csv") == [
        "s.csv:2: username is already the value of old.csv:2: username."
    ]
    assert files.lines({"file": "old.csv", "absent": True}, admins=["anna"]) == [
        'plasma.admins[0]: "anna" is a user who is absent: old.csv:2: username.'
    ]


def test_contradictions_with_the_rest_of_pillar(files):
    files.write(HEADER + f"anna,{HASH},old,,5G,\nbob,{HASH},,,,\ncarl,{HASH},,,,\n")
    assert files.lines(
        quota={"soft": "10G"},
        groups=[{"name": "old", "absent": True}],
        users=[{"name": "dora", "home": "/home/bob"}],
        shared_data="/home/carl",
    ) == [
        "s.csv:2: group is a group that is absent in plasma.groups.",
        "s.csv:3: username gets the home /home/bob, which is in the home of another user: plasma.users[0].home.",
        "s.csv:4: username gets the home /home/carl, which overlaps /home/carl, which is not one person's.",
        "s.csv:2: quota_hard is less than the soft limit 10G of plasma.quota.soft.",
    ]


def test_problems_of_pillar_and_of_files_at_once(files):
    files.write(HEADER + USER.replace("anna", "Anna"))
    lines = files.lines("s.csv", "no.csv", limits={"memory": 7})
    assert [line.split(" ")[0] for line in lines] == ["plasma.limits.memory:", "s.csv:2:", "no.csv"]


def test_thousands_of_problems_are_cut_short(files):
    lines = files.problems(HEADER + USER.replace("anna", "Anna") * 5000)
    assert len(lines) == 51 and lines[-1] == "... and 4950 more problems"


def test_five_thousand_people_take_no_time_worth_noticing(files):
    files.write(HEADER + "".join(f"s{number},{HASH},biology,1G,2G,Zoë {number}\n" for number in range(5000)))
    started = time.process_time()
    assert len(files.complete()["users"]) == 5000
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "content",
    [
        f"username,password\nAnna,{MARKER}\n",
        f"username,password\n{MARKER},anna\n",
        f"username,password\nanna,{MARKER}\nanna,{MARKER}\n",
        f"username,password\nanna,{MARKER} \n",
        f"username,password\nanna,{MARKER}\t\n",
        f"username,password\nanna,{MARKER}\x07x\n",
        f"username,password\nanna,{MARKER * 40}\n",
        f"username,password\nanna,{MARKER},x\n",
        f'username,password\nanna,"{MARKER}\n',
        f'username,password\nanna,"{MARKER}"x\n',
        f"username,password,group\nanna,x,{MARKER}\n",
        f"username,password,quota_soft\nanna,x,{MARKER}\n",
        f"username,password,fullname\nanna,x,{MARKER}:\n",
        f"username,password,password_policy\nanna,x,{MARKER}\n",
        f"username,password_hash\nanna,{MARKER}\n",
        f"username,password,password_hash\nanna,{MARKER},{HASH}\n",
        f"anna,{MARKER}\n",
        f"username,{MARKER}\n",
        f"username,password,{MARKER}\n",
        f"{MARKER}\n",
        f"username,password\nanna,{MARKER}\0\n",
        f"username,password\nanna,{MARKER}\n".encode() + b"bob,\xff\n",
    ],
)
def test_no_cell_is_ever_shown(files, content):
    # `problems` looks for the marker in every line.
    assert files.problems(content)


def test_a_password_of_a_file_does_not_leave_the_controller(files, caplog):
    files.write(f"username,password\nanna,{MARKER}\n")
    plasma = files.complete()
    assert plasma["users"][0]["password_hash"].startswith("$y$j9T$")
    assert MARKER not in json.dumps(plasma) and MARKER not in caplog.text


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
EXTERNAL = load_external_pillar()


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(cells, max_size=5), max_size=5),
    header=st.one_of(st.just(["username", "password", "group"]), st.lists(cells, max_size=4)),
    delimiter=st.sampled_from(",;"),
)
@example(rows=[["anna", MARKER, "docker"]], header=["username", "password", "group"], delimiter=",")
def test_any_rows_are_people_or_lines(files, rows, header, delimiter):
    """Random cells: never a failure of the check itself, and never a password in a line."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    # A wrong cell in each line, so that nothing is hashed.
    marked = [[*row[:1], MARKER + "\x01", *row[2:]] for row in rows]
    writer.writerows([header, *marked])
    files.write(text.getvalue())
    answer = files.answer()
    if "_errors" in answer:
        assert answer["_errors"] and answer["plasma"] is None
        assert MARKER not in json.dumps(answer)
        for line in answer["_errors"]:
            assert line.startswith("s.csv") and line.isascii() and line.isprintable(), line
    else:
        assert answer["plasma"]["users"] == []


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80))
def test_any_bytes(files, content):
    files.write(content)
    for line in files.answer().get("_errors", []):
        assert line.startswith("s.csv") and line.isascii() and line.isprintable(), line


names = st.from_regex(r"[a-z][a-z0-9._-]{0,10}[a-z0-9]", fullmatch=True).filter(lambda text: len(text) > 1)
system = EXTERNAL.schema("names").SYSTEM_GROUPS
people = st.fixed_dictionaries(
    {
        "username": names.filter(lambda text: text not in system and not text.startswith("systemd-")),
        "group": st.lists(names.filter(lambda text: text not in system), max_size=3, unique=True),
        "fullname": st.text(st.characters(categories=["L", "N", "Zs", "P"], exclude_characters=":,"), max_size=20),
        "quota_hard": st.sampled_from(["", "1G", "2.5T"]),
    }
)


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(people, max_size=6, unique_by=lambda row: row["username"]),
    order=st.permutations(["username", "password_hash", "group", "fullname", "quota_hard"]),
    delimiter=st.sampled_from(",;"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_what_was_written_is_read(files, rows, order, delimiter, quoting, mark):
    # The group of a user's own name is refused: that has a test of its own.
    assume(not {row["username"] for row in rows} & {group for row in rows for group in row["group"]})
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
    writer.writerow(order)
    for row in rows:
        cells = {**row, "password_hash": HASH, "group": " ".join(row["group"])}
        writer.writerow([cells[column] for column in order])
    files.write(mark + text.getvalue())
    plasma = files.complete()
    assert [
        {
            "username": user["name"],
            "group": user["groups"],
            "fullname": user.get("fullname", ""),
        }
        for user in plasma["users"]
    ] == [{"username": row["username"], "group": row["group"], "fullname": row["fullname"].strip()} for row in rows]
    limited = {name for entry in plasma["quotas"]["assigned"] for name in entry["users"]}
    assert limited == {row["username"] for row in rows if row["quota_hard"]}


def test_columns_of_the_account_and_its_rights(files):
    files.write(
        "username,password_hash,uid,home,shell,admin\n"
        f"anna,{HASH},1500,/srv/homes/anna,/bin/zsh,yes\n"
        f"bob,{HASH},,,,No\n"
    )
    plasma = files.complete()
    anna, bob = plasma["users"]
    assert (anna["uid"], anna["home"], anna["shell"]) == (1500, "/srv/homes/anna", "/bin/zsh")
    assert ("uid" in bob, "home" in bob, bob["shell"]) == (False, False, "/bin/bash")
    assert plasma["admins"] == ["anna"]


@pytest.mark.parametrize(
    ("column", "cell"),
    [("uid", "12x"), ("uid", "999"), ("uid", "9" * 30), ("home", "anna"), ("shell", "zsh"), ("admin", "1")],
)
def test_cells_of_the_account_that_are_refused(files, column, cell):
    (line,) = files.problems(f"username,password_hash,{column}\nanna,{HASH},{cell}\n")
    assert line.startswith(f"s.csv:2: {column} ")
    assert "Allowed: " in line


def test_a_uid_and_a_home_are_one_persons_in_files_too(files):
    rows = "".join(f"{name},{HASH},1500,/srv/homes/x\n" for name in ("anna", "bob"))
    lines = files.problems(f"username,password_hash,uid,home\n{rows}")
    assert [line.split(" is ")[0] for line in lines] == ["s.csv:3: uid", "s.csv:3: home"]
