"""A whole hub without TLJH: log in through PAM, start a server in Docker, use it."""

from __future__ import annotations

import re

import pytest
import requests
from support_hub import container_name, wait_until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def student(accounts):
    return accounts.add("student")


def test_person_logs_in_starts_a_server_and_saves_a_file(hub, student, environment, docker_host):
    session, page = hub.login(student.name, student.password)
    assert page.status_code == 200, page.text
    # They land on the list of environments.
    assert page.url == f"{hub.url}/hub/spawn"
    assert f'value="{environment}"' in page.text
    assert "0.5 GB of memory, 1 CPU" in page.text

    xsrf = re.search(r'action="([^"]*_xsrf=[^"]*)"', page.text)[1].replace("&amp;", "&")
    started = session.post(f"{hub.url}{xsrf}" if xsrf.startswith("/") else xsrf, data={"image": environment})
    assert started.status_code == 200, started.text

    def ready():
        answer = hub.api("GET", f"/users/{student.name}").json()
        return answer["servers"].get("", {}).get("ready")

    wait_until(ready, 120, "server")
    # Through the proxy, with the person's cookies and OAuth.
    lab = session.get(f"{hub.url}/user/{student.name}/lab", timeout=60)
    assert lab.status_code == 200, lab.text[:2000]

    headers = {"Authorization": f"token {hub.user_token(student.name)}"}
    base = f"{hub.url}/user/{student.name}/api"
    status = requests.get(f"{base}/status", headers=headers, timeout=30)
    assert status.status_code == 200, status.text
    body = {"type": "file", "format": "text", "content": "my work\n"}
    saved = requests.put(f"{base}/contents/work.txt", json=body, headers=headers, timeout=30)
    assert saved.status_code == 201, saved.text

    work = student.home / "plasmat-course" / "work.txt"
    assert work.read_text() == "my work\n"
    assert (work.stat().st_uid, work.stat().st_gid) == (student.uid, student.gid)
    assert docker_host.containers.get(container_name(student.name)).status == "running"
