"""Which line of a build's log says why it failed: the last ones are those of programs that gave up because of it."""

from __future__ import annotations

import re

LONGEST = 300
# What BuildKit writes before a line, and colours.
_BEFORE = re.compile(r"\x1b\[[0-9;]*m|^#\d+ (?:\d+\.\d+ )?")
_CERTIFICATE = re.compile(
    r"certificate verif|CERTIFICATE_VERIFY_FAILED|unable to get (?:local )?issuer|SSL certificate problem|"
    r"self[- ]signed certificate|x509: certificate|invalid peer certificate",
    re.IGNORECASE,
)
_SIGNS = re.compile(
    r"^(?:fatal|error|E|curl|wget|remote|[A-Za-z.]*(?:Error|NotFound|Exception))\b.*:|"
    r"^npm (?:ERR!|error) .*(?:not found|not in this registry|failed|unable|ERESOLVE|no matching|no space)|"
    r"^\s*(?:- )?nothing provides|^error {2,}|could not (?:find|resolve)|no such file or directory|command not found|"
    r"no matching|"
    r"no space left on device|killed|out of memory|permission denied",
    re.IGNORECASE,
)
# Of whoever noticed that something before had failed.
_ECHOES = re.compile(
    r"returned (?:a )?non-zero|did not complete successfully|failed to (?:build|solve)|CalledProcessError|"
    r"Error during build|BuildError|exit (?:code|status)|Traceback|^error: subprocess|^npm .*complete log of this run|"
    r"^E: Some index files",
    re.IGNORECASE,
)
_WHEELS = "choose another version of it, or leave it out: some packages are for Windows or macOS alone"
_COMPILING = "choose a version that the index has ready for this Python, or name in apt.txt what the compiler misses"
_OWN_PYTHON = "choose another version, or an environment.yml, with which conda brings the Python that you name"
# What uv says in several lines (the build packs install with it), and R, and what a teacher can do: the first that is
# there.
_TOLD = [
    (re.compile(pattern), words)
    for pattern, words in (
        (
            r"hint: An index \((\S+)\) returned a (\d+ .+?) error",
            "the index {0} refuses its packages ({1}): ask whoever runs it",
        ),
        (
            r"HTTP status (?:server|client) error \((.+?)\) for url \((\S+)\)",
            "the index answers with an error ({0}, {1}): try again later, or ask whoever runs it",
        ),
        (
            r"Hash mismatch for `(.+?)`",
            "the index has another file of {0} than the hash in the repository says: lock the requirements anew, and "
            "if that is of no help, tell whoever runs the index",
        ),
        (
            r"Python version \(([\d.]+)\) does not satisfy Python(\S+) and (\S+) depends",
            f"{{2}} needs Python {{1}}, and here it is {{0}}: {_OWN_PYTHON}",
        ),
        (
            r"No interpreter found for Python (\S+)|incompatible with the project's Python requirement: `(.+?)`",
            f"the repository needs Python {{0}}, which is not here: change requires-python of pyproject.toml and lock "
            f"again; {_OWN_PYTHON}",
        ),
        (
            r"Wheels are available for `(.+?)` .* on the following platforms?|wheels for `(.+?)` .*Python ABI tag",
            f"the index has no {{0}} for this system and this Python: {_WHEELS}",
        ),
        (
            r"(\S+) has no wheels with a matching",
            f"the index has no {{0}} for this system and this Python: {_WHEELS}",
        ),
        (
            r"(\S+) was not found in the package registry",
            "the index has no package {0}: look for a mistake in its name, in requirements.txt or pyproject.toml",
        ),
        (
            r"there (?:is|are) no versions? of (\S+)",
            "the index has no {0}: name a version that there is, or none",
        ),
        (
            r"Because only (\S+) is available and (?:you require|\S+ depends on) (\S+?),? (?:we|and)",
            "the index has no {1}, but {0}: name a version that there is, or none",
        ),
        (
            r"Couldn't parse requirement in `(.+?)` at position \d+\ncause: .*\n(.+)",
            "{0} has a line that names no package: {1}",
        ),
        (
            r"error: Unexpected '(.+?)', expected .* requirement: (\S+?):(\d+):",
            "line {2} of {1} names no package: it begins with {0}",
        ),
        (
            r"Unsupported editable requirement in `(.+?)` at line (\d+)",
            "line {1} of {0} asks for an editable copy of another repository: write it without -e",
        ),
        (
            r"Error parsing included file in `(.+?)` .*\ncause: failed to read from file `(.+?)`",
            "{0} names a file that the repository does not have: {1}",
        ),
        (
            r"Failed to build `(.+?)`",
            f"{{0}} has to be compiled, and the lines above say why that does not work: {_COMPILING}",
        ),
        (
            r"cause: (Because .+)",
            "the requirements cannot all be met: {0}",
        ),
        (
            r"error sending request for url \((\S+?)\)(?:\ncause: .*)*\ncause: (.+)",
            "the index cannot be reached ({0}: {1}): try again later; plasma.builder.index names another one",
        ),
        (
            r"Error: ((?:install\.R|runtime\.txt) asks for .+)",
            "{0}",
        ),
        (
            r"Error in .*:\s+there is no package called .([\w.]+).",
            "R has no package {0} by then: install.R has to install it before",
        ),
    )
]  # fmt: skip
# As the build packs have it.
_OTHER_R = "runtime.txt asks for R of a day"
_OTHER_PYTHON = re.compile(r"runtime\.txt asks for Python (\S+), and the base of this server has (\S+):")
_KILLED = re.compile(r"^Killed$|exit status 137$")
NO_MEMORY = "It may have needed more memory than builds have (plasma.builder.memory, where the image is local)."


def cause(text: str) -> str:
    """Return what a log says of why its build failed, cut to what a sentence can hold; empty for nothing.

    Args:
        text: the log.
    """
    lines = [" ".join(_BEFORE.sub("", line).split()) for line in text.splitlines()]
    # Of a certificate that is not trusted many programs warn, and go on to fail in another way.
    found = [line for line in lines if _CERTIFICATE.search(line)] or [_told("\n".join(lines))]
    if not found[-1]:
        signs = [line for line in lines if _SIGNS.search(line) and not _ECHOES.search(line)]
        found = [line for line in signs if not line.startswith("WARNING")]
    return (found[-1:] or [""])[0][:LONGEST].rstrip(".")


def _told(text: str) -> str:
    for pattern, words in _TOLD:
        if match := pattern.search(text):
            return words.format(*(group for group in match.groups() if group is not None))
    return ""


def sentence(exit_code: int, text: str) -> str:
    """Return why a build failed, as the last line of its log.

    Args:
        exit_code: that of repo2docker.
        text: the log.
    """
    line = cause(text)
    if not line:
        return f"The build failed: repo2docker ended with exit code {exit_code}. The lines above say why."
    hint = " If it is that of an authority of your own, name it in plasma.trust." if _CERTIFICATE.search(line) else ""
    if _KILLED.search(line):
        hint += f" {NO_MEMORY}"
    if other := _OTHER_PYTHON.search(text):
        wanted, here = other.groups()
        hint += (
            f" Python {wanted} has to be brought by conda; python-{here} in runtime.txt, or no such file, needs none."
        )
    elif _OTHER_R in text:
        hint += " R of a day has to be brought from elsewhere; r in runtime.txt takes that of the distribution."
    return f"The build failed: {line}.{hint}"
