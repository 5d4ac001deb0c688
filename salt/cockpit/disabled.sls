# Takes Cockpit away from the hub, and brings back what was here before the state cockpit.
{% set plasma = pillar['plasma'] %}

include:
  - preflight.turn

cockpit-disabled:
  plasma_cockpit.disabled:
    - prefix: {{ plasma.hub.prefix }}
    - timeout: {{ plasma.hub.ready_timeout }}
