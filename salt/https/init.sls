# HTTPS at the proxy: certificates of Let's Encrypt or another authority, or an existing pair.
{% set plasma = pillar['plasma'] %}
{% set https = plasma.https %}

include:
  - preflight

{% if https.tls or https.domains %}
https-enabled:
  plasma_https.enabled:
    - domains: {{ https.domains | json }}
    - email: {{ https.letsencrypt_email | json }}
    - staging: {{ https.staging | json }}
    - acme_server: {{ https.acme_server | json }}
    - acme_ca: {{ https.acme_ca | json }}
{% if https.tls %}
    - key: {{ https.tls.key | json }}
    - cert: {{ https.tls.cert | json }}
{% endif %}
    - address: {{ https.address | json }}
    - port: {{ https.port | json }}
    - dns: {{ https.dns | json }}
    - user_domains: {{ https.user_domains | json }}
    - check: {{ https.check | json }}
    - prefix: {{ plasma.hub.prefix }}
    - timeout: {{ https.timeout }}
    - ready_timeout: {{ plasma.hub.ready_timeout }}
    - require:
      - plasma_preflight: preflight-server-is-fit

# Copies of files of the repository change with an apply alone.
https-renewed:
  plasma_https.renewed:
    - wanted: {{ 'true' if https.tls and not https.tls.cert.startswith('salt://') else 'false' }}
    - prefix: {{ plasma.hub.prefix }}
    - require:
      - plasma_https: https-enabled
{% else %}
https-enabled:
  test.nop:
    - name: pillar asks for no HTTPS; what was switched on here stays until `state.apply https.disabled`
{% endif %}
