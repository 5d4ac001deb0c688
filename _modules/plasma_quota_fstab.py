"""
Edit the text of an fstab and keep every byte that is not meant; nothing is read or written here.

Texts are str with one character per byte (``bytes.decode("latin-1")``), so that any byte survives. Lines end in
``\\n``; a ``\\r`` before it belongs to the line's end. The format is that of fstab(5): fields between blanks, octal
escapes such as ``\\040`` in them, comments from ``#`` to the end of a line that begins with it.
"""

from __future__ import annotations

import re

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_quota_fstab"

_FIELD = re.compile(r"[^ \t]+")
_ESCAPE = re.compile(r"\\([0-7]{3})")
# What cannot stand in a field (fstab(5)), nor # at the start of a line.
_UNSAFE = re.compile(r"[ \t\n\r\\#]")


def __virtual__():
    return __virtualname__


def unescape(field):
    """
    Return a field with its octal escapes replaced, as a path of the system.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fstab.unescape '/srv/my\\040homes'
    """
    data = _ESCAPE.sub(lambda found: chr(int(found.group(1), 8) & 0xFF), field)
    return data.encode("latin-1").decode("utf-8", "surrogateescape")


def escape(text):
    """
    Return a source or a path as a field of fstab.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fstab.escape '/srv/my homes'
    """
    data = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return _UNSAFE.sub(lambda found: f"\\{ord(found.group()):03o}", data)


def entries(text):
    """
    Return the mounts of an fstab, in order.

    Each is ``{"number": line from 1, "line": the line without its end, "source", "target": unescaped, "type",
    "options": [str], "bind": bool}``. Swap areas, comments and lines that are no entry are left out.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fstab.entries 'LABEL=root / ext4 defaults 0 1'
    """
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        fields = _FIELD.findall(line)
        if len(fields) < 3 or fields[0].startswith("#") or fields[2] == "swap":
            continue
        options = fields[3].split(",") if len(fields) > 3 else []
        found.append(
            {
                "number": number,
                "line": line,
                "source": unescape(fields[0]),
                "target": _normal(unescape(fields[1])),
                "type": fields[2],
                "options": options,
                "bind": bool({"bind", "rbind"} & set(options)),
            }
        )
    return found


def add_options(text, number, options):
    """
    Return the text with mount options at the end of those of one line, and the record that ``undo`` takes.

    text
        An fstab.
    number
        The line, from 1.
    options
        List of mount options; those that the line has already, with the same value, are not repeated.

    Without anything to add the record is None. Raises CommandExecutionError when the line is no entry.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fstab.add_options 'LABEL=root / ext4 defaults 0 1' 1 '[usrquota, grpquota]'
    """
    entry = next((entry for entry in entries(text) if entry["number"] == number), None)
    if entry is None:
        raise CommandExecutionError(f"Line {number} of fstab mounts nothing.")
    missing = [option for option in dict.fromkeys(options) if option not in entry["options"]]
    if not missing:
        return text, None
    old = entry["line"]
    spans = [match.span() for match in _FIELD.finditer(old)]
    if len(spans) > 3:
        end = spans[3][1]
        # A line that ends in a comma has the comma.
        comma = "" if old[end - 1] == "," else ","
        new = old[:end] + comma + ",".join(missing) + old[end:]
    else:
        end = spans[2][1]
        new = old[:end] + " " + ",".join(missing) + old[end:]
    record = {"target": entry["target"], "old": old, "new": new, "options": missing, "newline": False}
    return _replaced(text, number, new), record


def add_line(text, source, target, fstype, options):
    """
    Return the text with a line for one more mount at its end, and the record that ``undo`` takes.

    source, target
        Device and mount point, not escaped.
    fstype, options
        Type of the file system, and a list of mount options. Neither dump nor fsck is asked for.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fstab.add_line '' LABEL=root / ext4 '[defaults, usrquota]'
    """
    # The ends of lines are those of the file.
    ending = "\r\n" if text.split("\n", 1)[0].endswith("\r") else "\n"
    newline = ending if text and not text.endswith("\n") else ""
    new = f"{escape(source)} {escape(target)} {fstype} {','.join(options)} 0 0"
    record = {"target": _normal(target), "old": None, "new": new, "options": list(options), "newline": newline}
    return text + newline + new + ending, record


def undo(text, record):
    """
    Return the text without what ``add_options`` or ``add_line`` did.

    While the line is as it was left, the text gets its old bytes back. Where somebody has changed it since, only the
    options that were added are taken out of the line for that mount point; where it is gone, nothing is.

    text
        An fstab.
    record
        What the function that added returned.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fstab.undo "$text" "$record"
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.removesuffix("\r") == record["new"]:
            if record["old"] is not None:
                return _replaced(text, number, record["old"])
            return _without_line(text, number, record["newline"])
    for entry in entries(text):
        if entry["target"] == record["target"] and not entry["bind"]:
            text = remove_options(text, entry["number"], record["options"])
    return text


def remove_options(text, number, options):
    """
    Return the text without these mount options in one line; ``defaults`` where none would be left.

    The option ``defaults`` itself is never taken out.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fstab.remove_options 'LABEL=root / ext4 ro,usrquota 0 1' 1 '[usrquota]'
    """
    entry = next((entry for entry in entries(text) if entry["number"] == number), None)
    gone = set(options) - {"defaults"}
    if entry is None or not gone & set(entry["options"]):
        return text
    left = [option for option in entry["options"] if option not in gone]
    start, end = [match.span() for match in _FIELD.finditer(entry["line"])][3]
    new = entry["line"][:start] + (",".join(left) or "defaults") + entry["line"][end:]
    return _replaced(text, number, new)


def _normal(path):
    return "/" + "/".join(part for part in path.split("/") if part) if path.startswith("/") else path


def _replaced(text, number, line):
    lines = text.split("\n")
    lines[number - 1] = line + ("\r" if lines[number - 1].endswith("\r") else "")
    return "\n".join(lines)


def _without_line(text, number, newline):
    lines = text.split("\n")
    if newline and number == len(lines) - 1 and lines[-1] == "":
        # It was added behind a last line without an end, which gets it back when nothing follows.
        return "\n".join(lines[: number - 1]).removesuffix("\r" if newline == "\r\n" else "")
    return "\n".join(lines[: number - 1] + lines[number:])
