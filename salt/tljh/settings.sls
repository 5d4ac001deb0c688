# What pillar says of the hub, written to config.yaml in one go; then the hub must answer.
{% set plasma = pillar['plasma'] %}

hub-settings:
  tljh_config.managed:
    - prefix: {{ plasma.hub.prefix }}
    - settings:
        limits: {{ plasma.limits | json }}
        services:
          cull: {{ plasma.cull | json }}
{% if plasma.admins %}
        users:
          admin: {{ plasma.admins | json }}
{% endif %}
        plasma:
          named_servers: {{ plasma.named_servers | json }}
          shared_data: {{ plasma.shared_data | json }}
    - timeout: {{ plasma.hub.ready_timeout }}

hub-ready:
  tljh_config.ready:
    - prefix: {{ plasma.hub.prefix }}
    - timeout: {{ plasma.hub.ready_timeout }}
    - require:
      - tljh_config: hub-settings
