# The data of an archive, onto this server: the hub is installed first where it is not, once the archive is seen to fit.
#     salt-ssh ID state.apply restore pillar='{restore: {archive: /var/opt/plasma/backups/plasma-....tar.gz}}'
{% set plasma = pillar['plasma'] %}
{% set restore = pillar.get('restore') or {} %}

include:
  - tljh

restore-archive:
  plasma_backup.acceptable:
    - archive: {{ restore.get('archive') | json }}
    - tree: salt://tljh/plugin
    - other_machine: {{ restore.get('other_machine', false) | json }}
    - hub: {{ restore.get('hub', true) | json }}
    - people: {{ restore.get('people', true) | json }}
    - images: {{ restore.get('images', true) | json }}
    - without: {{ restore.get('without', []) | json }}
    - prefix: {{ plasma.hub.prefix }}
    - home_path: {{ plasma.home_path | json }}
    # After preflight, before all that changes something.
    - order: 1
    - failhard: true

restore-hub:
  plasma_backup.restored:
    - archive: {{ restore.get('archive') | json }}
    - other_machine: {{ restore.get('other_machine', false) | json }}
    - hub: {{ restore.get('hub', true) | json }}
    - people: {{ restore.get('people', true) | json }}
    - images: {{ restore.get('images', true) | json }}
    - without: {{ restore.get('without', []) | json }}
    - prefix: {{ plasma.hub.prefix }}
    - home_path: {{ plasma.home_path | json }}
    - directory: {{ plasma.backup.directory | json }}
    - timeout: {{ plasma.hub.ready_timeout }}
    # After all that, but also when the hub does not start any more: that is what a restore is for.
    - order: last
    - require:
      - plasma_hub: hub-installed
