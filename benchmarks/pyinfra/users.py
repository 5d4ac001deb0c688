"""What benchmarks/people.py compares with: the same groups, users and limits as operations of pyinfra."""

import json
from pathlib import Path

from pyinfra import host
from pyinfra.operations import server

given = json.loads(Path(host.data.people_file).read_text(encoding="utf-8"))

for group in given["groups"]:
    server.group(name=f"Group {group}", group=group)
for person in given["people"]:
    server.user(  # noqa: S604
        name=f"User {person['name']}",
        user=person["name"],
        groups=person["groups"],
        password=person["hash"],
        shell="/bin/bash",
        create_home=True,
    )
# As the playbook sets them: in each run.
for person in given["people"]:
    server.shell(name=f"Limits of {person['name']}", commands=[f"setquota -u {person['name']} {given['quota']}"])
