# Who administers the hub: in config.yaml, and at once in the database of the hub that runs.
{% set plasma = pillar['plasma'] %}

include:
  - preflight.turn

admins-managed:
  plasma_admins.managed:
    - admins: {{ plasma.admins | json }}
    - groups: {{ plasma.admin_groups | json }}
    - coming: {{ plasma.users | rejectattr('absent', 'true') | map(attribute='name') | select('in', plasma.admins) | list | json }}
    - prefix: {{ plasma.hub.prefix }}
    - timeout: {{ plasma.hub.ready_timeout }}

# What the state groups makes may not be there yet where this is applied alone.
{% set made = plasma.groups | rejectattr('absent', 'true') | map(attribute='name') | list %}
admins-groups-known:
  plasma_groups.known:
    - groups: {{ plasma.admin_groups | reject('in', made) | list | json }}
    - joining: {{ (plasma.directory is not none) | json }}
