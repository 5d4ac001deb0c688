"""What Traefik does to requests and answers, by what a route leads to: the one table of its middlewares.

User servers share the hub's origin. A browser lets some headers of an answer count for the whole origin, or for paths
that are not the answer's own: these are taken from the answers of user servers.
"""

from __future__ import annotations

from typing import Any

# What a route leads to.
USER, HUB, SERVICE = "user", "hub", "service"

# Headers of answers that reach beyond the path they were sent from, and why. Set-Cookie is not among them: scripts set
# cookies for other paths by themselves, and Traefik's middlewares do not see the answer that opens a WebSocket. What a
# cookie of theirs does to the hub's is up to guard.py.
BEYOND_A_PATH = (
    # A script of one server would handle requests to the hub's pages.
    "Service-Worker-Allowed",
    # With the hub's own value, a page could hold on to the window of one of the hub's.
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Opener-Policy-Report-Only",
    # Logs visitors out and empties the origin's storage.
    "Clear-Site-Data",
    # Lead all of the host's traffic elsewhere, or tell somebody about it.
    "Alt-Svc",
    "NEL",
    "Report-To",
    "Reporting-Endpoints",
    # The host's and not the server's to decide.
    "Strict-Transport-Security",
    "Public-Key-Pins",
    "Public-Key-Pins-Report-Only",
    "Expect-CT",
    # Count for the whole origin: what browsers tell about themselves, how they keep its pages apart.
    "Accept-CH",
    "Critical-CH",
    "Origin-Agent-Cluster",
    # Fetches pages of the hub ahead of time, with the visitor's cookies.
    "Speculation-Rules",
    # Kept for paths that the answer names.
    "Use-As-Dictionary",
    # Whether, and how, the visitor is logged in at the origin.
    "Set-Login",
    "Secure-Session-Registration",
    "Sec-Session-Registration",
    "Secure-Session-Challenge",
    "Sec-Session-Challenge",
    # Advertising interfaces, which are the origin's.
    "Observe-Browsing-Topics",
    "Attribution-Reporting-Register-Source",
    "Attribution-Reporting-Register-Trigger",
    "Activate-Storage-Access",
)

# JupyterHub leads /user/NAME to that person's server, and not only what is below it. A service worker is for the
# directory that its script is in: one at that path for the servers of everybody. So browsers are sent to /user/NAME/.
SLASH = "plasma-slash"

# By name: each is written as Traefik spells it. An empty header is one that is taken away.
MIDDLEWARES: dict[str, dict[str, Any]] = {
    "plasma-own-path": {"headers": {"customResponseHeaders": dict.fromkeys(BEYOND_A_PATH, "")}},
    SLASH: {"redirectRegex": {"regex": r"^([^?]*[^/?])(\?.*)?$", "replacement": "${1}/${2}"}},
}

# In the order in which requests pass them.
CHAINS: dict[str, tuple[str, ...]] = {USER: ("plasma-own-path",), HUB: (), SERVICE: ()}

# Over HTTPS, before all others: what the host itself says. Thirty days, and none of its other names: an operator may go
# back to HTTP, and browsers that came lately would not follow until then.
HTTPS = {"plasma-https": {"headers": {"customResponseHeaders": {"Strict-Transport-Security": "max-age=2592000"}}}}


def kind(data: dict[str, Any]) -> str:
    """Return what a route leads to.

    Args:
        data: what JupyterHub keeps with the route.
    """
    if "user" in data:
        return USER
    return HUB if data.get("hub") else SERVICE
