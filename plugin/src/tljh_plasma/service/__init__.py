"""The service "plasma": the pages and the API for environments, permissions and servers.

JupyterHub starts it as a managed service, ``python -m tljh_plasma.service``. It listens on this machine only, and
the proxy puts it below ``/services/plasma/``. It takes over database, migrations and cookie secret of
tljh-repo2docker and none of that project's request handlers.
"""
