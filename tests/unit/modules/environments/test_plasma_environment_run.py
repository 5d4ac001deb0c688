"""Environments of pillar: predicted, built, changed, granted, and left alone."""

from __future__ import annotations

import logging

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_environment_plan as plan
import plasma_environment_run as run
from tests.unit.modules.environments.stand_in_environments import (
    COMMIT,
    OTHER,
    both,
    entry,
    item,
)

TOKEN = "T0ken-of-nobody-else"


@pytest.fixture
def configure_loader_modules(functions):
    return {run: {"__salt__": functions}, plan: {}}


def test_what_is_missing_is_built_all_at_once(service):
    python = entry("python", memory="1.5G", cpu=1.5, opens="notebook", gpus=1, groups=["maths", "biology"])
    environments = [python, entry("r"), entry("bash")]
    done = both(service, environments, {"python": {"build_args": {"PYTHON_VERSION": "3.12"}}})
    assert done["built"] == ["python", "r", "bash"]
    assert done["changes"]["python"] == {
        "old": None,
        "new": {
            "image_name": "python:v1",
            "repository": "https://example.org/python",
            "ref": "v1",
            "commit": COMMIT,
            "memory": "1536M",
            "cpu": 1.5,
            "opens": "notebook",
            "gpus": 1,
            "groups": ["biology", "maths"],
            "build_args": ["PYTHON_VERSION"],
        },
    }
    assert service.parallel == 3
    assert service.bodies[0] == {
        "name": "python",
        "repo": "https://example.org/python",
        "ref": "v1",
        "commit": COMMIT,
        "memory": 1.5,
        "cpu": 1.5,
        "opens": "notebook",
        "gpus": 1,
        "groups": ["biology", "maths"],
        "description": "",
        "buildargs": "PYTHON_VERSION=3.12",
    }


def test_a_branch_that_has_moved_is_built_again(service, functions):
    service.listed = {"r:main": item("r:main", groups=["biology"], description="R")}
    functions["plasma_git.commit"].return_value = OTHER
    done = both(service, [entry("r", "main")])
    assert done["changes"] == {"r": {"old": {"commit": COMMIT}, "new": {"commit": OTHER}}}
    assert service.asked == [("build", "r:main")]
    # What pillar does not say stays as the pages have it.
    assert (service.listed["r:main"]["groups"], service.listed["r:main"]["description"]) == (["biology"], "R")


def test_arguments_of_builds_are_compared_and_not_told(service):
    service.listed = {"r:v1": item("r:v1", buildargs="A=1\nB=x")}
    done = both(service, [entry("r")], {"r": {"build_args": {"A": "2", "C": "secret"}}})
    assert done["changes"] == {
        "r": {"old": {"build_args": ["A", "B"]}, "new": {"build_args": ["A (another value)", "C"]}}
    }
    assert service.bodies[0]["buildargs"] == "A=2\nC=secret"


def test_limits_groups_and_description_take_no_build(service):
    service.listed = {"r:v1": item("r:v1", limits={"memory": 2**30, "cpu": 1.0}, groups=["maths"])}
    done = both(service, [entry("r", memory="4G", groups=["biology"], description="Statistics", cpu=None)])
    assert service.asked == [("change", "r:v1")]
    assert service.bodies == [{"memory": 4.0, "cpu": None, "groups": ["biology"], "description": "Statistics"}]
    assert done["changed"] == ["r"]
    assert done["changes"]["r"]["old"] == {"memory": "1G", "cpu": 1.0, "groups": ["maths"], "description": ""}


def test_what_it_opens_with_takes_no_build_and_goes_with_one(service, functions):
    service.listed = {"r:main": item("r:main")}
    both(service, [entry("r", "main", opens="rstudio")])
    assert (service.asked, service.bodies) == ([("change", "r:main")], [{"opens": "rstudio"}])
    # Without a word it is the hub's default again; the branch has moved besides.
    functions["plasma_git.commit"].return_value = OTHER
    done = both(service, [entry("r", "main")])
    assert service.listed["r:main"]["opens"] == ""
    assert sorted(service.asked[1:]) == [("build", "r:main"), ("change", "r:main")]
    assert done["changes"]["r"]["old"] == {"opens": "rstudio", "commit": COMMIT}


