"""The service "cockpit": leads administrators of the hub, and nobody else, to Cockpit on this server.

Cockpit listens on a Unix socket that only root can open, so this is the only way in. Who comes through here still has
to log in at Cockpit, with an account of the system.
"""
