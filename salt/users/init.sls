# The people of pillar, with their groups, quotas and rights at the hub.
{% set plasma = pillar['plasma'] %}

include:
  - groups
  - quotas
  - admins

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
    - require_in:
      - plasma_admins: admins-managed
{% if plasma.quotas.enabled %}
      - plasma_quota: quotas-limits
{% endif %}
