"""The execution modules plasma_https, plasma_https_files, plasma_https_acme and plasma_https_switch."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import socket
import types

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_files
import plasma_https_acme as acme
import plasma_https_certificates as certificates
import plasma_https_dns as https_dns
import plasma_https_files as files
import plasma_https_names as https_names
import plasma_https_settings as https
import plasma_https_switch as switch
import plasma_run
from tests.support.acme import make_certificate

NAMES = ["hub.example.org"]
PAIR = {"key": "/etc/ssl/hub.key", "cert": "/etc/ssl/hub.pem"}


class Server:
    """A hub without a hub: config.yaml as a dict, a proxy that shows what the test says."""

    def __init__(self, prefix):
        self.prefix = prefix
        for name in ("config", "state", "plasma"):
            (prefix / name).mkdir()
        self.config = {"limits": {"memory": "2G"}}
        self.certificate = {}
        self.reloads = 0
        self.fails = None
        self.error = None
        self.redirects = True

    def compare(self, settings, prefix, unset=()):
        found = {}
        for key, value in _leaves(settings).items():
            old = _leaves(self.config).get(key)
            if old != value:
                found[key] = {"old": old, "new": value}
        found.update({key: {"old": 1, "new": None} for key in unset if key == "https" or key in _leaves(self.config)})
        return found

    def apply(self, settings, prefix, unset=(), reload="auto", timeout=0):
        changes = self.compare(settings, prefix)
        removed = [key for key in unset if key in _leaves(self.config) or key in self.config]
        if self.fails and changes:
            self.fails, why = None, self.fails
            raise CommandExecutionError(why)
        leaves = {**_leaves(self.config), **_leaves(settings)}
        leaves = {key: value for key, value in leaves.items() if not any(f"{key}.".startswith(f"{u}.") for u in unset)}
        self.config = _tree(leaves)
        done = bool(changes or removed)
        self.reloads += done
        return {"changes": changes, "diff": "", "reloaded": "proxy" if done else None, "seconds": 0.0}

    def reload(self, component, prefix, timeout):
        self.reloads += 1


def _leaves(tree, above=""):
    found = {}
    for key, value in tree.items():
        found.update(_leaves(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value})
    return found


def _tree(leaves):
    tree = {}
    for key, value in leaves.items():
        place = tree
        *parts, last = key.split(".")
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


@pytest.fixture(autouse=True)
def configure_loader_modules(server):
    functions = {
        "tljh_settings.show": lambda prefix="": server.config,
        "tljh_settings.compare": server.compare,
        "tljh_settings.apply": server.apply,
        "tljh_settings.reload": server.reload,
        "tljh_settings.pending": lambda prefix="": None,
        "tljh_service.running": lambda: True,
        "plasma_listeners.holders": lambda port, address=None: [],
        "plasma_files.write": plasma_files.write,
        "cp.cache_file": lambda url: None,
        "plasma_https_certificates.served": lambda name, address="", port=443: server.certificate,
        "plasma_https_acme.last_error": lambda since=None: server.error,
    }
    for module in (https, acme, files, certificates, https_names, https_dns):
        for name, function in vars(module).items():
            if isinstance(function, types.FunctionType) and not name.startswith("_"):
                functions.setdefault(f"{module.__name__}.{name}", function)
    return {
        module: {"__salt__": functions} for module in (https, switch, files, acme, certificates, https_names, https_dns)
    }


@pytest.fixture
def waits(monkeypatch, server):
    monkeypatch.setattr(switch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(
        switch, "_not_redirected", lambda prefix, name: None if server.redirects else "Plain HTTP does not lead there"
    )


def good(*names):
    return {"subject": "CN=x", "issuer": "CN=ca", "domains": list(names or NAMES), "fingerprint": "F"}


OFF = https.Wanted(enabled=False)


def wanted(*domains, **more):
    return https.Wanted(domains=domains or NAMES, email="a@example.org", **more)


def switched(server, settings=None, **more):
    settings = dataclasses.replace(settings or wanted(), prefix=str(server.prefix), **more)
    return switch.apply(settings, timeout=0)


def test_settings():
    assert https.Wanted(key="/k", cert="/c").section["tls"] == {"key": "/k", "cert": "/c"}
    assert https.Wanted(key="/k", cert="/c").section["letsencrypt"]["email"] == ""
    assert wanted(staging=True).section["letsencrypt"]["staging"] is True
    assert wanted(staging=True, acme_server="https://x/").section["letsencrypt"]["staging"] is False
    for arguments in ({}, {"key": "/k"}, {"domains": NAMES}, {"email": "a@example.org"}):
        with pytest.raises(SaltInvocationError):
            https.Wanted(**arguments)


def test_it_is_switched_on_and_then_nothing_is_left(server, waits):
    server.certificate = good()
    done = switched(server)
    assert done["changes"]["https.enabled"] == {"old": None, "new": True}
    assert server.config["limits"] == {"memory": "2G"}
    assert not (server.prefix / "plasma" / "https-before.json").exists()
    assert switched(server)["changes"] == {}
    assert server.reloads == 1


def test_no_certificate_restores_what_was_there(server, waits):
    before = json.loads(json.dumps(server.config))
    server.certificate = good() | {"subject": "CN=TRAEFIK DEFAULT CERT"}
    server.error = "acme: error: 403 :: urn:ietf:params:acme:error:unauthorized"
    with pytest.raises(CommandExecutionError) as raised:
        switched(server, acme_server="https://acme.example.org/dir", acme_ca="/etc/ssl/own.pem")
    assert "none yet for hub.example.org" in str(raised.value)
    assert "403 :: urn" in str(raised.value)
    assert "was restored" in str(raised.value)
    assert server.config == before
    assert not pathlib.Path(https.extra(str(server.prefix))).exists()
    assert server.reloads == 2


@pytest.mark.parametrize(("fails", "redirects"), [("The hub did not come up.", True), (None, False)])
def test_other_failures_restore_it_too(server, waits, fails, redirects):
    server.certificate = good()
    switched(server)
    before = json.loads(json.dumps(server.config))
    server.fails, server.redirects = fails, redirects
    with pytest.raises(CommandExecutionError, match="was restored"):
        switched(server, wanted("new.example.org"))
    assert server.config == before


def test_a_switch_that_was_cut_off_goes_back_to_what_was_before_it(server, waits, monkeypatch):
    server.certificate = {}

    def killed(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(switch, "_wait", killed)
        with pytest.raises(KeyboardInterrupt):
            switched(server)
    assert server.config["https"]["enabled"] is True
    with pytest.raises(CommandExecutionError, match="was restored"):
        switched(server)
    assert server.config == {"limits": {"memory": "2G"}}


PUT_ASIDE = acme.put_aside


def account(host):
    return json.dumps({"letsencrypt": {"Account": {"Registration": {"uri": f"https://{host}/acme/acct/1"}}}})


def test_another_authority_gets_an_account_of_its_own(server, waits, monkeypatch, tmp_path):
    backups = tmp_path / "backups"
    monkeypatch.setattr(acme, "put_aside", lambda prefix: PUT_ASIDE(prefix, str(backups)))
    store = server.prefix / "state" / "acme.json"
    store.write_text(account(switch.STAGING), encoding="utf-8")
    server.certificate = good()
    # With the same authority the account and its certificates are used again, as often as it is switched on.
    for settings in (wanted(staging=True), OFF, wanted(staging=True), https.Wanted(**PAIR, domains=NAMES)):
        monkeypatch.setattr(switch, "_wait", lambda *args: None)
        assert switched(server, settings)["kept"] is None
    done = switched(server, wanted())
    assert store.read_text(encoding="utf-8") == ""
    kept = pathlib.Path(done["kept"])
    assert kept.read_text(encoding="utf-8") == account(switch.STAGING)
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    store.write_text(account(switch.PRODUCTION), encoding="utf-8")
    monkeypatch.setattr(switch, "_wait", lambda *args: "none came")
    with pytest.raises(CommandExecutionError):
        switched(server, wanted(), acme_server="https://acme.example.org/dir")
    assert store.read_text(encoding="utf-8") == account(switch.PRODUCTION)


def test_what_was_before_is_forgotten_once_all_is_as_wanted(server, waits, monkeypatch):
    """A switch that was cut off after it took effect: a later failure goes back to it, and not to what was before."""
    server.certificate = good()

    def killed(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(switch, "_wait", killed)
        with pytest.raises(KeyboardInterrupt):
            switched(server)
    assert switched(server)["changes"] == {}
    working = json.loads(json.dumps(server.config))
    server.certificate = {}
    with pytest.raises(CommandExecutionError):
        switched(server, wanted("new.example.org"))
    assert server.config == working


def test_another_authority_is_written_for_the_proxy(server, waits):
    server.certificate = good()
    done = switched(server, acme_server="https://acme.example.org/dir", acme_ca="/etc/ssl/own.pem")
    assert done["changes"]["acme"] == {"old": None, "new": "https://acme.example.org/dir"}
    file = pathlib.Path(https.extra(str(server.prefix)))
    assert 'caServer = "https://acme.example.org/dir"' in file.read_text(encoding="utf-8")
    assert 'caCertificates = ["/etc/ssl/own.pem"]' in file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o777 == 0o600
    switched(server, OFF)
    assert not file.exists()
    assert server.config["https"]["letsencrypt"]["email"] == "a@example.org"  # for when it is switched on again


@pytest.mark.parametrize(
    ("addresses", "ours", "shown", "said"),
    [
        (["192.0.2.1"], ["192.0.2.1"], {}, None),
        (["192.0.2.1"], [], {}, "leads to 192.0.2.1, where port 443 is not this server's"),
        ([], [], {}, "has no address"),
    ],
)
def test_names(server, monkeypatch, addresses, ours, shown, said):
    def resolve(name, port, type):
        if not addresses:
            raise OSError(-2, "Name or service not known")
        return [(None, None, None, None, (address, port)) for address in addresses]

    monkeypatch.setattr(https_names.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(https_names, "_ours", lambda address: address in ours)
    monkeypatch.setattr(https_names, "_leads_here", lambda address, domain: False)
    found = https.problems(wanted())
    assert found == [] if said is None else said in found[0]
    assert https.problems(wanted(), check=False) == []
    assert https.problems(https.Wanted(**PAIR, domains=NAMES)) == []  # nobody has to find this server for it
    # A record in DNS is found wherever the server is.
    assert https.problems(wanted(dns={"provider": "x"})) == []


@pytest.mark.parametrize(
    ("hub", "below", "said"),
    [
        ("192.0.2.1", "192.0.2.1", None),
        ("192.0.2.9", "192.0.2.9", None),  # a router's
        ("192.0.2.1", "192.0.2.2", "leads to 192.0.2.2 and hub.example.org to 192.0.2.1: correct the records"),
        ("192.0.2.1", None, "has no address (Name or service not known), and people's servers get such names: add a"),
    ],
)
def test_names_of_people_have_to_lead_where_the_hubs_does(monkeypatch, hub, below, said):
    asked = []

    def resolve(name, port, type):
        asked.append(name)
        address = hub if name == NAMES[0] else below
        if not address:
            raise OSError(-2, "Name or service not known")
        return [(None, None, None, None, (address, port))]

    monkeypatch.setattr(https_names.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(https_names, "_ours", lambda address: address == "192.0.2.1")
    found = https.problems(https.Wanted(**PAIR, domains=NAMES, user_domains=True))
    assert asked[0].endswith(".hub.example.org")
    assert found == [] if said is None else said in found[0]
    assert said is None or "*.hub.example.org" in found[0] or "where the hub is" in found[0]
    assert https.problems(https.Wanted(**PAIR, domains=NAMES, user_domains=True), check=False) == []


def test_whether_an_address_is_ours():
    assert https_names._ours("127.0.0.1")
    assert not https_names._ours("192.0.2.1")


def test_an_address_behind_which_this_server_is(monkeypatch):
    """A word told on the free port is heard through it; what shows another certificate is another server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    real_server, real_connection = socket.create_server, socket.create_connection
    monkeypatch.setattr(https_names.socket, "create_server", lambda place: real_server((place[0], port)))
    monkeypatch.setattr(
        https_names.socket, "create_connection", lambda place, timeout: real_connection((place[0], port), timeout)
    )
    assert https_names._leads_here("127.0.0.1", "hub.example.org")


