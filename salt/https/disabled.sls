# Back to http:// alone. Account, certificates and files stay.
{% set hub = pillar['plasma']['hub'] %}

include:
  - preflight.turn

https-disabled:
  plasma_https.disabled:
    - prefix: {{ hub.prefix }}
    - ready_timeout: {{ hub.ready_timeout }}
    # A hub that was removed has no settings.
    - onlyif: test -e {{ hub.prefix }}/hub/bin/python3

https-renewed:
  plasma_https.renewed:
    - wanted: false
