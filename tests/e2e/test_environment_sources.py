"""Where environments of pillar come from: private repositories, archives of ready images, an own builder."""

from __future__ import annotations

import ast
import subprocess

import pytest

from tests.e2e.environments_course import MARKER, Watch, course_of
from tests.support.acme import make_certificate
from tests.support.builder_image import builder_image
from tests.support.engine import docker
from tests.support.git_repository import bridge_address, dockerfile, make_repository, serve_signed
from tests.support.paths import REPOSITORY
from tests.support.shell import run

READY = "ready/course:2026"
TEMPLATES = REPOSITORY / "docs" / "templates"


@pytest.fixture(scope="module")
def course(kept_server, tmp_path_factory):
    with course_of(kept_server, tmp_path_factory.mktemp("repositories")) as found:
        yield found


def test_the_token_of_a_private_repository_is_nowhere(course):
    make_repository(course.directory / "private", dockerfile(course.base))
    entry = {"name": "private", "repository": f"{course.private}/private/.git", "ref": "main"}
    course.pillar(entry)
    refused = course.apply()
    assert "it needs credentials, or does not exist" in course.comment(refused)

    course.pillar({**entry, "credentials": {"username": "teacher", "password": MARKER}})
    watch = Watch(course.target, MARKER, "seen-by-everybody")
    course.target.ssh("bash -c 'exec -a seen-by-everybody sleep 3'")
    predicted, done = course.apply("test=True"), course.apply()
    looks, seen = watch.end()
    assert not done.failed, done.failed
    assert course.items()["private:main"]["status"] == "built"
    assert looks > 20
    assert seen == ["seen-by-everybody"]
    for result in (predicted, done, course.apply(), course.site.salt("plasma_environment.export")):
        assert MARKER not in result.stdout + result.stderr
    debugged = course.site.salt("-l", "debug", "state.apply", "environments", "test=True")
    assert len(debugged.stderr) > 10_000
    assert MARKER not in debugged.stdout + debugged.stderr
    shown = course.site.salt("state.show_lowstate")
    assert "environments-managed" in shown.stdout and entry["repository"] in shown.stdout
    assert MARKER not in shown.stdout

    # On the server: logs, databases, images, containers. Salt keeps what it was sent where its user alone can read.
    places = ["/var/log", "/opt/tljh", "/etc", "/run", "/tmp", "/var/lib/plasma", "/root", "/home"]
    # Not as an argument: sudo writes those down.
    find = ["grep", "-rlsaF", "-f", "-", *places]
    held = course.target.sudo(find, input=f"{MARKER}\n", check=False, timeout=300).stdout.split()
    assert held == []
    assert MARKER not in course.target.sudo("journalctl --no-pager --output=cat", timeout=300).stdout
    inspected = course.target.sudo("docker image inspect private:main; docker history --no-trunc private:main")
    assert MARKER not in inspected.stdout
    assert MARKER not in course.target.sudo("docker ps --all --quiet | xargs -r docker inspect").stdout
    sent = course.target.sudo(
        "tar --extract --to-stdout --file $(echo /var/lib/.*_salt/salt_state.tgz) pillar.json"
    ).stdout
    assert MARKER in sent
    assert course.target.sudo("find /var/lib/.*_salt -name salt_state.tgz -perm /077").stdout == ""
    # On the controller: caches and logs.
    cached = subprocess.run(
        ["grep", "-rlsa", MARKER, str(course.site.directory / "salt")], capture_output=True, text=True, check=False
    )
    assert cached.stdout == ""
    course.agreed({"name": "private", "absent": True})