def test_taken_ports(server, monkeypatch):
    monkeypatch.setitem(
        https.__salt__,
        "plasma_listeners.holders",
        lambda port, address=None: [{"pid": 7, "name": "apache2", "unit": "apache2.service"}] if port == 443 else [],
    )
    assert https.problems(wanted())[0].startswith("port 443 is taken by apache2 (pid 7, apache2.service)")


def test_files_of_the_repository(server, tmp_path, monkeypatch):
    make_certificate(tmp_path, "good", domains=NAMES)
    cached = {"salt://k": str(tmp_path / "good.key"), "salt://c": str(tmp_path / "good.pem")}

    def cache_file(url):
        return cached.get(url, "")

    values = {"key": "salt://k", "cert": "salt://c", "acme_ca": None}
    located = files.locate(values, cache_file, str(server.prefix))
    assert files.problem(located, NAMES) is None
    assert "plasma.https.tls.cert (salt://c): it is for" in files.problem(located, ["other.example.org"])
    files.install(located)
    key, cert = (pathlib.Path(located[name].path) for name in ("key", "cert"))
    assert key.parent == cert.parent
    assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    written = key.stat().st_mtime_ns
    files.install(located)
    assert key.stat().st_mtime_ns == written
    make_certificate(tmp_path, "good", domains=NAMES)
    # The pair in use stays as it is.
    assert files.locate(values, cache_file, str(server.prefix))["key"].path != str(key)
    with pytest.raises(CommandExecutionError, match=r"plasma.https.tls.key: there is no salt://x"):
        files.locate({**values, "key": "salt://x"}, cache_file, str(server.prefix))


