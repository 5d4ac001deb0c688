"""How builds reach the outside: proxy and authorities, and which line of a log says why one failed."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import types
from uuid import uuid4

import pytest
from tljh_plasma import container_files, trust
from tljh_plasma.builds import container
from tljh_plasma.builds.archive import write_secrets
from tljh_plasma.builds.cause import cause, sentence
from tljh_plasma.builds.images import BuildFailed
from tljh_plasma.builds.log import BuildLog, Redactor
from tljh_plasma.builds.outside import NOTHING, Outside, outside, steps
from tljh_plasma.builds.request import BuildRequest

PROXY = {
    "http_proxy": "http://proxy.example.org:3128",
    "https_proxy": "http://builds:pass%20word-9@proxy.example.org:3129",
    "no_proxy": "localhost,.example.org",
}
OWN = b"-----BEGIN CERTIFICATE-----\nb3du\n-----END CERTIFICATE-----\n"
ALL = b"-----BEGIN CERTIFICATE-----\ncHVibGlj\n-----END CERTIFICATE-----\n" + OWN
REQUEST = BuildRequest("course:v1", "https://git.example.org/course", "v1")


@pytest.fixture
def authorities(tmp_path, monkeypatch):
    """A server whose operator has an authority, as the state ``trust`` leaves it."""
    monkeypatch.setattr(trust, "FOLDER", tmp_path / "ca")
    monkeypatch.setattr(trust, "BUNDLE", tmp_path / "all.crt")
    (tmp_path / "ca").mkdir()
    (tmp_path / "all.crt").write_bytes(ALL)

    def name():
        (tmp_path / "ca" / "plasma-0123456789abcdef.crt").write_bytes(OWN)

    # Of the system's administrator, and nothing to do with pillar.
    (tmp_path / "ca" / "other.crt").write_bytes(OWN)
    return name


def configuration(given):
    return container.configuration(REQUEST, uuid4(), "now", "builder:1", "net", given)


def test_without_any_the_builder_is_as_it_was(tmp_path, authorities):
    given = outside(tmp_path)
    assert given == NOTHING
    assert given.files("/plasma", REQUEST.repo) == {}
    assert given.variables("/plasma") == []
    assert not [word for word in configuration(given)["Cmd"] if "--config" in word]


def test_what_is_given_comes_from_files_of_roots(tmp_path, authorities):
    (tmp_path / "plasma").mkdir()
    (tmp_path / "plasma" / "builds.json").write_text(json.dumps({**PROXY, "other": "x"}))
    authorities()
    assert outside(tmp_path) == Outside(PROXY, (OWN,), ALL)
    (tmp_path / "plasma" / "builds.json").write_text("{")
    with pytest.raises(BuildFailed, match="is damaged: remove it, and apply the state tljh"):
        outside(tmp_path)


def test_no_login_is_where_others_can_read_it():
    """Arguments are in the process table, and variables in what the engine tells of a container."""
    made = json.dumps(configuration(Outside(PROXY, (OWN,), ALL)))
    for part in ("builds:", "pass%20word-9", "pass word-9"):
        assert part not in made
    assert "no_proxy=localhost,.example.org" in made


def test_the_proxy_of_steps_is_one_of_dockers_own_build_arguments():
    """Those are in no image; the client adds them from its configuration, which root alone can read."""
    given = Outside(PROXY)
    files = given.files("/plasma", REQUEST.repo)
    assert json.loads(files["docker/config.json"]) == {
        "proxies": {
            "default": {
                "httpProxy": PROXY["http_proxy"],
                "httpsProxy": PROXY["https_proxy"],
                "noProxy": PROXY["no_proxy"],
            }
        }
    }
    assert "DOCKER_CONFIG=/plasma/docker" in given.variables("/plasma")
    with tempfile.TemporaryFile() as output:
        write_secrets(output, {name: io.BytesIO(content) for name, content in files.items()})
        with tarfile.open(fileobj=output) as archive:
            modes = {entry.name: entry.mode for entry in archive}
    assert modes == {
        "plasma": 0o700,
        "plasma/docker": 0o700,
        "plasma/docker/config.json": 0o600,
        "plasma/gitconfig": 0o600,
    }


@pytest.mark.parametrize(
    ("repo", "proxy"),
    [("https://git.example.org/x", PROXY["https_proxy"]), ("http://git.example.org/x", PROXY["http_proxy"])],
)
def test_git_fetches_through_the_proxy_and_trusts_the_list(tmp_path, repo, proxy):
    files = Outside(PROXY, (OWN,), ALL).files("/plasma", repo)
    (tmp_path / "gitconfig").write_bytes(files["gitconfig"])
    done = subprocess.run(
        ["git", "config", "--file", tmp_path / "gitconfig", "--list"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["http.sslcainfo=/plasma/trust.pem", f"http.proxy={proxy}"]
    assert files["trust.pem"] == ALL


def test_no_proxy_alone_leaves_git_a_file_to_read():
    given = Outside({"no_proxy": "localhost"})
    assert "GIT_CONFIG_GLOBAL=/plasma/gitconfig" in given.variables("/plasma")
    assert given.files("/plasma", REQUEST.repo)["gitconfig"].strip() == b"[http]"


def test_logs_do_not_show_the_login_of_the_proxy():
    log = BuildLog(Redactor("ada", "secret-of-git", Outside(PROXY).logins))
    log.feed(f"https_proxy={PROXY['https_proxy']}\nas pass word-9 and secret-of-git\nbuilders build\n")
    text = log.text()
    assert "word-9" not in text and "secret-of-git" not in text and "builds:" not in text
    assert "builders build" in text


def test_images_trust_the_authorities_from_their_first_step_on(tmp_path):
    """The configuration that repo2docker reads, with stand-ins for the two things of it that are touched."""
    code = Outside({}, (OWN,), ALL).files("/plasma", REQUEST.repo)["repo2docker_config.py"].decode()
    base = types.ModuleType("repo2docker.buildpacks.base")

    class BuildPack:
        def render(self, build_args=None):
            return "\n# comment\nFROM buildpack-deps:jammy\n\nRUN apt-get update\n"

    base.BuildPack = BuildPack
    modules = {"repo2docker": types.ModuleType("repo2docker"), "repo2docker.buildpacks": types.ModuleType("b")}
    modules["repo2docker.buildpacks.base"] = base
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        exec(compile(code, "config", "exec"), {"c": None})
        lines = BuildPack().render({"NB_UID": "1"}).splitlines()
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    assert lines[2] == "FROM buildpack-deps:jammy"
    assert lines[3:5] == steps((OWN,))
    assert lines[6] == "RUN apt-get update"
    assert lines[4].startswith("ENV ") and "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" in lines[4]
    assert "--config=/plasma/repo2docker_config.py" in configuration(Outside({}, (OWN,), ALL))["Cmd"]


def test_the_step_puts_them_where_the_system_looks(tmp_path):
    """Run as Docker runs it, below another root."""
    run = steps((OWN, OWN))[0].removeprefix("RUN ")
    assert base64.b64encode(OWN).decode() in run
    moved = run.replace("/usr/local/share", f"{tmp_path}/share").replace("/etc/ssl", f"{tmp_path}/etc")
    for programs, told in (("#!/bin/sh\necho updated\n", True), (None, False)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        program = tmp_path / "bin" / "update-ca-certificates"
        program.write_text(programs) if programs else program.unlink()
        if programs:
            program.chmod(0o755)
        # Nothing of this machine's own but what the step needs.
        for name in ("mkdir", "base64", "cat"):
            link = tmp_path / "bin" / name
            link.exists() or link.symlink_to(f"/usr/bin/{name}")
        done = subprocess.run(
            ["/bin/sh", "-c", moved], capture_output=True, text=True, env={"PATH": str(tmp_path / "bin")}, check=True
        )
        assert ("updated" in done.stdout) is told
    assert [path.read_bytes() for path in sorted((tmp_path / "share" / "ca-certificates").iterdir())] == [OWN, OWN]
    assert (tmp_path / "etc" / "certs" / "ca-certificates.crt").read_bytes() == OWN + OWN


def test_servers_of_users_get_the_list(tmp_path, authorities):
    top = tmp_path / "servers"
    directory = container_files._ours(top)
    assert container_files.trusts(str(top)) == {}
    authorities()
    container_files._ours(top)
    assert (directory / "trust.pem").read_bytes() == ALL
    assert (directory / "trust.pem").stat().st_mode & 0o777 == 0o644
    found = container_files.trusts(str(top))
    assert set(found.values()) == {"/opt/plasma/trust.pem"}
    assert {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO"} <= set(found)
    (tmp_path / "ca" / "plasma-0123456789abcdef.crt").unlink()
    container_files._ours(top)
    assert container_files.trusts(str(top)) == {}


GIT = """Picked Git content provider.
Cloning into '/tmp/repo2docker1'...
fatal: unable to access 'https://git.example.org/course/': server certificate verification failed. CAfile: none
Error during build: Command '['git', 'clone']' returned non-zero exit status 128.
Traceback (most recent call last):
  File "/opt/venv/bin/jupyter-repo2docker", line 8, in <module>
    sys.exit(main())
