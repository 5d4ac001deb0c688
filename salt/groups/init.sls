# The groups of pillar, with those that its users name.
groups-managed:
  plasma_groups.managed:
    - groups: {{ pillar['plasma']['groups'] | json }}
