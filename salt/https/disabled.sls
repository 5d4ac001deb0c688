# Back to http:// alone. Account, certificates and files stay.
{% set hub = pillar['plasma']['hub'] %}
https-disabled:
  plasma_https.disabled:
    - prefix: {{ hub.prefix }}
    - ready_timeout: {{ hub.ready_timeout }}
