# Who administers the hub: in config.yaml, and at once in the database of the hub that runs.
{% set plasma = pillar['plasma'] %}

admins-managed:
  plasma_admins.managed:
    - admins: {{ plasma.admins | json }}
    - prefix: {{ plasma.hub.prefix }}
    - timeout: {{ plasma.hub.ready_timeout }}
