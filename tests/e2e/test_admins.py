"""Administrators: named and revoked in pillar, at the hub that runs, without touching anybody's server."""

from __future__ import annotations

import contextlib
import json

import pytest
import requests

from tests.e2e.conftest import make_account
from tests.support.hub import HubUser
from tests.support.thief import LOOP

ADMINS = "admins-managed|admins-managed"


@pytest.fixture(scope="module")
def colleague(target):
    return make_account(target, "colleague")


@pytest.fixture(scope="module")
def before(site, teacher):
    """What earlier tests may have left behind is settled."""
    assert not site.apply("admins").failed


def starts(target) -> set[str]:
    """The invocations of the hub so far."""
    lines = target.sudo("journalctl --unit=jupyterhub --output=json --output-fields=_SYSTEMD_INVOCATION_ID").stdout
    found = {json.loads(line).get("_SYSTEMD_INVOCATION_ID") for line in lines.splitlines()}
    return {*found, target.ssh("systemctl show -P InvocationID jupyterhub").stdout.strip()} - {None}


def process(target, account) -> str:
    """The process of this person's server on the host."""
    label = f"label=org.plasma.user={account.name}"
    (found,) = target.sudo(["docker", "ps", "--filter", label, "--format", "{{.ID}}"]).stdout.split()
    return target.sudo(["docker", "inspect", "--format", "{{.State.Pid}}", found]).stdout.strip()


def sees_admin_page(person: HubUser) -> bool:
    answer = person.session.get(f"{person.url}/hub/admin", timeout=30)
    assert answer.status_code in (200, 403)
    return answer.status_code == 200


def lists_users(url: str, token: str) -> bool:
    answer = requests.get(f"{url}/hub/api/users", headers={"Authorization": f"token {token}"}, timeout=30)
    assert answer.status_code in (200, 403), answer.text
    return answer.status_code == 200


def test_promoted_and_really_revoked(site, target, pillar, before, login, colleague, ada, course, url):
    running = login(ada)
    if not running.server():
        running.start(course)
    server = process(target, ada)
    person = login(colleague)
    assert not sees_admin_page(person)

    pillar(admins=["teacher", "colleague", "null"])
    known = starts(target)
    predicted, result = site.apply("admins", "test=True"), site.apply("admins")
    assert not result.failed
    assert predicted.predicted == {ADMINS}
    assert predicted.changed == result.changed
    assert result.changed[ADMINS]["administrators"]["new"] == ["colleague", "null", "teacher"]
    # Allowed, and said.
    assert "null" in "".join(result.states[ADMINS]["warnings"])
    assert target.sudo("grep -c \"'null'\" /opt/tljh/config/config.yaml").stdout.strip() == "1"
    assert len(starts(target) - known) == 1
    assert site.apply("admins").changed == {}
    assert sees_admin_page(person)
    token = person.api("POST", f"/users/{person.name}/tokens", json={"note": "kept"}).json()["token"]
    assert lists_users(url, token)

    pillar(admins=["teacher"])
    known = starts(target)
    predicted, result = site.apply("admins", "test=True"), site.apply("admins")
    assert not result.failed
    assert predicted.changed == result.changed
    assert len(starts(target) - known) == 1
    # The session and the token of before.
    assert not sees_admin_page(person)
    assert not lists_users(url, token)
    # A login does not bring it back, nor does a restart of the hub.
    assert not sees_admin_page(login(colleague))
    assert site.apply("admins").changed == {}
    assert process(target, ada) == server
    assert running.server()["ready"]


def test_the_database_alone_takes_no_reload(site, target, before, login, colleague, teacher):
    """Somebody was named on the hub's own administration page."""
    login(teacher).api("PATCH", f"/users/{colleague.name}", json={"admin": True})
    person = login(colleague)
    assert sees_admin_page(person)
    known = starts(target)
    result = site.apply("admins")
    assert list(result.changed[ADMINS]) == ["administrators"]
    assert starts(target) == known
    assert not sees_admin_page(person)


