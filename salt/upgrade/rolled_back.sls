# Undoes an upgrade that was interrupted; one that has ended well is undone by restoring its backup.
include:
  - preflight.turn

upgrade-rolled-back:
  plasma_upgrade.rolled_back:
    - name: {{ pillar['plasma']['hub']['prefix'] }}
    - timeout: {{ pillar['plasma']['hub']['ready_timeout'] }}
