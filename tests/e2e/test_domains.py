"""A name of its own for each person's servers: pages of one cannot act on the hub, nor on anybody else's server."""

from __future__ import annotations

import contextlib
import json
import ssl

import pytest

from tests.e2e.conftest import make_account
from tests.e2e.test_https import ENABLED, shown
from tests.support import browsing
from tests.support.acme import DIRECTORY, URL, Authority, NameServer, make_certificate
from tests.support.environment_image import environment_image, load_into
from tests.support.hub import HubUser

HUB = "hub.example.org"
PAIR = {"key": "/etc/ssl/domains/hub.key", "cert": "/etc/ssl/domains/hub.pem"}
# A file of the teacher's.
MINE = "marks-of-everybody.txt"
WILDCARD = {"domains": [HUB], "tls": PAIR, "user_domains": True}
# A page without a login in a server, as its owner can have one; what it does is in ATTACK.
EVIL = """
import tornado.web
from jupyter_server import serverapp
class Evil(tornado.web.RequestHandler):
    def get(self):
        self.set_header("Content-Type", "text/html")
        self.write("<title>evil</title>")
before = serverapp.ServerWebApplication.__init__
def after(self, *arguments, **options):
    before(self, *arguments, **options)
    self.add_handlers(".*", [(self.settings["base_url"] + "evil", Evil)])
serverapp.ServerWebApplication.__init__ = after
"""
# What the page of a server gets from others in the browser of whoever opens it, {what: text}; errors are empty.
ATTACK = """async ({hub, victim, name}) => {
  const text = async (url) => {
    try { return await (await fetch(url, {credentials: "include"})).text() } catch { return "" }
  };
  const opened = async (url) => {
    const other = window.open(url);
    let found = "";
    for (let i = 0; i < 40 && !found; i++) {
      await new Promise(done => setTimeout(done, 100));
      try { found = other.location.href === "about:blank" ? "" : other.document.body.innerText } catch { break }
    }
    other?.close();
    return found;
  };
  return {
    token_page: await text(`${hub}/hub/token`),
    own_token_page: await text("/hub/token"),
    token_window: await opened(`${hub}/hub/token`),
    user_model: await text(`${hub}/hub/api/user`),
    environments: await text(`${hub}/services/plasma/environments`),
    contents: await text(`${victim}/user/${name}/api/contents`),
    contents_window: await opened(`${victim}/user/${name}/api/contents`),
    cookies: document.cookie,
  };
}"""


@pytest.fixture(scope="module")
def authority(kept_server, tmp_path_factory):
    """Pebble, which looks for records at the server's own name server."""
    # Nothing here is about renewing.
    found = Authority(
        kept_server.target, tmp_path_factory.mktemp("acme-dns"), [], validity=86400, nameserver="127.0.0.1:53"
    )
    yield found
    found.stop()


@pytest.fixture(scope="module")
def names(kept_server, authority):  # which is installed first, while the server knows other names than these
    """Where the server looks for names; the wildcard record is there."""
    found = NameServer(kept_server.target)
    found.records("hub A 127.0.0.1", "*.hub A 127.0.0.1")
    yield found
    found.stop()


@pytest.fixture(scope="module")
def people(kept_server):
    """The administrator of the hub, and a student with a page of their own."""
    target = kept_server.target
    for name in ("teacher", "mallory"):
        target.sudo(f"pkill -KILL -u {name}; userdel --remove {name} 2>/dev/null || true", check=False)
    made = {name: make_account(target, name) for name in ("teacher", "mallory")}
    target.sudo(f"install -D -o teacher -g teacher /dev/null /home/teacher/python-course/{MINE}")
    target.sudo("chown -R teacher:teacher /home/teacher/python-course")
    place = "/home/mallory/python-course/.jupyter"
    target.sudo(f"install -d -o mallory -g mallory /home/mallory/python-course {place}")
    target.ssh(f"sudo tee {place}/jupyter_server_config.py >/dev/null", input=EVIL)
    return made


@pytest.fixture(scope="module")
def one_origin(kept_server, names, people, tmp_path_factory):
    """HTTPS with a wildcard certificate, servers on the hub's own name; both people's run."""
    target, directory = kept_server.target, tmp_path_factory.mktemp("wildcard")
    image = environment_image()
    load_into(target, image)
    make_certificate(directory, "hub", domains=[HUB, f"*.{HUB}"])
    make_certificate(directory, "plain", domains=[HUB])
    target.sudo(f"rm -rf /etc/ssl/domains; install -d -o {target.user} /etc/ssl/domains")
    for file in directory.glob("*.*"):
        target.copy_to(file, "/etc/ssl/domains/")
    target.sudo("chown -R root: /etc/ssl/domains")
    kept_server.with_pillar(https={**WILDCARD, "user_domains": False})
    assert kept_server.site.apply("https").failed == {}
    for account in people.values():
        person = HubUser(f"https://{target.host}", account.name)
        person.session.verify = person.session.trust_env = False
        person.login(account.password)
        person.start(image)
    yield directory
    kept_server.with_pillar()
    assert kept_server.site.apply("https.disabled").failed == {}
    for account in people.values():
        target.sudo(f"docker rm -f jupyter-{account.name}; userdel --remove {account.name}", check=False)


