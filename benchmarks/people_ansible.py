"""Ansible's side of benchmarks/people.py: the playbook users.yml over the same SSH path, in its own environment."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import time

from tests.support.paths import REPOSITORY

HERE = pathlib.Path(__file__).with_name("ansible")
PLAYBOOK = REPOSITORY / ".venv-bench" / "bin" / "ansible-playbook"


class Playbook:
    """
    users.yml for one target.

    target
        The server, as in tests/support/target.py.
    directory
        For the inventory and the variables, which hold passwords.
    mount
        What the limits are set on.
    """

    def __init__(self, target, directory: pathlib.Path, mount: str = "/"):
        self.directory = directory
        self.mount = mount
        options = " ".join(f"-o {option}" for option in target.ssh_options())
        host = {
            "ansible_host": target.host,
            "ansible_port": target.port,
            "ansible_user": target.user,
            "ansible_ssh_private_key_file": str(target.key),
            "ansible_ssh_common_args": options,
        }
        (directory / "inventory.json").write_text(json.dumps({"all": {"hosts": {target.name: host}}}), encoding="utf-8")

    def run(self, people: list[dict]) -> float:
        """Wall seconds of one run for these people ({name, password, groups}), which must succeed."""
        variables = {
            "people": people,
            "people_groups": sorted({group for person in people for group in person["groups"]}),
            "quota": {"soft": "1048576", "hard": "2097152", "mount": self.mount},
        }
        path = self.directory / "people.json"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(variables, file)
        # An inventory in JSON is read by the YAML plugin.
        command = [str(PLAYBOOK), "-i", str(self.directory / "inventory.json"), "-e", f"@{path}"]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(HERE / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
        started = time.monotonic()
        done = subprocess.run(
            [*command, str(HERE / "users.yml")], env=environment, capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - started
        if done.returncode:
            raise SystemExit(f"The playbook failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return seconds
