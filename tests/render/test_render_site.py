"""The site and each SLS alone, compiled for every supported system and every pillar."""

from __future__ import annotations

import re

import pytest

from tests.render.compiler import ARCHITECTURES, SLS, SYSTEMS, low_state, reads_grains
from tests.render.pillars import CSV_PASSWORD, DEPLOY_KEY, GIVEN, PASSWORD, TOKEN, compiled, texts
from tests.support.paths import REPOSITORY

TURN, PREFLIGHT = "apply-has-its-turn", "preflight-server-is-fit"
PEOPLE = ("groups", "users", "quotas", "admins")
REQUISITES = ("require", "require_any", "watch", "watch_any", "onchanges", "onfail", "prereq", "listen")
SHA256 = re.compile(r"sha256=[0-9a-f]{64}")
DESCRIPTIVE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9._]+)+")


@pytest.fixture
def site(system, architecture, pillar):
    return low_state(system, architecture, pillar)


def _order(chunks):
    return [chunk["__id__"] for chunk in chunks]


def test_site_compiles_with_preflight_first(site):
    assert _order(site[:2]) == [TURN, PREFLIGHT]
    kinds = [(one["state"], one["fun"], one["failhard"]) for one in site[:2]]
    assert kinds == [("plasma_preflight", "turn", True), ("plasma_preflight", "passed", True)]
    assert {chunk["__sls__"].split(".")[0] for chunk in site} >= {"preflight", "docker", "tljh", *PEOPLE}


PLACES = [(system, architecture) for system in SYSTEMS for architecture in ARCHITECTURES]
CASES = [(sls, *place) for sls in SLS for place in (PLACES if reads_grains(sls) else PLACES[:1])]


def test_only_what_reads_grains_differs_between_systems():
    for sls in SLS:
        shown = {repr(_timeless(low_state(*place, "full-pypi", sls))) for place in (PLACES[0], PLACES[-1])}
        assert len(shown) == 1 or reads_grains(sls), sls
    assert {reads_grains(sls) for sls in SLS} == {True, False}


def _timeless(chunks):
    """Without the time of the compilation, and without Salt's numbers, which depend on what was compiled before."""
    left_out = ("order", "controller_time")
    return [{key: value for key, value in chunk.items() if key not in left_out} for chunk in chunks]


@pytest.mark.parametrize(("sls", "system", "architecture"), CASES)
def test_each_sls_compiles_alone(system, architecture, pillar, sls):
    chunks = low_state(system, architecture, pillar, sls)
    assert sls in {chunk["__sls__"] for chunk in chunks} | {"tljh", "utils", "users"}
    # Whatever is applied, nothing else may change the server meanwhile, and nothing comes before that is known.
    if {chunk["state"] for chunk in chunks} - {"test"}:
        assert (chunks[0]["__id__"], chunks[0].get("failhard")) == (TURN, True)
    if sls == "tljh.settings":
        return  # for settings alone, on a server that has its hub
    # Accounts can be looked after on a server that is too small for a hub, or that has none.
    if {chunk["state"] for chunk in chunks} & {"pkg", "pkgrepo", "file", "service", "plasma_hub", "plasma_docker"}:
        assert chunks[1]["__id__"] == PREFLIGHT
    # A part of the site is that part: the same states with the same arguments.
    site = {(chunk["__id__"], chunk["name"]): chunk for chunk in low_state(system, architecture, pillar)}
    for chunk in chunks:
        whole = site.get((chunk["__id__"], chunk["name"]))
        if whole is not None and whole["__sls__"] == chunk["__sls__"]:
            assert _arguments(chunk) == _arguments(whole)


# What differs between two compilations of the same states; the time is that of the compilation.
CIRCUMSTANCES = ("order", "require", "watch", "__sls_included_from__", "controller_time")


def _arguments(chunk):
    return {key: value for key, value in chunk.items() if key not in CIRCUMSTANCES}


def test_nothing_runs_commands(site):
    assert {chunk["state"] for chunk in site} & {"cmd", "module", "saltmod", "salt"} == set()


def test_ids_are_descriptive(site):
    assert [id_ for id_ in set(_order(site)) if not DESCRIPTIVE.fullmatch(id_)] == []


def test_ids_are_unique(site):
    """One ID is one state, of one SLS; `names` may give it several names."""
    assert len({(chunk["__id__"], chunk["name"]) for chunk in site}) == len(site)
    owners = {}
    for chunk in site:
        owners.setdefault(chunk["__id__"], set()).add((chunk["state"], chunk["fun"], chunk["__sls__"]))
    assert {id_: owner for id_, owner in owners.items() if len(owner) > 1} == {}


