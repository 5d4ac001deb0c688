# Provider tljh: the official installer of The Littlest JupyterHub, pinned and verified.
{% set hub = pillar['plasma']['hub'] %}
{% set sources = hub.sources %}
{% set plasma_http = pillar['plasma']['http'] %}

include:
  - preflight
  - docker
  - tljh.limits
  - tljh.source
  - tljh.settings

# The installer asks apt for these only on its first run, so a failed one would leave them out.
hub-system-packages:
  pkg.installed:
    - pkgs:
      - python3
      - python3-dev
      - python3-venv
      - python3-pip
      - git
      - sudo
      - build-essential
      - libssl-dev
      - libcurl4-openssl-dev
    - require:
      - plasma_apt: preflight-packages-are-settled

hub-installer:
  file.managed:
    - name: {{ hub.prefix }}/plasma/bootstrap.py
    # A file on this server may be removed again: the verified copy is enough then.
    - source: {{ ([sources.installer, hub.prefix ~ '/plasma/bootstrap.py'] if sources.installer.startswith('/') else sources.installer) | json }}
    - source_hash: sha256={{ sources.installer_sha256 }}
    - user: root
    - group: root
    - mode: '0644'
    - require:
      - file: hub-prefix

{% for name in ['miniforge', 'traefik'] if sources[name] and sources[name] not in ['none', 'pypi'] %}
hub-source-{{ name }}:
  file.managed:
    - name: {{ hub.prefix }}/plasma/source-{{ name }}
    - source: {{ ([sources[name], hub.prefix ~ '/plasma/source-' ~ name] if sources[name].startswith('/') else sources[name]) | json }}
    - source_hash: sha256={{ sources[name ~ '_sha256'] }}
    - user: root
    - group: root
    - mode: '0644'
    - require:
      - file: hub-prefix
    - require_in:
      - plasma_hub: hub-installed
{% endfor %}

hub-installed:
  plasma_hub.installed:
    - name: {{ hub.prefix }}
    - hub_provider: tljh
    - version: {{ hub.versions.tljh | json }}
    - source: {{ sources.tljh | json }}
    - http: {{ {'address': plasma_http.address, 'port': plasma_http.port} | json }}
    - timeout: {{ hub.install_timeout }}
    - require:
      # Before the units are there, so that they have them from their first start on.
      - file: hub-limits-traefik
      - file: hub-limits-jupyterhub
      - pkg: hub-system-packages
      - file: hub-installer
      - plasma_docker: docker-service
    - watch:
      - file: hub-plugin-source
    - require_in:
      - sls: tljh.settings

# Files that the unit names must be there, or it does not start: TLJH makes them once.
hub-proxy-keeps-files:
  file.managed:
    - name: /etc/systemd/system/traefik.service.d/plasma-files.conf
    - contents: |
        [Service]
        Environment=TLJH_INSTALL_PREFIX={{ hub.prefix }}
        ExecStartPre=-+{{ hub.prefix }}/hub/bin/python3 -m tljh_plasma.standalone files
    - makedirs: true
    - user: root
    - group: root
    - mode: '0644'
    - require:
      - plasma_hub: hub-installed

# The hub starts containers: at boot it waits for the engine.
hub-waits-for-docker:
  file.managed:
    - name: /etc/systemd/system/jupyterhub.service.d/plasma.conf
    - contents: |
        [Unit]
        Wants=docker.service
        After=docker.service
    - makedirs: true
    - user: root
    - group: root
    - mode: '0644'
    - require:
      - plasma_hub: hub-installed
