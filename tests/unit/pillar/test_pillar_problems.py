"""What an operator reads when the pillar is wrong: one line each, with the key, the value and what is allowed."""

from __future__ import annotations

import pytest

WHOLE = [
    # Written in pillar; the line.
    (
        "cull: {timeuot: 5}",
        "plasma.cull.timeuot: unknown key; did you mean 'timeout'?",
    ),
    (
        "limits: {memory: 2g}",
        'plasma.limits.memory: "2g" is not a size. Allowed: a number followed by K, M, G or T, such as 512M or 1.5G, '
        "at least 64M.",
    ),
    (
        "cull: {timeout: '3600'}",
        'plasma.cull.timeout: "3600" is not a whole number (it is text: remove the quotes). '
        "Allowed: a whole number from 1 to 31536000.",
    ),
    (
        "hub: {provider: tlhj}",
        'plasma.hub.provider: "tlhj" is not one of the choices. Allowed: tljh or pypi.',
    ),
    (
        "permissions: {default: clsoed}",
        'plasma.permissions.default: "clsoed" is not one of the choices. Allowed: open or closed.',
    ),
    (
        "builder: {image: quay.io/jupyterhub/repo2docker}",
        'plasma.builder.image: "quay.io/jupyterhub/repo2docker" names neither a tag nor a digest: Docker would take '
        "`latest`, which changes over time. Allowed: a Docker image with a tag other than `latest` or with a digest: "
        "REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST, of letters, digits and . _ - / : @; or `local`, or null.",
    ),
    (
        "builder: {parallel: 0}",
        "plasma.builder.parallel: 0 is too small. Allowed: a whole number from 1 to 16.",
    ),
    (
        "monitoring_url: 'javascript:alert(1)'",
        'plasma.monitoring_url: "javascript:alert(1)" does not start with https:// or http://. Allowed: an https:// or '
        "http:// URL, a path on this server that starts with one /, or '' for no link.",
    ),
    (
        "limits:",
        "plasma.limits: null is not allowed here (nothing stands after the key: give it a value, or remove the line). "
        "Allowed: a mapping with any of the keys memory, cpu.",
    ),
    (
        "cull: 7",
        "plasma.cull: 7 is not a mapping. Allowed: a mapping with any of the keys enabled, timeout, every, "
        "concurrency, users, max_age, remove_named_servers.",
    ),
    (
        "{ssh: {open_to: {users: [a]}}, users: [{name: a, absent: true}]}",
        'plasma.ssh.open_to.users[0]: "a" is a user who is absent: plasma.users[0].absent.',
    ),
    (
        "{ssh: {open_to: {groups: [a]}}, groups: [{name: a, absent: true}]}",
        'plasma.ssh.open_to.groups[0]: "a" is a group that is absent in plasma.groups.',
    ),
    (
        "ssh: {open_to: {users: [a, a]}}",
        'plasma.ssh.open_to.users[1]: "a" is already the value of plasma.ssh.open_to.users[0].',
    ),
    (
        "ssh: {open_to: [a]}",
        "plasma.ssh.open_to: a list of 1 is not a mapping. Allowed: a mapping with any of the keys users, groups.",
    ),
    (
        "users: [{name: a, uid: 1500}, {name: b, uid: 1500}]",
        "plasma.users[1].uid: 1500 is already the value of plasma.users[0].uid.",
    ),
]


@pytest.mark.parametrize(("written", "line"), WHOLE)
def test_whole_lines(problem, written, line):
    assert problem(written) == line


