"""Ansible's side of benchmarks/people.py: the playbook users.yml over the same SSH path, in its own environment."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from tests.support.paths import REPOSITORY
from tests.support.target import Target
from tools.private_files import private

HERE = Path(__file__).with_name("ansible")
PLAYBOOK = REPOSITORY / ".venv-bench" / "bin" / "ansible-playbook"


class Playbook:
    """
    users.yml for one target.

    target
        The server.
    directory
        For the inventory and the variables, which hold passwords.
    mitogen
        Run it by Mitogen's strategy instead of Ansible's own.
    """

    def __init__(self, target: Target, directory: Path, mitogen: bool = False):
        self.environment = {**os.environ, "ANSIBLE_CONFIG": str(HERE / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
        if mitogen:
            plugins = next(PLAYBOOK.parent.parent.glob("lib/python*/site-packages/ansible_mitogen/plugins/strategy"))
            self.environment |= {"ANSIBLE_STRATEGY_PLUGINS": str(plugins), "ANSIBLE_STRATEGY": "mitogen_linear"}
        self.inventory, self.variables = directory / "inventory.json", directory / "people.json"
        host = {
            "ansible_host": target.host,
            "ansible_port": target.port,
            "ansible_user": target.user,
            "ansible_ssh_private_key_file": str(target.key),
            "ansible_ssh_common_args": " ".join(f"-o {option}" for option in target.ssh_options()),
        }
        self.inventory.write_text(json.dumps({"all": {"hosts": {target.name: host}}}), encoding="utf-8")

    def run(self, people: list[dict]) -> float:
        """Wall seconds of one run for these people ({name, password, groups}), which must succeed."""
        variables = {
            "people": people,
            "people_groups": sorted({group for person in people for group in person["groups"]}),
            "quota": {"soft": "1048576", "hard": "2097152", "mount": "/"},
        }
        with open(self.variables, "w", encoding="utf-8", opener=private) as file:
            json.dump(variables, file)
        # An inventory in JSON is read by the YAML plugin.
        command = [PLAYBOOK, "-i", self.inventory, "-e", f"@{self.variables}", HERE / "users.yml"]
        started = time.monotonic()
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        if done.returncode:
            raise SystemExit(f"The playbook failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return seconds
