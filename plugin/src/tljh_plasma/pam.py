"""PAM, asked in processes of their own (``pam_child.py``), with as many questions as it has."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import pam_words

CHILD = Path(__file__).with_name("pam_child.py")
# What passwd(1) asks: the system's rules for new passwords are there.
PASSWORD_SERVICE = "passwd"
# Seconds for what PAM does between two questions; a directory service that does not answer takes its time.
PATIENCE = 60
# Questions in one conversation, so that no module asks for ever.
QUESTIONS = 20
# Characters of what PAM says, on a page.
SHOWN = 300
# What asks for something else than the password of the account, and what for a new one.
_CODE = re.compile(
    r"\b(?:one[- ]time|otp|totp|hotp|code|passcode|token|challenge|response|yubikey|duo)\b", re.IGNORECASE
)
_NEW = re.compile(r"\b(?:new|retype|re-?enter|repeat|again|confirm|verify)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """One question, and whether its answer may be seen."""

    text: str
    echo: bool


@dataclass(frozen=True)
class Step:
    """What PAM did until it needed somebody, or was done.

    Attributes:
        stage: "start", "password", "account" or "change".
        said: its messages, in order.
        errors: those among them that it called errors.
        asked: what it wants to know, when it is not done.
        code: its answer, when it is.
    """

    stage: str
    said: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    asked: tuple[Prompt, ...] = ()
    code: int | None = None


class Conversation:
    """A process that asks PAM about one person. Its end ends the process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._questions = 0
        self.stage = "start"

    @classmethod
    async def start(cls, service: str, name: str, stages: list[str], uid: int | None = None) -> Conversation:
        """Begin one.

        Args:
            service: name of the service at PAM.
            name: login name.
            stages: "password", "account", "change", in order.
            uid: of the person, for a change.

        Raises:
            OSError: there can be no more processes.
        """
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(CHILD),
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
        talk = cls(process)
        talk._send({"service": service, "name": name, "stages": stages, **({} if uid is None else {"uid": uid})})
        return talk

    def _send(self, value: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")

    async def step(self, answers: list[str] | None = None) -> Step:
        """Give answers, if there are any, and return what comes next."""
        if answers is not None:
            self._send({"answers": answers})
        return await self._next()

    async def abandon(self) -> Step:
        """Answer nothing, and return what PAM makes of it."""
        self._send({})
        while (step := await self._next()).code is None:
            self._send({})
        return step

    async def _next(self) -> Step:
        assert self._process.stdout is not None
        self._questions += 1
        line = b""
        with contextlib.suppress(asyncio.TimeoutError, ValueError, OSError):
            if self._questions <= QUESTIONS:
                line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        if not line.endswith(b"\n"):
            await self.end()
            return Step(self.stage, code=pam_words.SYSTEM_ERR)
        value = json.loads(line)
        self.stage = value["stage"]
        said = [(shown(one["text"]), one["error"]) for one in value["said"]]
        step = Step(
            self.stage,
            tuple(text for text, _ in said if text),
            tuple(text for text, error in said if text and error),
            tuple(Prompt(shown(one["text"]), one["echo"]) for one in value.get("asked", ())),
            value.get("code"),
        )
        if step.code is not None:
            await self.end()
        return step

    def kill(self) -> None:
        """End the process, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """End the process, and wait for that."""
        self.kill()
        await self._process.wait()


def shown(text: str) -> str:
    """Return what PAM says or asks as a line for a page."""
    clean = "".join(char if unicodedata.category(char)[0] != "C" else " " for char in text)
    return " ".join(clean.split())[:SHOWN]


def asks_for_code(prompt: Prompt) -> bool:
    """Whether something else than the password of the account is asked for: a code of a second factor."""
    return prompt.echo or bool(_CODE.search(prompt.text))


@dataclass
class Given:
    """What a person has entered on a form, for the questions that it answers.

    Attributes:
        password: of the account.
        code: of a second factor, from a form with a field for it.
    """

    password: str = field(repr=False)
    code: str = field(default="", repr=False)
    _asked: str | None = None

    def answer(self, prompt: Prompt) -> str | None:
        """Return the answer to a question, or None where only the person knows it."""
        if not asks_for_code(prompt) and self._asked in (None, prompt.text):
            # Two modules may ask for the same in the same words: a directory after the files.
            self._asked = prompt.text
            return self.password
        code, self.code = self.code, ""
        return code or None


async def go_on(talk: Conversation, step: Step, given: Given) -> tuple[Step, list[str | None]]:
    """Answer what the form answers.

    Args:
        talk: the conversation.
        step: where it is.
        given: what was entered.

    Returns:
        The step that is the end, or that needs the person, with those of its answers that are known.
    """
    while step.code is None:
        answers = [given.answer(prompt) for prompt in step.asked]
        if None in answers:
            return step, answers
        step = await talk.step([answer for answer in answers if answer is not None])
    return step, []


# Changing a password.


class NotChanged(Exception):
    """A password is as it was; the text is one sentence for the person.

    Attributes:
        wrong: whether the current one was wrong.
    """

    def __init__(self, message: str, *, wrong: bool = False) -> None:
        super().__init__(message)
        self.wrong = wrong


async def change(name: str, uid: int, current: str, new: str, *, proved: bool = False) -> None:
    """Change the password of an account, as passwd(1) does when the person calls it.

    Args:
        name: login name.
        uid: its uid.
        current: the password that it has.
        new: the one that it is to have.
        proved: whether the current one has been checked just now. Where it has not, PAM must ask for it.

    Raises:
        NotChanged: it has not become the new one.
    """
    # Before PAM sees it: it takes less, and some modules cut what is longer.
    if not new:
        raise NotChanged(pam_words.EMPTY)
    if len(new.encode(errors="replace")) > pam_words.LONGEST or any(
        unicodedata.category(char)[0] == "C" for char in new
    ):
        raise NotChanged(
            f"A password has at most {pam_words.LONGEST} bytes and no control characters. Please choose another one."
        )
    talk = await Conversation.start(PASSWORD_SERVICE, name, ["change"], uid)
    try:
        await _change(talk, current, new, proved)
    finally:
        await talk.end()


async def _change(talk: Conversation, current: str, new: str, proved: bool) -> None:
    seen: set[str] = set()
    said: list[str] = []
    errors: list[str] = []
    step = await talk.step()
    while step.code is None:
        said += step.said
        errors += step.errors
        answers = []
        for prompt in step.asked:
            is_new = bool(_NEW.search(prompt.text))
            proved = proved or not is_new
            if prompt.echo or (not is_new and asks_for_code(prompt)):
                await talk.abandon()
                raise NotChanged(pam_words.CANNOT_ANSWER.format(prompt=prompt.text))
            if not proved:
                await talk.abandon()
                raise NotChanged(pam_words.NOT_ASKED)
            if prompt.text in seen and errors:
                # It asks anew for another one, and there is none on the form.
                await talk.abandon()
                raise NotChanged(pam_words.rejected(errors, new == current))
            seen.add(prompt.text)
            answers.append(new if is_new else current)
        step = await talk.step(answers)
    if step.code != pam_words.SUCCESS:
        new_asked = {bool(_NEW.search(text)) for text in seen}
        message, wrong = pam_words.not_changed(
            step.code,
            [*errors, *step.errors],
            step.said,
            current_asked=False in new_asked,
            new_asked=True in new_asked,
            same=new == current,
        )
        raise NotChanged(message, wrong=wrong)