def test_an_administrator_does_not_become_root_through_somebody_with_sudo(target, before, login, teacher, course):
    """Sudo itself is asked: an alias, a group of any name and a rule for one command count as well."""
    group, rules = "wheelwrights", "/etc/sudoers.d/plasma-test"
    target.sudo(["groupadd", group])
    one, other = make_account(target, "mender"), make_account(target, "wheelman", "--groups", group)
    helper = login(teacher)
    text = f"User_Alias MENDERS = mender\nMENDERS ALL=(root) NOPASSWD: /bin/ls\n%{group} ALL=(ALL) ALL\n"
    try:
        for account in (one, other):
            helper.api("POST", f"/users/{account.name}")
        # Nothing that is said of them yet: entering is help.
        helper.api("POST", f"/users/{one.name}/tokens", json={})
        target.ssh(f"sudo tee {rules}", input=text)
        target.sudo(["chmod", "440", rules])
        for account in (one, other):
            path = f"/users/{account.name}"
            started = helper.api("POST", f"{path}/server", json={"image": course}, check=False)
            assert started.status_code == 404, started.text
            assert helper.api("POST", f"{path}/tokens", json={}, check=False).status_code == 403
            assert helper.session.get(f"{helper.url}/hub/spawn/{account.name}", timeout=30).status_code == 404
        # Themselves, they can.
        login(one).start(course)
        helper.api("DELETE", f"/users/{one.name}/server")
    finally:
        target.sudo(["rm", "-f", rules])


def test_an_empty_list_revokes_nobody_and_says_so(site, pillar, before, login, teacher):
    pillar(admins=[])
    result = site.apply("admins")
    assert result.changed == {}
    assert "an empty list revokes nobody" in result.states[ADMINS]["comment"]
    assert sees_admin_page(login(teacher))


def test_a_hub_that_is_stopped_fails_with_what_to_do(site, target, pillar, before):
    pillar(admins=["teacher", "colleague"])
    config = target.sudo("cat /opt/tljh/config/config.yaml").stdout
    target.sudo("systemctl stop jupyterhub")
    try:
        for arguments in (["test=True"], []):
            comment = site.apply("admins", *arguments).failed[ADMINS]
            assert comment.endswith("start it with: systemctl start jupyterhub.")
    finally:
        target.sudo("systemctl start jupyterhub")
    assert target.sudo("cat /opt/tljh/config/config.yaml").stdout == config
    assert site.salt("tljh_config.ready").value["ready"]


def test_nobody_but_root_reads_the_operators_token(target, before, ada):
    path = "/opt/tljh/state/plasma-operator.token"
    assert target.sudo(["stat", "-c", "%U %a", path]).stdout.strip() == "root 600"
    token = target.sudo(["cat", path]).stdout
    assert len(token) == 64
    assert target.sudo(["runuser", "-u", ada.name, "--", "cat", path], check=False).returncode != 0
    # Read on the way, and nowhere else: not in the journal, which has the hub's and Salt's words.
    found = target.sudo(f"journalctl --output=cat | grep -c -F {token[:32]}", check=False).stdout
    assert found.strip() in ("0", "1")  # this very command is logged by sudo


# Binds places in a loop, and keeps what it is sent.
THIEF = """
import json, signal, socket, sys
places = [tuple(place) for place in json.loads(sys.argv[1])]
won, heard, tries = {}, [], 0
def end(*_):
    json.dump({"won": [list(place) for place in won], "heard": heard, "tries": tries}, open(sys.argv[2], "w"))
    sys.exit()
signal.signal(signal.SIGTERM, end)
""" + LOOP.lstrip()


def inner_places(target, *names: str) -> set[tuple[str, int]]:
    """Where these units listen, from the kernel's tables, but for what is the public's."""
    units = target.sudo("ps -e -o pid=,unit=").stdout.splitlines()
    ours = {pid for pid, unit in map(str.split, units) if unit in names}
    places = set()
    for line in target.sudo("ss -Hltnpe").stdout.splitlines():
        if any(f"pid={pid}," in line for pid in ours):
            # It names the owner of what is not root's.
            assert " uid:" not in line, line
            address, _, port = line.split()[3].rpartition(":")
            assert int(port) < 512, line
            if int(port) not in (80, 443):
                places.add((address.removeprefix("[::ffff:").strip("[]"), int(port)))
    return places


def restart_under_a_thief(target, account, places) -> dict:
    """Restart hub and proxy while this person binds these places in a loop; returns what they got."""
    target.sudo("rm -f /tmp/thief.json")
    command = ["systemd-run", "--quiet", "--unit=thief", f"--uid={account.name}", "python3", "-c", THIEF]
    target.sudo([*command, json.dumps(sorted(places)), "/tmp/thief.json"])
    try:
        for unit in ("jupyterhub", "traefik"):
            target.sudo(f"systemctl restart {unit}")
            target.sudo("for i in $(seq 100); do systemctl is-active -q jupyterhub && break; sleep 0.1; done")
        yield
    finally:
        target.sudo("systemctl stop thief; systemctl reset-failed jupyterhub traefik", check=False)


