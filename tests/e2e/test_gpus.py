"""
GPUs for servers, with stand-ins for all that is NVIDIA's: the files of the driver, two devices, and the container
toolkit, a package of a signed repository whose runtime does what the real one does. No real GPU was seen.
"""

from __future__ import annotations

import json
import threading

import pytest
import requests

from tests.e2e.conftest import hub_answers, make_account
from tests.e2e.test_changes import container_pid
from tests.support.environment_image import environment_image, load_into
from tests.support.mirror import Mirror
from tests.support.shell import SupportError, wait_for

# What the real one does with what a container's variables ask for, the last one of a name being the one that counts:
# devices and their permissions. GPU 0 is a device like /dev/null here, and GPU 1 one like /dev/zero.
RUNTIME = """#!/usr/bin/python3
import json, os, pathlib, sys

words = sys.argv[1:]
if "create" in words:
    bundle = words[words.index("--bundle") + 1]
    path = pathlib.Path(bundle, "config.json")
    config = json.loads(path.read_text())
    asked = dict(word.split("=", 1) for word in config["process"]["env"]).get("NVIDIA_VISIBLE_DEVICES", "")
    numbers = [] if asked in ("", "void", "none") else ["0", "1"] if asked == "all" else asked.split(",")
    for number in numbers:
        device = {"type": "c", "major": 1, "minor": {"0": 3, "1": 5}[number]}
        config["linux"]["devices"] = config["linux"].get("devices") or []
        config["linux"]["devices"].append({**device, "path": f"/dev/nvidia{number}", "fileMode": 0o666})
        config["linux"]["resources"]["devices"].append({**device, "allow": True, "access": "rw"})
    path.write_text(json.dumps(config))
os.execvp("runc", ["runc", *words])
"""
HOOK = "#!/bin/sh\nexec cat >/dev/null\n"
PROGRAMS = {"nvidia-container-runtime": RUNTIME, "nvidia-container-runtime-hook": HOOK}
STATES = ("gpu-key", "gpu-repository", "gpu-toolkit", "gpu-configuration", "gpu-known")


@pytest.fixture(scope="module")
def deep(target):
    """An environment whose image asks for all GPUs, as those of CUDA do."""
    image = environment_image("deep:2026")
    load_into(target, image)
    target.sudo("docker create --name asks deep:2026")
    target.sudo(["docker", "commit", "--change", "ENV NVIDIA_VISIBLE_DEVICES=all", "asks", "deep:2026"])
    target.sudo("docker rm asks")
    return image


@pytest.fixture(scope="module")
def wanted(target, kept_server, tmp_path_factory):
    """The pillar, on a server with the files of the driver of two GPUs."""
    target.sudo("mount -t tmpfs gpus /proc/driver")
    for number in range(2):
        place = f"/proc/driver/nvidia/gpus/0000:0{number}:00.0"
        text = f"Model: NVIDIA A100\\nGPU UUID: GPU-0{number}"
        target.sudo(f"mkdir -p {place} && printf '{text}' >{place}/information")
    # The hub has a /proc of its own, where a real driver would have its files, too.
    unit = "/run/systemd/system/jupyterhub.service.d"
    drop_in = "[Service]\\nBindReadOnlyPaths=/proc/driver\\n"
    target.sudo(f"mkdir -p {unit} && printf '{drop_in}' >{unit}/gpus.conf && systemctl daemon-reload")
    restart_hub(target)
    directory = tmp_path_factory.mktemp("mirror") / "files"
    directory.mkdir()
    mirror = Mirror(directory, target.ssh("ip route show default | cut -d' ' -f3").stdout.strip())
    architecture = target.ssh("dpkg --print-architecture").stdout.strip()
    digest = mirror.add_flat_repository("nvidia", architecture, "nvidia-container-toolkit", PROGRAMS)
    repository = {"url": f"{mirror.url}/nvidia", "key_url": f"{mirror.url}/nvidia/gpgkey", "key_sha256": digest}
    kept_server.with_pillar(gpu={"enabled": True, "repository": repository})
    yield kept_server.site
    mirror.close()


def restart_hub(target):
    """Start the hub anew."""
    target.sudo("systemctl restart jupyterhub")
    wait_for(lambda: hub_answers(target), timeout=60, what="the hub")


@pytest.fixture(scope="module")
def people(target, url):
    """Who starts servers with GPUs."""
    return [make_account(target, name) for name in ("gina", "greg", "gwen")]


def container(target, account):
    """What the engine says of somebody's server."""
    name = f"jupyter-{account.name}"
    return json.loads(target.sudo(["docker", "inspect", name]).stdout)[0]


def devices(target, account):
    """The stand-in devices that somebody's server has."""
    found = target.sudo(["docker", "exec", f"jupyter-{account.name}", "ls", "/dev"]).stdout.split()
    return [name for name in found if name.startswith("nvidia")]


