# The state tljh with a way back: what does not come up is undone, to the version and the data of before.
{% set plasma = pillar['plasma'] %}
{% set hub = plasma.hub %}

include:
  - preflight
  - tljh
  - upgrade.settled

upgrade-prepared:
  plasma_upgrade.prepared:
    - name: {{ hub.prefix }}
    - hub_provider: {{ hub.provider }}
{% if hub.provider == 'tljh' %}
    - version: {{ hub.versions.tljh | json }}
    - source: {{ hub.sources.tljh | json }}
{% endif %}
    - tree: salt://tljh/plugin
    - directory: {{ plasma.backup.directory }}
    - message: {{ plasma.upgrade.message | json }}
    - wait: {{ plasma.upgrade.wait }}
    - install_timeout: {{ hub.install_timeout }}
    - require:
      - plasma_preflight: preflight-server-is-fit
    # Before anything of the tree is copied to the server.
    - require_in:
      - sls: tljh.source
