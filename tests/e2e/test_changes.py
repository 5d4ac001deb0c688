"""Changes on a running server: taken over once, ending nobody's server, and taken back when they break the hub."""

from __future__ import annotations

import pytest


def container_pid(target, account):
    """The process of this user's server on the host."""
    name = f"jupyter-{account.name}"
    found = target.sudo(["docker", "ps", "--filter", f"name={name}", "--format", "{{.ID}}"]).stdout.split()
    assert len(found) == 1, found
    return target.sudo(["docker", "inspect", "--format", "{{.State.Pid}}", found[0]]).stdout.strip()


@pytest.fixture
def running_server(login, ada, course):
    person = login(ada)
    if not person.server():
        person.start(course)
    return person


def test_a_restart_of_the_hub_leaves_the_server_running(running_server, target, ada, site):
    before = container_pid(target, ada)
    assert "started" in running_server.status()
    assert site.salt("tljh_config.reload", "hub", "timeout=60").returncode == 0
    assert container_pid(target, ada) == before
    assert "started" in running_server.status()
    assert running_server.server()["ready"]


def test_a_restart_of_docker_leaves_the_server_running(running_server, target, ada):
    before = container_pid(target, ada)
    target.sudo("systemctl restart docker")
    assert container_pid(target, ada) == before
    assert "started" in running_server.status()


def test_a_changed_log_driver_restarts_docker_and_keeps_the_server(running_server, target, ada, site, pillar):
    before = container_pid(target, ada)
    pillar(docker={"source": "distro", "log_driver": "json-file"})
    predicted = site.apply("docker", "test=True")
    result = site.apply("docker")
    assert not result.failed
    assert (
        predicted.predicted
        == set(result.changed)
        == {
            "docker-configuration|/etc/docker/daemon.json",
            "docker-service|docker-service",
        }
    )
    assert container_pid(target, ada) == before
    assert "started" in running_server.status()


def test_docker_settings_of_somebody_else_are_kept(target, site, pillar):
    target.sudo(
        "python3 -c \"import json; p='/etc/docker/daemon.json'; d=json.load(open(p)); d['max-concurrent-uploads']=3; "
        "json.dump(d, open(p,'w'))\""
    )
    assert not site.apply("docker").failed
    config = target.ssh("cat /etc/docker/daemon.json").stdout
    assert '"max-concurrent-uploads": 3' in config
    assert '"log-driver": "journald"' in config
    assert site.apply("docker").changed == {}


def test_a_changed_limit_reloads_the_hub_once_and_reaches_the_next_server(target, site, pillar, login, grace, plain):
    pillar(limits={"memory": "1G", "cpu": 1})
    predicted = site.apply("tljh", "test=True")
    started = target.ssh("systemctl show -P ExecMainStartTimestampMonotonic jupyterhub").stdout
    result = site.apply("tljh")
    assert not result.failed
    assert predicted.changed == result.changed
    assert list(result.changed) == ["hub-settings|hub-settings"]
    assert result.changed["hub-settings|hub-settings"]["limits.memory"] == {"old": "2G", "new": "1G"}
    assert target.ssh("systemctl show -P ExecMainStartTimestampMonotonic jupyterhub").stdout != started
    person = login(grace)
    person.start(plain)
    memory = target.sudo(
        "docker inspect --format '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuQuota}}' "
        "$(docker ps --filter name=jupyter-grace --format '{{.ID}}')"
    ).stdout.split()
    person.stop()
    assert memory[0] == str(1024**3)
    assert memory[2] == "100000"


def test_a_reload_that_fails_restores_the_configuration(site, target, pillar, url):
    config = target.sudo("cat /opt/tljh/config/config.yaml").stdout
    # Breaks the hub as soon as the limit is another one, as a mistake in somebody's own configuration can.
    target.ssh(
        "sudo tee /opt/tljh/config/jupyterhub_config.d/breaks.py >/dev/null",
        input="if 'cpu: 7' in open('/opt/tljh/config/config.yaml').read():\n    raise RuntimeError('seven')\n",
    )
    try:
        pillar(limits={"memory": "2G", "cpu": 7}, hub={**site.pillar["hub"], "ready_timeout": 30})
        result = site.apply("tljh")
    finally:
        target.sudo("rm /opt/tljh/config/jupyterhub_config.d/breaks.py")
    assert result.returncode != 0
    comment = result.failed["hub-settings|hub-settings"]
    assert "RuntimeError: seven" in comment  # the journal's last lines
    assert "limits.cpu" in comment
    assert "restored" in comment
    after = target.sudo("cat /opt/tljh/config/config.yaml").stdout
    assert after == config
    assert site.salt("tljh_config.ready").value["ready"]


def test_comments_and_foreign_keys_survive(site, target, pillar):
    text = target.sudo("cat /opt/tljh/config/config.yaml").stdout
    target.ssh(
        "sudo tee /opt/tljh/config/config.yaml >/dev/null",
        input="# written by hand\n" + text + "somebody_elses:\n  numbers:\n  - '007'\n",
    )
    pillar(cull={"timeout": 1800})
    assert not site.apply("tljh").failed
    after = target.sudo("cat /opt/tljh/config/config.yaml").stdout
    assert after.startswith("# written by hand")
    assert "'007'" in after or '"007"' in after
    assert "timeout: 1800" in after


def test_a_changed_plugin_is_predicted_and_taken_over(site, target):
    """A file that differs in both copies on the server: they are of an older release than this tree."""
    site.apply("tljh")
    files = (
        "/opt/tljh/plasma/plugin/src/tljh_plasma/settings.py "
        "/opt/tljh/hub/lib/python3*/site-packages/tljh_plasma/settings.py"
    )
    target.sudo(f"for file in {files}; do echo '# older' >> $file; done")
    predicted = site.apply("tljh", "test=True")
    assert predicted.predicted == {"hub-plugin-source|/opt/tljh/plasma/plugin", "hub-installed|/opt/tljh"}
    result = site.apply("tljh")
    assert not result.failed
    assert set(result.changed) == predicted.predicted
    assert "# older" not in target.sudo(f"cat {files}").stdout
    assert site.apply("tljh").changed == {}


def test_a_moved_package_is_put_back(site, target):
    target.sudo("/opt/tljh/hub/bin/python3 -m pip install -q --no-deps escapism==1.0.1")
    result = site.apply("tljh")
    assert not result.failed
    change = result.changed["hub-installed|/opt/tljh"]["packages"]
    assert change["old"] == {"escapism": "1.0.1"} or "escapism" in change["old"]
    assert site.apply("tljh").changed == {}
