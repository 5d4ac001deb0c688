"""
Hashes passwords with the system's own crypt(3).

The scheme is yescrypt with the cost that Debian and Ubuntu use for their own passwords (`$y$j9T$`, about 17 ms and
16 MB each): Debian 11 and Ubuntu 22.04 are the first that can check it. Python's module `crypt` left the standard
library with 3.13, and its copy on PyPI has to be compiled on each controller. The library below both is on every Debian
and Ubuntu: it is called directly, which also lets the other threads run meanwhile (`crypt` does not).

Source: crypt_rn(3) and crypt_gensalt_rn(3) of libxcrypt.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

PREFIX = "$y$j9T$"
# 16 random bytes make 22 characters; a hash has 43.
HASH = re.compile(r"\$y\$j9T\$[./0-9A-Za-z]{22}\$[./0-9A-Za-z]{43}", re.ASCII)

_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2")
_SALT_BYTES = 16
# sizeof(struct crypt_data), and CRYPT_GENSALT_OUTPUT_SIZE.
_DATA_SIZE, _SETTING_SIZE = 32768, 192
_COST = 5


class HashingError(Exception):
    """Passwords cannot be hashed on this machine; the text says what to do. It never holds a password."""


@cache
def _library() -> Any:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            # A name that an older library does not have is an AttributeError.
            library.crypt_rn.restype = ctypes.c_char_p
            library.crypt_rn.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
            library.crypt_gensalt_rn.restype = ctypes.c_char_p
            library.crypt_gensalt_rn.argtypes = [
                ctypes.c_char_p,
                ctypes.c_ulong,
                ctypes.c_char_p,
                ctypes.c_int,
                ctypes.c_void_p,
                ctypes.c_int,
            ]
        except (OSError, AttributeError):
            continue
        return library
    return None


def hash_password(password: str) -> str:
    """
    A new hash of one password, with a new salt of 128 random bits.

    Raises HashingError where the system's library cannot make yescrypt hashes.
    """
    library = _library()
    hashed = None
    if library is not None:
        setting = library.crypt_gensalt_rn(
            PREFIX[:3].encode(),
            _COST,
            os.urandom(_SALT_BYTES),
            _SALT_BYTES,
            ctypes.create_string_buffer(_SETTING_SIZE),
            _SETTING_SIZE,
        )
        # The buffer is gone with this call, and holds parts of the computation.
        data = ctypes.create_string_buffer(_DATA_SIZE)
        if setting:
            hashed = library.crypt_rn(password.encode(), setting, data, _DATA_SIZE)
        ctypes.memset(data, 0, _DATA_SIZE)
        if hashed and not hashed.startswith(setting):
            hashed = None
    if not hashed or not HASH.fullmatch(hashed.decode("ascii", "replace")):
        raise HashingError(
            "The passwords cannot be hashed on this machine: its libcrypt does not know yescrypt. Run salt-ssh on "
            "Debian 11, Ubuntu 22.04 or newer, or give every user a `password_hash` in place of a password."
        )
    return hashed.decode()


def hash_passwords(passwords: Sequence[str]) -> list[str]:
    """
    New hashes of many passwords, in their order, on all processors.

    Raises HashingError like `hash_password`.
    """
    # The first one alone: it shows whether there is a library at all.
    first = [hash_password(password) for password in passwords[:1]]
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as threads:
        return [*first, *threads.map(hash_password, passwords[1:])]
