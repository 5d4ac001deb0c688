# Everything else requires this: an unfit server is refused with all its faults at once, unchanged.
{% set plasma = pillar['plasma'] %}

include:
  - preflight.turn

preflight-server-is-fit:
  plasma_preflight.passed:
    - hub_provider: {{ plasma.hub.provider }}
    - prefix: {{ plasma.hub.prefix }}
    - min_disk: {{ plasma.preflight.min_disk | json }}
    - min_memory: {{ plasma.preflight.min_memory | json }}
    - http: {{ {'address': plasma.http.address, 'port': plasma.http.port} | json }}
    - https:
        address: {{ plasma.https.address | json }}
        port: {{ plasma.https.port | json }}
        wanted: {{ 'true' if plasma.https.tls or plasma.https.domains else 'false' }}
    - home_path: {{ plasma.home_path | json }}
    # Rendered on the controller: its own clock, to compare the server's with.
    - controller_time: {{ None | strftime('%s') }}
    - order: first
    - failhard: true

# What a lost connection or a killed run left half-done is finished before packages are touched.
preflight-packages-are-settled:
  plasma_apt.settled:
    - timeout: 600
    - require:
      - plasma_preflight: preflight-server-is-fit