LAST_ERROR = acme.last_error
JOURNAL = (
    '2026-11-25T08:00:00Z ERR Unable to obtain ACME certificate for domains error="unable to generate a certificate '
    "for the domains [hub.example.org]: error: one or more domains had a problem:\\n"
    "[hub.example.org] acme: error: 403 :: "
    'urn:ietf:params:acme:error:unauthorized :: Cannot negotiate ALPN protocol \\"acme-tls/1\\"" '
    "providerName=letsencrypt.acme\n"
    "2026-11-25T07:59:00Z INF Starting provider *acme.ChallengeTLSALPN\n"
)


@pytest.mark.parametrize(("text", "said"), [(JOURNAL, "403 :: urn:ietf"), ("", None), ("INF all is well\n", None)])
def test_last_error(monkeypatch, text, said):
    monkeypatch.setattr(plasma_run, "run", lambda *args, **options: plasma_run.Result(0, text))
    found = LAST_ERROR()
    assert found is None if said is None else said in found
    assert found is None or ("\n" not in found and 'ALPN protocol "acme-tls/1"' in found)


@pytest.mark.parametrize(
    ("days", "error", "said"),
    [(60, None, None), (60, "403", None), (3, None, "expires in 3.0 days"), (-1, "403", "The authority said: 403")],
)
def test_health(server, days, error, said):
    server.config["https"] = wanted().section
    server.error = error
    begin = "2026-09-01T00:00:00+00:00"
    server.certificate = good() | {
        "not_before": begin,
        "not_after": "2026-11-30T00:00:00+00:00",
        "days_left": float(days),
    }
    found = https.health(str(server.prefix))
    assert (found["kind"], found["domains"], found["last_error"]) == ("acme", NAMES, error)
    assert found["problem"] is None if said is None else said in found["problem"]
    assert found["problem"] is None or "state.apply https" in found["problem"]


