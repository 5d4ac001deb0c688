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

builder-profile:
  plasma_builds.profile:
    - source: salt://builder/plasma-build.apparmor
    - require:
      - pkg: builder-packages
{% else %}
builder-images:
  test.nop:
    - name: builds use the image {{ builder.image }}
{% endif %}