def test_gpus_take_no_build_and_go_with_the_key(service):
    service.listed = {"r:v1": item("r:v1")}
    assert both(service, [entry("r", gpus=2)])["changes"]["r"] == {"old": {"gpus": None}, "new": {"gpus": 2}}
    both(service, [entry("r")])
    assert service.bodies == [{"gpus": 2}, {"gpus": 0}]
    assert service.asked == [("change", "r:v1")] * 2


@pytest.mark.parametrize(("groups", "left"), [(None, ["maths"]), ([], [])])
def test_no_word_on_groups_is_not_the_same_as_none(service, groups, left):
    service.listed = {"r:v1": item("r:v1", groups=["maths"])}
    both(service, [entry("r", groups=groups)])
    assert service.listed["r:v1"]["groups"] == left


def test_a_fraction_of_a_cpu_is_compared_as_the_label_keeps_it(service):
    service.listed = {"r:v1": item("r:v1", limits={"memory": None, "cpu": 0.333333333333})}
    assert run.compare([entry("r", cpu=1 / 3)])["changes"] == {}


def test_what_pillar_does_not_name_is_left_alone(service):
    theirs = item("page:HEAD", source="browser", owner="ada", status="failed", users=["anna"])
    service.listed = {"page:HEAD": theirs, "gone:v1": item("gone:v1")}
    done = run.apply([entry("r")])
    assert done["built"] == ["r"]
    assert service.asked == [("add", "r:v1")]
    assert set(service.listed) == {"page:HEAD", "gone:v1", "r:v1"}


def test_an_environment_of_the_browser_is_adopted(service):
    """Its commit is known: nothing is built. It is not: nobody could tell whether it has moved."""
    service.listed = {"r:v1": item("r:v1", source="browser", groups=["maths"])}
    done = both(service, [entry("r")])
    assert done["changes"] == {"r": {"old": {"source": "browser"}, "new": {"source": "pillar"}}}
    assert service.asked == [("change", "r:v1")]
    service.listed = {"r:v1": item("r:v1", source="browser", commit="")}
    done = both(service, [entry("r")])
    assert done["changes"]["r"]["old"] == {"source": "browser", "commit": "unknown"}
    assert service.asked[1:] == [("change", "r:v1"), ("build", "r:v1")]


def test_a_failed_build_leaves_the_old_image_and_tells_the_end_of_its_log(service, functions):
    service.listed = {"r:main": item("r:main")}
    service.failing = {"r:main": [f"line {number}" for number in range(100)], "s:v1": ["no such package"]}
    functions["plasma_git.commit"].return_value = OTHER
    done = run.apply([entry("r", "main"), entry("s"), entry("t")])
    assert done["built"] == ["t"]
    assert set(done["changes"]) == {"t"}
    assert done["problems"]["r"][0] == "the build failed. The old image stays in use. The end of its log:"
    assert done["problems"]["r"][1:] == [f"line {number}" for number in range(80, 100)]
    assert done["problems"]["s"] == ["the build failed. The end of its log:", "no such package"]
    assert service.listed["r:main"]["commit"] == COMMIT
    # It is tried again by every apply, and when the branch has come back to what is in use, too.
    functions["plasma_git.commit"].return_value = COMMIT
    assert run.compare([entry("r", "main")])["changes"] == {
        "r": {"old": {"status": "failed"}, "new": {"status": "built"}}
    }
    service.failing = {}
    assert run.apply([entry("r", "main"), entry("s")])["built"] == ["r", "s"]
    assert service.asked[-2:] == [("build", "r:main"), ("add", "s:v1")]


def test_a_repository_that_cannot_be_read_keeps_no_other_from_being_built(service, functions):
    def commit(repository, ref, **access):
        if repository.endswith("/r"):
            raise CommandExecutionError("https://example.org/r cannot be read (no route to host).")
        return COMMIT

    functions["plasma_git.commit"].side_effect = commit
    environments = [entry("r"), entry("s")]
    problems = {"r": ["https://example.org/r cannot be read (no route to host)."]}
    assert run.compare(environments)["problems"] == problems
    done = run.apply(environments)
    assert (done["problems"], done["built"]) == (problems, ["s"])


