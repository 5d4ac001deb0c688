# Provider pypi: the same hub from Python packages alone, for closed networks, the demo and the tests.
{% set hub = pillar['plasma']['hub'] %}

include:
  - preflight
  - docker
  - tljh.limits
  - tljh.source
  - tljh.settings

hub-system-packages:
  pkg.installed:
    - pkgs:
      - python3
      - python3-venv
    - require:
      - plasma_apt: preflight-packages-are-settled

hub-installed:
  plasma_hub.installed:
    - name: {{ hub.prefix }}
    - hub_provider: pypi
    - timeout: {{ hub.install_timeout }}
    - require:
      # Before the units are there, so that they have them from their first start on.
      - file: hub-limits-traefik
      - file: hub-limits-jupyterhub
      - pkg: hub-system-packages
    - watch:
      - file: hub-plugin-source

hub-private-directories:
  file.directory:
    - names:
      - {{ hub.prefix }}/config
      - {{ hub.prefix }}/config/jupyterhub_config.d
      - {{ hub.prefix }}/state
      - {{ hub.prefix }}/state/rules
    - user: root
    - group: root
    - mode: '0700'
    - require:
      - plasma_hub: hub-installed
    - require_in:
      - sls: tljh.settings

{% for unit in ['traefik', 'jupyterhub'] %}
hub-unit-{{ unit }}:
  file.managed:
    - name: /etc/systemd/system/{{ unit }}.service
    - source: salt://tljh/files/{{ unit }}.service
    - template: jinja
    - context:
        prefix: {{ hub.prefix }}
    - user: root
    - group: root
    - mode: '0644'
    - require:
      - file: hub-private-directories
    - require_in:
      - sls: tljh.settings
    - watch_in:
      - service: hub-service-{{ unit }}
{% endfor %}
