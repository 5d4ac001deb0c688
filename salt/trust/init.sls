# Authorities beside those of the system: for this server, the hub, Git, builds and servers of users.
{% set trust = pillar['plasma']['trust'] %}

include:
  - preflight

{% if trust %}
trust-packages:
  pkg.installed:
    - pkgs: [ca-certificates, openssl]
    - require:
      - plasma_apt: preflight-packages-are-settled
    - require_in:
      - plasma_trust: trust-authorities
{% endif %}

# Before packages and images are fetched, which may come from mirrors with such certificates.
trust-authorities:
  plasma_trust.authorities:
    - certificates: {{ trust | json }}
    - require:
      - plasma_preflight: preflight-server-is-fit