def test_what_the_service_refuses_is_a_problem_of_one_alone(service, functions):
    sentence = "The memory limit must be between 0.25 and 3.8 GB: this server has no more."
    real = service.ask

    def ask(method, path, body=None, **options):
        if body["name"] == "s":
            raise CommandExecutionError(sentence)
        return real(method, path, body, **options)

    functions["plasma_environment_api.ask"].side_effect = ask
    done = run.apply([entry("s", memory="64G"), entry("t")])
    assert done["problems"] == {"s": [sentence]}
    assert done["built"] == ["t"]


@pytest.mark.parametrize("status", ["queued", "building"])
def test_builds_of_a_run_that_was_interrupted_are_waited_for(service, status):
    service.listed = {"r:v1": item("r:v1", status=status, has_image=False, commit="")}
    service.listed["r:v1"]["coming"] = {"commit": COMMIT}
    service.left = {"r:v1": 4}
    # By the time that somebody looks, its turn has come.
    building = {"old": {"status": "building"}, "new": {"status": "built"}}
    assert run.compare([entry("r")])["changes"] == {"r": building}
    done = run.apply([entry("r")])
    assert (done["problems"], service.asked) == ({}, [])
    assert service.listed["r:v1"]["status"] == "built"


def test_a_request_that_was_sent_twice_is_one_build(service, functions):
    """The answer was lost: the second one meets the build of the first."""
    real = service.ask

    def ask(*args, **options):
        real(*args, **options)
        return real(*args, **options)

    functions["plasma_environment_api.ask"].side_effect = ask
    done = run.apply([entry("r")])
    assert (done["built"], done["problems"]) == (["r"], {})


def test_a_hub_that_starts_again_meanwhile_is_waited_for(service):
    service.looks = 5
    real = service.ask

    def ask(*args, **options):
        answer = real(*args, **options)
        service.silent = 3
        return answer

    run.__salt__["plasma_environment_api.ask"].side_effect = ask
    assert run.apply([entry("r")])["built"] == ["r"]
    service.listed.clear()
    service.looks = 1000
    with pytest.raises(CommandExecutionError, match="does not answer"):
        service.silent = 0
        run.__salt__["plasma_environment_api.ask"].side_effect = lambda *args, **options: (
            real(*args, **options),
            setattr(service, "silent", 10**6),
        )[0]
        run.apply([entry("r")], ready_timeout=0.05)


def test_a_build_that_never_ends_is_not_waited_for_without_end(service, monkeypatch):
    service.looks = 10**6
    done = run.apply([entry("r")], timeout=-30)
    assert "is not ready after all this time" in done["problems"]["r"][0]


def test_what_is_removed_while_it_is_built_is_told(service):
    real = service.ask

    def ask(*args, **options):
        answer = real(*args, **options)
        service.listed.clear()
        return answer

    run.__salt__["plasma_environment_api.ask"].side_effect = ask
    assert "was removed while it was built" in run.apply([entry("r")])["problems"]["r"][0]


def test_progress_is_in_the_log_and_credentials_are_not(service, caplog):
    with caplog.at_level(logging.DEBUG):
        run.apply([entry("r")], {"r": {"credentials": {"username": "git", "password": TOKEN}}})
    for phase in ("queued", "building", "built"):
        assert f": {phase}" in caplog.text
    assert TOKEN not in caplog.text
    assert service.bodies[0]["password"] == TOKEN


def test_servers_of_repositories_are_asked_through_the_proxy(service, functions, caplog):
    proxy = {"https_proxy": f"http://teacher:{TOKEN}@proxy.example.org:3128", "no_proxy": "localhost"}
    with caplog.at_level(logging.DEBUG):
        predicted = run.compare([entry("r")], proxy=proxy)
        done = run.apply([entry("r")], proxy=proxy)
    asked = [call.kwargs["proxy"] for call in functions["plasma_git.commit"].call_args_list]
    assert asked == [proxy, proxy]
    assert TOKEN not in f"{predicted}{done}{service.bodies}{caplog.text}"


