# With `plasma.builder.image: local`, what builds of environments begin with is made here; see salt/builder/files.
{% set builder = pillar['plasma']['builder'] %}

{% if builder.image == 'local' %}
include:
  - preflight
  - trust
  - docker

builder-packages:
  pkg.installed:
    - pkgs: [ca-certificates, mmdebstrap]
    - install_recommends: false
    - require:
      - plasma_apt: preflight-packages-are-settled

builder-images:
  plasma_builds.images:
    - recipe: salt://builder/files
    - require:
      - pkg: builder-packages
      - plasma_docker: docker-service
      - plasma_trust: trust-authorities

# Where AppArmor is in force.
builder-profile:
  file.managed:
    - name: /etc/apparmor.d/plasma-build
    - source: salt://builder/apparmor/plasma-build
    - template: jinja
    - user: root
    - group: root
    - mode: '0644'
    - onlyif: test -e /sys/kernel/security/apparmor/profiles

builder-profile-is-current:
  cmd.run:
    - name: apparmor_parser --replace --write-cache /etc/apparmor.d/plasma-build
    - onchanges:
      - file: builder-profile

builder-profile-is-loaded:
  cmd.run:
    - name: apparmor_parser --replace --write-cache /etc/apparmor.d/plasma-build
    - onlyif: test -e /sys/kernel/security/apparmor/profiles
    - unless: grep -q '^plasma-build ' /sys/kernel/security/apparmor/profiles
    - require:
      - cmd: builder-profile-is-current
{% else %}
builder-images:
  test.nop:
    - name: builds use the image {{ builder.image }}
{% endif %}
