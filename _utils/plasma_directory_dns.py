"""
Whether this server's name servers know the domain of an Active Directory, with no more than its C library: adcli and
sssd find the domain's controllers by the same records.
"""

from __future__ import annotations

import ctypes

_IN, _SRV = 1, 33  # class and type of a record (RFC 1035, RFC 2782)
_TRY_AGAIN, _NO_RECOVERY = 2, 3  # of netdb.h
_ANSWER = 65536  # bytes


def problem(domain: str) -> str | None:
    """Return why no controller of a domain can be found by DNS, as one sentence without a full stop; or None."""
    record = f"_ldap._tcp.{domain}"
    failed = _query(record)
    if not failed:
        return None
    if failed in (_TRY_AGAIN, _NO_RECOVERY):
        why = f"no name server of this server answers for {record}"
    else:
        why = f"its name servers have no record {record} (SRV)"
    return (
        f"{domain} is not found by DNS, {why}: check plasma.directory.domain, and that the name servers of this server "
        "are those of the domain (`resolvectl status`, /etc/resolv.conf)"
    )


def _query(name: str) -> int:
    """0 where there is such a record, or where it cannot be asked for; else the C library's h_errno."""
    try:
        library = ctypes.CDLL("libresolv.so.2")
        # Its name before glibc 2.34.
        query = getattr(library, "res_query", None) or library.__res_query
        error = library.__h_errno_location
    except (OSError, AttributeError):
        return 0
    error.restype = ctypes.POINTER(ctypes.c_int)
    answer = ctypes.create_string_buffer(_ANSWER)
    # It gives -1 also for an answer without records.
    return 0 if query(name.encode(), _IN, _SRV, answer, _ANSWER) >= 0 else error()[0]
