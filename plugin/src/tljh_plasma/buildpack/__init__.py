"""Our build packs of repo2docker. The service gives these files to builders; nothing else imports them."""
