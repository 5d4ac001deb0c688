"""Our build pack of repo2docker. The service gives ``plasma_buildpack.py`` to builders; nothing else imports it."""