@pytest.fixture(scope="module")
def chromium(kept_server, browser):
    with browsing.another(browser, f"--host-resolver-rules=MAP *.example.org {kept_server.target.host}") as started:
        yield started


@pytest.fixture
def visit(chromium, people):
    """The page of a person who has signed in at the hub."""
    with contextlib.ExitStack() as pages:

        def _visit(name):
            page = pages.enter_context(browsing.new_page(chromium, ignore_https_errors=True))
            browsing.sign_in(page, f"https://{HUB}", name, people[name].password)
            return page

        yield _visit


def attacked(page, mallory: str, victim: str) -> dict[str, str]:
    """What mallory's page gets in the browser of the teacher, who has used their own server there."""
    page.goto(f"{victim}/user/teacher/lab")
    page.goto(f"{victim}/user/teacher/api/contents")
    assert MINE in page.content()
    page.goto(f"{mallory}/user/mallory/evil")
    assert page.title() == "evil"
    return page.evaluate(ATTACK, {"hub": f"https://{HUB}", "victim": victim, "name": "teacher"})


def test_on_one_origin_a_page_reads_other_peoples_servers(one_origin, visit):
    """Why there are names of their own: this is what the attack gets without."""
    found = attacked(visit("teacher"), f"https://{HUB}", f"https://{HUB}")
    assert MINE in found["contents_window"]


def refused(server, said: str, **https) -> None:
    """The switch is refused with a sentence before anything has changed."""
    config = server.target.sudo("cat /opt/tljh/config/config.yaml").stdout
    server.with_pillar(https={**WILDCARD, **https})
    result = server.site.apply("https")
    assert said in result.failed[ENABLED]
    assert result.failed[ENABLED].startswith("Nothing was changed.")
    assert server.target.sudo("cat /opt/tljh/config/config.yaml").stdout == config


def test_what_is_missing_is_said_first(kept, one_origin, names):
    plain = {name: path.replace("hub.", "plain.") for name, path in PAIR.items()}
    refused(kept, f"it is for {HUB}, and not for *.{HUB}", tls=plain)
    names.records("hub A 127.0.0.1")
    try:
        refused(kept, f"add a wildcard record for *.{HUB} that leads to this server")
    finally:
        names.records("hub A 127.0.0.1", "*.hub A 127.0.0.1")


def test_names_of_their_own(kept, one_origin, visit, people):
    """Servers that run go on running, and are reached under their new names."""
    run = "docker ps --filter name=jupyter- --format '{{.ID}} {{.Names}}' | sort"
    before = kept.target.sudo(run).stdout
    kept.with_pillar(https=WILDCARD)
    predicted = kept.site.apply("https", "test=True")
    result = kept.site.apply("https")
    assert result.failed == {}
    assert predicted.changed == result.changed == {ENABLED: {"plasma.user_domains": {"old": None, "new": HUB}}}
    assert kept.site.apply("https").changed == {}
    assert kept.target.sudo(run).stdout == before
    assert kept.site.salt("plasma_https.health").value["user_domains"] is True

    page = visit("teacher")
    # A server from before, which knows of one host only, by its old address.
    page.goto(f"https://{HUB}/user/teacher/lab")
    page.wait_for_url(f"https://teacher.{HUB}/user/teacher/lab**")
    browsing.wait_for_lab(page)
    found = attacked(page, f"https://mallory.{HUB}", f"https://teacher.{HUB}")
    assert {what: text for what, text in found.items() if text} == {}
    page.goto(f"https://mallory.{HUB}/hub/token")
    assert page.url.startswith(f"https://{HUB}/hub/")
    page.goto(f"https://nobody.{HUB}/")
    assert page.url.startswith(f"https://{HUB}/hub/")

    # The hub's cookies are the hub's alone: no host below it gets them.
    cookies = page.context.cookies()
    assert {cookie["domain"] for cookie in cookies} <= {HUB, f"teacher.{HUB}", f"mallory.{HUB}"}
    told = {cookie["name"]: cookie["domain"] for cookie in cookies if cookie["domain"] == HUB}
    assert {"__Host-jupyterhub-hub-login", "__Host-jupyterhub-session-id"} <= set(told)
    logged_in = visit("mallory")
    assert logged_in.context.cookies(f"https://mallory.{HUB}/") == []