def test_a3_nobody_takes_a_port_of_the_hub_while_it_restarts(site, target, before, ada):
    """It used to be enough to try often, for logins first and then for root's token."""
    behind = inner_places(target, "jupyterhub.service")
    places = behind | inner_places(target, "traefik.service")
    assert (len(behind), len(places)) == (2, 3)
    free = ("127.0.0.1", 15001)
    thief = contextlib.contextmanager(restart_under_a_thief)
    with thief(target, ada, places | {free}):
        assert site.salt("tljh_config.ready").value["ready"]
        assert not site.apply("admins").failed
    found = json.loads(target.sudo("cat /tmp/thief.json").stdout)
    # The loop works: it takes what anybody may.
    assert found["won"] == [list(free)]
    assert found["heard"] == []
    assert found["tries"] > 1000

    # Where the kernel gives these ports to everybody, what is behind the proxy is won, and root's token is not.
    token = target.sudo("cat /opt/tljh/state/plasma-operator.token").stdout
    target.sudo("sysctl -q -w net.ipv4.ip_unprivileged_port_start=0")
    try:
        with thief(target, ada, behind):
            comment = site.apply("admins").failed[ADMINS]
            assert "belongs to uid" in comment, comment
            status = site.salt("plasma.status").value
            assert any("Anybody may take ports from 0 on" in one["problem"] for one in status["problems"])
            (refused,) = site.apply("preflight").failed.values()
            assert "net.ipv4.ip_unprivileged_port_start is 0" in refused
        found = json.loads(target.sudo("cat /tmp/thief.json").stdout)
        assert found["won"], found
        assert token not in json.dumps(found)
    finally:
        target.sudo("sysctl -q -w net.ipv4.ip_unprivileged_port_start=1024; systemctl restart traefik jupyterhub")
    assert site.salt("tljh_config.ready").value["ready"]


def test_a14_secrets_that_are_lost_come_back_with_the_next_apply(site, target, before):
    state = "/opt/tljh/state"
    names = ("traefik-api.secret", "jupyterhub_cookie_secret", "plasma-operator.token")
    lost = " ".join(f"{state}/{name}" for name in (*names, "rules/rules.toml", "traefik.toml", "acme.json"))
    target.sudo(f"rm {lost}")
    problems = {one["problem"]: one["mend"] for one in site.salt("plasma.status").value["problems"]}
    (said,) = [problem for problem in problems if problem.startswith("Lost or spoilt: ")]
    assert all(name in said for name in names)
    assert problems[said].endswith("tljh_config.reload proxy")
    assert not site.apply("tljh").failed
    assert not site.apply("admins").failed
    # What a start makes of garbage.
    for name in (*names, "rules/rules.toml"):
        target.sudo(f"head -c 64 /dev/urandom > {state}/{name}")
    target.sudo("systemctl restart jupyterhub")
    assert site.salt("tljh_config.ready").value["ready"]
    assert not site.apply("admins").failed
    assert site.apply("tljh").changed == {}
    for name in names:
        assert target.sudo(["stat", "-c", "%U %a", f"{state}/{name}"]).stdout.strip() == "root 600"


def test_who_leaves_loses_server_session_token_and_name(site, target, pillar, before, url, course):
    """A running server is stopped first; whoever gets the name next finds nothing of theirs at the hub."""
    leaver = {"name": "leaver", "password": "a long enough phrase"}
    pillar(users=[leaver, {"name": "leaver2", "password": leaver["password"]}])
    assert not site.apply("users").failed
    people = {}
    for name in ("leaver", "leaver2"):
        people[name] = HubUser(url, name)
        people[name].login(leaver["password"])
        people[name].start(course)
    token = people["leaver"].api("POST", "/users/leaver/tokens", json={"note": "kept"}).json()["token"]

    pillar(users=[{"name": "leaver", "absent": True}, {"name": "leaver2", "password": leaver["password"]}])
    assert not site.apply("users").failed
    left = target.sudo(["docker", "ps", "--all", "--format", '{{.Label "org.plasma.user"}}']).stdout.split()
    assert "leaver" not in left
    assert "leaver2" in left
    assert "leaver" not in site.salt("plasma_hub_api.users").value
    answer = requests.get(f"{url}/hub/api/user", headers={"Authorization": f"token {token}"}, timeout=30)
    assert answer.status_code == 403
    assert not people["leaver"].logged_in
    assert people["leaver2"].server()["ready"]
    people["leaver2"].stop()
    pillar(users=[{"name": "leaver2", "absent": True, "remove_home": True}])
    assert not site.apply("users").failed
