"""The hub's service of environments, for the tests of ``plasma_environment_run``: a build takes some looks at it."""

from __future__ import annotations

import copy
from unittest.mock import create_autospec

from salt.exceptions import CommandExecutionError

import plasma_environment_api as api
import plasma_environment_image as images
import plasma_environment_plan as plan
import plasma_environment_run as run
import plasma_git as git

COMMIT, OTHER = "a" * 40, "b" * 40
OF_AN_IMAGE = ("repo", "ref", "commit", "reference", "base")


def item(image, **keys):
    """An environment as the service lists it: one of pillar that is built and as the entry of ``entry`` wants it."""
    name, _, ref = image.partition(":")
    return {
        "image": image,
        "name": name,
        "repo": f"https://example.org/{name}",
        "ref": ref,
        "commit": COMMIT,
        "reference": "",
        "base": "",
        "limits": {"memory": None, "cpu": None},
        "opens": "",
        "gpus": 0,
        "description": "",
        "groups": [],
        "status": "built",
        "has_image": True,
        "source": "pillar",
        "owner": "pillar",
        "users": [],
        "buildargs": "",
        "message": "",
        "size": 2_500_000_000,
        "created": "2026-11-01T12:00:00+00:00",
        **api.UNKNOWN,
        **keys,
    }


def entry(name, ref="v1", **keys):
    """An entry of the completed pillar."""
    return {
        "name": name,
        "repository": f"https://example.org/{name}",
        "ref": ref,
        "image": None,
        "image_file": None,
        "memory": None,
        "cpu": None,
        "opens": None,
        "gpus": 0,
        "groups": None,
        "description": None,
        "replace": False,
        "absent": False,
        **keys,
    }


def functions_with(service):
    """What ``plasma_environment_run`` calls, with the stand-in in the place of the service."""
    return {
        "plasma_environment_api.items": create_autospec(api.items, side_effect=service.items),
        "plasma_environment_api.groups": create_autospec(api.groups, side_effect=service.groups),
        "plasma_environment_api.log_tail": create_autospec(api.log_tail, side_effect=service.log_tail),
        "plasma_environment_api.ask": create_autospec(api.ask, side_effect=service.ask),
        "plasma_environment_api.change": create_autospec(api.change, side_effect=service.change),
        "plasma_environment_plan.step": plan.step,
        "plasma_environment_plan.key": plan.key,
        "plasma_environment_image.engine_id": create_autospec(images.engine_id, return_value=None),
        "plasma_environment_image.archive_ids": create_autospec(images.archive_ids, return_value=["sha256:ready"]),
        "plasma_environment_image.load": create_autospec(images.load, return_value="sha256:ready"),
        "plasma_git.available": create_autospec(git.available, return_value=True),
        "plasma_git.commit": create_autospec(git.commit, return_value=COMMIT),
    }


def both(service, environments, secrets=None, **options):
    """Predict, apply, and see that nothing is left to do; what applying reported."""
    before = list(service.asked)
    predicted = run.compare(environments, secrets)
    assert service.asked == before
    done = run.apply(environments, secrets, **options)
    assert predicted["changes"] == done["changes"]
    assert predicted["problems"] == done["problems"] == {}
    after = list(service.asked)
    again = run.apply(environments, secrets)
    assert again["changes"] == run.compare(environments, secrets)["changes"] == {}
    assert service.asked == after
    return done


