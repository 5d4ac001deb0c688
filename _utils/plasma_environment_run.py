"""
Environments as pillar has them: built, changed, granted and removed through the hub's own service, so that the page
Environments and pillar agree.

Environments that pillar does not name are left alone. What is wrong with one keeps no other from being done. Builds are
the service's and go on when a run is interrupted: the next one finds them under way and waits for them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_environment_api
import plasma_environment_image
import plasma_environment_plan
import plasma_git
import plasma_hub_installed

log = logging.getLogger(__name__)

POLL = 2  # seconds between two looks at builds, and at servers that keep an environment from being removed
WORKERS = 8  # repositories asked at a time
LINES = 20  # of the log of a failed build


def compare(
    environments: list[dict[str, Any]],
    secrets: Mapping[str, Mapping[str, Any]] | None = None,
    prefix: str = "/opt/tljh",
    ready_timeout: float = 60,
    proxy: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """
    Return what ``apply`` would do, asking the hub and the servers of repositories, and changing nothing.

    environments
        Entries of the completed pillar: ``name``, ``repository`` and ``ref`` or ``image`` and ``image_file``,
        ``memory``, ``cpu``, ``opens``, ``gpus``, ``groups``, ``description``, ``previous``, ``archived``, ``replace``;
        ``absent`` and ``wait``.

    secrets
        ``{name: {"build_args", "credentials", "deploy_key", "known_hosts"}}``. Never give them on a command line.

    prefix
        Where the hub is installed.

    ready_timeout
        Seconds to wait for a service that is about to start.

    proxy
        What servers of repositories are asked through, as for ``plasma_git.commit``.

    Returns ``{"hub": whether there is one, "changes": {name: {"old", "new"}}, "built", "changed", "removed": [names],
    "problems": {name: [sentence, and lines of a log]}, "notes": [sentences], "older": whether the hub is of a release
    that cannot be asked yet}``; without a hub everything would be built. Raises CommandExecutionError when the hub or
    its service does not answer, SaltInvocationError for entries that are none.
    """
    run = _Run(environments, secrets, prefix, ready_timeout, proxy)
    try:
        items = run.items()
    except CommandExecutionError as exc:
        if not getattr(exc, "older", False):
            raise
        # The state that upgrades it may be ahead in this very run.
        run.report["older"] = True
        return run.report
    if items is None:
        run.report["hub"] = False
        for entry in run.wanted:
            run.done(entry["name"], "built", plasma_environment_plan.step(entry, [])["change"])
        return run.report
    run.check_groups(predicting=True)
    for step in run.steps(items, predicting=True):
        if step["wait"]:
            status = step["item"]["status"]
            run.done(step["name"], "built", {"old": {"status": status}, "new": {"status": "built"}})
        elif step["build"]:
            run.done(step["name"], "built", step["change"])
        if step["archive"] and step["item"]["users"]:
            run.problem(step["name"], _used(step["image"], step["item"]["users"], "archived"))
        elif step["changed"] and not step["wait"]:
            run.done(step["name"], "changed", step["changed"])
        run.note_kept(step)
        run.predict_removal(step["name"], [item for item in items if item["image"] in step["replaced"]], step)
    for entry in run.absent:
        run.predict_removal(entry["name"], [item for item in items if item["name"] == entry["name"]])
    return run.report


def apply(
    environments: list[dict[str, Any]],
    secrets: Mapping[str, Mapping[str, Any]] | None = None,
    prefix: str = "/opt/tljh",
    timeout: float = 7200,
    ready_timeout: float = 60,
    proxy: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """
    Bring the hub's environments to what pillar says, all builds at once as far as the service has room for them.

    environments, secrets, prefix, ready_timeout, proxy
        As for ``compare``.

    timeout
        Seconds that one build may take. It may wait in the queue besides, and as long again for the builder's image.

    Returns what ``compare`` does, of what was done. An environment whose build fails keeps its old image; its problem
    comes with the end of the build's log. Raises CommandExecutionError where there is no hub, or it does not answer,
    SaltInvocationError for entries that are none.
    """
    run = _Run(environments, secrets, prefix, ready_timeout, proxy)
    items = run.items()
    if items is None:
        raise CommandExecutionError(plasma_hub_installed.absent(prefix, "runs"))
    run.check_groups()
    keys = [plasma_environment_plan.key(entry) for entry in run.wanted]
    under_way = _under_way(items, keys)
    if under_way:
        # Of a run that was interrupted, or of the page: what comes of them decides what is left to do.
        run.wait(under_way, timeout)
        items = run.items()
    submitted = {}
    # What reads an archive first comes last: the others are built meanwhile.
    for step in sorted(run.steps(items), key=lambda step: bool(step["entry"].get("image_file"))):
        with run.problem_of(step["name"]):
            run.change(step)
            if step["build"]:
                run.submit(step)
                submitted[step["image"]] = step
            elif step["replaced"]:
                run.replace(step)
            run.note_kept(step)
    for image, item in run.wait(list(submitted), timeout).items():
        with run.problem_of(submitted[image]["name"]):
            run.finish(submitted[image], item)
    for entry in run.absent:
        run.remove(entry)
    return run.report


class _Run:
    """One comparison, or one apply."""

    def __init__(self, environments, secrets, prefix, ready_timeout, proxy):
        if not isinstance(environments, list) or not all(
            isinstance(entry, dict) and (entry.get("absent") or entry.get("repository") or entry.get("image"))
            for entry in environments
        ):
            raise SaltInvocationError("environments must be a list of entries of plasma.environments.")
        self.wanted = [entry for entry in environments if not entry.get("absent")]
        self.absent = [entry for entry in environments if entry.get("absent")]
        self.secrets = secrets or {}
        self.proxy = proxy or {}
        self.service = {"prefix": prefix, "timeout": ready_timeout}
        self.ready_timeout = ready_timeout
        self.began = time.monotonic()
        self.report: dict[str, Any] = {"hub": True, "older": False, "changes": {}, "problems": {}, "notes": []}
        self.report |= {"built": [], "changed": [], "removed": []}

    def items(self):
        """What the hub has; None without a hub."""
        return plasma_environment_api.items(**self.service)

    def delete(self, image):
        """Ask for the removal of an image: the answer's ``status`` is 409 while it is in use, and 404 if it is gone."""
        return plasma_environment_api.change("DELETE", image, also=(404, 409), **self.service)

    @contextlib.contextmanager
    def problem_of(self, name):
        """A block whose error is a problem of this environment alone: it is told, and the others go on."""
        try:
            yield
        except CommandExecutionError as exc:
            log.info("Environment %s: %s", name, exc)
            self.problem(name, str(exc))

    def problem(self, name, *lines):
        """Report a problem of an environment."""
        self.report["problems"].setdefault(name, []).extend(lines)

    def done(self, name, what, change):
        """Report a change; several of one environment are one."""
        if name not in self.report[what]:
            self.report[what].append(name)
        merged = self.report["changes"].setdefault(name, {"old": None, "new": None})
        for side, values in change.items():
            if values is not None:
                before = merged[side] or {}
                merged[side] = before | values
                if "images" in merged[side]:
                    merged[side]["images"] = before.get("images", []) + values.get("images", [])

    def removed(self, name, image, step=None):
        """Report a removal; with a step, as part of the change that takes the image's place."""
        what = "removed" if step is None else "built" if step["build"] else "changed"
        self.done(name, what, {"old": {"images": [image]}, "new": None})

    def _note(self, sentence):
        if sentence not in self.report["notes"]:
            self.report["notes"].append(sentence)

    def note_kept(self, step):
        """Say what stays because nobody has said that it may go."""
        if step["kept"]:
            stay, it = ("stays", "it") if len(step["kept"]) == 1 else ("stay", "them")
            kept = ", ".join(step["kept"])
            self._note(f"{kept} {stay} beside {step['image']}; with `replace: true` an apply removes {it}.")

    # Looking.

    def check_groups(self, predicting=False):
        """Take out what is given to groups that the hub does not know: it would be refused half-way."""
        wanted = {name for entry in self.wanted for name in entry.get("groups") or ()}
        unknown = wanted - set(plasma_environment_api.groups(**self.service) or ()) if wanted else set()
        for entry in list(self.wanted):
            missing = ", ".join(sorted(unknown.intersection(entry.get("groups") or ())))
            if missing and predicting:
                # The states that make them known may be in this very run.
                self._note(f"The hub has to know the group {missing} by then.")
            elif missing:
                self.wanted.remove(entry)
                states = "apply the states groups and tljh.settings, or the whole site"
                self.problem(entry["name"], f"the hub does not know the group {missing} yet: {states}.")

    def steps(self, items, predicting=False):
        """What is to be done about each environment; those about which something cannot be found out are left out."""
        blind = predicting and not plasma_git.available()
        if blind and any(entry.get("repository") for entry in self.wanted):
            self._note("Git is still to be installed here, so nobody knows yet whether branches have moved.")
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            tasks = [pool.submit(self._source, entry, blind) for entry in self.wanted]
        steps = []
        for entry, task in zip(self.wanted, tasks, strict=True):
            with self.problem_of(entry["name"]):
                build_args = self.secrets.get(entry["name"], {}).get("build_args")
                step = plasma_environment_plan.step(entry, items, build_args, *task.result())
                if step["problem"]:
                    raise CommandExecutionError(step["problem"])
                steps.append({**step, "entry": entry})
        return steps

    def _source(self, entry, blind):
        """(commit, ids of the ready image), as far as they can be known now."""
        secrets = self.secrets.get(entry["name"], {})
        if entry.get("previous") or entry.get("archived"):
            return None, None  # whatever it is, it is not built
        if entry.get("image_file"):
            return None, plasma_environment_image.archive_ids(entry["image_file"], entry["image"])
        if entry.get("image"):
            identifier = plasma_environment_image.engine_id(entry["image"])
            return None, [identifier] if identifier else None
        if blind:
            return None, None
        access = {name: secrets[name] for name in ("credentials", "deploy_key", "known_hosts") if name in secrets}
        return plasma_git.commit(entry["repository"], entry["ref"], **access, proxy=self.proxy), None

    def predict_removal(self, name, items, step=None):
        """Say what would be removed, and what is in use; with a step, of what that takes the place of."""
        for item in items:
            if not item["users"]:
                self.removed(name, item["image"], step)
            elif step:
                self._note(_stays(item["image"], item["users"]))
            else:
                self.problem(name, _used(item["image"], item["users"]))

    # Doing.

    def change(self, step):
        """Change what needs no build."""
        if step["archive"]:
            part = {"part": "archive", "also": (409,)}
            answer = plasma_environment_api.change("POST", step["image"], {}, **part, **self.service)
            if answer.get("status") == 409:
                users = answer.get("users")
                raise CommandExecutionError(_used(step["image"], users, "archived") if users else answer["message"])
        if step["settings"] is not None:
            log.info("Environment %s: changing %s", step["name"], ", ".join(step["settings"]) or "whose it is")
            plasma_environment_api.change("PATCH", step["image"], step["settings"], **self.service)
        if step["archive"] or step["settings"] is not None:
            self.done(step["name"], "changed", step["changed"])

    def submit(self, step):
        """Put a build in the service's queue."""
        entry, secrets = step["entry"], self.secrets.get(step["name"], {})
        if entry.get("image_file"):
            log.info("Environment %s: reading %s", step["name"], entry["image_file"])
            plasma_environment_image.load(entry["image_file"], entry["image"])
        body = {**step["body"], **(secrets.get("credentials") or {})}
        body |= {name: secrets[name] for name in ("deploy_key", "known_hosts") if name in secrets}
        if step["add"]:
            answer = plasma_environment_api.ask("POST", "environments", body, also=(409,), **self.service)
        else:
            build = {"part": "build", "also": (409,)}
            answer = plasma_environment_api.change("POST", step["image"], body, **build, **self.service)
        # A request whose answer was lost is made again, and then meets the build that it has started.
        if answer.get("status") == 409 and not _under_way(self.items(), [step["image"]]):
            raise CommandExecutionError(answer["message"])
        log.info("Environment %s: queued", step["name"])

    def wait(self, images, timeout):
        """Wait until these are built; ``{image: what the hub has then}``, None for what is gone or takes too long."""
        ended, phases = {}, {}
        answered = time.monotonic()
        while len(ended) < len(images):
            try:
                items = {item["image"]: item for item in self.items() or ()}
            except CommandExecutionError:
                # The hub or its proxy starts again meanwhile, which does no harm to builds.
                if time.monotonic() - answered > self.ready_timeout:
                    raise
                time.sleep(POLL)
                continue
            answered = time.monotonic()
            for image in (image for image in images if image not in ended):
                item = items.get(image)
                phase = item["status"] if item else "gone"
                if phases.get(image, ("", 0))[0] != phase:
                    phases[image] = phase, answered
                    log.info("Environment %s: %s after %.0f seconds", image, phase, answered - self.began)
                late = phase == "building" and answered - phases[image][1] > 2 * timeout + 60
                if late or phase not in plasma_environment_plan.UNDER_WAY:
                    ended[image] = None if late else item
            if len(ended) < len(images):
                time.sleep(POLL)
        return ended

    def finish(self, step, item):
        """Report a build that has ended, and remove what it takes the place of."""
        if item is None:
            raise CommandExecutionError(
                f"{step['image']} was removed while it was built, or is not ready after all this time: look at the "
                "page Environments, and apply again."
            )
        if item["status"] != "built":
            lines = plasma_environment_api.log_tail(step["image"], LINES, **self.service)
            old = " The old image stays in use." if item["has_image"] else ""
            log.info("Environment %s: the build failed", step["name"])
            self.problem(step["name"], f"the build failed.{old} The end of its log:", *lines)
            return
        self.done(step["name"], "built", step["change"])
        self.replace(step)

    def replace(self, step):
        """Remove other references of the same environment, unless somebody uses them."""
        for image in step["replaced"]:
            answer = self.delete(image)
            if answer.get("status") == 409:
                self._note(_stays(image, answer.get("users") or ()))
            elif answer.get("status") != 404:
                self.removed(step["name"], image, step)

    def remove(self, entry):
        """Remove all environments of a name, as soon as nobody uses them or the time to wait is over."""
        name, end = entry["name"], self.began + (entry.get("wait") or 0)
        with self.problem_of(name):
            for item in self.items():
                if item["name"] != name:
                    continue
                answer = self.delete(item["image"])
                while answer.get("status") == 409 and time.monotonic() < end:
                    log.info("Environment %s: %s", name, answer["message"])
                    time.sleep(min(POLL * 5, max(0.0, end - time.monotonic())))
                    answer = self.delete(item["image"])
                if answer.get("status") == 409:
                    users = answer.get("users")
                    raise CommandExecutionError(_used(item["image"], users) if users else answer["message"])
                self.removed(name, item["image"])


def _under_way(items, images):
    """Those of these images that are queued or being built."""
    return [
        item["image"]
        for item in items
        if item["image"] in images and item["status"] in plasma_environment_plan.UNDER_WAY
    ]


def _used(image, users, done="removed"):
    later = ", or let this wait for it (`wait: SECONDS` beside `absent`)" if done == "removed" else ""
    return (
        f"{image} cannot be {done} while {', '.join(users)} {'uses' if len(users) == 1 else 'use'} it: have the "
        f"servers stopped{later}."
    )


def _stays(image, users):
    whom = ", ".join(users) or "a container"
    return f"{image} stays while {whom} {'uses' if len(users) <= 1 else 'use'} it; an apply after that removes it."