@pytest.mark.parametrize(
    ("written", "start"),
    [
        ("limit: {memory: 2G}", "plasma.limit: unknown key; did you mean 'limits'?"),
        ("named-servers: {limit: 3}", "plasma.named-servers: unknown key; did you mean 'named_servers'?"),
        ("Users: []", "plasma.Users: unknown key; did you mean 'users'?"),
        ("memory: 2G", "plasma.memory: unknown key; did you mean 'plasma.limits.memory' or"),
        ("prefix: /opt/x", "plasma.prefix: unknown key; did you mean 'plasma.hub.prefix'?"),
        ("zzz: 1", "plasma.zzz: unknown key. Known: hub, docker, limits,"),
        ("https: {tls: {key: /a/b, crt: /a/b, cert: /a/b}}", "plasma.https.tls.crt: unknown key; did you mean 'cert'?"),
        ("yes: 1", "plasma: unknown key true, which is no text. Known: hub,"),
        ("7: 1", "plasma: unknown key 7, which is no text. Known: hub,"),
        ("~: 1", "plasma: unknown key null, which is no text. Known: hub,"),
        ('"a b\\nc": 1', 'plasma."********": unknown key. Known: hub,'),
        (
            "environments: [{name: a, absent: true, build_args: {a b: x}}]",
            'plasma.environments[0].build_args."a b": the',
        ),
        (
            "environments: [{name: a, absent: true, build_args: {7: x}}]",
            "plasma.environments[0].build_args[7]: the key",
        ),
    ],
)
def test_unknown_keys(problem, written, start):
    assert problem(written).startswith(start)


@pytest.mark.parametrize(
    ("plasma", "start"),
    [
        (5, "plasma: 5 is not a mapping."),
        (True, "plasma: true is not a mapping."),
        ([1, 2], "plasma: a list of 2 is not a mapping."),
        ({"users": {"anna": {}}}, "plasma.users: a mapping is not a list."),
        ({"users": [[]]}, "plasma.users[0]: an empty list is not a mapping."),
        ({"users": [None]}, "plasma.users[0]: null is not allowed here"),
        ({"users": None}, "plasma.users: null is not allowed here"),
        ({"users": [{}]}, "plasma.users[0].name is required. Allowed: lower-case"),
        ({"users": [{"name": {"a": 1}}]}, "plasma.users[0].name: a mapping is not text."),
        ({"users": [{"name": "a", "groups": "b"}]}, 'plasma.users[0].groups: "b" is not a list.'),
        ({"users": [{"name": "a", "groups": [["b"]]}]}, "plasma.users[0].groups[0]: a list of 1 is not text."),
        ({"users": [{"name": "a", "quota": [1]}]}, "plasma.users[0].quota: a list of 1 is not a mapping."),
        ({"users": [{"name": "a", "quota": {"inodes": 5}}]}, "plasma.users[0].quota.inodes: 5 is not a mapping."),
        ({"groups": [5]}, "plasma.groups[0]: 5 is not a mapping."),
        ({"hub": {"versions": "2.0.0"}}, 'plasma.hub.versions: "2.0.0" is not a mapping.'),
        ({"utils": {"packages": "jq"}}, 'plasma.utils.packages: "jq" is not a list.'),
        ({"utils": {"ctop": {"sha256": ["x"]}}}, "plasma.utils.ctop.sha256: a list of 1 is not a mapping."),
    ],
)
def test_wrong_shapes(problem, plasma, start):
    assert problem(plasma).startswith(start)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("users: [{name: 007}]", "users[0].name: 7 is not text (YAML reads it as a number: put the text in quotes)"),
        ("users: [{name: 1e3}]", 'users[0].name: "1e3" could be taken for the id'),
        ("users: [{name: 12:30:45}]", "users[0].name: 45045 is not text (YAML reads it as a number"),
        ("users: [{name: yes}]", "users[0].name: true is not text (YAML reads yes, no, on, off, true and false"),
        ("users: [{name: No}]", "users[0].name: false is not text (YAML reads yes"),
        ("users: [{name: 2024-01-01}]", 'users[0].name: "2024-01-01" is not a Linux user'),
        ("users: [{name: ~}]", "users[0].name: null is not allowed here"),
        ("users: [{name: .inf}]", "users[0].name: Infinity is not text"),
        ("users: [{name: !!binary YWJj}]", "users[0].name: a bytes is not text"),
        ("admins: [on]", "admins[0]: true is not text"),
        ("hub: {versions: {tljh: 2.0}}", "hub.versions.tljh: 2.0 is not text (YAML reads it as a number"),
        ("limits: {memory: 2}", "limits.memory: 2 is not text (YAML reads it as a number"),
        ("limits: {cpu: '2'}", 'limits.cpu: "2" is not a number (it is text: remove the quotes)'),
        ("cull: {enabled: 'yes'}", 'cull.enabled: "yes" is neither true nor false (it is text: remove the quotes)'),
        ("cull: {enabled: 1}", "cull.enabled: 1 is neither true nor false"),
        ("cull: {every: true}", "cull.every: true is not a whole number"),
        ("cull: {every: 60.0}", "cull.every: 60.0 is not a whole number"),
        ("docker: {log_driver: off}", "docker.log_driver: false is not one of the choices (YAML reads yes"),
        ("utils: {monitor: no}", "utils.monitor: false is not one of the choices (YAML reads yes"),
    ],
)
def test_what_yaml_makes_of_values(problem, written, value):
    assert problem(written).startswith(f"plasma.{value}")


