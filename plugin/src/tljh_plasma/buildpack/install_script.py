"""Which packages a repository's install.R installs, as far as its text says: the distribution's are taken for them.

R is not run for it. What is found too much does no harm: only names that the distribution has are installed.
"""

from __future__ import annotations

import re

# Comments, texts (raw ones, too), names with what they are of, arrows, ends of lines, and else sign by sign.
_TOKEN = re.compile(
    r"""\#[^\n]* | [rR](?P<quote>["'])(?P<dashes>-*)[(\[{](?P<raw>.*?)[)\]}](?P=dashes)(?P=quote)
    | "(?P<double>(?:\\.|[^"\\])*)" | '(?P<single>(?:\\.|[^'\\])*)'
    | (?P<name>[A-Za-z.][\w.]*(?::::?[A-Za-z.][\w.]*)?) | (?P<sign><?<-|\n|\S)""",
    re.VERBOSE | re.DOTALL,
)
_INSTALLERS = {
    *("install.packages", "install_cran", "install_version", "install_bioc", "pkg_install", "pak", "p_load"),
    "BiocManager::install",
}
# ggplot2, any::ggplot2@3.4.1
_PACKAGE = re.compile(r"(?:[a-z]+::)?([A-Za-z][A-Za-z0-9.]+)(?:@.*)?")
# Packages that bring such functions. A script that names one of them wants it.
_BRING = frozenset({"remotes", "devtools", "BiocManager", "pak", "pacman"})
# Kind and text of each part.
_Statement = list[tuple[str, str]]


def packages(text: str) -> list[str]:
    """Return the names of the packages that a script installs, sorted.

    Args:
        text: the script.
    """
    statements = _statements(text)
    installers, wanted = set(_INSTALLERS), set[str]()
    used: list[_Statement] = []
    # Functions of the script that install are installers, too; and what those are given may be made elsewhere.
    while more := [one for one in statements if one not in used and (_names(one) & installers or _made(one) in wanted)]:
        installers |= {_made(one) for one in more if _names(one) & installers} - {""}
        wanted |= set().union(*map(_names, more))
        used += more
    texts = [text for statement in used for kind, text in statement if kind not in ("name", "sign")]
    found = {match[1] for text in texts if (match := _PACKAGE.fullmatch(text))}
    return sorted(found | {name.partition(":")[0] for name in wanted} & _BRING)


def _statements(text: str) -> list[_Statement]:
    """A line that goes on is one with the next; so is what stands in the same brackets."""
    found: list[_Statement] = [[]]
    depth = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "sign" and match[0] in ("\n", ";"):
            if depth <= 0 and found[-1][-1:] not in ([("sign", "<-")], [("sign", "=")]):
                found.append([])
        elif kind:
            depth += (match[0] in "([{") - (match[0] in ")]}")
            found[-1].append((kind, match[kind]))
    return found


def _names(statement: _Statement) -> set[str]:
    """The names in a statement, with what they are of and without."""
    names = {text for kind, text in statement if kind == "name"}
    return names | {name.rpartition(":")[2] for name in names}


def _made(statement: _Statement) -> str:
    """The name that a statement gives a value or a function."""
    if statement[1:2] in ([("sign", "<-")], [("sign", "<<-")], [("sign", "=")]):
        return statement[0][1]
    return ""