def test_a_certificate_of_an_own_authority(course, tmp_path):
    """The server trusts it; builds and servers of users do where pillar names it, and only then."""
    target, host = course.target, bridge_address()
    before = target.ssh("ls /usr/local/share/ca-certificates").stdout
    make_certificate(tmp_path, "ca-own")
    key, cert = make_certificate(tmp_path, "served", domains=[host], authority="ca-own")
    authority = (tmp_path / "ca-own.pem").read_text()
    # The recipe's own steps are its own business: its base trusts nobody of ours.
    make_repository(course.directory / "signed", dockerfile(course.base))
    with serve_signed(course.directory, host, key, cert) as port:
        entry = {"name": "signed", "repository": f"https://{host}:{port}/signed/.git", "ref": "main"}
        course.pillar(entry)
        assert "server certificate verification failed" in course.comment(course.apply())
        # By hand, as an administrator of the server may have done: the look at branches works, and the build does not.
        target.ssh("sudo tee /usr/local/share/ca-certificates/campus.crt >/dev/null", input=authority)
        target.sudo("update-ca-certificates")
        lines = course.comment(course.apply()).splitlines()
        assert lines[-1].strip().startswith("The build failed: fatal: unable to access") or "certificate" in lines[-1]
        assert "name it in plasma.trust" in lines[-1]
        target.sudo("rm /usr/local/share/ca-certificates/campus.crt; update-ca-certificates --fresh")
        (course.site.directory / "pillar" / "own-ca.pem").write_text(authority)
        course.pillar(entry, trust=["own-ca.pem"])
        predicted, trusted = course.site.apply("trust", "test=True"), course.site.apply("trust")
        assert trusted.failed == {} and predicted.changed == trusted.changed
        assert "CN=ca-own" in trusted.changed["trust-authorities|trust-authorities"]
        assert not course.site.apply("tljh").failed
        assert not course.apply().failed
        assert course.items()["signed:main"]["status"] == "built"
        assert course.site.apply("trust").changed == {}
        student = course.person("ruth")
        student.start("signed:main")
        name = target.sudo("docker ps --filter name=jupyter-ruth --format '{{.ID}}'").stdout.strip()
        code = (
            "import os, ssl; print(os.environ['REQUESTS_CA_BUNDLE']); "
            "print([one for one in ssl.create_default_context().get_ca_certs() if 'ca-own' in str(one)])"
        )
        shown = target.sudo(["docker", "exec", name, "python3", "-c", code]).stdout
        assert shown.startswith("/opt/plasma/trust.pem") and "ca-own" in shown
        student.stop()
        course.agreed({"name": "signed", "absent": True})
        assert course.site.apply("trust").failed == {}
        assert target.ssh("ls /usr/local/share/ca-certificates").stdout == before


def test_a_deploy_key_opens_a_repository_that_is_reached_by_ssh(course, tmp_path):
    """On the server's own sshd, for an account of Git."""
    target, host = course.target, course.target.host
    made = make_repository(course.directory / "keyed", dockerfile(course.base))
    run(["git", "bundle", "create", tmp_path / "keyed.bundle", "--all"], cwd=made.path)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / "key"])
    public = (tmp_path / "key.pub").read_text()
    target.sudo(
        "userdel --remove git 2>/dev/null; useradd --system --create-home --shell /bin/sh git && mkdir ~git/.ssh"
    )
    target.copy_to(tmp_path / "keyed.bundle", "/tmp/keyed.bundle")
    target.ssh("sudo tee ~git/.ssh/authorized_keys >/dev/null", input=public)
    target.sudo(
        "git clone --quiet --bare /tmp/keyed.bundle ~git/keyed.git && git -C ~git/keyed.git symbolic-ref HEAD "
        "refs/heads/main && chown -R git: ~git && chmod 700 ~git/.ssh && rm /tmp/keyed.bundle"
    )
    key = target.sudo("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub").stdout.strip()
    entry = {
        "name": "keyed",
        "repository": f"git@{host}:keyed.git",
        "deploy_key": (tmp_path / "key").read_text(),
        "known_hosts": f"{host} {key}",
    }
    other = f"{host} {' '.join(public.split()[:2])}"
    course.pillar({**entry, "known_hosts": other})
    assert "the key of its host is not one of known_hosts" in course.comment(course.apply())
    assert course.agreed(entry)["keyed"]["new"]["commit"] == made.git("rev-parse", "main")
    assert target.sudo("ls /run | grep plasma-git || true").stdout == ""
    course.agreed({"name": "keyed", "absent": True})


