# Removes the accounts of the people in pillar, only where plasma.uninstall.users says so. Homes are archived.
{% set plasma = pillar['plasma'] %}

include:
  - preflight.turn

{% if plasma.uninstall.users %}
users-removed:
  plasma_users.managed:
    - users:
{% for name in plasma.users | rejectattr('absent', 'true') | map(attribute='name') %}
      - name: {{ name | json }}
        absent: true
        remove_home: {{ plasma.uninstall.homes | json }}
{% else %}
      []
{% endfor %}
    - home_path: {{ plasma.home_path | json }}
    - admins: {{ plasma.admins | json }}
    - prefix: {{ plasma.hub.prefix | json }}
{% else %}
users-stay:
  test.nop:
    - name: accounts stay as they are; plasma.uninstall.users removes those of the people in pillar
{% endif %}