def test_a_server_that_starts_now_and_the_pages_of_the_hub(kept, visit):
    page = visit("mallory")
    page.goto(f"https://{HUB}/hub/home")
    kept.target.sudo("docker rm -f jupyter-mallory")
    page.reload()
    browsing.start_server(page, f"https://{HUB}", "python-course")
    assert page.url.startswith(f"https://mallory.{HUB}/user/mallory/lab")
    names = {cookie["name"] for cookie in page.context.cookies(f"https://mallory.{HUB}/")}
    assert "__Host-jupyterhub-user-mallory" in names
    browsing.open_notebook(page)  # through a WebSocket
    page.goto(f"https://{HUB}/services/plasma/")
    link = page.locator('[data-action="open"]').first
    assert link.get_attribute("href").startswith(f"https://mallory.{HUB}/user/mallory/")


def test_a_wildcard_certificate_by_a_dns_challenge(kept, one_origin, names, authority):
    target = kept.target
    target.sudo("truncate -s 0 /opt/tljh/state/acme.json")
    authority.start()
    variables = {
        "RFC2136_NAMESERVER": "127.0.0.1:53",
        "RFC2136_TSIG_ALGORITHM": "hmac-sha256.",
        "RFC2136_TSIG_KEY": "acme.",
        "RFC2136_TSIG_SECRET": names.secret,
        "RFC2136_POLLING_INTERVAL": "1",
        # Both names are proved by the same record, one after the other.
        "RFC2136_SEQUENCE_INTERVAL": "1",
    }
    dns = {"provider": "rfc2136", "environment": variables, "resolvers": ["127.0.0.1:53"]}
    https = {
        "domains": [HUB],
        "user_domains": True,
        "letsencrypt_email": "admin@example.org",
        "acme_server": URL,
        "acme_ca": f"{DIRECTORY}/ca-of-acme.pem",
        "timeout": 120,
    }
    before = ssl.DER_cert_to_PEM_cert(shown(kept, HUB))
    kept.with_pillar(https={**https, "timeout": 20, "dns": {**dns, "provider": "nosuchprovider"}})
    comment = kept.site.apply("https").failed[ENABLED]
    assert "unrecognized DNS provider: nosuchprovider" in comment
    assert "The configuration of before was restored, and the hub is back." in comment
    assert ssl.DER_cert_to_PEM_cert(shown(kept, HUB)) == before

    kept.with_pillar(https={**https, "dns": dns})
    predicted = kept.site.apply("https", "test=True")
    result = kept.site.apply("https")
    assert result.failed == {}
    assert predicted.changed == result.changed
    root = authority.root()
    for name in (HUB, f"mallory.{HUB}", f"nobody.{HUB}"):
        shown(kept, name, root)  # raises when it does not lead to the root, or is for another name
    assert kept.site.apply("https").changed == {}
    health = kept.site.salt("plasma_https.health").value
    assert (health["kind"], health["problem"]) == ("acme", None)

    # The secret is in the proxy's environment and in files of root's, and nowhere else.
    assert names.secret not in predicted.stdout + result.stdout
    # The copy of the pillar that Salt keeps is the SSH user's own.
    copies = target.ssh(
        "sudo grep -rlF -f - /opt /var /tmp /etc /run 2>/dev/null | xargs -r sudo stat -c '%a %n'",
        input=names.secret,
    ).stdout.splitlines()
    assert any(line.endswith("/traefik-dns.env") for line in copies)
    assert [line for line in copies if not line.startswith("600 ")] == []
    assert names.secret not in target.sudo("journalctl --no-pager -u traefik -u jupyterhub").stdout
    assert names.secret not in target.sudo("ps -eo args").stdout
    shell = kept.site.salt("state.show_sls", "https")
    assert names.secret not in json.dumps(shell.value)
    kept.with_pillar(https=WILDCARD)
    assert kept.site.apply("https").failed == {}
    assert target.sudo("cat /opt/tljh/plasma/traefik-dns.env", check=False).returncode != 0
    assert names.secret not in target.sudo("tr '\\0' '\\n' < /proc/$(systemctl show -P MainPID traefik)/environ").stdout


def test_back_to_one_name(kept, one_origin, visit):
    """Servers that start then are reached on the hub's name."""
    kept.with_pillar(https={**WILDCARD, "user_domains": False})
    assert set(kept.site.apply("https").changed[ENABLED]) == {"plasma.user_domains"}
    page = visit("mallory")
    # One that was started with a name of its own asks the hub to lead back there: it has to be started again.
    kept.target.sudo("docker rm -f jupyter-mallory")
    page.goto(f"https://{HUB}/hub/home")  # where the hub looks whether it runs
    page.goto(f"https://{HUB}/hub/spawn")
    page.get_by_label("python-course", exact=True).check()
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/user/*/lab**", timeout=120_000)
    # JupyterLab opens the notebook of before in the place of its launcher.
    page.locator("#jp-main-dock-panel").wait_for()
    assert page.url.startswith(f"https://{HUB}/user/mallory/lab")
