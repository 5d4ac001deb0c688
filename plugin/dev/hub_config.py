"""JupyterHub's configuration for `make dev`: the one of servers (standalone_config.py) and what helps to work on it."""

import os

from tljh_plasma import standalone, tljh_custom_jupyterhub_config

c = get_config()  # noqa: F821 (JupyterHub provides it)

extras = standalone.configure(c, tljh_custom_jupyterhub_config)

# Another hub of this machine keeps its port.
c.JupyterHub.hub_port = int(os.environ["PLASMA_DEV_HUB_PORT"])
# ... and its containers their names.
c.DockerSpawner.prefix = os.environ["PLASMA_DEV_NAME"]

c.JupyterHub.log_level = "DEBUG"
c.Spawner.debug = True
for service in c.JupyterHub.services:
    if service["name"] == "plasma":
        service["command"].append("--log-level=DEBUG")

for extra in extras:
    load_subconfig(str(extra))  # noqa: F821
