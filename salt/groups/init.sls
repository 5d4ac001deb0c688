# The groups of pillar, with those that its users name.
{% set plasma = pillar['plasma'] %}

include:
  - preflight.turn

groups-managed:
  plasma_groups.managed:
    - groups: {{ plasma.groups | json }}
    - leaving: {{ plasma.users | selectattr('absent', 'true') | map(attribute='name') | list | json }}

# Directories that servers of users see, made where they are missing; who may write to one that is there is the operator's
# business. After the groups, to which some belong.
{% for directory in plasma.server_directories %}
server-directory-{{ loop.index }}:
  plasma_data_directory.present:
    - name: {{ directory.name }}
    - group: {{ directory.group | json }}
    - mode: {{ directory.mode | json }}
    - coming: {{ plasma.groups | rejectattr('absent', 'true') | map(attribute='name') | list | json }}
    - joining: {{ (plasma.directory is not none) | json }}
    - require:
      - plasma_groups: groups-managed
{% endfor %}

# Those of a directory, and those that environments alone name: of another source, or mistyped. Those of administrators are
# the business of the state admins.
groups-known:
  plasma_groups.known:
    - groups: {{ plasma.external_groups | json }}
    - joining: {{ (plasma.directory is not none) | json }}
    - require:
      - plasma_groups: groups-managed
