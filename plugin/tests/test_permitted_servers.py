"""Who may start what: asked anew at every start, by form and by API (weaknesses 5 and 16)."""

from __future__ import annotations

import re
import sqlite3

import pytest
from support_hub import container_name
from tljh_plasma.access import Store

pytestmark = pytest.mark.docker


@pytest.fixture
def store(hub):
    """The hub's permissions, emptied afterwards."""
    opened = Store(hub.prefix / "state" / "plasma.sqlite")
    yield opened
    for image in opened.all():
        opened.remove(image)


@pytest.fixture(scope="module")
def lab(images):
    return images("plasmat-lab:1", "plasmat-lab")


@pytest.fixture(scope="module")
def member(accounts, course):
    """Somebody whose primary group is the course's."""
    return accounts.add("member", "--gid", course.gr_name)


@pytest.fixture(scope="module")
def stranger(accounts):
    return accounts.add("stranger")


def post_form(hub, session, page, image):
    action = re.search(r'action="([^"]*_xsrf=[^"]*)"', page.text)[1].replace("&amp;", "&")
    return session.post(f"{hub.origin}{action}", data={"image": image}, allow_redirects=False)


def test_16_members_by_primary_group_see_and_start_it(hub, store, lab, member, course):
    store.set_groups({lab: [course.gr_name]})
    _, page = hub.login(member.name, member.password)
    assert f'value="{lab}"' in page.text
    assert hub.spawn(member.name, lab).status_code in (201, 202)
    hub.stop_server(member.name)


def test_5_others_neither_see_it_nor_start_it_by_form(hub, store, lab, environment, stranger, course, docker_host):
    store.set_groups({lab: [course.gr_name]})
    session, page = hub.login(stranger.name, stranger.password)
    assert f'value="{environment}"' in page.text
    assert f'value="{lab}"' not in page.text
    answer = post_form(hub, session, page, lab)
    assert answer.status_code == 403
    assert "is not open to you" in answer.text
    assert not docker_host.containers.list(all=True, filters={"name": container_name(stranger.name)})


@pytest.mark.parametrize("server", ["", "second"])
def test_5_others_do_not_start_it_by_api(hub, store, lab, stranger, course, docker_host, server):
    store.set_groups({lab: [course.gr_name]})
    answer = hub.spawn(stranger.name, lab, server=server)
    assert answer.status_code == 403
    assert "is not open to you" in answer.json()["message"]
    assert "add you to one of its groups" in answer.json()["message"]
    assert not docker_host.containers.list(all=True, filters={"name": container_name(stranger.name)})


def test_5_a_right_that_was_taken_away_counts_at_the_next_start(hub, store, lab, member, course):
    """The hub remembers what a server was started with, and starts it again without asking for options."""
    store.set_groups({lab: [course.gr_name]})
    assert hub.spawn(member.name, lab).status_code in (201, 202)
    hub.stop_server(member.name)
    store.set_groups({lab: ["plasmat-others"]})
    answer = hub.spawn(member.name, None)
    assert answer.status_code in (400, 403), answer.text
    assert hub.spawn(member.name, lab).status_code == 403


def test_administrators_start_everything_but_not_for_others(hub, store, lab, stranger, course):
    """Who owns the server counts, not who asks for it."""
    store.set_groups({lab: [course.gr_name]})
    answer = hub.spawn(stranger.name, lab, token=hub.token)
    assert answer.status_code == 403
    assert hub.spawn(hub.admin, lab).status_code in (201, 202)
    hub.stop_server(hub.admin)


def test_unreadable_permissions_close_everything(hub, store, lab, member, course):
    connection = sqlite3.connect(store.path)
    connection.execute("ALTER TABLE permissions RENAME TO hidden")
    connection.commit()
    try:
        answer = hub.spawn(member.name, lab)
        assert answer.status_code == 503
        assert "cannot read who may use which environment" in answer.json()["message"]
        assert "no such table" in hub.log()
    finally:
        connection.execute("ALTER TABLE hidden RENAME TO permissions")
        connection.commit()
        connection.close()