@pytest.mark.parametrize(
    ("written", "start"),
    [
        (
            "users: [{name: a}, {name: b}, {name: a, absent: true}]",
            'users[2].name: "a" is already the value of plasma.u',
        ),
        ("users: [{name: a, was: a}]", 'users[0].was: "a" is the name itself.'),
        ("users: [{name: a}, {name: b, was: a}]", 'users[1].was: "a" is the name of a user: plasma.users[0].name.'),
        (
            "users: [{name: a, was: c}, {name: b, was: c}]",
            'users[1].was: "c" is already the value of plasma.users[0].was.',
        ),
        (
            "{users: [{name: a, was: c}], groups: [c]}",
            'users[0].was: "c" is the name of a group: plasma.groups[0].name.',
        ),
        ("users: [{name: a, was: root}]", 'users[0].was: "root" is the name of a system account.'),
        ("groups: [a, {name: a}]", 'groups[1].name: "a" is already the value of plasma.groups[0].name'),
        ("groups: [{name: a, gid: 2000}, {name: b, gid: 2000}]", "groups[1].gid: 2000 is already the value of"),
        ("admins: [a, b, a]", 'admins[2]: "a" is already the value of plasma.admins[0]'),
        (
            "users: [{name: a, groups: [x, x]}]",
            'users[0].groups[1]: "x" is already the value of plasma.users[0].groups[0].',
        ),
        (
            "environments: [{name: a, absent: true}, {name: a, absent: true}]",
            'environments[1].name: "a" is already the value of plasma.environments[0].name',
        ),
        ("quota: {soft: 12G, hard: 10G}", 'quota.soft: "12G" is more than the hard limit 10G.'),
        ("quota: {inodes: {soft: 9, hard: 8}}", "quota.inodes.soft: 9 is more than the hard limit 8."),
        ("users: [{name: a, quota: {soft: 2G, hard: 1024M}}]", 'users[0].quota.soft: "2G" is more than the hard limit'),
        ("{users: [{name: a, absent: true}], admins: [a]}", 'admins[0]: "a" is a user who is absent'),
        ("users: [{name: a, absent: true, admin: true}]", "users[0].admin: true contradicts `absent: true`."),
        ("{groups: [{name: g, absent: true}], users: [{name: a, groups: [g]}]}", 'users[0].groups[0]: "g" is a group'),
        ("{groups: [{name: a, absent: true}], users: [{name: a}]}", 'users[0].name: "a" has a group of that name too'),
        ("https: {name_server: hub.example.org}", "https.letsencrypt_email is required with a domain"),
        ("https: {letsencrypt_email: a@example.org}", "https.domains is required with letsencrypt_email"),
        ("https: {staging: true}", "https.domains is required"),
        ("https: {tls: {key: /etc/a}}", "https.tls.cert is required."),
        (
            "https: {tls: {key: /etc/a, cert: /etc/b}, letsencrypt_email: a@b.org}",
            'https.letsencrypt_email: "a@b.org" is set',
        ),
        (
            "https: {domains: [hub.example.org], letsencrypt_email: a@b.org, user_domains: true}",
            "https.user_domains: true needs a certificate for *.hub.example.org: set plasma.https.dns",
        ),
        (
            "https: {tls: {key: /etc/a, cert: /etc/b}, user_domains: true}",
            "https.user_domains: true needs the hub's own",
        ),
        (
            "https: {domains: [a.org, www.a.org], tls: {key: /etc/a, cert: /etc/b}, user_domains: true}",
            'https.domains[1]: "www.a.org" is below a.org, where names are those of people\'s servers',
        ),
        (
            "https: {domains: ['*.a.org'], letsencrypt_email: a@b.org}",
            'https.domains[0]: "*.a.org" is a wildcard, for which authorities want a DNS challenge: set dns',
        ),
        (
            "https: {tls: {key: /etc/a, cert: /etc/b}, dns: {provider: cloudflare}}",
            "https.dns: a mapping is set beside plasma.https.tls",
        ),
        ("https: {dns: {provider: cloudflare}}", "https.domains is required"),
        (
            "https: {domains: [a.org], letsencrypt_email: a@b.org, dns: {provider: x, environment: {LD_PRELOAD: x}}}",
            "https.dns.environment",
        ),
        (
            "https: {domains: [a.org], letsencrypt_email: a@b.org, dns: {provider: x, resolvers: [ns.a.org]}}",
            'https.dns.resolvers[0]: "ns.a.org" is not ADDRESS:PORT',
        ),
        ("cockpit: {enabled: true}", "cockpit.enabled: true needs plasma.https"),
        ("environments: [{name: a}]", "environments[0].repository is required."),
        (
            "{groups: [{name: g, absent: true}], environments: [{name: a, repository: https://b.org/a, groups: [g]}]}",
            'environments[0].groups[0]: "g" is a group that is absent in plasma.groups.',
        ),
        (
            "servers: {overrides: [{umask: '0002'}]}",
            "servers.overrides[0].groups or environments is required",
        ),
        (
            "servers: {volumes: [{source: /opt/tljh/state}]}",
            'servers.volumes[0].source: "/opt/tljh/state" overlaps plasma.hub.prefix (/opt/tljh)',
        ),
        (
            "{home_path: /srv/homes, servers: {volumes: [{source: /srv/homes/anna}]}}",
            'servers.volumes[0].source: "/srv/homes/anna" overlaps plasma.home_path (/srv/homes)',
        ),
        (
            "{users: [{name: a, home: /srv/staff/a}], servers: {volumes: [{source: /srv/staff}]}}",
            'servers.volumes[0].source: "/srv/staff" overlaps the home of somebody in plasma.users',
        ),
        (
            "servers: {overrides: [{groups: [g], volumes: [{source: /srv/x, target: /srv/data/x}]}]}",
            'servers.overrides[0].volumes[0].target: "/srv/data/x" overlaps /srv/data, /opt/plasma or the homes',
        ),
        (
            "{groups: [{name: g, absent: true}], servers: {overrides: [{groups: [g], volumes: [{source: /srv/x}]}]}}",
            "servers.overrides[0].volumes[0]",
        ),
        ("shared_data: /opt/tljh/data", 'shared_data: "/opt/tljh/data" overlaps plasma.hub.prefix (/opt/tljh)'),
        ("hub: {prefix: /srv/data}", "shared_data overlaps plasma.hub.prefix (/srv/data)"),
        ("users: [{name: a, remove_home: true}]", "users[0].remove_home: true needs `absent: true` beside it"),
        ("users: [{name: a, password_policy: enforce}]", 'users[0].password_policy: "enforce" needs `password` or'),
        (
            "users: [{name: a, uid: 1500, absent: true}, {name: b, uid: 1500}]",
            "users[1].uid: 1500 is already the value",
        ),
        (
            "users: [{name: a, home: /srv/x}, {name: b, home: /srv/x}]",
            'users[1].home: "/srv/x" is already the value of',
        ),
        (
            "users: [{name: a, home: /srv/x/a}, {name: b, home: /srv/x}]",
            'users[0].home: "/srv/x/a" is in the home of another user: plasma.users[1].home.',
        ),
        (
            "users: [{name: a}, {name: b, home: /home/a}]",
            'users[0].name: "a" gets the home /home/a, which is in the home of another user: plasma.users[1].home.',
        ),
        (
            "users: [{name: a}, {name: b, home: /home/a/b}, {name: c, home: /home/a/b/c}]",
            'users[2].home: "/home/a/b/c" is in the home of another user: plasma.users[1].home.',
        ),
        (
            "{home_path: /srv/homes/x, users: [{name: a, home: /srv/homes}]}",
            'users[0].home: "/srv/homes" holds plasma.home_path (/srv/homes/x), the homes of others.',
        ),
        ("users: [{name: a, home: /home/.plasma-removed/b}]", 'users[0].home: "/home/.plasma-removed/b" is where the'),
        ("{home_path: /srv/x, users: [{name: a, home: /srv/x}]}", 'users[0].home: "/srv/x" holds plasma.home_path'),
        (
            "{shared_data: /home/a, users: [{name: a}]}",
            'users[0].name: "a" gets the home /home/a, which overlaps /home/a, which is not one person',
        ),
        ("{home_path: /srv/data/homes}", 'home_path: "/srv/data/homes" is in plasma.shared_data (/srv/data)'),
        ("{home_path: /srv/data}", 'home_path: "/srv/data" is in plasma.shared_data (/srv/data)'),
        ("{home_path: /opt/tljh/homes}", 'home_path: "/opt/tljh/homes" overlaps plasma.hub.prefix (/opt/tljh)'),
        ("{hub: {prefix: /srv/homes/x}, home_path: /srv/homes}", 'home_path: "/srv/homes" overlaps plasma.hub.prefix'),
        ("users: [{name: a, home: /srv/data/a}]", 'users[0].home: "/srv/data/a" overlaps /srv/data'),
        ("users: [{name: a, home: /opt/tljh}]", 'users[0].home: "/opt/tljh" overlaps /opt/tljh'),
    ],
)
def test_keys_that_contradict_each_other(problem, written, start):
    assert problem(written).startswith(f"plasma.{start}")