subprocess.CalledProcessError: Command '['git', 'clone']' returned non-zero exit status 128.
"""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (GIT, "fatal: unable to access 'https://git.example.org/course/': server certificate verification failed"),
        (
            "#12 3.45 ERROR: Could not find a version that satisfies the requirement numpyy (from versions: none)\n"
            "#12 3.46 ERROR: No matching distribution found for numpyy\n"
            '#12 ERROR: process "/bin/sh -c pip install" did not complete successfully: exit code: 1\n'
            "ERROR: failed to build: failed to solve: process did not complete successfully: exit code: 1\n",
            "ERROR: No matching distribution found for numpyy",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after SSLError(SSLCertVerificationError(1, '[SSL: "
            "CERTIFICATE_VERIFY_FAILED] certificate verify failed'))\nERROR: No matching distribution found for x\n",
            "WARNING: Retrying (Retry(total=0)) after SSLError(SSLCertVerificationError",
        ),
        (
            "Collecting x\n  Could not fetch URL https://pypi.example.org/x/: There was a problem confirming the ssl "
            "certificate: SSLCertVerificationError certificate verify failed - skipping\n"
            "ERROR: No matching distribution found for x\n",
            "Could not fetch URL https://pypi.example.org/x/",
        ),
        ("E: Unable to locate package nothing\nThe command '/bin/sh' returned a non-zero code: 100\n", "E: Unable to"),
        ("PackagesNotFoundError: The following packages are not available: x\n", "PackagesNotFoundError: The fol"),
        ("\x1b[31mfatal: not a git repository: x\x1b[0m\n", "fatal: not a git repository: x"),
    ],
)
def test_the_line_of_the_cause(log, line):
    assert cause(log).startswith(line)
    assert sentence(1, log).startswith(f"The build failed: {line}")


def test_what_to_do_about_an_unknown_authority():
    assert sentence(128, GIT).endswith("If it is that of an authority of your own, name it in plasma.trust.")
    assert "plasma.trust" not in sentence(1, "E: Unable to locate package nothing\n")


def test_a_log_without_a_cause_and_a_line_without_an_end():
    plain = "The build failed: repo2docker ended with exit code 3. The lines above say why."
    assert sentence(3, "") == plain == sentence(3, "Step 1\nStep 2\n")
    assert len(cause("fatal: " + "x" * 5000)) == 300
