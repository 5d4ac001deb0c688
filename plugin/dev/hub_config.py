"""JupyterHub's configuration for `make dev`: the one of servers (standalone_config.py) and what helps to work on it."""

import os
import sys
from pathlib import Path

from tljh_plasma import standalone, tljh_custom_jupyterhub_config

c = get_config()  # noqa: F821 (JupyterHub provides it)


def plugin(c):
    """Give the hub ports and names of its own beside another one of this machine, then configure it as servers do."""
    c.DockerSpawner.prefix = os.environ["PLASMA_DEV_NAME"]
    tljh_custom_jupyterhub_config(c)
    c.JupyterHub.hub_port = int(os.environ["PLASMA_DEV_HUB_PORT"])


extras = standalone.configure(c, plugin)

c.JupyterHub.log_level = "DEBUG"
c.Spawner.debug = True
for service in c.JupyterHub.services:
    if service["name"] == "plasma":
        service["command"] = [sys.executable, "-m", "plugin.dev.service"]
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        service["environment"]["PYTHONPATH"] = os.pathsep.join(filter(None, paths))

for extra in extras:
    load_subconfig(str(extra))  # noqa: F821