def test_downloads_have_a_checksum(site):
    for chunk in site:
        for source in texts(chunk.get("source")):
            if chunk["state"] == "file" and not source.startswith("salt://"):
                assert SHA256.fullmatch(chunk["source_hash"]), chunk["__id__"]
                assert source.startswith(("https://", "/")), chunk["__id__"]
        if "source_hash" in chunk:
            assert SHA256.fullmatch(chunk["source_hash"]), chunk["__id__"]
            assert not chunk.get("skip_verify")


def test_sources_of_the_tree_exist(site):
    sources = [text for chunk in site for text in texts(chunk.get("source")) if text.startswith("salt://")]
    assert "salt://tljh/plugin" in sources
    for source in sources:
        path = REPOSITORY / "salt" / source.removeprefix("salt://")
        assert path.exists(), source


def test_files_say_who_may_read_them(site):
    for chunk in site:
        if chunk["state"] == "file" and chunk["fun"] in ("managed", "serialize") and chunk.get("replace") is not False:
            assert chunk["user"] == chunk["group"] == "root", chunk["__id__"]
            assert re.fullmatch(r"0[0-7]{3}", chunk["mode"]), chunk["__id__"]


def test_only_the_chosen_provider(site, pillar):
    provider = compiled(pillar)["plasma"]["hub"]["provider"]
    other = {"tljh": "pypi", "pypi": "tljh"}[provider]
    used = {chunk["__sls__"] for chunk in site}
    assert f"tljh.{provider}" in used
    assert f"tljh.{other}" not in used
    (installed,) = [chunk for chunk in site if chunk["__id__"] == "hub-installed"]
    assert installed["hub_provider"] == provider == site[1]["hub_provider"]


def test_no_argument_is_a_word_of_salts(site):
    """Before and after a state with a `provider`, Salt loads all of its modules again: a sixth of a second each."""
    assert not [chunk["__id__"] for chunk in site if "provider" in chunk]


def test_no_plain_password_is_sent(site, pillar):
    given = GIVEN[pillar].get("users", [])
    plain = [user["password"] for user in given if user.get("password")]
    assert bool(plain) is ("full" in pillar or "hostile" in pillar)
    assert "full" not in pillar or plain == [PASSWORD]
    if plain:
        # The person of the CSV file is there, with a hash.
        (managed,) = [chunk for chunk in site if chunk["__id__"] == "users-managed"]
        assert [user["password_hash"][:3] for user in managed["users"] if user["name"] == "no"] == ["$y$"]
        plain.append(CSV_PASSWORD)
    for text in [*texts(site), *texts(compiled(pillar))]:
        assert not any(password in text for password in plain)


def test_credentials_of_repositories_are_in_no_argument(site, pillar):
    """Salt shows arguments of states. The pillar beside them has what the state needs."""
    secrets = compiled(pillar)["plasma"]["environment_secrets"]
    assert bool(secrets) is ("full" in pillar or "hostile" in pillar)
    if secrets:
        assert secrets["null"]["deploy_key"] == DEPLOY_KEY
        assert "full" not in pillar or secrets["python-course"]["credentials"]["password"] == TOKEN
        hidden = [*texts(secrets["python-course"]["credentials"]["password"]), DEPLOY_KEY]
        for text in texts(site):
            assert not any(secret in text for secret in hidden)


def test_variables_of_a_dns_provider_are_in_no_argument(site, pillar):
    secrets = compiled(pillar)["plasma"]["https_secrets"]
    assert bool(secrets) is (bool(GIVEN[pillar].get("https", {}).get("dns")))
    for text in texts(site):
        assert not any(secret in text for secret in secrets.values())


def test_passwords_of_a_directory_are_in_no_argument(site, pillar):
    plasma = compiled(pillar)["plasma"]
    secrets = plasma["directory_secrets"]
    assert bool(secrets) is bool(GIVEN[pillar].get("directory"))
    for text in [*texts(site), *texts(plasma["directory"])]:
        assert not any(secret in text for secret in secrets.values())


def test_people_of_a_directory_are_known_before_anybody_names_them(site, pillar):
    order = {id_: place for place, id_ in enumerate(_order(site))}
    assert order["directory-joined"] < order["groups-known"] < order["users-managed"]
    (joined,) = [chunk for chunk in site if chunk["__id__"] == "directory-joined"]
    assert joined["state"] == ("plasma_directory" if GIVEN[pillar].get("directory") else "test")


