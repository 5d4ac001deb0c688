"""People on a server without a hub: made, changed and removed by the thousand, interrupted, attacked, kept secret."""

from __future__ import annotations

import json
import secrets
import subprocess

import pytest
import yaml

from tests.e2e.conftest import bare_server
from tests.support.shell import wait_for
from tests.support.site import Site

# Looks at every process until the file is there; what to look for comes in on standard input, so that it is in no
# argument itself. Prints how often it looked, and how often it saw which text.
SAMPLER = """
import glob, os, sys, time
wanted = sys.stdin.buffer.read().split()
seen, rounds = [0] * len(wanted), 0
print("ready", flush=True)
while not os.path.exists("/run/enough") and rounds < 100000:
    rounds += 1
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            content = open(path, "rb").read()
        except OSError:
            continue
        for number, text in enumerate(wanted):
            seen[number] += text in content
print(rounds, *seen)
"""
PLACES = "/etc /var /root /home /run /tmp /dev/shm /opt /srv"


@pytest.fixture(scope="module")
def server():
    with bare_server("e2e-users") as started:
        yield started


@pytest.fixture(scope="module")
def school(server, tmp_path_factory):
    return Site(server, tmp_path_factory.mktemp("school"), {})


def apply(site, *users, **plasma):
    """Apply with these users; the run must succeed."""
    site.set_pillar({"users": list(users), **plasma})
    done = site.apply("users")
    assert not done.failed, done.failed
    return done


def changes(done):
    (found,) = [state["changes"] for key, state in done.states.items() if key.startswith("users-managed")]
    return found


def refused(site, *users, **plasma):
    """What the state says, in a dry run too, before anything is changed."""
    site.set_pillar({"users": list(users), **plasma})
    before = files(site.target)
    said = [
        comment
        for done in (site.apply("users", "test=True"), site.apply("users"))
        for key, comment in done.failed.items()
        if key.startswith("users-managed")
    ]
    assert files(site.target) == before
    assert len(said) == 2
    assert said[0] == said[1]
    return said[0]


def files(target):
    look = "cat /etc/passwd /etc/shadow /etc/group /etc/gshadow; find /home -maxdepth 3 -printf '%p %u %m %t\\n' | sort"
    return target.sudo(look).stdout


def passwd(target):
    lines = target.ssh("cat /etc/passwd").stdout.splitlines()
    return {line.split(":")[0]: line.split(":") for line in lines}


def consistent(target):
    """The system's own checks find nothing; what they say about directories of system accounts is Debian's."""
    said = target.sudo("pwck -r; grpck -r", check=False)
    lines = [line for line in (said.stdout + said.stderr).splitlines() if "does not exist" not in line]
    assert lines == ["pwck: no changes"], lines
    missing = [line for line in (said.stdout + said.stderr).splitlines() if "/home/" in line]
    assert missing == []


def login(target, name, password):
    """What `su` makes of a password, asked by somebody who is not root."""
    done = target.ssh(f"su {name} -c 'id -un'", input=f"{password}\n", check=False)
    return done.stdout.split() if done.returncode == 0 else None


def class_of(prefix, number, **keys):
    return [{"name": f"{prefix}{n:04}", "groups": ["year-1"], **keys} for n in range(number)]


# A person, and what may be known about the password.


@pytest.fixture(scope="module")
def password():
    return f"Marker-{secrets.token_hex(12)}"


