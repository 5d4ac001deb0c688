"""What `plasma.servers` gives a server: time zone, umask, variables, proxy and directories, for whom."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from tljh_plasma import servers, settings, starts
from tljh_plasma.config_schema import problems
from tljh_plasma.reach import Entry
from tljh_plasma.servers import Extras, Servers, Volume
from tljh_plasma.settings import SettingsError

BIOLOGY = {
    "groups": ["biology"],
    "umask": "0002",
    "environment": {"COURSE": "biology", "THREADS": "4"},
    "volumes": [{"source": "/srv/biology", "writable": True}],
}
PARIS = {"environments": ["python-course"], "timezone": "Europe/Paris", "proxy": {"https": "http://10.9.9.9:3128"}}
BOTH = {"groups": ["biology", "physics"], "environments": ["r-course"], "umask": "0007", "timezone": None}


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Write config.yaml with these settings of servers, and return what the hub makes of them."""
    (tmp_path / "config").mkdir()
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(tmp_path))

    def load(**given):
        config = {"plasma": {"servers": given}}
        (tmp_path / "config" / "config.yaml").write_text(json.dumps(config))
        try:
            loaded = settings.load()
        except SettingsError as error:
            # What writes the file says the same.
            assert problems(config)
            return str(error)
        assert problems(config) == []
        return loaded

    return load


def test_without_settings_servers_are_as_they_were(configured):
    plain = configured().servers.of(frozenset({"biology"}), "python-course")
    assert plain == Extras()
    assert plain.variables("10.0.0.1") == {"PLASMA_UMASK": "0022"}


def test_a_key_without_a_value_is_no_setting(tmp_path, monkeypatch):
    (tmp_path / "config").mkdir()
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(tmp_path))
    names = ("timezone", "environment", "proxy", "volumes", "overrides")
    (tmp_path / "config" / "config.yaml").write_text(json.dumps({"plasma": {"servers": dict.fromkeys(names)}}))
    assert settings.load().servers.of(frozenset(), "x") == Extras()


@pytest.mark.parametrize(
    ("groups", "environment", "umask", "zone", "course", "volumes"),
    [
        (set(), "other", "0022", "Europe/Berlin", None, ["/srv/models"]),
        ({"biology"}, "other", "0002", "Europe/Berlin", "biology", ["/srv/models", "/srv/biology"]),
        ({"biology"}, "python-course", "0002", "Europe/Paris", "biology", ["/srv/models", "/srv/biology"]),
        ({"physics"}, "python-course", "0022", "Europe/Paris", None, ["/srv/models"]),
        # Both are asked for, and the later of two wins.
        ({"biology"}, "r-course", "0007", "Europe/Berlin", "biology", ["/srv/models", "/srv/biology"]),
        ({"physics"}, "r-course", "0007", "Europe/Berlin", None, ["/srv/models"]),
    ],
)
def test_groups_and_environments_get_their_own(configured, groups, environment, umask, zone, course, volumes):
    found = configured(
        timezone="Europe/Berlin",
        environment={"THREADS": "2"},
        volumes=[{"source": "/srv/models"}],
        overrides=[BIOLOGY, PARIS, BOTH],
    ).servers.of(frozenset(groups), environment)
    assert (found.umask, found.timezone, found.environment.get("COURSE")) == (umask, zone, course)
    assert found.environment["THREADS"] == ("4" if course else "2")
    assert [volume.target for volume in found.volumes] == volumes


def test_a_proxy_is_told_to_programs_of_every_kind_and_the_hub_needs_none(configured):
    given = {"http": "http://10.1.2.3:3128", "https": "http://10.1.2.3:3128", "no_proxy": ".example.org"}
    found = configured(proxy=given).servers.of(frozenset(), "x").variables("172.18.0.1")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        assert found[name] == "http://10.1.2.3:3128"
    assert found["NO_PROXY"] == found["no_proxy"] == "localhost,127.0.0.1,172.18.0.1,.example.org"
    # Of an override the keys that it has.
    changed = configured(proxy=given, overrides=[PARIS]).servers.of(frozenset(), "python-course")
    assert changed.proxy == {**given, "https": "http://10.9.9.9:3128"}


def test_servers_reach_the_proxies_that_they_are_told_to_use(configured):
    loaded = configured(proxy={"http": "http://10.1.2.3:3128", "https": "https://proxy.example.org"}, overrides=[PARIS])
    assert set(loaded.server_reach.allow) == {
        Entry("10.1.2.3/32", 3128),
        Entry("proxy.example.org", 443),
        Entry("10.9.9.9/32", 3128),
    }
    assert loaded.build_reach.allow == ()