SECRET = 'to"ken$with\\all`of it'
DNS = {"provider": "rfc2136", "resolvers": ["127.0.0.1:53"]}


@pytest.fixture
def units(monkeypatch, tmp_path):
    """systemd's directory, and how often it was told to read it again."""
    drop_in, told = tmp_path / "units" / "traefik.service.d" / "plasma-dns.conf", []
    monkeypatch.setattr(https_dns, "DROP_IN", drop_in)
    monkeypatch.setattr(plasma_run, "run", lambda command, **options: told.append(command) or plasma_run.Result(0))
    return types.SimpleNamespace(drop_in=drop_in, told=told)


def test_a_challenge_by_dns(server, waits, units):
    """Variables are handed to the proxy by systemd; nothing that is told or kept elsewhere has their values."""
    server.certificate = good("hub.example.org", "*.hub.example.org")
    assert https.names(NAMES, True) == ["hub.example.org", "*.hub.example.org"]
    settings = wanted(dns=DNS, environment={"TSIG_SECRET": SECRET}, user_domains=True)
    done = switched(server, settings)
    assert done["changes"]["acme"]["new"] == "DNS of rfc2136, asked at 127.0.0.1:53"
    assert done["changes"]["environment"] == {"old": None, "new": "TSIG_SECRET"}
    assert done["changes"]["plasma.user_domains"]["new"] == "hub.example.org"
    assert SECRET not in repr(done)
    file = pathlib.Path(https_dns.path(str(server.prefix)))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text(encoding="utf-8") == 'TSIG_SECRET="to\\"ken\\$with\\\\all\\`of it"\n'
    assert f"EnvironmentFile={file}\n" in units.drop_in.read_text(encoding="utf-8")
    extra = pathlib.Path(https.extra(str(server.prefix))).read_text(encoding="utf-8")
    assert "tlsChallenge = false" in extra
    assert 'provider = "rfc2136"' in extra
    assert SECRET not in extra + json.dumps(server.config)
    assert switched(server, settings)["changes"] == {}
    assert (server.reloads, len(units.told)) == (1, 1)
    # Another value alone: it is told that there is one, and the proxy is started with it.
    done = switched(server, settings, environment={"TSIG_SECRET": f"{SECRET}2"})
    assert done["changes"] == {"environment": {"old": "TSIG_SECRET", "new": "TSIG_SECRET (another value)"}}
    assert server.reloads == 2
    assert https_dns.hide(f"invalid: {SECRET}2.", str(server.prefix)) == "invalid: ********."
    # Nothing of it stays when it is switched off.
    switched(server, OFF)
    assert not file.exists()
    assert not units.drop_in.parent.exists()
    assert "user_domains" not in server.config.get("plasma", {})


