"""A server with a class's repositories, for the tests of environments in pillar."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess

from tests.e2e.conftest import make_account
from tests.support.builder_image import builder_image
from tests.support.environment_image import environment_image, load_into
from tests.support.git_repository import bridge_address, serve, serve_private
from tests.support.hub import HubUser

STATE = "environments-managed|environments-managed"
# Another one each time: a server that is kept may have the former one in its logs, of a test that failed.
MARKER = f"Marker-{secrets.token_hex(8)}"


class Course:
    """The server with its repositories, and what pillar says of environments."""

    def __init__(self, kept_server, directory, git, private):
        self.target, self.site = kept_server.target, kept_server.site
        self.kept, self.directory, self.git, self.private = kept_server, directory, git, private
        self.url = f"http://{self.target.host}"
        self.base = environment_image()

    def pillar(self, *environments, **keys):
        self.kept.with_pillar(environments=list(environments), **keys)

    def apply(self, *arguments):
        return self.site.apply("environments", *arguments)

    def agreed(self, *environments, **keys):
        """Predict and apply; what was predicted is what happens, and nothing is left to do then."""
        self.pillar(*environments, **keys)
        predicted, done = self.apply("test=True"), self.apply()
        assert not done.failed, done.failed
        changes = done.changed.get(STATE, {})
        assert predicted.changed.get(STATE, {}) == changes
        assert (STATE in predicted.predicted) is bool(changes)
        assert STATE not in self.apply("test=True").predicted
        again = self.apply()
        assert (again.changed, again.failed) == ({}, {})
        return changes

    def comment(self, result):
        return result.states[STATE]["comment"]

    def items(self):
        return {item["image"]: item for item in self.site.salt("plasma_environment.list", "output=json").value}

    def image_id(self, image):
        return self.target.sudo(["docker", "image", "inspect", "--format", "{{.Id}}", image]).stdout.strip()

    def person(self, name, *options):
        self.target.sudo(f"userdel --remove {name} 2>/dev/null || true")
        account = make_account(self.target, name, *options)
        person = HubUser(self.url, name)
        person.login(account.password)
        assert person.logged_in
        return person


@contextlib.contextmanager
def course_of(kept_server, directory):
    """The course, with its repositories served: at one address to everybody, at one to whoever knows the marker."""
    kept_server.with_pillar()
    load_into(kept_server.target, environment_image())
    load_into(kept_server.target, builder_image())
    address = bridge_address()
    with serve(directory, address) as git, serve_private(directory, address, "teacher", MARKER) as private:
        course = Course(kept_server, directory, git, private)
        yield course
        # Tests of other things come after this.
        names = {item["name"] for item in course.items().values() if item["source"] == "pillar"}
        course.pillar(*({"name": name, "absent": True, "wait": 60} for name in sorted(names)))
        assert not course.apply().failed
        kept_server.with_pillar()


class Watch:
    """Looks for words in the arguments of all processes of a server."""

    SCRIPT = (
        "import json, os, pathlib, sys, time\n"
        "end, seen, looks = time.time() + 600, set(), 0\n"
        "words = [word[::-1] for word in sys.argv[1:]]\n"
        "while time.time() < end and not pathlib.Path('/run/watch-ends').exists():\n"
        "    looks += 1\n"
        # Not a glob: it looks at each file, and breaks off where a process ends at that moment.
        "    for process in filter(str.isdigit, os.listdir('/proc')):\n"
        "        try:\n"
        "            text = pathlib.Path('/proc', process, 'cmdline').read_bytes()\n"
        "        except OSError:\n"
        "            continue\n"
        "        seen.update(word for word in words if word.encode() in text)\n"
        "print(json.dumps([looks, sorted(seen)]))\n"
    )

    def __init__(self, target, *words):
        self.target = target
        target.sudo("rm -f /run/watch-ends")
        # Backwards: the arguments of this are seen, too.
        command = [*target.ssh_command(), "--", "sudo", "python3", "-", *(word[::-1] for word in words)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(self.SCRIPT)
        self.process.stdin.close()

    def end(self):
        """How often it looked, and the words that it saw."""
        self.target.sudo("touch /run/watch-ends")
        looks, seen = json.loads(self.process.stdout.read())
        self.process.wait(timeout=60)
        return looks, seen