@pytest.mark.skipif(not Path("/usr/share/zoneinfo/Europe/Berlin").exists(), reason="this machine has no time zones")
def test_a_time_zone_is_told_without_its_name_too():
    assert servers.unnamed("Europe/Berlin") == "CET-1CEST,M3.5.0,M10.5.0/3"
    assert servers.unnamed("Europe/Nowhere") == ""
    found = Extras(timezone="Asia/Kolkata").variables("10.0.0.1")
    assert (found["TZ"], found["PLASMA_TZ"]) == ("Asia/Kolkata", "IST-5:30")


@pytest.mark.parametrize(
    ("given", "place", "words"),
    [
        ({"timezone": "Berlin/Europe"}, "timezone", "must be the name of a time zone"),
        ({"timezone": "../../etc/passwd"}, "timezone", "must be the name of a time zone"),
        ({"umask": 2}, "umask", "must be four octal digits"),
        ({"umask": "0000"}, "umask", "must be four octal digits"),
        ({"umask": "0722"}, "umask", "must be four octal digits"),
        ({"umask": "0022; id"}, "umask", "must be four octal digits"),
        ({"environment": {"PATH": "/x"}}, "environment", "must be a mapping"),
        ({"environment": {"jupyterhub_api_token": "x"}}, "environment", "must be a mapping"),
        ({"environment": {"PLASMA_SAFE_MODE": "1"}}, "environment", "must be a mapping"),
        ({"environment": {"HTTPS_PROXY": "http://x"}}, "environment", "must be a mapping"),
        ({"environment": {"LD_PRELOAD": "/srv/x.so"}}, "environment", "must be a mapping"),
        ({"environment": {"A": "s3cret\nB=2"}}, "environment", "must be a mapping"),
        ({"environment": {"A": 7}}, "environment", "must be a mapping"),
        ({"environment": ["A=s3cret"]}, "environment", "must be a mapping"),
        ({"proxy": {"http": "http://anna:s3cret@proxy"}}, "proxy.http", "without a login"),
        ({"proxy": {"ftp": "http://proxy"}}, "proxy", "with the keys http, https, no_proxy"),
        ({"proxy": {"no_proxy": "a b"}}, "proxy.no_proxy", "separated by commas"),
        ({"volumes": [{"source": "/"}]}, "volumes.0.source", "must be an absolute path"),
        ({"volumes": [{"source": "/var/run/docker.sock"}]}, "volumes.0.source", "must be an absolute path"),
        ({"volumes": [{"source": "/srv/a", "target": "/etc/x"}]}, "volumes.0.target", "must be an absolute path"),
        ({"volumes": [{"source": "/srv/a", "target": "/home/ada"}]}, "volumes.0.target", "must be an absolute path"),
        ({"volumes": [{"target": "/srv/a"}]}, "volumes.0", "with the keys source, target, writable"),
        ({"volumes": [{"source": "/srv/a", "writable": "yes"}]}, "volumes.0.writable", "must be true or false"),
        ({"overrides": [{"umask": "022"}]}, "overrides.0.umask", "must be four octal digits"),
        ({"overrides": [{}, {"volumes": [{"source": "/etc"}]}]}, "overrides.1.volumes.0.source", "absolute path"),
        ({"overrides": [{"group": ["x"]}]}, "overrides.0", "with the keys groups, environments"),
    ],
)
def test_a_wrong_setting_is_named_with_its_place_and_no_secret(configured, given, place, words):
    said = configured(**given)
    assert isinstance(said, str), "it was taken"
    assert said.startswith(f"config.yaml: plasma.servers.{place} must be ")
    assert words in said
    assert "s3cret" not in said


# Directories.


