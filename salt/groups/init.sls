# The groups of pillar, with those that its users name.
{% set plasma = pillar['plasma'] %}

groups-managed:
  plasma_groups.managed:
    - groups: {{ plasma.groups | json }}
    - leaving: {{ plasma.users | selectattr('absent', 'true') | map(attribute='name') | list | json }}
