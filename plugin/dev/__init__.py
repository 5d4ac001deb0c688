"""`make dev`: the plugin on plain JupyterHub, in the foreground, for people who work on it.

Nothing of this is part of the plugin, and nothing of it gets to a server.
"""
