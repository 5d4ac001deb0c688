# Forgets which settings were applied last.
site-record-removed:
  plasma_site.forgotten: []
