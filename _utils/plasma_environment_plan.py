"""
What is to be done about environments: what pillar wants, held against what the hub has. Nothing here asks anybody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
UNDER_WAY = ("queued", "building")
# What an image is made of; the other keys are changed without a build.
MADE_OF = ("repository", "ref", "commit", "image", "id", "build_args", "status")
LIMITS = ("memory", "cpu")  # a build is given them anyway
WITH_A_BUILD = (*LIMITS, "previous")  # a build brings the newest image, too
KEPT = ("opens", "gpus", "description", "groups")  # what an archived environment has
ARCHIVED = "archived"
DEFAULTED = (*LIMITS, "opens", "gpus")  # None is the hub's default, and not "as it is"
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


def key(environment: Mapping[str, Any]) -> str:
    """
    Return the name and tag of an environment's image, by which pillar and the hub know it: the rule is the service's.

    environment
        An entry of the completed pillar.
    """
    tag = environment.get("ref") or "HEAD"
    if environment.get("image"):
        name, _, digest = environment["image"].partition("@sha256:")
        tag = digest or name.rpartition(":")[2]
    if len(tag) >= 40:
        tag = tag[:7]
    return f"{environment['name']}:{re.sub('[^A-Za-z0-9_.-]', '-', tag)}"


def step(
    environment: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    build_args: Mapping[str, Any] | None = None,
    commit: str | None = None,
    ready: Sequence[str] | None = None,
) -> dict[str, Any]:
    """
    Return what is to be done about one environment that pillar wants.

    environment
        An entry of the completed pillar, without ``absent``.

    items
        All environments of the hub, as of ``plasma_environment_api.items``.

    build_args
        Arguments of its build, ``{name: value}``.

    commit
        The commit that its reference is at; None when that is not known now.

    ready
        The ids that its ready image may have; None when that is not known, or makes no difference.

    Returns a dict: ``archive`` (its image is to be given up); ``problem`` (a sentence about what cannot be brought
    about, or None); ``name``; ``image`` (as of ``key``); ``item`` (what the hub has of it, or None); ``wait`` (it is
    being built just now); ``add`` and ``build`` (whether it is to be made, or made again); ``settings`` (what is to be
    changed without a build, as the service takes it; None for nothing); ``change`` and ``changed`` (``{"old", "new"}``
    for the build and for the rest, without values of build arguments); ``body`` (what a build is given beside
    credentials); ``replaced`` (environments of the hub that this one takes the place of); ``kept`` (those that it would
    take the place of with ``replace``).
    """
    image = key(environment)
    item = next((item for item in items if item["image"] == image), None)
    former = [
        other
        for other in items
        if other["name"] == environment["name"] and other["image"] != image and other["source"] == "pillar"
    ]
    wanted = _wanted(environment, build_args or {}, commit, ready)
    heir = next((other for other in former if other["has_image"]), None)
    replace = bool(environment.get("replace"))
    if item is None and heir:
        # Another reference of the same environment: who may use it stays as it is, unless pillar says something else.
        for name in ("description", "groups"):
            wanted[name] = heir[name] if wanted[name] is None else wanted[name]
    plan = {
        "archive": False,
        "problem": _problem(environment, item),
        "name": environment["name"],
        "image": image,
        "item": item,
        "wait": item is not None and item["status"] in UNDER_WAY,
        "add": item is None or (item["status"] == "failed" and not item["has_image"]),
        "settings": None,
        "changed": None,
        "replaced": [other["image"] for other in former if replace],
        "kept": [other["image"] for other in former if not replace],
    }
    if environment.get("archived"):
        return _archived(plan, item, wanted)
    if plan["add"]:
        new = {
            name: _shown(name, wanted[name])
            for name in wanted
            if name not in ("id", "status", "previous") and wanted[name] != {}
        }
        new = {"image_name": image, **{name: value for name, value in new.items() if value is not None}}
        plan["change"] = {"old": None, "new": new}
        if plan["replaced"]:
            plan["change"]["old"] = {"image_name": plan["replaced"][0]}
    else:
        _compare(plan, item, wanted)
    return {**plan, "build": bool(plan["change"]), "body": _body(environment, wanted, plan["add"])}


def _problem(environment, item):
    """What keeps the former image from being in use."""
    if not environment.get("previous") or (item and (item["former"] or item["status"] in UNDER_WAY)):
        return None
    return (
        f"`previous` is set, and {key(environment)} has no former image on this server: take `previous` out of its "
        "entry to use the newest one."
    )


def _archived(plan, item, wanted):
    """What is to be done about an environment whose image is not wanted: nothing where there is none of it."""
    plan |= {"wait": False, "add": False, "replaced": [], "kept": [], "change": None}
    if item:
        # What it is built from and with matters when it is built again.
        _compare(plan, item, {name: wanted[name] for name in KEPT} | {"previous": item["previous"]})
        plan["archive"] = item["status"] != ARCHIVED
        if plan["archive"]:
            before = plan["changed"] or {"old": {}, "new": {}}
            plan["changed"] = {
                "old": {**before["old"], "status": item["status"]},
                "new": {**before["new"], "status": ARCHIVED},
            }
    return {**plan, "build": False, "body": {}}


def _compare(plan, item, wanted):
    """Fill in what is to be built again, and what is to be changed, of an environment that is there."""
    had = _had(item, wanted)
    if wanted["previous"]:
        # It stays as it was before the newest build.
        wanted = {name: value for name, value in wanted.items() if name not in MADE_OF}
    differing = [
        name for name in wanted if wanted[name] != had[name] and (wanted[name] is not None or name in DEFAULTED)
    ]
    # Of the rest, a build brings some along: it is changed when that has succeeded.
    built = [name for name in differing if name in MADE_OF]
    built += [name for name in differing if built and name in WITH_A_BUILD]
    plan["change"] = _difference(had, wanted, built)
    names = [name for name in differing if name not in (*MADE_OF, *built)]
    plan["changed"] = _difference(had, wanted, names)
    adopted = item["source"] != "pillar"
    if adopted:
        plan["changed"] = plan["changed"] or {"old": {}, "new": {}}
        plan["changed"]["old"]["source"], plan["changed"]["new"]["source"] = item["source"], "pillar"
    if names or adopted:
        plan["settings"] = {name: _service_value(name, wanted[name]) for name in names}


def exported(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Return environments of the hub as pillar has them, without secrets: ``{"plasma": {"environments": [...]}}``, and
    beside that ``left_out``, ``{image: reason}``, where pillar cannot hold one.

    items
        As of ``plasma_environment_api.items``.
    """
    entries, left_out = {}, {}
    # The newest of a name is the one that pillar holds.
    for item in sorted(items, key=lambda item: (item["has_image"], item["created"]), reverse=True):
        name = item["name"] if _NAME.fullmatch(item["name"]) else item["image"].partition(":")[0]
        if not item["repo"] and not item["reference"]:
            left_out[item["image"]] = "nobody knows what it was made from"
        elif name in entries:
            left_out[item["image"]] = f"pillar holds one environment of a name, and {name} is in it already"
        else:
            entries[name] = _entry(name, item)
    pillar = {"plasma": {"environments": [entries[name] for name in sorted(entries)]}}
    return {**pillar, "left_out": left_out} if left_out else pillar


