"""Asking the hub about people, and taking them out of it."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_hub_accounts as api
import plasma_hub_connection as connection
import plasma_hub_containers as containers
import tljh_settings as tljh_config
from tests.unit.modules.stand_in_hub_api import StandInHubApi, functions_of_a_hub, make_prefix


@pytest.fixture
def functions():
    return {
        **functions_of_a_hub(),
        "tljh_settings.get": create_autospec(tljh_config.get, return_value=None),
        "tljh_settings.update": create_autospec(tljh_config.update),
        "plasma_hub_containers.remove": create_autospec(containers.remove, return_value={}),
    }


@pytest.fixture
def configure_loader_modules(functions, monkeypatch):
    monkeypatch.setattr(api, "POLL", 0.01)
    monkeypatch.setattr(api, "SETTLE", 0.01)
    return {api: {"__salt__": functions}, connection: {"__salt__": functions}}


@pytest.fixture
def prefix(tmp_path):
    return make_prefix(tmp_path)


@pytest.fixture
def hub(prefix, functions):
    started = StandInHubApi()
    functions["tljh_settings.show"].return_value = {"http": {"address": "127.0.0.1", "port": started.port}}
    yield started
    started.close()


def person(admin=False, **servers):
    return {"admin": admin, "servers": servers}


# --- reading


def test_everybody_is_listed_however_many_they_are(hub, prefix):
    hub.people = {f"user{number:04}": person(admin=number == 3) for number in range(450)}
    hub.people["20231234"] = person(**{"": 1, "my lab": 1})
    found = api.users(prefix)
    assert len(found) == 451
    assert found["user0003"] == {"admin": True, "servers": [], "seen": True}
    assert found["20231234"] == {"admin": False, "servers": ["", "my lab"], "seen": True}
    assert len(hub.asked) == 3


def test_administrators_are_those_with_the_role(hub, prefix):
    hub.people = {"zoe": person(admin=True), "ada": person(admin=True), "eve": person()}
    assert api.administrators(prefix) == ["ada", "zoe"]


# --- saying who administers it


def test_administrators_are_named_and_revoked(hub, prefix):
    hub.people = {"ada": person(admin=True), "eve": person()}
    assert api.set_admin(["eve", "20231234"], True, prefix) == ["20231234", "ada", "eve"]
    assert api.set_admin(["ada", "nobody"], False, prefix) == ["20231234", "eve"]
    assert "nobody" not in hub.people


@pytest.mark.parametrize("names", ["ada", [20231234], [""], None, [["ada"]]])
def test_names_that_are_none_are_refused(hub, prefix, names):
    for function in (lambda: api.set_admin(names, True, prefix), lambda: api.forget(names, prefix)):
        with pytest.raises(SaltInvocationError, match="list of names"):
            function()
    assert hub.asked == []


def test_what_is_neither_true_nor_false_is_refused(hub, prefix):
    with pytest.raises(SaltInvocationError, match="true or false"):
        api.set_admin(["ada"], "no", prefix)


# --- forgetting


def test_servers_are_stopped_and_waited_for_before_anybody_is_deleted(hub, prefix):
    hub.people = {"anna": person(**{"": 3, "my lab/ü%2F?": 0}), "ben": person(**{"": 0}), "anna2": person(**{"": 5})}
    done = api.forget(["anna", "ben", "unknown"], prefix)
    assert done == {"stopped": {"anna": ["", "my lab/ü%2F?"], "ben": [""]}, "forgotten": ["anna", "ben"]}
    assert hub.people == {"anna2": person(**{"": 5})}
    deleted = [index for index, request in enumerate(hub.asked) if request[0] == "DELETE" and len(request) == 3]
    looks = [index for index, request in enumerate(hub.asked) if request[0] == "GET"]
    assert min(deleted) > max(looks)


def test_nobody_is_deleted_when_one_server_does_not_stop(hub, prefix, functions):
    hub.people = {"anna": person(**{"": None}), "ben": person(**{"": 0}), "cleo": person()}
    with pytest.raises(CommandExecutionError, match="server of anna does not stop within 0 seconds, so nothing was"):
        api.forget(["anna", "ben", "cleo"], prefix, timeout=0.2)
    assert set(hub.people) == {"anna", "ben", "cleo"}
    functions["plasma_hub_containers.remove"].assert_not_called()


def test_a_stop_that_is_refused_for_the_moment_is_tried_again(hub, prefix):
    hub.people = {"anna": person(**{"": 0})}
    real, refusals = hub.handle, iter([True, True])

    def handle(method, target, body, headers):
        if method == "DELETE" and next(refusals, False):
            return 400, {"message": "anna is pending spawn"}
        return real(method, target, body, headers)

    hub.handle = handle
    assert api.forget(["anna"], prefix)["stopped"] == {"anna": [""]}
    assert hub.people == {}


def test_names_are_never_more_than_one_part_of_an_address(hub, prefix, functions):
    """Somebody may have given a server such a name from inside: it would be another address of the hub."""
    hub.people = {"anna": person(**{"..": 0, ".": 0}), "a@b.example": person(**{"": 0})}

    def remove(names, timeout):
        # The hub sees that they have ended, some time after that.
        hub.stopping.update({(name, server) for name in names for server in hub.people.get(name, person())["servers"]})
        return {}

    functions["plasma_hub_containers.remove"].side_effect = remove
    done = api.forget(["anna", "a@b.example"], prefix)
    assert done == {"stopped": {"anna": [".", ".."], "a@b.example": [""]}, "forgotten": ["a@b.example", "anna"]}
    assert not [request for request in hub.asked if ".." in request or "." in request]


def test_who_starts_while_others_are_stopped_is_stopped_before_anybody_is_deleted(hub, prefix):
    hub.people = {"anna": person(**{"": 0}), "ben": person()}
    real = hub.handle

    def handle(method, target, body, headers):
        if method == "DELETE" and target.endswith("/anna/server"):
            hub.people["ben"]["servers"]["late"] = 2
        return real(method, target, body, headers)

    hub.handle = handle
    done = api.forget(["anna", "ben"], prefix)
    assert done == {"stopped": {"anna": [""], "ben": ["late"]}, "forgotten": ["anna", "ben"]}
    deleted = [request for request in hub.asked if request[0] == "DELETE"]
    assert set(deleted[-2:]) == {("DELETE", "users", "anna"), ("DELETE", "users", "ben")}


@pytest.mark.parametrize("refusal", [400, 500])
def test_who_starts_at_the_very_end_is_stopped_too(hub, prefix, functions, refusal):
    """JupyterHub deletes nobody whose server starts or runs; its answers are those of 5.x."""
    hub.people = {"anna": person()}
    real, late = hub.handle, iter([True])

    def handle(method, target, body, headers):
        if method == "DELETE" and target.endswith("/users/anna") and next(late, False):
            hub.people["anna"]["servers"][""] = 1
            return refusal, {"message": "Internal Server Error"}
        return real(method, target, body, headers)

    hub.handle = handle
    assert api.forget(["anna"], prefix) == {"stopped": {"anna": [""]}, "forgotten": ["anna"]}
    assert hub.people == {}
    assert functions["plasma_hub_containers.remove"].call_count == 2


def test_who_starts_again_and_again_is_not_waited_for_without_end(hub, prefix, functions):
    hub.people = {"anna": person(**{"": 0}), "ben": person()}
    real = hub.handle

    def handle(method, target, body, headers):
        if "/users?" in target:
            hub.people["anna"]["servers"].setdefault("", 0)
        return real(method, target, body, headers)

    hub.handle = handle
    with pytest.raises(CommandExecutionError, match="of anna are started again and again, so nothing was"):
        api.forget(["anna", "ben"], prefix)
    assert set(hub.people) == {"anna", "ben"}
    functions["plasma_hub_containers.remove"].assert_not_called()


def test_a_hub_that_cannot_delete_somebody_is_an_error(hub, prefix):
    hub.people = {"anna": person()}
    real = hub.handle

    def handle(method, target, body, headers):
        return (500, {"message": "broken"}) if method == "DELETE" else real(method, target, body, headers)

    hub.handle = handle
    with pytest.raises(CommandExecutionError, match="HTTP status 500, broken"):
        api.forget(["anna"], prefix)


def test_a_start_is_broken_off_at_its_container_which_is_looked_for_again(hub, prefix, functions):
    """Docker makes a container for a while after nobody waits for it any more."""
    hub.people = {"anna": person(**{"": None}), "ben": person(**{"": 0})}
    model, looks = hub.model, []

    def starting(name):
        found = model(name)
        if name == "anna":
            for server in found["servers"].values():
                server["pending"] = "spawn"
        return found

    def remove(names, timeout):
        looks.append(names)
        if names == ["anna"]:
            hub.people.get("anna", person())["servers"].clear()
            return {"anna": ["", "x"]}
        return {}

    hub.model = starting
    functions["plasma_hub_containers.remove"].side_effect = remove
    assert api.forget(["anna", "ben"], prefix, timeout=5)["stopped"] == {"anna": ["", "x"], "ben": [""]}
    assert looks == [["anna"], ["anna", "ben"], ["anna"]]
    assert ("DELETE", "users", "anna", "server") not in hub.asked


def test_rights_go_first_in_the_file_and_at_the_hub(hub, prefix, functions):
    """Whoever gets the name next is no administrator, also after a restart, also when all ends in the middle."""
    hub.people = {"anna": person(admin=True, **{"": None}), "ada": person(admin=True)}
    functions["tljh_settings.get"].return_value = ["ada", "anna", 20231234]
    with pytest.raises(CommandExecutionError):
        api.forget(["anna"], prefix, timeout=0)
    functions["tljh_settings.update"].assert_called_once_with({"users.admin": ["ada", 20231234]}, prefix=prefix)
    assert not hub.people["anna"]["admin"]


def move(old, new, **keys):
    return {"old": old, "new": new, "group": True, "hub": True, **keys}


def test_people_get_other_names(hub, prefix, functions):
    hub.people = {"anna": person(admin=True, **{"": 1, "lab": 0}), "ada": person()}
    functions["tljh_settings.get"].side_effect = lambda key, prefix: {"users.admin": ["ada", "anna"]}.get(key)
    moves = [move("anna", "hanna"), move("never-there", "other", hub=False)]
    assert api.rename(moves, prefix) == ["hanna"]
    assert hub.people == {"hanna": person(admin=True), "ada": person()}
    functions["tljh_settings.update"].assert_called_once_with({"users.admin": ["ada", "hanna"]}, prefix=prefix)
    functions["plasma_hub_containers.remove"].assert_called_with(["anna", "never-there"], timeout=60)
    # A run that was killed after it.
    assert api.rename(moves, prefix) == []
    assert "hanna" in hub.people


def test_environments_of_somebodys_own_group_follow_without_the_person(hub, prefix, functions):
    """Who was never at the hub, and whom it renamed before the rest failed."""
    hub.people = {"hanna": person()}
    moves = [move("anna", "hanna"), move("never-there", "other", hub=False), move("kim", "tim", group=False)]
    hub.asked.clear()
    assert api.rename(moves, prefix) == []
    assert [asked[-1] for asked in hub.asked if asked[0] == "PATCH"] == [
        {"old": "anna", "new": "hanna", "group": True},
        {"old": "never-there", "new": "other", "group": True},
    ]
    assert set(hub.people) == {"hanna"}


def test_what_the_hub_has_of_somebody_who_is_gone_is_nobody_elses(hub, prefix, functions):
    """Accounts deleted by hand: whoever gets their name must not get their rights."""
    hub.people = {"anna": person(), "hanna": person(admin=True, **{"": 0}), "other": person(admin=True)}
    api.rename([move("anna", "hanna"), move("never-there", "other", hub=False)], prefix)
    assert hub.people == {"hanna": person()}


def test_containers_that_are_left_are_removed_and_told(hub, prefix, functions):
    hub.people = {"anna": person(**{"": 0})}
    functions["plasma_hub_containers.remove"].return_value = {"anna": ["old"], "ben": [""]}
    assert api.forget(["anna", "ben"], prefix, timeout=7)["stopped"] == {"anna": ["", "old"], "ben": [""]}
    functions["plasma_hub_containers.remove"].assert_called_once_with(["anna", "ben"], timeout=7)


def test_nobody_to_forget_asks_nothing(hub, prefix, functions):
    assert api.forget([], prefix) == {"stopped": {}, "forgotten": []}
    assert hub.asked == []
    functions["plasma_hub_containers.remove"].assert_not_called()


# --- where there is no hub


@pytest.mark.parametrize("missing", ["everything", "environment", "first start"])
def test_without_a_hub_that_knows_anybody_only_containers_are_looked_for(prefix, functions, missing):
    if missing == "everything":
        prefix = prefix / "elsewhere"
    elif missing == "environment":
        (prefix / "hub" / "bin" / "python3").unlink()
    else:
        (prefix / "state" / connection.TOKEN_FILE).unlink()
        functions["tljh_service.running"].return_value = False
    assert api.users(prefix) == {}
    assert api.administrators(prefix) is None
    functions["plasma_hub_containers.remove"].return_value = {"anna": [""]}
    assert api.forget(["anna"], prefix) == {"stopped": {"anna": [""]}, "forgotten": []}
    with pytest.raises(CommandExecutionError, match="No hub"):
        api.set_admin(["anna"], True, prefix)


@pytest.mark.parametrize("running", [True, False])
def test_an_older_plugin_is_an_error(hub, prefix, functions, running):
    (prefix / "state" / connection.TOKEN_FILE).unlink()
    (prefix / "state" / "jupyterhub.sqlite").touch()
    functions["tljh_service.running"].return_value = running
    for function in (api.users, api.administrators, lambda prefix: api.forget(["anna"], prefix)):
        with pytest.raises(CommandExecutionError, match=r"older release or having lost the file: apply the state tljh"):
            function(prefix)
    functions["plasma_hub_containers.remove"].assert_not_called()


def test_a_hub_that_is_stopped_is_an_error(prefix, functions):
    """It would let people in again when it starts: with their tokens, their rights, and whoever gets their name."""
    functions["tljh_service.running"].return_value = False
    for function in (api.users, api.administrators, lambda prefix: api.forget(["anna"], prefix)):
        with pytest.raises(CommandExecutionError, match="is stopped, .*start it with: systemctl start jupyterhub"):
            function(prefix)
    functions["plasma_hub_containers.remove"].assert_not_called()


# --- many at a time


def test_a_thousand_people_leave_at_once(hub, prefix):
    hub.people = {f"user{number}": person(**({"": 2} if number < 40 else {})) for number in range(1000)}
    done = api.forget(list(hub.people), prefix)
    assert (len(done["stopped"]), len(done["forgotten"])) == (40, 1000)
    assert hub.people == {}
