"""What builds leave behind goes, what anybody has use for stays; administrators are told of full disks."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import make_account
from tests.support import browsing
from tests.support.environment_image import environment_image, load_into
from tests.support.shell import wait_for

PRUNE = {"source": "distro", "prune": {"enabled": True, "schedule": "daily", "min_age": 0}}
NOTE = "/var/lib/plasma/prune.json"


def docker(target, *words, **options):
    return target.sudo(["docker", *words], **options).stdout.strip()


def image_of(target, text, name=""):
    """An image of a few bytes, with a name or with none."""
    script = f"mkdir -p /tmp/k3 && printf %s {text!r} > /tmp/k3/text && tar -C /tmp/k3 -c . | docker import - {name}"
    return target.sudo(script).stdout.strip()


def images(target):
    return set(docker(target, "images", "--all", "--quiet", "--no-trunc").split())


@pytest.fixture
def pruning(kept):
    kept.with_pillar(docker=PRUNE)
    predicted = kept.site.apply("docker", "test=True")
    first = kept.site.apply("docker")
    assert not first.failed
    yield {"predicted": predicted, "first": first, "second": kept.site.apply("docker")}
    kept.with_pillar()
    off = kept.site.apply("docker")
    assert not off.failed
    left = kept.target.sudo("ls /etc/systemd/system /usr/local/lib/plasma 2>/dev/null || true").stdout
    assert "plasma-prune" not in left
    assert "prune.py" not in left
    assert not kept.site.apply("docker").changed


def test_leftovers_go_and_everything_else_stays(kept, pruning):
    target = kept.target
    timer = {"docker-prune-program|/usr/local/lib/plasma/prune.py", "docker-prune-timer|docker-prune-timer"}
    assert set(pruning["first"].changed) == timer
    assert pruning["predicted"].predicted == timer
    assert not pruning["second"].changed

    # What others left behind goes first.
    assert kept.site.salt("plasma_prune.run").value["problem"] is None
    named = image_of(target, "named", "k3/named:1")
    nameless = image_of(target, "nameless")
    stopped = image_of(target, "used by a container that does not run")
    container = docker(target, "create", stopped, "/none")
    try:
        target.sudo("systemctl start plasma-prune.service")
        here = images(target)
        assert nameless not in here
        assert {named, stopped} <= here
        note = json.loads(target.sudo(["cat", NOTE]).stdout)
        assert note["images"] == 1
        assert note["freed"] > 0
        assert note["error"] is None
        assert target.sudo(["stat", "--format", "%a %U", NOTE]).stdout.split() == ["600", "root"]
        health = kept.site.salt("plasma_prune.health").value
        assert (health["timer"], health["problem"]) == ("active", None)
        assert health["last"]
        assert health["next"]
    finally:
        docker(target, "rm", "--force", container)
        docker(target, "rmi", "--force", named, stopped, check=False)


def test_nothing_is_removed_while_an_environment_is_built(kept, pruning):
    target = kept.target
    course = environment_image()
    load_into(target, course)
    nameless = image_of(target, "under construction")
    building = docker(
        target, "run", "--detach", "--label", "org.plasma.build.uid=k3", "--entrypoint", "sleep", course, "600"
    )
    try:
        target.sudo("systemctl start plasma-prune.service")
        assert nameless in images(target)
        assert json.loads(target.sudo(["cat", NOTE]).stdout)["skipped"] == "an environment is being built"
    finally:
        docker(target, "rm", "--force", building)
    # By the timer this time: a time that comes soon stands in for tomorrow morning.
    target.sudo("mkdir -p /run/systemd/system/plasma-prune.timer.d")
    target.sudo(
        'sh -c \'printf "[Timer]\\nRandomizedDelaySec=0\\nOnCalendar=*:*:0/5\\nAccuracySec=1\\n" '
        "> /run/systemd/system/plasma-prune.timer.d/soon.conf; systemctl daemon-reload; "
        "systemctl restart plasma-prune.timer'"
    )
    try:
        wait_for(lambda: nameless not in images(target), timeout=60, what="the timer has removed the image")
    finally:
        target.sudo("rm -r /run/systemd/system/plasma-prune.timer.d")
        target.sudo("systemctl daemon-reload")
        target.sudo("systemctl restart plasma-prune.timer")
    assert docker(target, "image", "inspect", "--format", "ok", course) == "ok"


def test_administrators_are_told_of_full_disks(kept, browser):
    kept.with_pillar(docker={"source": "distro", "prune": {"warn_at": 1}})
    assert not kept.site.apply("tljh").failed
    disks = kept.site.salt("plasma_prune.disks", "warn_at=1").value
    assert any(disk["full"] for disk in disks)
    people = [make_account(kept.target, name) for name in ("teacher", "k3student")]
    url = f"http://{kept.target.host}"
    try:
        shown = {}
        for person in people:
            with browsing.new_page(browser) as page:
                browsing.sign_in(page, url, person.name, person.password)
                page.goto(f"{url}/hub/home")
                shown[person.name] = page.locator("#plasma-disk-notice").all_inner_texts()
        assert shown["k3student"] == []
        assert len(shown["teacher"]) == 1
        assert "nearly full" in shown["teacher"][0]
    finally:
        for person in people:
            kept.target.sudo(["userdel", "--remove", person.name], check=False)
        kept.with_pillar()
        assert not kept.site.apply("tljh").failed