@pytest.fixture(scope="module")
def first(server, school, password):
    """The first apply, watched by a look at all processes."""
    control = f"Control-{secrets.token_hex(12)}"
    server.sudo(
        f"echo {control} > /root/control; echo {control} | systemd-cat; "
        f"systemd-run --quiet --unit=control --setenv=CONTROL={control} sleep 300"
    )
    sampler = subprocess.Popen(
        [*server.ssh_command(), "--", "sudo", "python3", "-c", f"'{SAMPLER}'"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    sampler.stdin.write(f"{password} {control}\n")
    sampler.stdin.close()
    assert sampler.stdout.readline().strip() == "ready"
    try:
        done = apply(school, {"name": "anna", "password": password, "groups": ["biology", "video"]})
        again = school.apply("users")
    finally:
        server.sudo("touch /run/enough")
        said = sampler.stdout.read()
        sampler.wait(60)
        server.sudo("rm /run/enough; systemctl stop control")
    rounds, marker, controls = map(int, said.split())
    assert rounds > 20
    assert controls > 0  # it does see what is there
    return {"done": done, "again": again, "in processes": marker, "control": control}


def test_a_person_can_log_in(server, first, password):
    assert changes(first["done"])["anna"]["new"]["password"] == "set"
    assert changes(first["again"]) == {}
    assert login(server, "anna", password) == ["anna"]
    assert login(server, "anna", password + "x") is None
    assert server.ssh("id -Gn anna").stdout.split() == ["anna", "video", "biology"]
    assert server.sudo("stat -c '%U:%G %a' /home/anna /home/anna/.profile").stdout.split() == [
        "anna:anna",
        "700",
        "anna:anna",
        "644",
    ]
    consistent(server)


def test_the_password_is_nowhere_on_the_server(server, first, password):
    assert first["in processes"] == 0

    def found(text):
        # What grep looks for is in none of its arguments, and not in what it looks through.
        grep = server.sudo(f"grep -rlaF -f - {PLACES} 2>/dev/null; true", input=text + "\n").stdout.split()
        journal = server.sudo(
            "cat > /dev/shm/wanted; journalctl -a -o export | grep -caF -f /dev/shm/wanted; rm /dev/shm/wanted",
            input=text + "\n",
            check=False,
        ).stdout.split()
        return grep, journal

    assert found(password) == ([], ["0"])
    grep, journal = found(first["control"])
    assert "/root/control" in grep
    assert journal != ["0"]


def test_the_password_is_nowhere_on_the_controller_but_in_pillar(school, first, password):
    found = [
        str(path.relative_to(school.directory))
        for path in school.directory.rglob("*")
        if path.is_file() and password.encode() in path.read_bytes()
    ]
    assert found == ["pillar/plasma.sls"]
    for done in (first["done"], first["again"]):
        assert password not in done.stdout + done.stderr
        assert "$y$" not in done.stdout + done.stderr
        assert "$6$" not in done.stdout + done.stderr


def test_a_password_of_ones_own_stays_until_it_is_enforced(server, school, first, password):
    anna = {"name": "anna", "password": password, "groups": ["biology", "video"]}
    own = secrets.token_hex(8)
    server.ssh("su anna -c passwd", input=f"{password}\n{password}\n{own}\n{own}\n")
    assert login(server, "anna", own)
    assert changes(apply(school, anna)) == {}
    assert login(server, "anna", own)
    # One person who forgot theirs, then everybody.
    done = apply(school, {**anna, "password_policy": "enforce"})
    assert changes(done) == {"anna": {"old": {}, "new": {"password": "changed"}}}
    assert login(server, "anna", password)
    server.sudo("chpasswd", input=f"anna:{own}\n")
    assert changes(apply(school, anna, password_policy="enforce")) == {
        "anna": {"old": {}, "new": {"password": "changed"}}
    }
    assert login(server, "anna", password)
    assert login(server, "anna", own) is None


# A thousand.


def test_a_thousand_people(server, school, first):
    people = class_of("s", 1000)
    school.set_pillar({"users": people})
    predicted = school.apply("users", "test=True")
    done = apply(school, *people)
    assert set(changes(done)["created"]["new"]) == {person["name"] for person in people}
    assert changes(done) == changes(predicted)
    assert changes(apply(school, *people)) == {}
    added = apply(school, *people, {"name": "zoe"})
    assert list(changes(added)) == ["zoe"]
    rows = passwd(server)
    assert len({row[2] for row in rows.values()}) == len(rows)
    assert len(server.ssh("getent group year-1").stdout.split(",")) == 1000
    homes = server.sudo("stat -c '%n %U %G %a' /home/s0*").stdout.splitlines()
    assert homes == [f"/home/{name} {name} {name} 700" for name in sorted(row["name"] for row in people)]
    consistent(server)


# What is true on the server at the moment of the kill.
POINTS = {"groups": "grep -q ^{prefix}0299: /etc/group", "homes": "[ -e /home/{prefix}0300 ]"}


@pytest.mark.parametrize("point", POINTS)
def test_killed_in_the_middle(server, school, first, point):
    people = class_of(point[0], 1000 if point == "homes" else 300)
    school.set_pillar({"users": people})
    condition = POINTS[point].format(prefix=point[0])
    # The bracket keeps pkill from matching the shell that runs it.
    killer = subprocess.Popen(
        [
            *server.ssh_command(),
            "--",
            "sudo",
            "sh",
            "-c",
            f"'touch /run/watching; until {condition}; do :; done; pkill -9 -f \"[s]alt-call\"'",
        ]
    )
    wait_for(lambda: server.ssh("test -e /run/watching", check=False).returncode == 0, timeout=30, what="the killer")
    cut_off = school.apply("users")
    assert killer.wait(60) in (0, 255)
    assert cut_off.returncode != 0
    rows = passwd(server)
    shadow = server.sudo("cut -d: -f1 /etc/shadow").stdout.split()
    there = [person["name"] for person in people if person["name"] in rows]
    assert set(there) <= set(shadow)
    assert len(server.sudo(f"ls -d /home/{point[0]}*", check=False).stdout.split()) < len(people)

    apply(school, *people)
    assert changes(school.apply("users")) == {}
    homes = server.sudo(f"stat -c '%n %U' /home/{point[0]}0*").stdout.splitlines()
    assert homes == [f"/home/{person['name']} {person['name']}" for person in people]
    assert server.sudo("ls -A /home | grep plasma-new", check=False).stdout == ""
    assert json.loads(server.sudo("cat /var/lib/plasma/users.json").stdout)["making"] == {}
    consistent(server)


def test_two_applies_at_once(server, school, first, tmp_path):
    """Of two operators, each with a copy of salt-ssh of their own on the server."""
    other = Site(server, tmp_path / "other")
    roster = yaml.safe_load((other.directory / "roster").read_text())
    roster[server.name]["thin_dir"] = "/var/tmp/other-thin"
    (other.directory / "roster").write_text(yaml.safe_dump(roster))
    school.set_pillar({"users": class_of("one", 300)})
    other.set_pillar({"users": class_of("two", 300)})
    running = [
        (site, site.start("state.apply", "users", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        for site in (school, other)
    ]
    said = [("".join(process.communicate(timeout=300)), process.returncode) for _, process in running]
    # Who came second is told so, and has changed nothing.
    refused_ones = [out for out, code in said if code]
    assert len(refused_ones) <= 1 and all("Another apply runs on this server" in out for out in refused_ones), said
    for site, _ in running:
        assert site.apply("users").failed == {}
        assert changes(site.apply("users")) == {}
    rows = passwd(server)
    assert sum(name.startswith(("one", "two")) for name in rows) == 600
    assert len({row[2] for row in rows.values()}) == len(rows)
    consistent(server)


def test_somebody_adds_accounts_by_hand_meanwhile(server, school, first):
    by_hand = subprocess.Popen(
        [
            *server.ssh_command(),
            "--",
            "for n in $(seq 100 399); do [ -e /tmp/enough ] && exit; "
            "sudo useradd --create-home hand$n || exit; sleep 0.4; done",
        ]
    )
    try:
        wait_for(lambda: "hand101" in passwd(server), timeout=60, what="accounts made by hand")
        people = class_of("mixed", 300)
        done = apply(school, *people)
    finally:
        server.ssh("touch /tmp/enough")
        assert by_hand.wait(60) == 0
    assert len(changes(done)["created"]["new"]) == 300
    assert changes(school.apply("users")) == {}
    rows = passwd(server)
    hands = [name for name in rows if name.startswith("hand")]
    assert len(hands) > 3
    assert hands == [f"hand{100 + n}" for n in range(len(hands))]  # none was lost
    assert len({row[2] for row in rows.values()}) == len(rows)
    consistent(server)


# Removal.


def test_a_home_full_of_traps_is_kept_as_it_is(server, school, first):
    apply(school, {"name": "mallory"}, {"name": "trudy"})
    for name in ("mallory", "trudy"):
        server.sudo(
            f"cd /home/{name} && echo work > thesis && cp /bin/true root-shell && chmod 4755 root-shell && "
            f"ln -s /etc etc && ln -s / all && ln /root/control hard && mkfifo pipe && mkdir -m 0 closed && "
            f"chown -h {name}: thesis etc all closed && mkdir -p deep && cd deep && "
            'python3 -c \'import os\nfor _ in range(3000): os.mkdir("d"); os.chdir("d")\''
        )
        server.sudo(f"systemd-run --quiet --uid={name} sleep 600")
    server.sudo("mkdir -p /var/spool/cron/crontabs && echo '* * * * * id' > /var/spool/cron/crontabs/mallory")
    uids = {name: passwd(server)[name][2] for name in ("mallory", "trudy")}
    gone = [{"name": "mallory", "absent": True}, {"name": "trudy", "absent": True, "remove_home": True}]
    school.set_pillar({"users": gone})
    predicted = school.apply("users", "test=True")
    done = apply(school, *gone)
    assert set(changes(done)) == set(changes(predicted)) == {"mallory", "trudy"}
    assert changes(school.apply("users")) == {}
    assert not {"mallory", "trudy"} & set(passwd(server))
    assert server.ssh("pgrep -a sleep", check=False).stdout == ""
    (archive,) = server.sudo("ls /home/.plasma-removed").stdout.split()
    assert archive.startswith(f"mallory.uid{uids['mallory']}.20")
    where = f"/home/.plasma-removed/{archive}"
    assert server.sudo(
        f"stat -c '%u %a' /home/.plasma-removed {where}/home {where}/home/root-shell"
    ).stdout.split() == [
        "0",
        "700",
        uids["mallory"],
        "700",
        "0",
        "4755",
    ]
    account = json.loads(server.sudo(f"cat {where}/account.json").stdout)
    assert (account["name"], str(account["uid"]), account["home"]) == ("mallory", uids["mallory"], "/home/mallory")
    assert server.sudo(f"cat {where}/crontabs-mallory {where}/home/thesis").stdout == "* * * * * id\nwork\n"
    assert server.sudo("stat -c %h /root/control; ls /etc/passwd /home/trudy", check=False).stdout.split() == [
        "2",
        "/etc/passwd",
    ]
    assert server.ssh(f"ls {where}", check=False).returncode != 0
    consistent(server)


def test_somebody_who_comes_back(server, school, first):
    """With the home moved back by hand it is the same person; without, somebody new of the same name."""
    old = server.sudo("ls /home/.plasma-removed").stdout.split()[0]
    apply(school, {"name": "mallory"})
    assert old.split(".")[1] != f"uid{passwd(server)['mallory'][2]}"
    assert server.sudo("ls -A /home/mallory").stdout.split() == [".bash_logout", ".bashrc", ".profile"]
    apply(school, {"name": "mallory", "absent": True, "remove_home": True})
    server.sudo(f"mv /home/.plasma-removed/{old}/home /home/mallory")
    apply(school, {"name": "mallory"})
    assert old.split(".")[1] == f"uid{passwd(server)['mallory'][2]}"
    assert server.sudo("cat /home/mallory/thesis").stdout == "work\n"


def test_who_cannot_be_removed(server, school, first):
    server.sudo("useradd --system robot; mkdir /home/anna/data && mount -t tmpfs none /home/anna/data")
    try:
        said = refused(
            school,
            {"name": "ubuntu", "absent": True},
            {"name": "robot", "absent": True},
            {"name": "anna", "absent": True},
            {"name": "new", "shell": "/bin/fish", "groups": ["render"]},
        )
    finally:
        server.sudo("umount /home/anna/data")
    assert len(said.splitlines()) == 5, said
    for sentence in (
        "user ubuntu: is the account this apply comes from",
        "user robot: is a system account",
        "user anna: /home/anna/data is mounted in the home: unmount it first",
        "user new: shell /bin/fish is no program",
        "user new: group render does not exist",
    ):
        assert sentence in said


def test_a_thousand_people_leave(server, school, first):
    people = class_of("s", 1000)
    done = apply(school, *[{"name": person["name"], "absent": True} for person in people])
    assert len(changes(done)["removed"]["old"]) == 1000
    assert changes(school.apply("users")) == {}
    assert not any(name.startswith("s0") for name in passwd(server))
    assert len(server.sudo("ls -d /home/.plasma-removed/s0*/home").stdout.split()) == 1000
    assert server.ssh("getent group s0000", check=False).stdout == ""
    consistent(server)
