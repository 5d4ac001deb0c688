# The data of an archive, onto this server: the hub is installed first where it is not.
#     salt-ssh ID state.apply restore pillar='{restore: {archive: /var/opt/plasma/backups/plasma-....tar.gz}}'
{% set plasma = pillar['plasma'] %}
{% set restore = pillar.get('restore') or {} %}

include:
  - tljh

restore-hub:
  plasma_backup.restored:
    - archive: {{ restore.get('archive') | json }}
    - other_machine: {{ restore.get('other_machine', false) | json }}
    - people: {{ restore.get('people', true) | json }}
    - prefix: {{ plasma.hub.prefix }}
    - home_path: {{ plasma.home_path | json }}
    - directory: {{ plasma.backup.directory | json }}
    - timeout: {{ plasma.hub.ready_timeout }}
    - require:
      - sls: tljh
      - tljh_config: hub-ready
