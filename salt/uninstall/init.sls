# Removes the hub, after a backup. What people made stays, unless plasma.uninstall names it.
{% set plasma = pillar['plasma'] %}

hub-removed:
  plasma_uninstall.removed:
    - prefix: {{ plasma.hub.prefix | json }}
    - options: {{ plasma.uninstall | json }}
    - users: {{ plasma.users | rejectattr('absent', 'true') | map(attribute='name') | list | json }}
    - home_path: {{ plasma.home_path | json }}
    - source: {{ plasma.docker.source }}
    - directory: {{ plasma.backup.directory | json }}
