# An upgrade that is open ends with this, well or undone, whatever failed before it; so does one that was interrupted.
{% set hub = pillar['plasma']['hub'] %}

include:
  - preflight.turn

upgrade-settled:
  plasma_upgrade.settled:
    - name: {{ hub.prefix }}
    - hub_provider: {{ hub.provider }}
{% if hub.provider == 'tljh' %}
    - version: {{ hub.versions.tljh | json }}
    - source: {{ hub.sources.tljh | json }}
{% endif %}
    - tree: salt://tljh/plugin
    - timeout: {{ hub.ready_timeout }}
    # No requisites: it is for what has failed.
    - order: last
