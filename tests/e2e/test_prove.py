"""``plasma.prove`` on a deployed server: all is refused, nothing is left, and a protection that is taken away shows."""

from __future__ import annotations

import pytest

from tests.support.shell import wait_for

PEOPLE = "plasma-prove-"
# Whoever reads this file: each line is one protection that root takes away, and the attack that then succeeds.
HUB = "/opt/tljh/config/jupyterhub_config.d/sabotage.py"
IN_THE_HUB = {
    "A1.read": "import tljh_plasma.guard as g; g.for_a_person = lambda sent: True",
    "A1.answer": "c.PlasmaProxy.chains = {'user': (), 'hub': (), 'service': ()}",
    "A4.start": "import tljh_plasma.privileged as p; p.accounts._ask = p.reason = lambda name: ''",
    "A6.note": "import tljh_plasma.bounds as b, tljh_plasma.handlers as h; b.NOTE = h.NOTE = 10**9",
    "A7.guess": "import tljh_plasma.logins as l; l.Logins._refuse_guesses = lambda self, pair: None",
    "A8.login": "import tljh_plasma.limits as m; m.SMALL_BODY = 10**9",
    "A15.logout": "import tljh_plasma.sessions as s; s.end = lambda *arguments: 0",
}
# (attack, what root does, what undoes it)
DOORS = "/etc/ssh/sshd_config.d/10-plasma.conf"
UNIT = "/run/systemd/system/jupyterhub.service.d"
ON_THE_SERVER = (
    (
        "A2.key",
        f"systemctl stop plasma-doors && mv {DOORS} /root/doors && systemctl reload ssh",
        f"mv /root/doors {DOORS} && systemctl start plasma-doors && systemctl reload ssh",
    ),
    (
        "A3.bind",
        "sysctl -w net.ipv4.ip_unprivileged_port_start=0",
        "sysctl -w net.ipv4.ip_unprivileged_port_start=1024",
    ),
    (
        "A8.memory",
        f"mkdir -p {UNIT} && printf '[Service]\\nMemoryMax=infinity\\n' > {UNIT}/zz.conf && systemctl daemon-reload",
        f"rm {UNIT}/zz.conf && systemctl daemon-reload",
    ),
)
LOOK = r"""
for file in passwd shadow group gshadow subuid subgid; do sha256sum /etc/$file; done
find /etc /home /opt/tljh/config /var/mail /var/spool /var/lib/systemd/linger /usr/local -xdev \
    -not -path '/etc/*-' -not -name '.pwd.lock' -printf '%p %y %m %u %s\n' | sort
find /run/plasma* /tmp /var/tmp -maxdepth 2 -name '*prove*' -not -name '*.lock' 2> /dev/null
docker ps -a --format '{{.Names}} {{.Image}}'; docker images -a --format '{{.ID}} {{.Repository}}'; docker volume ls -q
/opt/tljh/hub/bin/python3 - <<'END'
import sqlite3
for name, tables in (("jupyterhub", ("users", "user_role_map", "servers", "spawners")), ("plasma", ("permissions",))):
    database = sqlite3.connect(f"file:/opt/tljh/state/{name}.sqlite?mode=ro", uri=True)
    for table in tables:
        print(table, database.execute(f"select count(*) from {table}").fetchall())
database = sqlite3.connect("file:/opt/tljh/state/jupyterhub.sqlite?mode=ro", uri=True)
print(database.execute("select name, admin from users order by name").fetchall())
print(database.execute("select count(*) from api_tokens where user_id is not null").fetchall())
END
"""


@pytest.fixture(scope="module")
def server(kept_server):
    return kept_server


def looked(server):
    return server.target.sudo(LOOK).stdout.splitlines()


def prove(server, *arguments):
    return server.site.salt("plasma.prove", *arguments)


def red(done):
    """The attacks of a run that were not refused, with what was seen."""
    return {one["attack"]: one["seen"] for one in done.value["attacks"] if one["refused"] is False}


def test_a_healthy_server_refuses_all_and_nothing_is_left(server):
    before = looked(server)
    done = prove(server)
    assert red(done) == {}
    assert (done.value["refused"], done.value["problems"], done.returncode) == (True, [], 0)
    assert done.value["seconds"] < 300
    assert len(done.value["attacks"]) >= 35
    assert looked(server) == before


def test_people_read_it_too(server):
    done = server.site.salt_text("plasma.prove", "only=A3,A15.hsts")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{server.target.name}: all of 2 attacks refused, 1 to look at (--) (")
    assert [line for line in lines if line.startswith(" -- A15.hsts")]


def test_an_attack_that_there_is_not(server):
    done = prove(server, "only=A99")
    assert done.returncode != 0
    assert done.value.startswith("There is no attack 'A99': ")


def test_what_a_killed_run_left_is_removed(server):
    before = looked(server)
    running = server.site.start("plasma.prove")
    people = f"getent passwd | grep -c ^{PEOPLE}"
    wait_for(lambda: server.target.ssh(people, check=False).stdout.strip() == "2", timeout=60, what="throwaway people")
    held = 'test "$(readlink $fd)" = /run/plasma-prove.lock'
    kill = 'process=${fd#/proc/}; kill -9 "${process%%/*}"'
    server.target.sudo(f"for fd in /proc/[0-9]*/fd/*; do if {held}; then {kill}; fi; done")
    running.wait(timeout=60)
    assert looked(server) != before
    done = prove(server, "clean=True")
    assert len(done.value["removed"]) >= 2
    assert done.returncode == 0
    assert looked(server) == before


@pytest.fixture
def sabotaged(server):
    """Ten protections are gone."""
    text = "".join(f"{line}\n" for line in IN_THE_HUB.values())
    server.target.ssh(f"sudo tee {HUB} > /dev/null", input=text)
    for _, command, _ in ON_THE_SERVER:
        server.target.sudo(command)
    server.target.sudo("systemctl restart jupyterhub")
    server.site.salt("tljh_config.ready")
    yield [*IN_THE_HUB, *(attack for attack, _, _ in ON_THE_SERVER)]
    server.target.sudo(["rm", HUB])
    for _, _, command in ON_THE_SERVER:
        server.target.sudo(command)
    server.target.sudo("systemctl restart jupyterhub")


def test_ten_protections_that_are_gone(server, sabotaged):
    done = prove(server, f"only={','.join(sabotaged)},A9,A11,A16")
    assert sorted(red(done)) == sorted(sabotaged)
    assert done.returncode != 0