def test_what_was_there_before_comes_back_with_its_variables(server, waits, units):
    server.certificate = good("hub.example.org")
    switched(server, wanted(dns=DNS, environment={"TSIG_SECRET": "working"}))
    before, content = json.loads(json.dumps(server.config)), https_dns.current(str(server.prefix))
    server.error = "acme: the token s3cr3t-new is no good"
    server.certificate = good() | {"subject": "CN=TRAEFIK DEFAULT CERT"}
    with pytest.raises(CommandExecutionError) as raised:
        switched(server, wanted(dns=DNS, environment={"TSIG_SECRET": "s3cr3t-new"}, user_domains=True))
    assert "the token ******** is no good. The configuration of before was restored" in str(raised.value)
    assert server.config == before
    assert https_dns.current(str(server.prefix)) == content
    assert units.drop_in.exists()


def test_a_certificate_that_is_good_for_the_hub_alone(server):
    server.config |= {"https": https.Wanted(**PAIR).section, "plasma": {"user_domains": NAMES[0]}}
    server.certificate = good() | {
        "not_before": "2026-09-01T00:00:00+00:00",
        "not_after": "2027-09-01T00:00:00+00:00",
        "days_left": 300.0,
    }
    found = https.health(str(server.prefix))
    assert found["user_domains"] is True
    assert "is not good for *.hub.example.org" in found["problem"]
    server.certificate["domains"] = [NAMES[0], "*.hub.example.org"]
    assert https.health(str(server.prefix))["problem"] is None


def test_health_without_https_and_without_an_answer(server):
    assert https.health(str(server.prefix))["problem"] is None
    server.config["https"] = wanted().section
    assert "shows no certificate" in https.health(str(server.prefix))["problem"]
    server.certificate = good() | {
        "subject": "CN=TRAEFIK DEFAULT CERT",
        "not_before": "2026-09-01T00:00:00+00:00",
        "not_after": "2027-09-01T00:00:00+00:00",
        "days_left": 300.0,
    }
    assert "no certificate for hub.example.org yet" in https.health(str(server.prefix))["problem"]


def test_where_the_proxy_listens_is_where_it_is_looked_at(server, waits, monkeypatch):
    """What was set by hand stays; pillar's own port and address are written with the rest."""
    asked = []

    def served(name, address="", port=443):
        asked.append((address, port))
        return good()

    monkeypatch.setitem(https.__salt__, "plasma_https_certificates.served", served)
    server.config["https"] = {"address": "192.0.2.7", "port": 8443}
    switched(server)
    assert {*asked} == {("192.0.2.7", 8443)}
    assert (server.config["https"]["address"], server.config["https"]["port"]) == ("192.0.2.7", 8443)
    asked.clear()
    done = switched(server, wanted(address="127.0.0.1", port=444))
    assert done["changes"]["https.port"] == {"old": 8443, "new": 444}
    assert ("127.0.0.1", 444) in asked


def test_the_port_of_https_is_the_one_that_has_to_be_free(server, monkeypatch):
    def holders(port, address=None):
        return [{"pid": 7, "name": "nginx", "unit": "nginx.service"}] if port in (80, 443) else []

    monkeypatch.setitem(https.__salt__, "plasma_listeners.holders", holders)
    assert len(https.problems(wanted(), check=False)) == 2
    server.config["http"] = {"port": 81}
    (sentence,) = https.problems(wanted(), check=False)
    assert sentence.startswith("port 443 is taken by nginx") and sentence.endswith("with plasma.https.port")
    # Behind another port nobody can tell from here whether the authority finds it.
    monkeypatch.setattr(https_names, "elsewhere", lambda domain: "it leads elsewhere")
    assert https.problems(wanted(port=444)) == []
