"""JupyterHub configuration without TLJH: ``jupyterhub -f <this file>``.

The same steps as TLJH's own jupyterhub_config.py: config.yaml, then the plugin, then jupyterhub_config.d/*.py.
"""

from tljh_plasma import standalone, tljh_custom_jupyterhub_config

c = get_config()  # noqa: F821 (JupyterHub provides it)

for extra in standalone.configure(c, tljh_custom_jupyterhub_config):
    load_subconfig(str(extra))  # noqa: F821
