"""Which line of a build's log says why it failed: the last ones are those of programs that gave up because of it."""

from __future__ import annotations

import re

LONGEST = 300
# What BuildKit writes before a line, and colours.
_BEFORE = re.compile(r"\x1b\[[0-9;]*m|^#\d+ (?:\d+\.\d+ )?")
_CERTIFICATE = re.compile(
    r"certificate verif|CERTIFICATE_VERIFY_FAILED|unable to get (?:local )?issuer|SSL certificate problem|"
    r"self[- ]signed certificate|x509: certificate",
    re.IGNORECASE,
)
_SIGNS = re.compile(
    r"^(?:fatal|error|E|curl|wget|remote|npm ERR!|[A-Za-z.]*(?:Error|NotFound|Exception))\b.*:|"
    r"^\s*(?:- )?nothing provides|^error {2,}|could not (?:find|resolve)|no such file or directory|no matching|"
    r"no space left on device|killed|out of memory|permission denied",
    re.IGNORECASE,
)
# Of whoever noticed that something before had failed.
_ECHOES = re.compile(
    r"returned (?:a )?non-zero|did not complete successfully|failed to (?:build|solve)|CalledProcessError|"
    r"Error during build|BuildError|exit (?:code|status)|Traceback|^error: subprocess",
    re.IGNORECASE,
)


def cause(text: str) -> str:
    """Return the line of a log that says why its build failed, cut to what a sentence can hold; empty for none.

    Args:
        text: the log.
    """
    lines = [" ".join(_BEFORE.sub("", line).split()) for line in text.splitlines()]
    lines = [line for line in lines if not _ECHOES.search(line)]
    told = [line for line in lines if _SIGNS.search(line) and not line.startswith("WARNING")]
    # Of a certificate that is not trusted many programs warn, and go on to fail in another way.
    certificate = [line for line in lines if _CERTIFICATE.search(line)]
    return ((certificate or told)[-1:] or [""])[0][:LONGEST].rstrip(".")


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
    return f"The build failed: {line}.{hint}"
