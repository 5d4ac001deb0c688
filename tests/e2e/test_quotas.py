"""Disk quotas where they cannot be: on a server that is a container, with its root file system on an overlay."""

from __future__ import annotations

import os

import pytest

from tests.e2e.conftest import fresh_target
from tests.support.site import Site

PILLAR = {"preflight": {"min_disk": "1G"}, "docker": {"source": "distro"}}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    target = fresh_target("e2e-no-quotas")
    yield Site(target, tmp_path_factory.mktemp("no-quotas"), PILLAR)
    if not os.environ.get("PLASMA_KEEP"):
        target.down()


def test_a_container_is_refused_with_advice_and_left_alone(bare):
    # Salt's own directory comes into /var/lib with the first call.
    look = "cat /etc/fstab 2>/dev/null; ls -a / /var/lib /etc/systemd/system | grep -v '_salt$'"
    before = bare.target.sudo(look).stdout
    bare.set_pillar({**PILLAR, "quota": {"hard": "1G"}})
    for arguments in ((), ("test=True",)):
        result = bare.apply("quotas", *arguments)
        enabled, limits = (
            next(state for key, state in result.states.items() if key.startswith(id_))
            for id_ in ("quotas-enabled", "quotas-limits")
        )
        assert (enabled["result"], enabled["changes"]) == (False, {})
        assert enabled["comment"].startswith("This server is a container (docker) and its kernel is its host's")
        assert "\n" not in enabled["comment"]
        assert limits["result"] is False
    assert bare.target.sudo(look).stdout == before
    assert bare.target.sudo("command -v setquota", check=False).returncode != 0


def test_without_quotas_in_pillar_nothing_is_done(bare):
    bare.set_pillar(PILLAR)
    # The undo has its turn before it; what does nothing needs none.
    for sls, states in (("quotas", 1), ("quotas.disabled", 2)):
        result = bare.apply(sls)
        assert (result.failed, result.changed) == ({}, {})
        assert len(result.states) == states
