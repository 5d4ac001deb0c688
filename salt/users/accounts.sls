# The accounts of people.
{% set plasma = pillar['plasma'] %}

include:
  - groups

users-managed:
  plasma_users.managed:
    - users: {{ plasma.users | json }}
    - groups: {{ plasma.groups | json }}
    - home_path: {{ plasma.home_path | json }}
    - password_policy: {{ plasma.password_policy }}
    - admins: {{ plasma.admins | json }}
    - prefix: {{ plasma.hub.prefix | json }}
    - require:
      - plasma_groups: groups-managed