def size_text(size: int | None) -> str | None:
    """
    Return a number of bytes as pillar has sizes, such as ``1536M``; None for None.
    """
    if size is None:
        return None
    unit = next((unit for unit in "TGMK" if size % UNITS[unit] == 0), None)
    return f"{size // UNITS[unit]}{unit}" if unit else f"{size / UNITS['K']:.3f}K"


def _entry(name, item):
    entry = {
        "name": name,
        "image": item["reference"] or None,
        "repository": None if item["reference"] else item["repo"],
        "ref": None if item["reference"] or item["ref"] == "HEAD" else item["ref"] or None,
        "memory": size_text(item["limits"]["memory"]),
        "cpu": item["limits"]["cpu"],
        "opens": item["opens"] or None,
        "previous": item["previous"] or None,
        "archived": item["status"] == ARCHIVED or None,
        "gpus": item["gpus"] or None,
        "groups": list(item["groups"]),
        "description": item["description"] or None,
        "build_args": _arguments(item["buildargs"]) or None,
    }
    return {name: value for name, value in entry.items() if value is not None}


def _wanted(environment, build_args, commit, ready):
    """What pillar wants in the terms of the comparison; None is what makes no difference."""
    made = {"image": environment["image"], "id": ready} if environment.get("image") else {}
    if not made:
        made = {"repository": environment["repository"], "ref": environment["ref"], "commit": commit}
        made["build_args"] = {str(name): str(value) for name, value in build_args.items()}
    memory, cpu, groups = (environment.get(name) for name in ("memory", "cpu", "groups"))
    return {
        **made,
        # What was tried last has to have succeeded.
        "status": "built",
        "memory": None if memory is None else int(float(memory[:-1]) * UNITS[memory[-1]]),
        # The service keeps it as a label of that many digits.
        "cpu": None if cpu is None else float(f"{cpu:.12g}"),
        "opens": environment.get("opens"),
        "previous": bool(environment.get("previous")),
        "gpus": environment.get("gpus") or None,
        "description": environment.get("description"),
        "groups": None if groups is None else sorted(groups),
    }


