# Removes the hub, after a backup. What people made stays, unless plasma.uninstall names it. Then what other capabilities
# brought is taken back, by each `disabled.sls`; what plasma.uninstall has a key for is the business of the first state.
{% set plasma = pillar['plasma'] %}
{% set mirrors = [] %}
{% for sls in salt['cp.list_states']() if sls.endswith('.disabled') and sls.rpartition('.')[0] not in plasma.uninstall %}
{% do mirrors.append(sls) %}
{% endfor %}

include: {{ mirrors | json }}

hub-removed:
  plasma_uninstall.removed:
    - prefix: {{ plasma.hub.prefix | json }}
    - options: {{ plasma.uninstall | json }}
    - users: {{ plasma.users | rejectattr('absent', 'true') | map(attribute='name') | list | json }}
    - home_path: {{ plasma.home_path | json }}
    - source: {{ plasma.docker.source }}
    - directory: {{ plasma.backup.directory | json }}
    - require_in:
{% for sls in mirrors %}
      - sls: {{ sls }}
{% endfor %}
