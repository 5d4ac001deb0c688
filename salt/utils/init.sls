# Tools for whoever looks after the server. None of them is needed by the hub.
{% set utils = pillar['plasma']['utils'] %}

include:
  - preflight

{% if utils.packages %}
utils-packages:
  pkg.installed:
    - pkgs: {{ utils.packages | json }}
    - require:
      - plasma_apt: preflight-packages-are-settled
{% endif %}

{% if utils.monitor == 'ctop' and not utils.ctop.sha256.get(grains['osarch']) %}
utils-ctop:
  test.fail_without_changes:
    - name: plasma.utils.ctop.sha256 has no checksum for {{ grains['osarch'] }}, set one or set plasma.utils.monitor to none
{% elif utils.monitor == 'ctop' %}
{% set ctop = utils.ctop.url | replace('{version}', utils.ctop.version) | replace('{arch}', grains['osarch']) %}
utils-ctop:
  file.managed:
    - name: /usr/local/bin/ctop
    # A file on this server may be removed again.
    - source: {{ ([ctop, '/usr/local/bin/ctop'] if ctop.startswith('/') else ctop) | json }}
    - source_hash: sha256={{ utils.ctop.sha256[grains['osarch']] }}
    - user: root
    - group: root
    - mode: '0755'
    - require:
      - plasma_preflight: preflight-server-is-fit
{% endif %}
