"""PAM without its wait after a wrong password.

PAM holds the program that asks for two or three seconds when a password was wrong. In a hub that is one of a few
threads, and whoever has the right password waits for them. Programs may take the delay upon themselves (PAM_FAIL_DELAY
in pam_set_item(3)): the hub then answers late, and waits without a thread.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pamela

PAM_FAIL_DELAY = 10
# Seconds until a wrong password is answered, right from the start of the request: how long the check itself took says
# nothing then, of whether there is such an account.
DELAY = 2


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
def _no_wait(status: int, microseconds: int, data: Any) -> None:
    """What PAM calls in place of waiting."""


_start = pamela.pam_start


def _start_without(*args: Any, **options: Any) -> Any:
    handle = _start(*args, **options)
    # A PAM that knows no such item goes on waiting.
    pamela.PAM_SET_ITEM(handle, PAM_FAIL_DELAY, ctypes.cast(_no_wait, ctypes.c_char_p))
    return handle


def leave_out() -> None:
    """Have every check of this process come back at once."""
    pamela.pam_start = _start_without
