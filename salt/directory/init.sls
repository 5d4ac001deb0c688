# A directory of people, which sssd asks. Taking it back is `state.apply directory.disabled`.
{% set plasma = pillar['plasma'] %}

{% if plasma.directory %}
include:
  - preflight

directory-joined:
  plasma_directory.joined:
    - directory: {{ plasma.directory | json }}
    - home_path: {{ plasma.home_path | json }}
    - require:
      - plasma_apt: preflight-packages-are-settled
{% else %}
directory-joined:
  test.nop:
    - name: pillar names no directory; what was joined here stays until `state.apply directory.disabled`
{% endif %}
