# ruff: noqa: E501 (programs do not break the lines that they print)
"""builds.cause: what a teacher reads when packages cannot be installed, from what uv and npm really say."""

from __future__ import annotations

import pytest
from tljh_plasma.builds.cause import cause, sentence

UNSATISFIABLE = "we can conclude that your requirements are unsatisfiable."
NO_SOLUTION = "error: No solution found when resolving dependencies\n"
TOLD = [
    (
        f"{NO_SOLUTION}  cause: Because numpyy was not found in the package registry and you require numpyy, "
        f"{UNSATISFIABLE}\n",
        "the index has no package numpyy: look for a mistake in its name",
    ),
    (
        f"{NO_SOLUTION}  cause: Because there is no version of numpy==99.1 and you require numpy==99.1, "
        f"{UNSATISFIABLE}\n",
        "the index has no numpy==99.1: name a version that there is",
    ),
    (
        f"{NO_SOLUTION}  cause: Because only idna<=3.20 is available and you require idna>=99, {UNSATISFIABLE}\n",
        "the index has no idna>=99, but idna<=3.20: name a version",
    ),
    (
        f"{NO_SOLUTION}  cause: Because you require idna==3.0 and idna==3.1, {UNSATISFIABLE}\n",
        "the requirements cannot all be met: Because you require idna==3.0 and idna==3.1",
    ),
    (
        f"{NO_SOLUTION}  cause: Because pywin32<=302 has no wheels with a matching Python ABI tag (e.g., `cp311`) and "
        "only the following versions of pywin32 are available:\n             pywin32<=302\n             pywin32>=303\n"
        "         we can conclude that pywin32<303 cannot be used.\n\nhint: You require CPython 3.11 (`cp311`), but we only"
        " found wheels for `pywin32` (v302) with the following Python ABI tags: `cp36m`, `cp37m`\n\nhint: Wheels are"
        " available for `pywin32` (v312) on the following platforms: `win32`, `win_amd64`\n",
        "the index has no pywin32 for this system and this Python: choose another version",
    ),
    (
        f"{NO_SOLUTION}  cause: Because tensorflow==1.15.0 has no wheels with a matching Python ABI tag (e.g., `cp311`) "
        f"and you require tensorflow==1.15, {UNSATISFIABLE}\n\nhint: You require CPython 3.11 (`cp311`), but we only found"
        " wheels for `tensorflow` (v1.15.0) with the following Python ABI tags: `cp27m`, `cp27mu`\n",
        "the index has no tensorflow for this system and this Python: ",
    ),
    (
        f"{NO_SOLUTION}  cause: Because the current Python version (3.11.7) does not satisfy Python>=3.14 and x==1 depends "
        "on Python>=3.14, we can conclude that x==1 cannot be used.\n",
        "x==1 needs Python >=3.14, and here it is 3.11.7: choose another version, or an environment.yml",
    ),
    (
        "error: No interpreter found for Python >=3.14 in managed installations or search path\n\nhint: A managed Python "
        "download is available for Python >=3.14, but Python downloads are set to 'never'\n",
        "the repository needs Python >=3.14, which is not here: change requires-python",
    ),
    (
        "error: Couldn't parse requirement in `r3.txt` at position 7\n  cause: Expected one of `@`, `(`, found `2`\n"
        "         numpy 2 3\n               ^\n",
        "r3.txt has a line that names no package: numpy 2 3",
    ),
    (
        "error: Unexpected '<', expected '-c', '-e', '-r' or the start of a requirement: requirements.txt:1:1\n",
        "line 1 of requirements.txt names no package: it begins with <",
    ),
    (
        "error: Unsupported editable requirement in `requirements.txt` at line 1: `git+https://example.org/x#egg=x`\n"
        "  cause: Git sources cannot be editable\n",
        "line 1 of requirements.txt asks for an editable copy of another repository: write it without -e",
    ),
    (
        "error: Error parsing included file in `requirements.txt` at position 0\n  cause: failed to read from file "
        "`/home/jovyan/nothing.txt`: No such file or directory (os error 2)\n",
        "requirements.txt names a file that the repository does not have: /home/jovyan/nothing.txt",
    ),
    (
        "Resolved 1 package in 136ms\nerror: Failed to download `six==1.17.0`\n  cause: Hash mismatch for `six==1.17.0`\n\n"
        "         Expected:\n           sha256:aaaa\n\n         Computed:\n           sha256:4721\n",
        "the index has another file of six==1.17.0 than the hash in the repository says: lock",
    ),
    (
        "error: Request failed after 3 retries in 10.1s\n  cause: Failed to fetch: http://10.1.2.3/simple/idna/\n"
        "  cause: HTTP status server error (500 Internal Server Error) for url (http://10.1.2.3/simple/idna/)\n",
        "the index answers with an error (500 Internal Server Error, http://10.1.2.3/simple/idna/): try again later",
    ),
    (
        f"{NO_SOLUTION}  cause: Because idna was not found in the package registry and you require idna, {UNSATISFIABLE}\n"
        "\nhint: An index (http://10.1.2.3/simple/) returned a 403 Forbidden error. Check that the index URL is correct.\n",
        "the index http://10.1.2.3/simple/ refuses its packages (403 Forbidden): ask whoever runs it",
    ),
    (
        "error: Request failed after 3 retries in 9.6s\n  cause: Failed to fetch: http://10.1.2.3:9/simple/six/\n"
        "  cause: error sending request for url (http://10.1.2.3:9/simple/six/)\n  cause: client error (Connect)\n"
        "  cause: tcp connect error\n  cause: Connection refused (os error 111)\n",
        "the index cannot be reached (http://10.1.2.3:9/simple/six/: Connection refused (os error 111)): try again later",
    ),
    (
        "   Building brk @ file:///home/jovyan/brk\nerror: Failed to build `brk @ file:///home/jovyan/brk`\n  cause: The "
        "build backend returned an error\n  cause: Call to `setuptools.build_meta:__legacy__.build_wheel` failed (exit "
        "status: 1)\n\n         [stderr]\n         b.c:1:1: error: expected declaration specifiers\n         error: Command "
        "'['gcc', '-c', 'b.c']' returned non-zero exit status 1.\n",
        "brk @ file:///home/jovyan/brk has to be compiled, and the lines above say why that does not work: choose a version",
    ),
    (
        "error: Failed to download and build `x @ git+https://git.example.org/nothing`\n  cause: Git operation failed\n"
        "         fatal: unable to access 'https://git.example.org/nothing/': Could not resolve host: git.example.org\n",
        "fatal: unable to access 'https://git.example.org/nothing/': Could not resolve host",
    ),
    (
        "npm ERR! code E404\nnpm ERR! 404 Not Found - GET https://registry.example.org/x - Not found\nnpm ERR! 404 \n"
        "npm ERR! 404  'x@*' is not in this registry.\nnpm ERR! 404 \n\nnpm ERR! A complete log of this run can be found "
        "in:\nnpm ERR!     /root/.npm/_logs/debug-0.log\n",
        "npm ERR! 404 'x@*' is not in this registry",
    ),
    (
        "+ npm install --global x\n./postBuild: line 5: npm: command not found\nRemoving intermediate container 0123\n",
        "./postBuild: line 5: npm: command not found",
    ),
    (
        "npm error code ENOSPC\nnpm error nospc ENOSPC: no space left on device, write\n",
        "npm error nospc ENOSPC: no space left on device, write",
    ),
]
ENDS = (
    "The command '/bin/sh -c uv pip install -r requirements.txt' returned a non-zero code: 1\n"
    "Traceback (most recent call last):\nrepo2docker.engine.BuildError: The command returned a non-zero code: 1\n"
)


@pytest.mark.parametrize(("log", "begin"), TOLD, ids=[begin[:40] for _, begin in TOLD])
def test_one_sentence_to_act_on(log, begin):
    log = f"Using PlasmaPython builder\nStep 12/20 : RUN uv pip install\n ---> Running in 0123\n{log}{ENDS}"
    assert cause(log).startswith(begin)
    said = sentence(1, log)
    assert said.startswith(f"The build failed: {begin}") and said.endswith(".") and "\n" not in said


def test_an_index_with_an_authority_that_is_not_known():
    log = "error: Request failed\n  cause: invalid peer certificate: UnknownIssuer\n"
    assert sentence(1, log + ENDS).endswith("name it in plasma.trust.")
