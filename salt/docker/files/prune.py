#!/usr/bin/python3
"""
Removes what builds leave in the Docker engine: images without any name, and caches of builds, when they are old enough.

Never an image with a name (of a tag or a digest), nor one that a container uses, running or not; and nothing while an
environment is being built. Run by plasma-prune.timer; what it did is in the file of --note, for root alone. Standard
library only: it works where no hub is installed.
"""

import argparse
import http.client
import json
import os
import socket
import sys
import time
import urllib.parse

SOCKET = "/var/run/docker.sock"
# The plugin labels the containers of its builders so.
LABEL_BUILD = "org.plasma.build.uid"


class EngineError(Exception):
    """The engine does not answer, or refuses; the text says what."""


class Engine:
    """The engine's API over its socket. Without a version in the path, it answers with its own."""

    def __init__(self, path):
        self.path = path

    def ask(self, method, target, **filters):
        if filters:
            target += f"{'&' if '?' in target else '?'}filters={urllib.parse.quote(json.dumps(filters))}"
        connection = http.client.HTTPConnection("localhost")
        try:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(600)
            connection.sock.connect(self.path)
            connection.request(method, target)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"Docker does not answer ({error}): systemctl start docker") from error
        finally:
            connection.close()

    def get(self, target, **filters):
        status, value = self.ask("GET", target, **filters)
        if status != 200:
            raise EngineError(f"Docker answers {target.partition('?')[0]} with status {status}")
        return value


def building(engine):
    """Whether an environment is being built."""
    return bool(engine.get("/containers/json", label=[LABEL_BUILD]))


def leftovers(engine, before):
    """Ids of images without a name that are older than a time and that no container uses, the newest first."""
    used = {container["ImageID"] for container in engine.get("/containers/json?all=1")}
    # An image that was asked for by its digest has no tag and is somebody's all the same.
    images = [
        image
        for image in engine.get("/images/json", dangling=["true"])
        if image["Created"] < before
        and image["Id"] not in used
        and all("<none>" in name for key in ("RepoTags", "RepoDigests") for name in image.get(key) or ())
    ]
    return [image["Id"] for image in sorted(images, key=lambda image: image["Created"], reverse=True)]


def layers(engine):
    """Bytes of all layers."""
    return engine.get("/system/df").get("LayersSize") or 0


def prune(engine, min_age):
    """
    Remove what is left over for more than min_age hours; returns {"images", "freed", "skipped"}.

    Images go one by one and without force: the engine refuses those that came into use meanwhile.
    """
    if building(engine):
        return {"images": 0, "freed": 0, "skipped": "an environment is being built"}
    size, removed = layers(engine), 0
    for image in leftovers(engine, time.time() - min_age * 3600):
        if building(engine):
            break
        status, _ = engine.ask("DELETE", f"/images/{image}")
        removed += status == 200
    freed = max(size - layers(engine), 0)
    if not building(engine):
        # The engine keeps what a build uses.
        filters = {"until": [f"{min_age}h"]} if min_age else {}
        status, answer = engine.ask("POST", "/build/prune", **filters)
        if status != 200:
            raise EngineError(f"Docker does not prune the caches of builds (status {status})")
        freed += (answer or {}).get("SpaceReclaimed") or 0
    return {"images": removed, "freed": freed, "skipped": None}


def write(path, note):
    """Write the note, for root alone, all of it or nothing."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    beside = f"{path}.new"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
        json.dump(note, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(beside, path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Remove what builds leave in the Docker engine.")
    parser.add_argument("--min-age", type=int, default=72, help="hours that leftovers are kept")
    parser.add_argument("--note", default="/var/lib/plasma/prune.json", help="file that says what was done")
    parser.add_argument("--socket", default=SOCKET, help="the engine's socket")
    options = parser.parse_args(arguments)
    note = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "images": 0, "freed": 0, "error": None}
    try:
        note.update(prune(Engine(options.socket), options.min_age))
    except EngineError as error:
        note["error"] = str(error)
    write(options.note, note)
    skipped = f", skipped: {note['skipped']}" if note.get("skipped") else ""
    print(note["error"] or f"{note['images']} images removed, {note['freed']} bytes freed{skipped}")
    return 1 if note["error"] else 0


if __name__ == "__main__":
    sys.exit(main())
