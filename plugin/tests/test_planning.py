"""The policy's part of the spawner in front of another engine than one Docker host."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace

import pytest
from dockerspawner import SwarmSpawner
from jupyterhub.objects import Hub
from tljh_plasma.access import AccessError, Store
from tljh_plasma.environments import Environment
from tljh_plasma.planning import PlannedSpawner, StartByLink, StartFailure
from tornado import web


class ClusterSpawner(PlannedSpawner, SwarmSpawner):
    """Runs plans on a cluster of Docker hosts, whose environments are not this machine's images."""

    registry = [
        Environment(image="maths:1", image_id="sha256:1", name="maths", directory="maths", memory=3 * 1024**3),
        Environment(image="biology:1", image_id="sha256:2", name="biology", directory="biology"),
    ]

    async def list_environments(self):
        return self.registry

    async def run_plan(self):
        plan = self.plan
        self.step(50, f"Scheduling {plan.environment.name}")
        self.extra_container_spec = {"user": plan.user, "env": plan.variables}
        self.extra_resources_spec = {"mem_limit": plan.limits.memory, "cpu_limit": int(plan.limits.cpu * 10**9)}
        return ("10.0.0.7", 8888)


@pytest.fixture
def make(accounts, tmp_path):
    """Spawners of a person, with permissions of their own."""
    store = Store(tmp_path / "plasma.sqlite")
    store.upgrade()
    person = accounts.add("cluster")

    def _make(options, admin=False, **traits):
        user = SimpleNamespace(name=person.name, admin=admin, url=f"/user/{person.name}/", settings={})
        spawner = ClusterSpawner(
            hub=Hub(base_url="/hub/"),
            user=user,
            permissions_file=str(store.path),
            shared_data="",
            **traits,
        )
        spawner.user_options = options
        spawner.orm_spawner = SimpleNamespace(name="", server=None, user_options=options)
        return spawner

    _make.store = store
    return _make


def test_a_cluster_runs_the_plan(make):
    spawner = make({"image": "maths:1"})
    assert asyncio.run(spawner.start()) == ("10.0.0.7", 8888)
    assert spawner.extra_container_spec["user"] == spawner.plan.user
    assert spawner.extra_container_spec["env"]["PLASMA_ENVIRONMENT"] == "maths"
    assert spawner.extra_resources_spec == {"mem_limit": 3 * 1024**3, "cpu_limit": 2 * 10**9}


def test_a_server_opens_with_what_its_environment_says(make):
    for opens, address in (("rstudio", "/rstudio/"), ("/voila/render/a%20b.ipynb", "/voila/render/a%20b.ipynb")):
        make.store.set_opens("maths:1", opens)
        spawner = make({"image": "maths:1"})
        asyncio.run(spawner.start())
        assert spawner.get_env()["JUPYTERHUB_DEFAULT_URL"] == address
        # The next one of the same spawner is another environment.
        spawner.user_options = {"image": "biology:1"}
        asyncio.run(spawner.start())
        assert spawner.default_url == "/lab"
    make.store.set_opens("maths:1", "")
    configured = make({"image": "maths:1"}, default_url="/tree/{username}")
    asyncio.run(configured.start())
    assert configured.default_url == "/tree/{username}"


def test_who_has_used_what_is_noted_and_nobody_waits_for_it(make, monkeypatch):
    asyncio.run(make({"image": "maths:1"}).start())
    assert {image: found.used_by for image, found in make.store.history().items()} == {"maths:1": 1}

    def full(*arguments):
        raise AccessError("The disk is full.")

    monkeypatch.setattr(Store, "note_use", full)
    assert asyncio.run(make({"image": "biology:1"}).start()) == ("10.0.0.7", 8888)
    assert "biology:1" not in make.store.history()


def test_a_link_to_what_is_not_open_says_so(make):
    make.store.set_groups({"maths:1": ["plasmat-nobodys"]})
    refusals = (("maths:1", 403, "is not open to you"), ("gone:1", 400, "does not exist (any more)"))
    for image, status, words in refusals:
        with pytest.raises(web.HTTPError, match=re.escape(words)) as caught:
            asyncio.run(make({}).options_from_query({"image": [image]}))
        assert caught.value.status_code == status
    with pytest.raises(StartByLink):
        asyncio.run(make({}).options_from_query({"image": ["biology:1"]}))


def test_permissions_hold_there_too(make):
    make.store.set_groups({"maths:1": ["plasmat-nobodys"]})
    refused = make({"image": "maths:1"})
    with pytest.raises(web.HTTPError) as caught:
        asyncio.run(refused.start())
    assert caught.value.status_code == 403
    # Nothing of what was asked for is kept.
    assert refused.orm_spawner.user_options == {}
    with pytest.raises(web.HTTPError) as caught:
        asyncio.run(make({"image": "biology:1"}, open_by_default=False).start())
    assert caught.value.status_code == 403
    assert asyncio.run(make({"image": "maths:1"}, admin=True).start())


def test_the_form_lists_what_the_cluster_has(make):
    make.store.set_description("biology:1", "Cells & <genes>")
    html = asyncio.run(make({}).get_options_form())
    assert 'value="maths:1"' in html
    assert 'value="biology:1"' in html
    assert "3 GB" in html
    assert "<genes>" not in html


def test_a_failure_of_the_engine_is_one_sentence(make, monkeypatch):
    async def fail(self):
        raise StartFailure(503, "The cluster is asleep.", "node 7: connection refused")

    monkeypatch.setattr(ClusterSpawner, "run_plan", fail)
    with pytest.raises(web.HTTPError) as caught:
        asyncio.run(make({"image": "maths:1"}).start())
    assert caught.value.status_code == 503
    assert caught.value.jupyterhub_message == "The cluster is asleep."


def test_progress_replays_its_steps_and_goes_on(make):
    async def watch():
        spawner = make({"image": "maths:1"})
        told = []

        async def follow():
            async for event in spawner.progress():
                told.append(event["message"])

        follower = asyncio.create_task(follow())
        await spawner.start()
        while len(told) < 2:
            await asyncio.sleep(0)
        spawner.step(95, "Later")
        while len(told) < 3:
            await asyncio.sleep(0)
        follower.cancel()
        return told

    told = asyncio.run(asyncio.wait_for(watch(), 10))
    assert told == ["Checking your account and the environment", "Scheduling maths", "Later"]
