"""What people read for each answer of PAM: pam_authenticate(3), pam_acct_mgmt(3), pam_chauthtok(3), and what modules
answer beyond those.

Until the password was right there is one sentence for all of them, and for names that do not exist: anything else would
tell a stranger which accounts there are, and which are locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

# Numbers of Linux-PAM (_pam_types.h).
SUCCESS, OPEN_ERR, SYMBOL_ERR, SERVICE_ERR, SYSTEM_ERR, BUF_ERR, PERM_DENIED, AUTH_ERR = range(8)
CRED_INSUFFICIENT, AUTHINFO_UNAVAIL, USER_UNKNOWN, MAXTRIES, NEW_AUTHTOK_REQD, ACCT_EXPIRED = range(8, 14)
SESSION_ERR, CRED_UNAVAIL, CRED_EXPIRED, CRED_ERR, NO_MODULE_DATA, CONV_ERR, AUTHTOK_ERR = range(14, 21)
AUTHTOK_RECOVERY_ERR, AUTHTOK_LOCK_BUSY, AUTHTOK_DISABLE_AGING, TRY_AGAIN, IGNORE, ABORT = range(21, 27)
AUTHTOK_EXPIRED, MODULE_UNKNOWN, BAD_ITEM, CONV_AGAIN, INCOMPLETE = range(27, 32)
NAMES = {value: name for name, value in list(globals().items()) if name.isupper() and isinstance(value, int)}
# Bytes of a password: what PAM takes (PAM_MAX_RESP_SIZE) without the zero at its end.
LONGEST = 511

# Seconds until a wrong password is answered, right from the start of the request: how long the check itself took says
# nothing then, of whether there is such an account.
DELAY = 2

ASK = "Please ask the administrator of the server."
INVALID = (
    "Invalid username or password. If you are sure of both, please try again in some minutes: the server may be unable "
    "to check passwords at the moment, or keep an account locked after wrong ones."
)
CLOSED = "Nobody can log in at the moment. Please try again later."
TROUBLE = (
    "Your password is right, but the server cannot find out at the moment whether you may log in. Please try again in "
    "a moment, and tell the administrator of the server if it happens again."
)
EXPIRED = f"Your account on this server has expired. {ASK}"
PASSWORD_EXPIRED = f"Your password has expired, and the time to change it is over. {ASK}"
NOT_NOW = f"Your password is right, but the rules of this server do not let you in now. {ASK}"
REFUSED = f"Your password is right, but the server does not let you in. {ASK}"
GONE = f"The server has no account of yours any more. {ASK}"
TOO_OFTEN = "There were too many failed logins for your account. Please try again in some minutes."
TOO_LATE = "That took too long, or was sent twice. Please sign in again."
NOT_THE_SAME = "The two new passwords are not the same."
MUST_CHANGE = "Your password has to be changed before you can go on."

# After the right password, by what pam_acct_mgmt answered. What is not here is trouble of the server.
_ACCOUNT: dict[int | None, str] = {
    PERM_DENIED: NOT_NOW,
    AUTH_ERR: REFUSED,
    CRED_INSUFFICIENT: REFUSED,
    CRED_ERR: REFUSED,
    CRED_UNAVAIL: REFUSED,
    SESSION_ERR: REFUSED,
    AUTHTOK_ERR: REFUSED,
    USER_UNKNOWN: GONE,
    MAXTRIES: TOO_OFTEN,
    ACCT_EXPIRED: EXPIRED,
    CRED_EXPIRED: EXPIRED,
    AUTHTOK_EXPIRED: PASSWORD_EXPIRED,
}

EMPTY = "The new password is empty."
NO_PASSWORD = f"A password has at most {LONGEST} bytes and no control characters. Please choose another one."
WRONG_CURRENT = "The current password is wrong."
CANNOT_CHANGE = (
    "The password could not be changed, because the server cannot do so at the moment. Please try again in a moment, "
    "and tell the administrator of the server if it happens again."
)
BUSY = "Somebody else is changing accounts of this server just now. Please try again in a moment."
NOT_ALLOWED = f"The rules of this server do not let you change your password here. {ASK}"
NOT_ACCEPTED = "The new password was not accepted. Please choose another one that is longer or less easy to guess."
UNCHANGED = "The new password is the same as the one that you have. Please choose another one."
NOT_ASKED = f"This server changes passwords without asking for the current one, so it is not done on this page. {ASK}"
CANNOT_ANSWER = "To change a password, the server asks something that this page cannot answer: {prompt} " + ASK

# By what pam_chauthtok answered. What is not here is trouble of the server.
_CHANGE: dict[int | None, str] = {
    PERM_DENIED: NOT_ALLOWED,
    AUTH_ERR: NOT_ALLOWED,
    CRED_INSUFFICIENT: NOT_ALLOWED,
    AUTHTOK_ERR: NOT_ALLOWED,
    AUTHTOK_RECOVERY_ERR: NOT_ALLOWED,
    AUTHTOK_DISABLE_AGING: NOT_ALLOWED,
    MODULE_UNKNOWN: NOT_ALLOWED,
    USER_UNKNOWN: f"The password of your account is not kept by this server, so it cannot be changed here. {ASK}",
    AUTHTOK_LOCK_BUSY: BUSY,
    TRY_AGAIN: BUSY,
    ACCT_EXPIRED: EXPIRED,
    AUTHTOK_EXPIRED: PASSWORD_EXPIRED,
}
# These say that the new one is not good enough, or that the current one is wrong, by when they come.
_NOT_GOOD = (AUTHTOK_ERR, AUTH_ERR, MAXTRIES, CRED_INSUFFICIENT, AUTHTOK_RECOVERY_ERR)


def name_of(code: int | None) -> str:
    """Return the name of an answer, for the log."""
    return f"PAM_{NAMES.get(code or 0, code)}"


def after_password(code: int | None, said: Sequence[str] = ()) -> str:
    """Return why somebody with the right password is not let in.

    Args:
        code: what PAM answered about the account.
        said: what it said beside, as pam_nologin does with the text of /etc/nologin.
    """
    sentence = _ACCOUNT.get(code, TROUBLE)
    # The system says nothing more about these.
    return sentence if sentence in (EXPIRED, PASSWORD_EXPIRED) else with_reason(sentence, said[-1:])


def with_reason(sentence: str, said: Sequence[str]) -> str:
    """Return a sentence with the system's own words after it."""
    words = " ".join(said)
    for prefix in ("BAD PASSWORD:", "Password change failed.", "Server message:"):
        words = words.removeprefix(prefix).strip()
    return f"{sentence} The server says: {words}{'' if words.endswith(('.', '!', '?')) else '.'}" if words else sentence