@pytest.mark.parametrize(
    "written",
    [
        "https: {name_server: hub.example.org, letsencrypt_email: admin@example.org, staging: true}",
        "https: {domains: [a.example.org, b.example.org], letsencrypt_email: admin@example.org}",
        "https: {domains: [hub.test], letsencrypt_email: a@b.org, acme_server: 'https://pebble:14000/dir'}",
        "https: {tls: {key: /etc/ssl/private/a.key, cert: 'salt://certificates/a.pem'}, name_server: a.example.org}",
        "{cockpit: {enabled: true}, https: {tls: {key: /etc/a, cert: /etc/b}}}",
        "quota: {soft: 12G, hard: 0K}",
        "quota: {soft: 1024M, hard: 1G, grace: 604800}",
        "quotas: {enabled: true, device: UUID=aaef63c7-8c31-4329-8b7f-b90085ecccd4}",
        "users: [{name: joe.doe}, {name: j_d-2}, {name: x, groups: [sudo]}]",
        f"users: [{{name: {'a' * 32}}}]",
        "users: [{name: anna, fullname: Zoë O'Hara-Müller, home: /home/anna, shell: /usr/bin/zsh}]",
        "shared_data: /data",
        "{shared_data: /home/shared, users: [{name: a}]}",
        "home_path: /home/students",
        "users: [{name: a, home: /home/staff/a}, {name: b, home: /srv/b}, {name: c, home: /srv/bb}]",
        # An entry that became `absent` keeps its other keys.
        "{groups: [{name: g, absent: true}], users: [{name: a, absent: true, groups: [g], uid: 1500, shell: /bin/sh}]}",
        "users: [{name: a, absent: true, remove_home: true, password: x, password_policy: enforce}]",
        "hub: {prefix: /srv/hub/tljh}",
        "hub: {prefix: /usr/local/tljh}",
        "hub: {sources: {tljh: 'git+https://github.com/jupyterhub/the-littlest-jupyterhub@2.0.0'}}",
        "hub: {sources: {tljh: 'the-littlest-jupyterhub @ git+https://git.example.org/tljh@main'}}",
        "hub: {sources: {tljh: /srv/tljh-source}}",
        "hub: {sources: {tljh: 'the-littlest-jupyterhub==2.0.0'}}",
        "hub: {sources: {http_proxy: 'http://user:p%40ss@proxy:3128', no_proxy: 'localhost,127.0.0.0/8,.example.org'}}",
        "docker: {repository: {url: 'https://mirror.example.org/docker/', key_url: 'https://mirror.example.org/gpg'}}",
        "environments: [{name: r-course, repository: 'https://example.org/r.git', ref: feature/x_1, cpu: 0.5}]",
        "environments: [{name: r, repository: 'https://example.org/r.git', build_args: {R_VERSION: '4.4'}}]",
        "{environments: [{name: r, repository: 'git://172.17.0.1/r.git', memory: 512M, groups: [g]}], groups: [g]}",
        "{groups: [{name: g, absent: true}], environments: [{name: a, absent: true, groups: [g]}]}",
        "{permissions: {default: closed}, monitoring_url: ''}",
        "{monitoring_url: '/grafana/d/x?y=1', builder: {image: 'localhost:5000/r2d:1', parallel: 16, timeout: 60}}",
        "utils: {packages: [g++, libstdc++6, python3.12], monitor: none}",
    ],
)
def test_what_people_really_write_is_accepted(complete, written):
    complete(written)


