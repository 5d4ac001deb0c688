# The plugin and the lock of the hub's packages, copied to the server for either provider.
{% set hub = pillar['plasma']['hub'] %}

include:
  - preflight

hub-prefix:
  file.directory:
    - names:
      - {{ hub.prefix }}
      - {{ hub.prefix }}/plasma
    - user: root
    - group: root
    - mode: '0755'
    - require:
      - plasma_preflight: preflight-server-is-fit

hub-plugin-source:
  file.recurse:
    - name: {{ hub.prefix }}/plasma/plugin
    - source: salt://tljh/plugin
    - include_pat: E@^(src/tljh_plasma/.*|pyproject\.toml|requirements[a-z-]*\.txt)$
    - exclude_pat: E@__pycache__|\.pyc$
    - clean: true
    - user: root
    - group: root
    - dir_mode: '0755'
    - file_mode: '0644'
    - require:
      - file: hub-prefix