@pytest.fixture
def base():
    """A directory that is root's, as are all above it."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = Path(tempfile.mkdtemp(prefix="plasmat-volumes-", dir="/srv"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def mount(*volumes, home="/home/ada", closed=()):
    found, missing = servers.mounts(volumes, home, closed)
    return [(volume.source, volume.target, volume.writable) for volume in found], missing


def test_directories_of_roots_are_mounted_where_they_really_are(base):
    (base / "models").mkdir()
    group = base / "biology"
    group.mkdir()
    os.chown(group, 0, 54321)
    group.chmod(0o2770)
    (base / "link").symlink_to("models")
    found, missing = mount(
        Volume(f"{base}/link", "/srv/models"), Volume(f"{base}/biology", "/srv/biology", writable=True)
    )
    assert missing == []
    assert found == [(f"{base}/models", "/srv/models", False), (f"{base}/biology", "/srv/biology", True)]


def test_a_place_that_somebody_controls_is_never_mounted(base):
    """Whoever owns a directory, or may write to one above it, could put a link to /etc in its place."""
    theirs = base / "theirs"
    theirs.mkdir()
    os.chown(theirs, 54321, 54321)
    (theirs / "data").mkdir()
    shared = base / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    (shared / "data").mkdir()
    (base / "out").symlink_to("/etc")
    (base / "file").touch()
    for source, words in {
        theirs: "does not belong to root",
        theirs / "data": "belongs to uid 54321, not to root",
        shared / "data": "is writable by others than root",
        base / "out": "is a directory of the system",
        base / "file": "is not a directory",
        base / "none": "cannot be used",
    }.items():
        found, (said,) = mount(Volume(str(source), "/srv/x", writable=True))
        assert found == []
        assert said.startswith("/srv/x is not mounted: ")
        assert words in said


@pytest.mark.parametrize(
    "target", ["/home/ada", "/home/ada/data", "/home", "/srv/data", "/srv/data/x", "/opt/plasma/lib"]
)
def test_nothing_is_mounted_over_what_servers_have(base, target):
    found, (said,) = mount(Volume(str(base), target))
    assert found == []
    assert "is mounted there" in said


def test_the_person_hears_of_a_directory_that_is_missing_and_not_why(base):
    _, missing = mount(Volume(f"{base}/none", "/srv/models"), Volume(f"{base}/other", "/srv/other"))
    told = starts.missing_directories(missing)
    assert told.title == "A directory is missing"
    assert told.text == "/srv/models, /srv/other: please tell the administrator of the hub."


def test_homes_and_the_hubs_own_directory_stay_closed(base):
    for name in ("homes", "hub"):
        (base / name).mkdir()
    closed = [f"{base}/homes", f"{base}/hub"]
    for source in (base, base / "homes", base / "hub"):
        found, (said,) = mount(Volume(str(source), "/srv/x"), closed=closed)
        assert found == []
        assert "overlaps" in said


def test_one_directory_hides_no_other(base):
    for name in ("a", "b"):
        (base / name).mkdir()
    one, inner = Volume(f"{base}/a", "/srv/x"), Volume(f"{base}/b", "/srv/x/y")
    found, (said,) = mount(one, inner)
    assert found == [(f"{base}/a", "/srv/x", False)]
    assert said == "/srv/x/y is not mounted: /srv/x is mounted there."
    # The later of two for one place counts, as everywhere in the settings.
    found, missing = mount(one, Volume(f"{base}/b", "/srv/x", writable=True))
    assert (found, missing) == ([(f"{base}/b", "/srv/x", True)], [])


def test_members_of_a_group_edit_each_others_files(base):
    """With the umask that servers always had, they cannot."""
    group = base / "biology"
    group.mkdir()
    os.chown(group, 0, 54321)
    group.chmod(0o2770)

    def write(uid: int, umask: str, name: str, text: str) -> int:
        script = f"umask {umask}; printf %s {text} >{group / name}"
        run = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--groups=54321", "sh", "-c", script]
        return subprocess.run(run, capture_output=True, timeout=30).returncode

    assert write(50001, "0022", "closed.txt", "one") == 0
    assert write(50002, "0022", "closed.txt", "two") != 0
    assert write(50001, "0002", "open.txt", "one") == 0
    assert write(50002, "0002", "open.txt", "two") == 0
    assert (group / "open.txt").read_text() == "two"
    assert (group / "open.txt").stat().st_gid == 54321


@pytest.mark.parametrize(
    ("cull", "expected"),
    [("", 150), ("{timeout: 3600}", 300), ("{timeout: 400}", 100), ("{timeout: 8}", 5), ("{}", 150)],
)
def test_a_busy_server_says_so_several_times_before_it_would_be_stopped(tmp_path, monkeypatch, cull, expected):
    (tmp_path / "config").mkdir()
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(tmp_path))
    (tmp_path / "config" / "config.yaml").write_text(f"services: {{cull: {cull}}}\n" if cull else "users: {}\n")
    assert settings.load().activity_interval == expected
    assert Servers().of(frozenset(), "x") == Extras()
