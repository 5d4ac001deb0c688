"""pyinfra's side of benchmarks/people.py: pyinfra/users.py over the same SSH path, from the same environment."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from tests.support.paths import REPOSITORY
from tests.support.target import Target
from tools.private_files import private

OPERATIONS = Path(__file__).with_name("pyinfra") / "users.py"
PROGRAM = REPOSITORY / ".venv-bench" / "bin" / "pyinfra"
# Hashes people's passwords, which come on stdin, with a salt of their names: pyinfra sets a hash that differs.
HASHES = """
import json, sys
from passlib.hash import sha512_crypt
json.dump({name: sha512_crypt.using(salt=name.replace("-", "")[-16:], rounds=5000).hash(password)
           for name, password in json.load(sys.stdin).items()}, sys.stdout)
"""


class PyInfra:
    """
    users.py for one target.

    target
        The server.
    directory
        For the inventory and the variables, which hold hashes of passwords.
    """

    def __init__(self, target: Target, directory: Path):
        self.inventory, self.variables = directory / "pyinfra_inventory.py", directory / "pyinfra_people.json"
        # pyinfra reads the options of ssh(1) from a configuration alone.
        configuration = directory / "pyinfra_ssh_config"
        options = [option.replace("=", " ", 1) for option in target.ssh_options()]
        configuration.write_text("\n".join(["Host *", *options]) + "\n", encoding="utf-8")
        data = {
            "ssh_hostname": target.host,
            "ssh_port": target.port,
            "ssh_user": target.user,
            "ssh_key": str(target.key),
            "ssh_config_file": str(configuration),
            "ssh_strict_host_key_checking": "no",
            "people_file": str(self.variables),
            "_sudo": True,
        }
        self.inventory.write_text(f"servers = [({target.name!r}, {data!r})]\n", encoding="utf-8")

    def run(self, people: list[dict]) -> float:
        """Wall seconds of one run for these people ({name, password, groups}), which must succeed."""
        passwords = json.dumps({person["name"]: person["password"] for person in people})
        started = time.monotonic()
        python = PROGRAM.with_name("python")
        hashes = subprocess.run([python, "-c", HASHES], input=passwords, capture_output=True, text=True, check=True)
        hashed = json.loads(hashes.stdout)
        variables = {
            "people": [
                {"name": person["name"], "groups": person["groups"], "hash": hashed[person["name"]]}
                for person in people
            ],
            "groups": sorted({group for person in people for group in person["groups"]}),
            "quota": "1048576 2097152 0 0 /",
        }
        with open(self.variables, "w", encoding="utf-8", opener=private) as file:
            json.dump(variables, file)
        command = [PROGRAM, "--yes", self.inventory, OPERATIONS]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        if done.returncode:
            raise SystemExit(f"pyinfra failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return seconds
