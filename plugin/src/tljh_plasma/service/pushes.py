"""Rebuild on push: a platform for Git tells of a push, and the environment is built again.

Each environment has a webhook of its own, whose secret says that the platform is the one it was given to.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from .base import Guarded
from .catalog import ARCHIVED
from .environments import AdministratorsApi
from .errors import Refused, refusals
from .operations import Operations
from .requests import Rebuild

# Who is said to have asked for a build.
OWNER = "push"
# What platforms call a push, and a first call to see whether the webhook works. Theirs are the header's names:
# docs.github.com/webhooks, docs.gitlab.com/user/project/integrations/webhooks, docs.gitea.com/usage/webhooks.
EVENT_HEADERS = ("X-GitHub-Event", "X-Gitea-Event", "X-Gitlab-Event")
PUSHES = frozenset({"push", "Push Hook", "Tag Push Hook"})
NOT_SIGNED = "No environment has a webhook with this secret, so nothing was done: make one on the environments page."
NO_PUSH = "The webhook works. This event is no push, so nothing is built."
OTHER = "This push does not concern the environment's reference, so nothing is built."
SHELVED = "The environment is archived, so nothing is built."
ACCEPTED = "The environment is built again."


def is_signed(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Tell whether a request knows the secret of a webhook.

    GitHub, Gitea and Forgejo sign the body with it (HMAC-SHA256); GitLab sends it.

    Args:
        headers: of the request.
        body: of the request.
        secret: of the webhook.
    """
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    fitting = {
        "X-Hub-Signature-256": f"sha256={signature}",
        "X-Gitea-Signature": signature,
        "X-Gitlab-Token": secret,
    }
    return any(
        hmac.compare_digest(headers[name].encode(errors="replace"), value.encode())
        for name, value in fitting.items()
        if name in headers
    )


def payload(content_type: str, body: bytes) -> dict[str, Any]:
    """Return what a platform says of an event, in JSON or in the form that GitHub wraps it in unless told otherwise.

    Raises:
        Refused: it is neither.
    """
    try:
        if content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
            body = parse_qs(body.decode(), strict_parsing=True)["payload"][0].encode()
        found = json.loads(body)
    except (KeyError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "The body is no event of GitHub, GitLab, Gitea or Forgejo.")
    return found


def concerns(event: Mapping[str, Any], ref: str) -> bool:
    """Tell whether a push changes what a reference stands for.

    Args:
        event: what the platform says of the push.
        ref: branch, tag or commit of an environment; empty or HEAD for the default branch.
    """
    if event.get("deleted") is True or set(str(event.get("after", ""))) == {"0"}:
        return False
    if ref in ("", "HEAD"):
        # GitLab says it of the project.
        places = [place for place in (event.get("repository"), event.get("project")) if isinstance(place, dict)]
        return event.get("ref") in [
            f"refs/heads/{place['default_branch']}" for place in places if "default_branch" in place
        ]
    return event.get("ref") in (f"refs/heads/{ref}", f"refs/tags/{ref}")


class Pushes:
    """Builds environments again, each after the build of it that is under way.

    Args:
        operations: builds.
        log: where builds that cannot begin are told of.
    """

    def __init__(self, operations: Operations, log: Any) -> None:
        self._operations = operations
        self._log = log
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def rebuild(self, image: str) -> None:
        """Build an environment again as soon as it is not being built. Pushes that come until then count as one."""
        if image not in self._waiting:
            self._waiting[image] = asyncio.create_task(self._rebuild(image))
            self._waiting[image].add_done_callback(lambda _: self._waiting.pop(image))

    async def close(self) -> None:
        """Build nothing any more."""
        waiting = list(self._waiting.values())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _rebuild(self, image: str) -> None:
        builder = self._operations.builder
        try:
            with refusals():
                while image in builder.states():
                    async for _ in builder.follow(image):
                        pass
            await self._operations.rebuild(image, Rebuild(), OWNER)
        except Refused as error:
            self._log.warning("%s is not built again after a push: %s", image, error.sentence)


class PushHandler(Guarded):
    """``POST push/IMAGE``, the address of an environment's webhook."""

    public = True

    async def post(self, image: str) -> None:
        """Build the environment again if somebody with its secret tells of a push to its reference."""
        catalog = self.settings["catalog"]
        secret = await asyncio.to_thread(catalog.store.webhook, image)
        # The same answer, and as much work, whether there is a webhook or not.
        if not is_signed(self.request.headers, self.request.body, secret or "none") or not secret:
            raise Refused(403, NOT_SIGNED)
        events = {self.request.headers[name] for name in EVENT_HEADERS if name in self.request.headers}
        if events.isdisjoint(PUSHES):
            self.write_json({"message": NO_PUSH})
            return
        event = payload(self.request.headers.get("Content-Type", ""), self.request.body)
        item = await catalog.find(image)
        if item.status == ARCHIVED:
            self.write_json({"message": SHELVED})
            return
        if not concerns(event, item.environment.ref):
            self.write_json({"message": OTHER})
            return
        self.log.info("A push builds the environment %s again", image)
        self.settings["pushes"].rebuild(image)
        self.write_json({"message": ACCEPTED}, 202)


class WebhookApi(AdministratorsApi):
    """``api/environments/IMAGE/webhook``"""

    async def post(self, image: str) -> None:
        """Make a webhook, in the place of the one that there is; the secret is told here and never again."""
        secret = await self.operations.make_webhook(image)
        self.log.info("%s makes a webhook for the environment %s", self.visitor_name, image)
        self.write_json({"image": image, "secret": secret}, 201)

    async def delete(self, image: str) -> None:
        """Remove it."""
        await self.operations.remove_webhook(image)
        self.log.info("%s removes the webhook of the environment %s", self.visitor_name, image)
        self.write_json({"image": image})