def test_the_toolkit_comes_without_ending_a_server(wanted, target, login, ada, course):
    login(ada).start(course)
    before = container_pid(target, ada)
    predicted, done = wanted.apply("gpu", "test=True"), wanted.apply("gpu")
    assert not done.failed, done.failed
    names = {key.partition("|")[0] for key in done.changed}
    assert names == {key.partition("|")[0] for key in predicted.predicted} == set(STATES)
    changed = {"old": None, "new": "nvidia"}
    assert done.changed["gpu-known|gpu-known"] == {"runtime": changed, "driver": changed}
    assert container_pid(target, ada) == before
    again = wanted.apply("gpu")
    assert (again.changed, again.failed) == ({}, {})
    # Here a reload of the engine is enough.
    target.sudo("sed -i 's/nvidia/elsewhere/' /etc/docker/daemon.json && systemctl reload docker")
    started = target.ssh("systemctl show -P ExecMainStartTimestampMonotonic docker").stdout
    assert wanted.apply("gpu").changed["gpu-known|gpu-known"] == {"runtime": changed}
    assert target.ssh("systemctl show -P ExecMainStartTimestampMonotonic docker").stdout == started
    assert container_pid(target, ada) == before


def test_servers_get_gpus_that_no_other_one_has(wanted, target, login, url, deep, people, teacher):
    token = login(teacher).api("POST", "/users/teacher/tokens", json={"note": "gpus"}).json()["token"]

    def change(gpus):
        path, headers = f"{url}/services/plasma/api/environments/{deep}", {"Authorization": f"token {token}"}
        return requests.patch(path, json={"gpus": gpus}, headers=headers, timeout=60)

    assert "servers can get 2 at most here" in change(3).text
    assert change(1).status_code == 200
    ends = {}

    def start(account):
        try:
            ends[account.name] = login(account).start(deep)
        except SupportError as error:
            ends[account.name] = str(error)

    # All at the same moment, and one too many.
    threads = [threading.Thread(target=start, args=[account]) for account in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (left,) = [account for account in people if isinstance(ends[account.name], str)]
    assert "this environment needs 1, and 0 of 2 are free. Try again when" in ends[left.name]
    served = [account for account in people if account is not left]
    assert sorted(devices(target, account) for account in served) == [["nvidia0"], ["nvidia1"]]
    asked = [container(target, account)["HostConfig"]["DeviceRequests"] for account in served]
    assert sorted(one["DeviceIDs"] for (one,) in asked) == [["0"], ["1"]]
    status = wanted.salt("plasma_gpu.health").value
    assert status == {"count": 2, "used": 2, "problem": None}
    # A hub that knows nothing any more finds them where they are.
    restart_hub(target)
    start(left)
    assert "0 of 2 are free" in ends[left.name]
    freed = devices(target, served[0])
    login(served[0]).stop()
    start(left)
    assert devices(target, left) == freed
    # Without its program the engine could not stop them.
    refused = wanted.apply("gpu.disabled").failed
    assert "Servers have 2 GPUs: stop them first" in refused["gpu-disabled|gpu-disabled"]
    for account in (left, served[1]):
        login(account).stop()
    assert change(0).status_code == 200


def test_nobody_gets_a_gpu_by_asking(wanted, target, login, deep, people):
    """Where NVIDIA's runtime is the engine's default one, as its guides have it, an image gets what it asks for."""
    config = json.loads(target.sudo("cat /etc/docker/daemon.json").stdout)
    changed = json.dumps({**config, "default-runtime": "nvidia"})
    target.ssh("sudo tee /etc/docker/daemon.json >/dev/null && sudo systemctl reload docker", input=changed)
    look = ["docker", "run", "--rm", "--entrypoint", "ls", deep, "/dev"]
    assert {"nvidia0", "nvidia1"} <= set(target.sudo(look).stdout.split())
    greedy = {
        "image": deep,
        "gpus": 2,
        "runtime": "nvidia",
        "devices": ["/dev/nvidia0"],
        "device_requests": [{"Driver": "nvidia", "DeviceIDs": ["0"], "Capabilities": [["gpu"]]}],
        "extra_host_config": {"runtime": "nvidia", "devices": ["/dev/nvidia0"]},
        "environment": {"NVIDIA_VISIBLE_DEVICES": "all"},
    }
    gina = people[0]
    person = login(gina)
    person.api("POST", f"/users/{gina.name}/server", json=greedy)
    wait_for(lambda: (person.server() or {}).get("ready"), timeout=90, what="the server")
    assert devices(target, gina) == []
    host = container(target, gina)["HostConfig"]
    assert not host["DeviceRequests"] and not host["Devices"]
    person.stop()
    target.ssh("sudo tee /etc/docker/daemon.json >/dev/null && sudo systemctl reload docker", input=json.dumps(config))


def test_all_of_it_goes_again(wanted, target):
    predicted, done = wanted.apply("gpu.disabled", "test=True"), wanted.apply("gpu.disabled")
    assert not done.failed, done.failed
    assert "gpu-disabled|gpu-disabled" in predicted.predicted
    assert "nvidia-container-toolkit" in done.changed["gpu-disabled|gpu-disabled"]
    assert "nvidia" not in target.sudo("cat /etc/docker/daemon.json").stdout
    assert target.ssh("test -e /usr/bin/nvidia-container-runtime", check=False).returncode == 1
    assert wanted.apply("gpu.disabled").changed == {}
