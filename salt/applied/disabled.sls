# Forgets which settings were applied last.
include:
  - preflight.turn

site-record-removed:
  plasma_site.forgotten: []
