"""What our extension does in a person's Jupyter server: it says when the server is in use, lets large messages in, and
answers for what the image lacks.

Jupyter's servers take every request for activity, and JupyterLab asks for lists of kernels all day: a forgotten tab
would keep its server for ever. A cell that computes without output, on the other hand, says nothing for hours. So here
requests that only read do not count, and work that goes on does, whoever looks at it. ``jupyterhub-singleuser`` tells
the hub what comes of it.

This file is loaded by the server of whatever image is started (see ``container_files``): standard library, Tornado and
Jupyter's server alone. The person's server is theirs: what it reports is a courtesy, and ``max_age`` is the bound.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timezone

# Seconds between two looks whether something computes; fewer where the hub is told more often.
INTERVAL = 20
# Part of a CPU from which on the server counts as busy; half of what it may have, where that is less. JupyterLab with
# nobody in front of it stays below a twentieth.
BUSY = 0.2
# Bytes. A widget's upload of 100 MB comes as one message; Tornado drops the connection at 10 MB.
LARGEST_MESSAGE = 256 * 1024 * 1024
# What our script in JupyterLab adds to its requests when somebody used the mouse or the keyboard.
PRESENT = "plasma_present"
# Requests that pages send by themselves though they look like work: RStudio's and jupyterlab-git's.
POLLS = re.compile(r"/events/get_events\Z|/git/.*(?:status|branch|tags|remote/show|all_history|changed_files)\Z")
# What is said to people who followed a link of a course (see ``links``) to an environment that cannot fetch its files.
NO_PULLER = (
    "This environment has no nbgitpuller, which is to fetch the files of the course, so nothing was fetched. "
    "Please tell whoever gave you the link."
)
READING = ("GET", "HEAD", "OPTIONS")
CGROUPS = "/sys/fs/cgroup"


def is_used(handler):
    """Whether a request to Jupyter's own addresses tells that somebody is there.

    Args:
        handler: Jupyter's, before it answers.
    """
    if handler.get_argument(PRESENT, None) is not None:
        return True
    return handler.request.method not in READING and not POLLS.search(handler.request.path)


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def cpu_seconds(root=CGROUPS, own="/proc/self/cgroup"):
    """Return the processor time that the whole server has used so far, terminals and programs included.

    Args:
        root: where the kernel's cgroups are.
        own: which of them this process is in.

    Returns:
        Seconds, or None where the kernel does not tell.
    """
    # "/" in a container, unless the engine shows it the host's cgroups.
    unified = next((line[3:].strip() for line in _read(own).splitlines() if line.startswith("0::/")), "/")
    found = re.search(r"^usage_usec (\d+)$", _read(os.path.join(root, unified.lstrip("/"), "cpu.stat")), re.MULTILINE)
    if found:
        return int(found.group(1)) / 1e6
    old = _read(os.path.join(root, "cpuacct", "cpuacct.usage")).strip()
    return int(old) / 1e9 if old.isdigit() else None


class Watch:
    """Looks again and again whether something computes, and notes in the server's settings when it does.

    Args:
        settings: those of the web application; keys that end with ``_last_activity`` count.
        kernels: the manager of kernels.
        cpus: how many CPUs the server may use.
        interval: seconds between two looks.
    """

    def __init__(self, settings, kernels, cpus=1.0, interval=INTERVAL):
        self._settings = settings
        self._kernels = kernels
        self._enough = min(BUSY, cpus / 2) * interval
        self._used = cpu_seconds()

    def look(self):
        """Take one look."""
        before, self._used = self._used, cpu_seconds()
        computing = before is not None and self._used is not None and self._used - before >= self._enough
        if computing or any(kernel.get("execution_state") == "busy" for kernel in self._kernels.list_kernels()):
            self._settings["plasma_last_activity"] = datetime.now(timezone.utc)


def count_people_only(handler, method):
    """Have a method that notes activity called for people's requests alone.

    Args:
        handler: the class of Jupyter's handlers.
        method: the name of the method.
    """
    original = getattr(handler, method)

    def count(self):
        if is_used(self):
            original(self)

    setattr(handler, method, count)


def count_no_polls(handler, method):
    """The same for programs behind jupyter-server-proxy, whose pages read to work: all counts but what is known."""
    original = getattr(handler, method)

    def count(self):
        if not POLLS.search(self.request.path):
            original(self)

    setattr(handler, method, count)


def answer_for_puller(app):
    """Say in words that the image has no nbgitpuller, where Jupyter says that there is no such page.

    Args:
        app: Jupyter's server, before it has loaded its other extensions.
    """
    found = app.extension_manager.extensions.get("nbgitpuller")
    if found is not None and found.enabled:
        return
    from jupyter_server.base.handlers import JupyterHandler  # ty: ignore[import-not-found] # of the image
    from tornado import web

    class NoPuller(JupyterHandler):
        @web.authenticated
        def get(self):
            # Jupyter has a page of its own for 404, without our words.
            raise web.HTTPError(501, NO_PULLER)

    app.web_app.add_handlers(".*", [(app.base_url + "git-pull", NoPuller)])


def _jupyter_server_extension_points():
    return [{"module": "plasma_server"}]


def _load_jupyter_server_extension(app):
    """Set up; Jupyter's server calls it at its start."""
    from jupyter_server.base.handlers import APIHandler  # ty: ignore[import-not-found] # of the image
    from tornado.ioloop import PeriodicCallback

    settings = app.web_app.settings
    # What the image or the person chose stays.
    settings.setdefault("websocket_max_message_size", LARGEST_MESSAGE)
    count_people_only(APIHandler, "update_api_activity")
    try:
        from jupyter_server_proxy.handlers import ProxyHandler  # ty: ignore[import-not-found] # of the image

        count_no_polls(ProxyHandler, "_record_activity")
    except Exception:
        # Not in this image, or one that notes activity otherwise.
        app.log.debug("Requests to proxied programs are counted as Jupyter does it")
    try:
        answer_for_puller(app)
    except Exception as error:
        # Of a release of Jupyter's server that has its extensions elsewhere.
        app.log.debug("Nobody answers for nbgitpuller: %s", error)
    interval = min(INTERVAL, int(os.environ.get("JUPYTERHUB_ACTIVITY_INTERVAL") or 300))
    watch = Watch(settings, app.kernel_manager, float(os.environ.get("CPU_LIMIT") or 1), interval)
    PeriodicCallback(watch.look, interval * 1000).start()