def test_all_problems_at_once_and_in_order(problems):
    lines = problems("{limits: {memory: 1, cpu: x}, hub: {provider: x}, users: [{name: root}, {name: B}], nope: 1}")
    assert [line.split(":")[0] for line in lines] == [
        "plasma.hub.provider",
        "plasma.limits.memory",
        "plasma.limits.cpu",
        "plasma.users[0].name",
        "plasma.users[1].name",
        "plasma.nope",
    ]


def test_thousands_of_problems_are_cut_short(problems):
    lines = problems({"users": [{"name": "root"} for _ in range(5000)]})
    assert len(lines) == 51
    assert lines[-1] == "... and 4950 more problems"


def test_a_group_of_a_users_own_name_is_refused(problems):
    """The account is made with a group of its name; another one would be in its way."""
    users = [{"name": "anna"}, {"name": "ben", "groups": ["anna"]}, {"name": "old", "absent": True}]
    assert problems({"users": users, "groups": ["anna", "old"]}) == [
        'plasma.groups[0].name: "anna" is the name of a user too: plasma.users[0].name.',
        'plasma.users[1].groups[0]: "anna" is the group of one user alone: plasma.users[0].name.',
    ]


@pytest.mark.parametrize("name", ["20231234", "0100000", "2023-anna", "7a", "1801.a_b", "a", "x1"])
def test_names_that_a_system_can_hold(complete, name):
    """Student numbers, which were refused."""
    assert complete(f"users: [{{name: '{name}', was: '{name}1'}}]")["users"][0]["name"] == name


@pytest.mark.parametrize("name", ["1000", "20001", "99999", "000123", "0x1f", "1e5"])
def test_names_that_are_ids(problem, name):
    """chown, docker, setquota and loginctl take them for somebody else's."""
    assert problem(f"users: [{{name: '{name}'}}]").startswith(
        f'plasma.users[0].name: "{name}" could be taken for the id of somebody else. Allowed:'
    )
