"""Changes on a running server: taken over once, ending nobody's server, and taken back when they break the hub."""

from __future__ import annotations

import base64
import http.client
import re
import secrets
import socket
import ssl
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.acme import make_certificate
from tests.support.hub import HubUser
from tests.support.pages import Page
from tests.support.paths import REPOSITORY
from tests.support.shell import wait_for

FRONT = {"address": "127.0.0.1", "port": 81, "behind": ["127.0.0.1"]}
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get -qq install"
# The web servers of docs/configuration/front.md: package, language of the snippet, and what puts it in place.
FRONTS = {
    "nginx": ("nginx-light", "nginx", "cat >/etc/nginx/conf.d/hub.conf && nginx -t && systemctl restart nginx"),
    "apache": (
        "apache2",
        "apache",
        "cat >/etc/apache2/sites-enabled/hub.conf && a2enmod -q ssl headers proxy proxy_http "
        "&& systemctl restart apache2",
    ),
    "haproxy": (
        "haproxy",
        "text",
        "sed s/10.1.2.20/127.0.0.1/ >/etc/haproxy/haproxy.cfg && cat /etc/ssl/certs/hub.pem /etc/ssl/private/hub.key "
        ">/etc/haproxy/hub.pem && systemctl restart haproxy",
    ),
}


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


@pytest.fixture(scope="module")
def behind(target, site, tmp_path_factory):
    """The hub behind a web server that has ports 80 and 443; the last test with it leaves it as it was."""
    before = site.pillar
    key, cert = make_certificate(tmp_path_factory.mktemp("front"), "hub")
    for path, place in ((key, "/etc/ssl/private/hub.key"), (cert, "/etc/ssl/certs/hub.pem")):
        target.ssh(f"sudo tee {place} >/dev/null", input=path.read_text())
    # By hand, as The Littlest JupyterHub documents it, and with a web server on port 80: this was refused.
    by_hand = '{"http": {"address": "127.0.0.1", "port": 81}}'
    assert site.salt("tljh_config.apply", by_hand).returncode == 0
    target.sudo(f"apt-get -qq update && {INSTALL} nginx-light", timeout=600)
    assert "nginx" in target.sudo("ss -ltnp 'sport = :80'").stdout
    kept = site.apply("tljh")
    assert (kept.failed, kept.changed) == ({}, {})
    site.set_pillar({**before, "http": FRONT})
    moved = site.apply("tljh")
    assert not moved.failed
    assert moved.changed["hub-settings|hub-settings"] == {"plasma.behind": {"old": [], "new": ["127.0.0.1"]}}
    assert site.apply("tljh").changed == {}
    yield lambda **more: site.set_pillar({**before, "http": FRONT, **more})
    target.sudo("systemctl disable --now nginx apache2 haproxy 2>/dev/null || true")
    site.set_pillar(before)
    assert site.salt("tljh_config.apply", '{"http": {"address": "", "port": 80}, "base_url": "/"}').returncode == 0
    assert not site.apply("tljh").failed


def stand_in_front(target, name, change=lambda text: text):
    """Install a web server, and give it what the page of the documentation has for it."""
    package, language, put = FRONTS[name]
    blocks = Page(REPOSITORY / "docs" / "configuration" / "front.md").blocks
    (text,) = [block.text for block in blocks if block.language == language]
    target.sudo("systemctl stop nginx apache2 haproxy 2>/dev/null || true")
    target.sudo(f"{INSTALL} {package}", timeout=600)
    target.ssh(["sudo", "sh", "-c", put], input=change(text))


def seen_by_the_hub(target, url):
    """The address that the hub takes for that of a client who says that it has another."""
    word = secrets.token_hex(8)
    said = {"X-Forwarded-For": "198.51.100.7", "X-Real-Ip": "198.51.100.8"}
    requests.get(f"{url}/hub/{word}", headers=said, verify=False, timeout=20)
    find = f"journalctl -u jupyterhub --no-pager -o cat | grep {word} || true"
    line = wait_for(lambda: target.sudo(find).stdout, timeout=20, what="the log")
    return re.search(r"\(\S*@([0-9a-f.:]+)\)", line)[1]


def answers(url):
    try:
        return requests.get(url, verify=False, timeout=5).ok
    except requests.RequestException:
        return False


def own_address(target):
    with socket.create_connection((target.host, 443)) as connection:
        return connection.getsockname()[0]


def opens_a_websocket(person):
    """The status of the answer to a browser that wants a WebSocket of its server."""
    url = f"{person.url}/user/{person.name}/api/events/subscribe"
    parts = urlsplit(url)
    cookies = requests.cookies.get_cookie_header(person.session.cookies, requests.Request("GET", url).prepare())
    connection = http.client.HTTPSConnection(parts.netloc, context=ssl._create_unverified_context(), timeout=20)
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Cookie": cookies}
    headers |= {"Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode()}
    connection.request("GET", parts.path, headers={**headers, "Origin": f"https://{parts.netloc}"})
    status = connection.getresponse().status
    connection.close()
    return status


def works(url, account, image):
    """Log in, start a server, and use it as a browser does."""
    person = HubUser(url, account.name)
    person.session.verify = False
    # A list of authorities in the environment would count for more.
    person.session.trust_env = False
    person.login(account.password)
    assert person.logged_in
    assert all(cookie.secure for cookie in person.session.cookies if cookie.name == "jupyterhub-session-id")
    if person.server():
        person.stop()
    person.start(image)
    assert "started" in person.status()
    assert opens_a_websocket(person) == 101
    person.stop()


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("name", FRONTS)
def test_behind_another_web_server(behind, target, site, grace, course, name):
    behind()
    stand_in_front(target, name)
    url = f"https://{target.host}"
    wait_for(lambda: answers(f"{url}/hub/login"), timeout=30, what=name)
    works(url, grace, course)
    assert seen_by_the_hub(target, url) == own_address(target)
    # Whoever does not come from there is not believed, nor let in at all.
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{target.host}:81/hub/login", timeout=5)
    assert site.salt("plasma.status").value["healthy"]
    whole = site.apply()
    assert not whole.failed


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_at_a_path_of_a_shared_name(behind, target, site, grace, course):
    behind(hub={**site.pillar["hub"], "base_url": "/jupyter/"})
    changed = site.apply("tljh")
    assert not changed.failed
    assert changed.changed["hub-settings|hub-settings"] == {"base_url": {"old": None, "new": "/jupyter/"}}
    stand_in_front(target, "nginx", lambda text: text.replace("location / {", "location /jupyter/ {"))
    wait_for(lambda: answers(f"https://{target.host}/jupyter/hub/login"), timeout=30, what="nginx")
    works(f"https://{target.host}/jupyter", grace, course)
    assert requests.get(f"https://{target.host}/hub/login", verify=False, timeout=5).status_code == 404
    assert not site.apply().failed
