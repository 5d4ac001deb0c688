# One backup of the hub, now, with what pillar says is to be in it.
{% set plasma = pillar['plasma'] %}
{% set backup = plasma.backup %}

include:
  - preflight.turn

backup-created:
  plasma_backup.created:
    - prefix: {{ plasma.hub.prefix }}
    - directory: {{ backup.directory | json }}
    - homes: {{ backup.homes | json }}
    - images: {{ backup.images | json }}
    - home_path: {{ plasma.home_path | json }}