def test_a_ready_image_comes_from_a_file(course):
    target = course.target
    target.sudo(f"mkdir -p /srv/images && docker tag {course.base} {READY}")
    target.sudo(f"docker save --output /srv/images/ready.tar {READY} && docker rmi {READY}", timeout=600)
    entry = {"name": "ready", "image": READY, "image_file": "/srv/images/ready.tar", "memory": "512M"}
    changes = course.agreed(entry)
    assert changes["ready"]["new"] == {"image_name": "ready:2026", "image": READY, "memory": "512M"}
    item = course.items()["ready:2026"]
    assert (item["status"], item["reference"], item["limits"]["memory"]) == ("built", READY, 512 * 2**20)
    student = course.person("mathilda")
    student.start("ready:2026")
    student.stop()

    # A newer archive of the same name.
    target.sudo(["sh", "-c", f"printf 'FROM {READY}\\nLABEL newer=yes\\n' | docker build -t {READY} -"], timeout=300)
    target.sudo(f"docker save --output /srv/images/ready.tar {READY} && docker rmi {READY}", timeout=600)
    assert set(course.agreed(entry)["ready"]["new"]) == {"id"}
    shown = target.sudo(["docker", "image", "inspect", "--format", "{{.Config.Labels.newer}}", "ready:2026"])
    assert shown.stdout.strip() == "yes"

    target.sudo("chown mathilda /srv/images/ready.tar")
    refused = course.apply()
    assert "/srv/images/ready.tar is not read: it has to be a file that belongs to root" in course.comment(refused)
    target.sudo("chown root /srv/images/ready.tar")
    course.agreed({"name": "ready", "absent": True})


def test_the_template_for_bash_is_written_down_by_repo2docker(tmp_path):
    made = docker(
        "create", "--network", "none", builder_image(), "jupyter-repo2docker", "--config=/plasma.py", "--no-build",
        "--debug", "--user-name=jovyan", "--user-id=1100", "/template",
    ).stdout.strip()  # fmt: skip
    # What a builder reads where pillar has authorities of its own.
    config = load_plugin("builds/outside.py", "_CONFIG").format(steps=["RUN echo own authorities", "ENV A=b"])
    (tmp_path / "plasma.py").write_text(config)
    try:
        docker("cp", TEMPLATES / "bash", f"{made}:/template")
        docker("cp", tmp_path / "plasma.py", f"{made}:/plasma.py")
        written = docker("start", "--attach", made).stdout
    finally:
        docker("rm", "--force", made)
    assert "bash-completion jq less man-db tree" in written
    assert 'pip install --no-cache-dir -r "requirements.txt"' in written
    assert "RUN ./postBuild" in written
    first = written[written.index("FROM ") :].splitlines()
    assert first[1:3] == ["RUN echo own authorities", "ENV A=b"]


def load_plugin(name, constant):
    """A text constant of the plugin, which is not installed where these tests run."""
    tree = ast.parse((REPOSITORY / "plugin" / "src" / "tljh_plasma" / name).read_text(encoding="utf-8"))
    (value,) = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == constant
    ]
    return value


def test_a_server_that_makes_the_builder_itself(course):
    """From nothing to an environment, with no registry and no image from here; and it is made once."""
    make_repository(course.directory / "pack", None, {"start": '#!/bin/sh\nexec "$@"\n'})
    entry = {"name": "pack", "repository": f"{course.git}/pack/.git", "ref": "main"}
    course.pillar(entry, builder={"image": "local"})
    states = "tljh,environments"
    predicted, done, again = (
        course.site.apply(states, "test=True"),
        course.site.apply(states),
        course.site.apply(states),
    )
    assert not done.failed, done.failed
    made = next(name for name in done.changed if name.startswith("builder-images|"))
    assert [image.rpartition("/")[2] for image in done.changed[made]] == [
        f"plasma-{name}:local" for name in ("root", "tools", "builder", "base")
    ]
    assert predicted.changed[made] == done.changed[made] and made in predicted.predicted
    assert (again.changed, again.failed) == ({}, {})
    assert course.items()["pack:main"]["status"] == "built"
    look = "python -c 'import jupyterhub, jupyterlab, sys; print(jupyterhub.__version__, sys.prefix)'"
    said = course.target.sudo(f"docker run --rm --network none pack:main {look}").stdout.split()
    assert said[0].startswith("5.") and said[1] == "/srv/conda/envs/notebook"
    person = course.person("pia")
    person.start("pack:main")
    assert "last_activity" in person.status()
    person.stop()
    assert course.target.sudo("docker ps --all --quiet --filter label=org.plasma.build.uid").stdout == ""
    proven = course.site.salt("plasma.prove", "only=A18").value
    assert [(one["refused"], one["seen"]) for one in proven["attacks"]] == [(True, "9 refused")], proven
    # What was made goes again, and the environment stays.
    assert course.site.apply("builder.disabled").failed == {}
    assert course.site.apply("builder.disabled").changed == {}
    assert course.image_id("pack:main")
