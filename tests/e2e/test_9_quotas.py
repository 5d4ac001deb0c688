"""Disk quotas where they cannot be: on a server that is a container, with its root file system on an overlay."""

from __future__ import annotations


def test_a_container_is_refused_with_advice_and_left_alone(site, target, pillar):
    before = target.sudo("cat /etc/fstab 2>/dev/null; ls / /var/lib", check=False).stdout
    pillar(quota={"hard": "1G"})
    result = site.apply("quotas")
    enabled, limits = (
        next(state for key, state in result.states.items() if key.startswith(id_))
        for id_ in ("quotas-enabled", "quotas-limits")
    )
    assert (enabled["result"], enabled["changes"]) == (False, {})
    assert enabled["comment"].startswith("This server is a container (docker) and its kernel is its host's")
    assert enabled["comment"].count("\n") == 0
    assert limits["result"] is False
    assert target.sudo("cat /etc/fstab 2>/dev/null; ls / /var/lib", check=False).stdout == before
    assert target.sudo("command -v setquota", check=False).returncode != 0


def test_without_quotas_in_pillar_nothing_is_done(site):
    result = site.apply("quotas")
    assert (result.failed, result.changed) == ({}, {})
    assert [state["comment"] for state in result.states.values()] == ["Success!"]
