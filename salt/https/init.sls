# HTTPS at the proxy: certificates of Let's Encrypt or another authority, or an existing pair.
{% set plasma = pillar['plasma'] %}
{% set https = plasma.https %}
{% set ours = plasma.hub.prefix ~ '/plasma/tls' %}

include:
  - preflight

{% if https.tls or https.domains %}
# Files of this repository are put beside those in use: what is wrong with them is found before the proxy reads them.
{% for what in ['key', 'cert'] if https.tls and https.tls[what].startswith('salt://') %}
https-{{ what }}-of-this-repository:
  file.managed:
    - name: {{ ours }}/{{ what }}.pem
    - source: {{ https.tls[what] | json }}
    - show_changes: false
    - makedirs: true
    - dir_mode: '0700'
    - user: root
    - group: root
    - mode: '0600'
    - backup: minion
    - require:
      - plasma_preflight: preflight-server-is-fit
    - require_in:
      - plasma_https: https-enabled
{% endfor %}
{% if https.acme_ca and https.acme_ca.startswith('salt://') %}
https-acme-ca-of-this-repository:
  file.managed:
    - name: {{ ours }}/acme-ca.pem
    - source: {{ https.acme_ca | json }}
    - makedirs: true
    - dir_mode: '0700'
    - user: root
    - group: root
    - mode: '0600'
    - require:
      - plasma_preflight: preflight-server-is-fit
    - require_in:
      - plasma_https: https-enabled
{% endif %}

https-enabled:
  plasma_https.enabled:
    - domains: {{ https.domains | json }}
    - email: {{ https.letsencrypt_email | json }}
    - staging: {{ https.staging | json }}
    - acme_server: {{ https.acme_server | json }}
    - acme_ca: {{ (ours ~ '/acme-ca.pem' if https.acme_ca and https.acme_ca.startswith('salt://') else https.acme_ca) | json }}
{% if https.tls %}
    - key: {{ (ours ~ '/key.pem' if https.tls.key.startswith('salt://') else https.tls.key) | json }}
    - cert: {{ (ours ~ '/cert.pem' if https.tls.cert.startswith('salt://') else https.tls.cert) | json }}
    - shown_key: {{ https.tls.key | json }}
    - shown_cert: {{ https.tls.cert | json }}
{% endif %}
    - check: {{ https.check | json }}
    - prefix: {{ plasma.hub.prefix }}
    - timeout: {{ https.timeout }}
    - ready_timeout: {{ plasma.hub.ready_timeout }}
    - require:
      - plasma_preflight: preflight-server-is-fit
{% else %}
https-enabled:
  test.nop:
    - name: pillar asks for no HTTPS; what was switched on here stays until `state.apply https.disabled`
{% endif %}