def test_credentials_go_to_the_repository_and_to_the_build_alone(service, functions):
    secrets = {
        "r": {"credentials": {"username": "deploy", "password": TOKEN}},
        "s": {"deploy_key": "KEY", "known_hosts": "HOST", "build_args": {"A": "1"}},
    }
    done = both(service, [entry("r"), entry("s"), entry("t")], secrets)
    assert TOKEN not in str(done)
    asked = {call.args[0]: call.kwargs for call in functions["plasma_git.commit"].call_args_list}
    assert asked["https://example.org/r"] == {"credentials": secrets["r"]["credentials"], "proxy": {}}
    assert asked["https://example.org/s"] == {"deploy_key": "KEY", "known_hosts": "HOST", "proxy": {}}
    assert asked["https://example.org/t"] == {"proxy": {}}
    bodies = {body["name"]: body for body in service.bodies}
    assert (bodies["r"]["username"], bodies["r"]["password"]) == ("deploy", TOKEN)
    assert (bodies["s"]["deploy_key"], bodies["s"]["known_hosts"]) == ("KEY", "HOST")
    assert not {"username", "password", "deploy_key", "known_hosts"} & set(bodies["t"])


# --- groups, a server that is not there yet, arguments


def test_a_group_that_the_hub_does_not_know_is_told_before_anything_is_built(service):
    environments = [entry("r", groups=["physics"]), entry("s", groups=["maths"])]
    done = run.apply(environments)
    assert list(done["problems"]) == ["r"]
    assert done["problems"]["r"][0].startswith("the hub does not know the group physics yet: apply the states groups")
    assert service.asked == [("add", "s:v1")]
    # In a dry run the states that make it known may be ahead.
    service.listed.clear()
    predicted = run.compare(environments)
    assert (predicted["problems"], predicted["built"]) == ({}, ["r", "s"])
    assert predicted["notes"] == ["The hub has to know the group physics by then."]


def test_where_git_is_still_to_be_installed_a_dry_run_says_what_is_missing(service, functions):
    service.listed = {"r:v1": item("r:v1", commit=OTHER)}
    functions["plasma_git.available"].return_value = False
    predicted = run.compare([entry("r"), entry("s")])
    assert (predicted["built"], predicted["problems"]) == (["s"], {})
    assert "Git is still to be installed" in predicted["notes"][0]
    functions["plasma_git.commit"].assert_not_called()


def test_without_a_hub_everything_would_be_built(service, functions):
    service.hub = False
    predicted = run.compare([entry("r"), {"name": "s", "absent": True}])
    assert (predicted["hub"], predicted["built"], list(predicted["changes"])) == (False, ["r"], ["r"])
    functions["plasma_git.commit"].assert_not_called()
    with pytest.raises(CommandExecutionError, match="No hub with the Plasma plugin runs in /srv/hub: apply the state"):
        run.apply([entry("r")], prefix="/srv/hub")


def test_a_hub_that_is_to_be_upgraded_first_is_no_error_of_a_dry_run(service, functions):
    error = CommandExecutionError("The hub's service does not accept its operator's token: apply the state tljh.")
    functions["plasma_environment_api.items"].side_effect = error
    with pytest.raises(CommandExecutionError, match="does not accept"):
        run.compare([entry("r")])
    error.older = True
    predicted = run.compare([entry("r")])
    assert (predicted["older"], predicted["changes"], predicted["problems"]) == (True, {}, {})
    functions["plasma_git.commit"].assert_not_called()
    with pytest.raises(CommandExecutionError, match="apply the state tljh"):
        run.apply([entry("r")])


@pytest.mark.parametrize("environments", [None, "r", ["r"], [{"name": "r"}], {"name": "r"}])
def test_what_is_no_list_of_entries_is_refused(service, environments):
    for function in (run.compare, run.apply):
        with pytest.raises(SaltInvocationError, match=r"entries of plasma\.environments"):
            function(environments)
