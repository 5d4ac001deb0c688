# Asks no directory any more. Homes of its people stay.
include:
  - preflight.turn

directory-disabled:
  plasma_directory.disabled: []
