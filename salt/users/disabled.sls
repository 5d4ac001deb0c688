# Removes the accounts of the people in pillar, only where plasma.uninstall.users says so. Homes are archived.
{% set plasma = pillar['plasma'] %}

{% if plasma.uninstall.users %}
users-removed:
  plasma_users.managed:
    - users: [{% for user in plasma.users if not user.absent %}{{ {'name': user.name, 'absent': true, 'remove_home': plasma.uninstall.homes} | json }}, {% endfor %}]
    - home_path: {{ plasma.home_path | json }}
    - admins: {{ plasma.admins | json }}
    - prefix: {{ plasma.hub.prefix | json }}
{% else %}
users-stay:
  test.nop:
    - name: accounts stay as they are; plasma.uninstall.users removes those of the people in pillar
{% endif %}
