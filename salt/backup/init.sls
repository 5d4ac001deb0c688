# Backups of the hub by a timer of the server, when pillar says so. One at once is `state.apply backup.now`.
{% set plasma = pillar['plasma'] %}
{% set backup = plasma.backup %}

include:
  - preflight.turn

backup-scheduled:
  plasma_backup.scheduled:
{% if backup.enabled %}
    - schedule: {{ backup.schedule | json }}
    - prefix: {{ plasma.hub.prefix }}
    - directory: {{ backup.directory | json }}
    - keep: {{ backup.keep }}
    - homes: {{ backup.homes | json }}
    - images: {{ backup.images | json }}
    - home_path: {{ plasma.home_path | json }}
{% else %}
    - schedule: null
{% endif %}
