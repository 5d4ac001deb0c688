"""builds.log: what is kept, what readers get, and what is taken out."""

from __future__ import annotations

import asyncio

import pytest
from tljh_plasma.builds.log import CUT, HEAD_LINES, MAX_LINE, MAX_PENDING, REDACTED, TAIL_LINES, BuildLog, Redactor

pytest_plugins = ["support_builds_fixtures"]


def numbered(first: int, last: int) -> str:
    return "".join(f"line {number}\n" for number in range(first, last + 1))


async def collect(log: BuildLog) -> str:
    return "".join([piece async for piece in log.follow()])


async def test_everything_is_kept_up_to_the_limits():
    log = BuildLog()
    log.feed(numbered(1, HEAD_LINES + TAIL_LINES))
    assert log.text() == numbered(1, HEAD_LINES + TAIL_LINES)
    log.feed(numbered(HEAD_LINES + TAIL_LINES + 1, HEAD_LINES + TAIL_LINES + 7))
    log.end()
    kept = numbered(1, HEAD_LINES) + "[7 lines are left out here]\n"
    kept += numbered(HEAD_LINES + 8, HEAD_LINES + TAIL_LINES + 7)
    assert log.text() == kept == await collect(log)


async def test_a_reader_sees_every_line_live_though_not_all_are_kept():
    log = BuildLog(head=2, tail=3)
    reading = asyncio.create_task(collect(log))
    for number in range(1, 101):
        log.feed(numbered(number, number))
        await asyncio.sleep(0)
    log.end()
    assert await reading == numbered(1, 100)
    assert log.text() == numbered(1, 2) + "[95 lines are left out here]\n" + numbered(98, 100)


async def test_a_reader_that_stops_reading_is_told_what_it_missed():
    log = BuildLog(head=2, tail=3)
    log.feed(numbered(1, 4))
    reader = log.follow()
    assert await anext(reader) == numbered(1, 4)
    log.feed(numbered(5, 20))
    assert await anext(reader) == "[13 lines are left out here]\n" + numbered(18, 20)
    log.feed(numbered(21, 21))
    assert await anext(reader) == numbered(21, 21)


async def test_a_line_reaches_all_readers_at_once():
    log = BuildLog()
    readers = [log.follow() for _ in range(20)]
    waiting = [asyncio.ensure_future(anext(reader)) for reader in readers]
    await asyncio.sleep(0)
    log.feed("one")
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting), "the line has not ended"
    log.feed(" line\n")
    assert await asyncio.wait_for(asyncio.gather(*waiting), 0.5) == ["one line\n"] * 20


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["a\r\nb\r\n"], "a\nb\n"),
        (["a\r", "\nb\n"], "a\nb\n"),
        (["10%\r20%\r", "30%\n"], "10%\n20%\n30%\n"),
        (["no end"], "no end\n"),
        (["Fetching...\r"], "Fetching...\n"),
        (["\n\nx\n"], "\n\nx\n"),
        ([b"caf\xc3", b"\xa9\n"], "café\n"),
        ([b"bad \xff byte\n"], "bad \ufffd byte\n"),
    ],
)
async def test_lines(pieces, expected):
    log = BuildLog()
    for piece in pieces:
        log.feed(piece)
    log.end()
    assert log.text() == expected


async def test_long_lines_are_cut_and_use_no_memory():
    log = BuildLog()
    log.feed("x" * (MAX_LINE + 1) + "\n" + "y" * MAX_LINE + "\n")
    assert log.text() == "x" * MAX_LINE + CUT + "\n" + "y" * MAX_LINE + "\n"
    for _ in range(20):
        log.feed("z" * MAX_PENDING)
    assert len(log._pending) == MAX_PENDING
    log.feed("\nnext\n")
    assert log.text().endswith("z" * MAX_LINE + CUT + "\nnext\n")


async def test_no_part_of_a_secret_survives_a_cut():
    secret = "s3cret-s3cret"
    for before in range(MAX_LINE - len(secret) - 1, MAX_LINE + 2):
        log = BuildLog(Redactor("bob", secret))
        log.feed("." * before + secret[:5])
        log.feed(secret[5:] + "." * 100 + "\n")
        assert "s3" not in log.text()
    for before in range(MAX_PENDING - len(secret) - 1, MAX_PENDING + 2):
        log = BuildLog(Redactor("bob", secret))
        log.feed("." * before + secret + "." * MAX_PENDING + secret)
        log.end()
        assert "s3" not in log.text()


PASSWORD = "p@ss w%rd/é+"


@pytest.mark.parametrize(
    "text",
    [
        PASSWORD,
        "p%40ss%20w%25rd%2F%C3%A9%2B",
        "p%40ss%20w%25rd%2f%c3%a9%2b",
        "p@ss+w%25rd/%C3%A9+",
        "p@ss%20w%rd%2Fé+",
        "https://bob:p%40ss%20w%25rd%2F%C3%A9%2B@example.org/course",
    ],
)
def test_passwords_are_taken_out(text):
    shown = Redactor("bob", PASSWORD)(f"clone <{text}> failed")
    assert REDACTED in shown and shown.startswith("clone <") and shown.endswith("> failed")
    assert not any(part in shown for part in ("ss", "rd", "%25", "40"))


def test_user_names_are_taken_out_as_words():
    redact = Redactor("git", "token-1")
    assert redact("https://git:token-1@example.org/digital") == f"https://{REDACTED}:{REDACTED}@example.org/digital"
    # Without a password the user name is the secret.
    assert Redactor("token-2", "")("xtoken-2x") == f"x{REDACTED}x"
    assert Redactor("a@b.org", "x1y2")("as a%40b.org") == f"as {REDACTED}"
    assert Redactor()("nothing to hide") == "nothing to hide"


async def test_our_own_lines_are_redacted_too():
    log = BuildLog(Redactor("", "hunter2"))
    log.feed("half a line")
    log.say("The engine said hunter2.")
    assert log.text() == f"half a line\nThe engine said {REDACTED}.\n"
