"""
The timer that has the proxy take over a pair of key and certificate which somebody has renewed on the server.

The work itself is done by the plugin (``tljh_plasma.renewal``), which needs no controller.
"""

from __future__ import annotations

import plasma_timer

NAME = "plasma-certificate"
EVERY = "*:0/15"  # certificates are renewed weeks before they end


def timer(wanted: bool, prefix: str = "/opt/tljh") -> plasma_timer.Timer:
    """
    Return the timer, as it should be.

    wanted
        Whether there is to be one.
    prefix
        Where the hub is installed.
    """
    return plasma_timer.Timer(
        name=NAME,
        schedule=EVERY if wanted else None,
        key="plasma.https.tls",
        comment="# Managed by Plasma on Salt (plasma.https.tls).",
        description="When renewed certificates are taken over (Plasma)",
        service="[Unit]\nDescription=Take over a renewed certificate (Plasma)\nAfter=traefik.service\n\n[Service]\n"
        f"Type=oneshot\nEnvironment=TLJH_INSTALL_PREFIX={prefix}\n"
        f"ExecStart={prefix}/hub/bin/python3 -I -m tljh_plasma.renewal\n"
        "Nice=10\nNoNewPrivileges=yes\nPrivateTmp=yes\nProtectHome=yes\nProtectSystem=strict\n"
        f"ReadWritePaths={prefix}/state\n",
    )