def rejected(errors: Sequence[str], same: bool) -> str:
    """Return why a new password was not accepted, with the words of the module that has the rule.

    Args:
        errors: what PAM said.
        same: whether it is the current one, which is the right one by then.
    """
    return UNCHANGED if same else with_reason(NOT_ACCEPTED, errors[-1:])


def not_changed(
    code: int | None, errors: Sequence[str], said: Sequence[str], *, current_asked: bool, new_asked: bool, same: bool
) -> tuple[str, bool]:
    """Return why a password was not changed, and whether the current one was wrong.

    PAM checks the current one before it asks for the new one. Debian's stack turns what a module answers into
    AUTHTOK_ERR, so what was asked and said counts, too.

    Args:
        code: what PAM answered.
        errors: what it said, as an error.
        said: all that it said in the end. pam_sss does not call it an error why a directory refuses a password.
        current_asked: whether it has asked for the current one.
        new_asked: whether it has asked for the new one.
        same: whether the new one is the current one.
    """
    if code in _NOT_GOOD and new_asked:
        return rejected(errors or said, same), False
    if code == MAXTRIES:
        return TOO_OFTEN, True
    if code in _NOT_GOOD and current_asked and not errors:
        return WRONG_CURRENT, True
    # Such as the days that have to pass between two changes.
    return with_reason(_CHANGE.get(code, CANNOT_CHANGE), errors[-1:]), False


def closed(root: str = "/") -> str:
    """Return why nobody at all can log in, for names that exist and those that do not; empty where it is not so.

    pam_nologin(8) lets nobody in while there is one of these files, and shows what is in it.
    """
    for place in ("var/run/nologin", "etc/nologin"):
        try:
            text = Path(root, place).read_bytes()[:2000].decode(errors="replace")
        except OSError:
            continue
        return with_reason(CLOSED, [" ".join(text.split())[:300]])
    return ""
