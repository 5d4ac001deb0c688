"""One conversation with PAM, in a process of its own: the hub starts this file by its path and talks to it in lines.

A program of its own, because modules change the identity of whoever calls them, wait for as long as a person types, and
look at who asks: to root they give another person's password away without the old one, and their rules of quality are
advice to it. Here a password is changed as passwd(1) does it, as a program of root's that was called by the person.

It imports nothing but a few modules of the standard library, so that it starts in some 20 ms. Passwords come and go by
the pipes to the hub, and are in no argument, variable or message. No core file is written.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import sys
from typing import Any

PROMPT_ECHO_OFF, PROMPT_ECHO_ON, ERROR_MSG, TEXT_INFO = 1, 2, 3, 4
SUCCESS, SYSTEM_ERR, BUF_ERR, CONV_ERR = 0, 4, 5, 19
FAIL_DELAY = 10
REINITIALIZE_CRED = 0x0008
# Bytes of an answer: PAM_MAX_RESP_SIZE, with the zero at its end.
LONGEST = 511


class Message(ctypes.Structure):
    """pam_message."""

    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


class Response(ctypes.Structure):
    """pam_response."""

    _fields_ = [("text", ctypes.c_void_p), ("code", ctypes.c_int)]


CONVERSE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(Message)),
    ctypes.POINTER(ctypes.POINTER(Response)),
    ctypes.c_void_p,
)


class Conversation(ctypes.Structure):
    """pam_conv."""

    _fields_ = [("converse", CONVERSE), ("data", ctypes.c_void_p)]


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
def _no_wait(status: int, microseconds: int, data: Any) -> None:
    """What PAM calls in place of waiting after a wrong password: the hub answers late, without a process that waits."""


def load() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """Return libpam and libc, with the types of what is called here."""
    pam, libc = ctypes.CDLL("libpam.so.0"), ctypes.CDLL("libc.so.6")
    handle = ctypes.c_void_p
    pam.pam_start.argtypes = [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.POINTER(Conversation),
        ctypes.POINTER(ctypes.c_void_p),
    ]
    for name in ("pam_end", "pam_authenticate", "pam_acct_mgmt", "pam_setcred", "pam_chauthtok"):
        getattr(pam, name).argtypes = [handle, ctypes.c_int]
    pam.pam_set_item.argtypes = [handle, ctypes.c_int, ctypes.c_void_p]
    libc.calloc.argtypes, libc.calloc.restype = [ctypes.c_size_t, ctypes.c_size_t], ctypes.c_void_p
    libc.strdup.argtypes, libc.strdup.restype = [ctypes.c_char_p], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    return pam, libc


class Hub:
    """The other end of the pipes, which modules and their programs find /dev/null in the place of."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self._input, self._output = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)

    def read(self) -> dict[str, Any]:
        """Return the next line from the hub; nothing of it at all ends this process."""
        line = self._input.readline()
        if not line.endswith(b"\n"):
            os._exit(0)
        return json.loads(line)

    def write(self, stage: str, **values: Any) -> None:
        """Send a line, with what PAM has said since the last one."""
        said, self.said = self.said, []
        self._output.write(json.dumps({"stage": stage, "said": said, **values}).encode() + b"\n")
        self._output.flush()


class Talk:
    """A transaction of PAM, whose questions the hub answers."""

    def __init__(self, hub: Hub, service: str, name: str) -> None:
        self._pam, self._libc = load()
        self.hub = hub
        self.stage = "start"
        # Kept for as long as PAM may call it.
        self._conversation = Conversation(CONVERSE(self._converse), None)
        self._handle = ctypes.c_void_p()
        self._service, self._name = service.encode(), name.encode()

    def run(self, stages: list[str]) -> int:
        """Go through stages until one does not succeed; what PAM answered to the last one."""
        code = self._pam.pam_start(
            self._service, self._name, ctypes.byref(self._conversation), ctypes.byref(self._handle)
        )
        if code == SUCCESS:
            self._pam.pam_set_item(self._handle, FAIL_DELAY, ctypes.cast(_no_wait, ctypes.c_void_p))
        for stage in stages:
            if code != SUCCESS:
                break
            self.stage = stage
            if stage == "change":
                code = self._pam.pam_chauthtok(self._handle, 0)
                continue
            code = (self._pam.pam_authenticate if stage == "password" else self._pam.pam_acct_mgmt)(self._handle, 0)
        if code == SUCCESS and "password" in stages:
            # Tickets of Kerberos and the like; whether there are any does not matter.
            self._pam.pam_setcred(self._handle, REINITIALIZE_CRED)
        if self._handle:
            self._pam.pam_end(self._handle, code)
        return code

    def _converse(self, count: int, messages: Any, responses: Any, data: Any) -> int:
        try:
            asked = []
            for index in range(count):
                message = messages[index].contents
                text = (message.text or b"").decode(errors="replace")
                if message.style in (PROMPT_ECHO_OFF, PROMPT_ECHO_ON):
                    asked.append({"text": text, "echo": message.style == PROMPT_ECHO_ON})
                elif message.style in (ERROR_MSG, TEXT_INFO):
                    self.hub.said.append({"text": text, "error": message.style == ERROR_MSG})
                else:
                    return CONV_ERR
            answers = self._ask(asked) if asked else []
            return CONV_ERR if answers is None else self._answer(count, messages, responses, answers)
        except Exception:
            # An exception cannot leave a function that C calls, and would be shown with its values.
            return CONV_ERR

    def _ask(self, asked: list[dict[str, Any]]) -> list[bytes] | None:
        self.hub.write(self.stage, asked=asked)
        answers = self.hub.read().get("answers")
        if not isinstance(answers, list) or len(answers) != len(asked):
            return None
        found = [answer.encode() for answer in answers]
        return None if any(len(answer) > LONGEST or b"\0" in answer for answer in found) else found

    def _answer(self, count: int, messages: Any, responses: Any, answers: list[bytes]) -> int:
        place = self._libc.calloc(count, ctypes.sizeof(Response))
        if not place:
            return BUF_ERR
        array = ctypes.cast(place, ctypes.POINTER(Response))
        for index in range(count):
            if messages[index].contents.style in (PROMPT_ECHO_OFF, PROMPT_ECHO_ON):
                array[index].text = self._libc.strdup(answers.pop(0))
        responses[0] = array
        return SUCCESS


def main() -> int:
    """Do what the first line says: ``{"service", "name", "stages"}``, and for a change ``uid``."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hub = Hub()
    stage, code = "start", SYSTEM_ERR
    with contextlib.suppress(Exception):
        order = hub.read()
        if "uid" in order and os.geteuid() == 0:
            # The real one, which modules look at, is the person's; the effective one writes the file.
            os.setresuid(order["uid"], 0, 0)
        talk = Talk(hub, order["service"], order["name"])
        code = talk.run(order["stages"])
        stage = talk.stage
    hub.write(stage, code=code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