def test_a_group_of_administrators_has_to_be_known_where_administrators_are_applied(site, system, architecture, pillar):
    """Once, and not where the group of pillar is made by a state that was not applied yet."""
    plasma = compiled(pillar)["plasma"]
    made = [group["name"] for group in plasma["groups"] if not group["absent"]]
    wanted = [name for name in plasma["admin_groups"] if name not in made]
    assert wanted or "full" not in pillar
    for chunks in (site, low_state(system, architecture, pillar, "admins")):
        (known,) = [chunk for chunk in chunks if chunk["__id__"] == "admins-groups-known"]
        assert (known["state"], known["fun"], known["groups"]) == ("plasma_groups", "known", wanted)
    (others,) = [chunk for chunk in site if chunk["__id__"] == "groups-known"]
    assert others["groups"] == plasma["external_groups"]


def test_environments_come_to_a_hub_that_knows_their_groups(site, pillar):
    order = {id_: place for place, id_ in enumerate(_order(site))}
    assert order["admins-managed"] < order["environments-managed"] < order["backup-scheduled"]
    assert max(order["hub-ready"], order["groups-managed"]) < order["environments-managed"]
    wanted = compiled(pillar)["plasma"]["environments"]
    (managed,) = [chunk for chunk in site if chunk["__id__"] == "environments-managed"]
    if wanted:
        assert managed["environments"] == wanted
        assert order["environments-packages"] < order["environments-managed"]
        assert managed["timeout"] == compiled(pillar)["plasma"]["builder"]["timeout"]
    else:
        assert (managed["state"], "environments-packages" in order) == ("test", False)


def test_order_of_the_hub(site, pillar):
    order = {id_: place for place, id_ in enumerate(_order(site))}
    assert order["docker-configuration"] < order["docker-engine"] < order["docker-service"] < order["hub-installed"]
    assert order["hub-plugin-source"] < order["hub-installed"] < order["hub-settings"] < order["hub-ready"]
    later = [chunk for chunk in site if chunk["state"] == "service"]
    assert all(order["hub-settings"] < order[chunk["__id__"]] < order["hub-ready"] for chunk in later)
    assert {chunk["name"] for chunk in later} == {"traefik", "jupyterhub"}
    # No package is touched while another run holds the package manager.
    first = min(order[chunk["__id__"]] for chunk in site if chunk["state"] in ("pkg", "pkgrepo"))
    assert order["preflight-packages-are-settled"] < first


def test_a_dry_run_predicts_the_restarts(site):
    """On a bare server the official installer brings the units, and their limits, which were there first, restart them:
    a condition that looks for the units would hide that from a dry run."""
    for chunk in site:
        if chunk["state"] == "service":
            assert {"file": f"hub-limits-{chunk['name']}"} in chunk["watch"]
            assert not {"onlyif", "unless"} & chunk.keys()


def test_order_of_people(site, pillar):
    """The hub is there before its administrators are named; whoever gets a limit has an account by then."""
    order = {id_: place for place, id_ in enumerate(_order(site))}
    assert order["hub-ready"] < order["groups-managed"] < order["users-managed"] < order["admins-managed"]
    if compiled(pillar)["plasma"]["quotas"]["enabled"]:
        assert order["quotas-enabled"] < order["quotas-limits"]
        assert order["users-managed"] < order["quotas-limits"]
    else:
        assert "quotas-limits" not in order


def test_people_come_with_all_that_is_theirs(system, pillar):
    """`state.apply users` brings groups, limits and rights; each of the others is itself alone."""
    chunks = {sls: low_state(system, "amd64", pillar, sls) for sls in PEOPLE}
    alone = {sls: {chunk["__sls__"].split(".")[0] for chunk in found} for sls, found in chunks.items()}
    assert alone["users"] - {"preflight"} == set(PEOPLE)
    order = {id_: place for place, id_ in enumerate(_order(chunks["users"]))}
    assert order["groups-managed"] < order["users-managed"] < order["quotas-enabled"] < order["admins-managed"]
    # What is wrong with one person must not keep rights from being revoked, or limits from being set.
    required = {chunk["__id__"]: str([chunk.get(key) for key in REQUISITES]) for chunk in chunks["users"]}
    assert not [id_ for id_, found in required.items() if "users-managed" in found]
    for sls in ("groups", "quotas", "admins"):
        assert alone[sls] - {"preflight"} == {sls}


def test_switching_quotas_off_is_asked_for(site):
    assert "quotas-disabled" not in _order(site)
