# Disk quotas of the people in pillar. Switching them off again is `state.apply quotas.disabled`.
{% set plasma = pillar['plasma'] %}
{% set quotas = plasma.quotas %}

{% if quotas.enabled %}
include:
  - preflight

quotas-enabled:
  plasma_quota.enabled:
    - home_path: {{ plasma.home_path | json }}
    - device: {{ quotas.device | json }}
    - require:
      - plasma_apt: preflight-packages-are-settled

quotas-limits:
  plasma_quota.limits:
    - home_path: {{ plasma.home_path | json }}
    - device: {{ quotas.device | json }}
    - assigned: {{ quotas.assigned | json }}
    - groups: {{ quotas.groups | json }}
    - default: {{ quotas.default | json }}
    - unmanaged: {{ quotas.unmanaged | json }}
    - members: {{ quotas.members | json }}
    - grace: {{ quotas.grace | json }}
    - require:
      - plasma_quota: quotas-enabled
{% else %}
quotas-enabled:
  test.nop:
    - name: pillar asks for no quotas; what was switched on here stays until `state.apply quotas.disabled`
{% endif %}
