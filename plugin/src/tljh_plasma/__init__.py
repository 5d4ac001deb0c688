"""Plasma on JupyterHub: system users, one Docker container per server, environments as Docker images.

This module is what The Littlest JupyterHub loads through the entry point group ``tljh``. It imports nothing heavy,
so that ``python -m tljh_plasma.config_file`` stays quick.
"""

from __future__ import annotations

import pluggy

__version__ = "0.1.0"

# The marker of tljh.hooks, without needing TLJH: pluggy goes by the project name alone.
hookimpl = pluggy.HookimplMarker("tljh")


@hookimpl(trylast=True)
def tljh_custom_jupyterhub_config(c):
    """Configure JupyterHub for Plasma; last, so that it has the final word over other plugins.

    Args:
        c: the traitlets ``Config`` object of ``jupyterhub_config.py``.
    """
    from .config_hook import configure

    configure(c)


@hookimpl
def tljh_extra_hub_pip_packages():
    """Keep aiodocker where tljh-repo2docker works.

    TLJH upgrades what its plugins ask for in one call of pip, at every run. tljh-repo2docker asks for a range wider
    than it supports; with this beside it pip takes the overlap.
    """
    return ["aiodocker>=0.21,<0.22"]


@hookimpl
def tljh_config_post_install():
    """Hold the installer of TLJH to the Traefik that the operator chose; it looks for its own version after this."""
    from .installing import keep_traefik

    keep_traefik()