def _had(item, wanted):
    """The same of what the hub has: of the newest image, where it went back to the one before."""
    newest = item["former"] if item["previous"] else item
    status = item["status"] if item["status"] in ("failed", ARCHIVED) else "built"
    had = {
        "repository": newest["repo"],
        "ref": newest["ref"] or "HEAD",
        "commit": newest["commit"] or "unknown",
        "image": newest["reference"],
        "id": wanted["id"] if newest["base"] in (wanted.get("id") or ()) else newest["base"],
        "build_args": _arguments(item["buildargs"]),
        "status": status,
        "memory": item["limits"]["memory"],
        "cpu": item["limits"]["cpu"],
        "opens": item["opens"] or None,
        "previous": item["previous"],
        "gpus": item["gpus"] or None,
        "description": item["description"],
        "groups": sorted(item["groups"]),
    }
    if status == ARCHIVED:
        # That there is no image says it all.
        had |= {name: wanted[name] for name in ("commit", "id") if name in wanted}
    return {name: had[name] for name in wanted}


def _difference(had, wanted, names):
    """What differs, as changes show it; None for nothing."""
    # That the last build failed is worth a word only where that is all.
    names = [name for name in names if name != "status"] or names
    if not names:
        return None
    old = {name: _shown(name, had[name]) for name in names}
    return {"old": old, "new": {name: _shown(name, wanted[name], had[name]) for name in names}}


def _shown(name, value, before=None):
    """A value as changes show it. Those of build arguments may be what nobody should read."""
    if name == "memory":
        return size_text(value)
    if name == "id" and not isinstance(value, str):
        return ", ".join(value)
    if name == "build_args":
        marks = {key: " (another value)" for key, was in (before or {}).items() if was != value.get(key)}
        return sorted(f"{key}{marks.get(key, '')}" for key in value)
    return value


def _body(environment, wanted, add):
    """What the service is given for a build, beside credentials."""
    body = {"memory": _service_value("memory", wanted["memory"]), "cpu": wanted["cpu"]}
    if environment.get("image"):
        body["reference"] = environment["image"]
    else:
        body |= {"repo": wanted["repository"], "ref": wanted["ref"]}
        body["buildargs"] = "\n".join(f"{name}={value}" for name, value in wanted["build_args"].items())
        if wanted["commit"]:
            body["commit"] = wanted["commit"]
    if add:
        body["name"] = environment["name"]
        body |= {name: _service_value(name, wanted[name]) for name in ("opens", "gpus")}
        body["description"] = wanted["description"] or ""
        body["groups"] = wanted["groups"] or []
    return body


def _service_value(name, value):
    """A setting as the service takes it: memory in GB, a text for what it opens with, and a number of GPUs."""
    if name in ("opens", "gpus"):
        return value or ("" if name == "opens" else 0)
    return value / UNITS["G"] if name == "memory" and value is not None else value


def _arguments(text):
    """``NAME=value`` lines as a dict."""
    return dict(line.partition("=")[::2] for line in text.splitlines() if line.strip())