class StandInEnvironments:
    """
    ``items`` is what the service lists. A build takes ``looks`` listings, and fails where its image is in ``failing``.
    ``asked`` are the changes that were asked for, in order; ``bodies`` what came with them.
    """

    def __init__(self, *items):
        self.listed = {one["image"]: one for one in items}
        self.hub = True
        self.known_groups = ["biology", "maths"]
        self.looks = 2
        self.failing = {}
        self.left = {}
        self.asked, self.bodies = [], []
        self.parallel = 0  # most builds under way at a time
        self.silent = 0  # listings that are not answered

    def items(self, prefix, timeout):
        if not self.hub:
            return None
        if self.silent:
            self.silent -= 1
            raise CommandExecutionError("The hub does not answer at 127.0.0.1:80 (Connection refused).")
        self.parallel = max(self.parallel, len(self.left))
        for image in list(self.left):
            self.left[image] -= 1
            if self.left[image] <= 0:
                del self.left[image]
                self._end(image)
            elif image in self.listed:
                self.listed[image]["status"] = "building"
        return copy.deepcopy(list(self.listed.values()))

    def _end(self, image):
        one = self.listed.get(image)
        if one is None:
            return
        if image in self.failing:
            one.update(status="failed", message=self.failing[image][-1])
        else:
            former = {name: one[name] for name in OF_AN_IMAGE} if one["has_image"] else None
            one.update(status="built", has_image=True, former=former, previous=False, **one.pop("coming", {}))

    def groups(self, prefix, timeout):
        return self.known_groups

    def log_tail(self, image, lines, prefix, timeout):
        return self.failing.get(image, [])[-lines:]

    def ask(self, method, path, body=None, prefix=None, timeout=None, also=()):
        assert (method, path) == ("POST", "environments")
        tag = body.get("ref") or body["reference"].rpartition(":")[2]
        image = f"{body['name']}:{tag}"
        known = self.listed.get(image)
        if known and (known["has_image"] or known["status"] != "failed"):
            return self._refuse(409, f"The environment '{image}' exists already.", also)
        self.listed[image] = item(image, has_image=False, commit="", description=body["description"])
        self.listed[image] |= {"groups": sorted(body["groups"]), "opens": body["opens"], "gpus": body["gpus"]}
        self._build(image, body)
        self.asked.append(("add", image))
        return {"image": image}

    def change(self, method, image, body=None, part="", prefix=None, timeout=None, also=()):
        one = self.listed.get(image)
        if one is None:
            return self._refuse(404, f"There is no environment '{image}' (any more).", also)
        if method == "DELETE":
            if one["users"]:
                users = list(one["users"])
                # Somebody's server ends between two looks.
                one["users"].pop()
                return self._refuse(409, "This environment cannot be removed while it is in use.", also, users=users)
            del self.listed[image]
        elif part == "archive":
            if one["users"]:
                return self._refuse(409, "In use.", also, users=list(one["users"]))
            one.update(status="archived", has_image=False, source="pillar", former=None, previous=False)
            one.update(commit="", base="")
        elif part:
            if one["status"] in ("queued", "building"):
                return self._refuse(409, "It is being built already.", also)
            self._build(image, body)
        else:
            if body.get("previous", one["previous"]) != one["previous"]:
                other = {name: one[name] for name in OF_AN_IMAGE}
                one |= {**one["former"], "former": other, "previous": body["previous"]}
            for name in ("description", "groups", "opens", "gpus"):
                one[name] = body.get(name, one[name])
            one["limits"] |= {
                name: _bytes(body[name]) if name == "memory" else body[name] for name in body if name in one["limits"]
            }
            one["source"] = "pillar"
            self.bodies.append(body)
        self.asked.append(({"DELETE": "remove", "PATCH": "change"}.get(method, part), image))
        return {"image": image}

    def _build(self, image, body):
        one = self.listed[image]
        one.update(status="queued", buildargs=body.get("buildargs", ""), source="pillar")
        one["limits"] = {"memory": _bytes(body["memory"]), "cpu": body["cpu"]}
        one["coming"] = {"commit": body.get("commit", ""), "reference": body.get("reference", "")}
        one["coming"] |= {"repo": body.get("repo", ""), "base": "sha256:ready" if body.get("reference") else ""}
        self.left[image] = self.looks
        self.bodies.append(body)

    def _refuse(self, status, message, also, **keys):
        if status not in also:
            raise CommandExecutionError(message)
        return {"status": status, "message": message, **keys}


def _bytes(gigabytes):
    return None if gigabytes is None else int(gigabytes * 2**30)
