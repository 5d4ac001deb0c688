# The engine that runs the users' servers. An engine that is already here, from wherever, is kept.
{% set docker = pillar['plasma']['docker'] %}
{% set repository = docker.repository %}
{% set repository_url = repository.url ~ '/' ~ (grains['os'] | lower) %}

include:
  - preflight
  - docker.prune

docker-configuration-is-usable:
  plasma_docker.config_usable:
    - name: /etc/docker/daemon.json
    - log_driver: {{ docker.log_driver }}
    - require:
      - plasma_apt: preflight-packages-are-settled

docker-configuration-is-remembered:
  plasma_docker.remembered:
    - require:
      - plasma_docker: docker-configuration-is-usable

# Before the engine: so that its first start already has these settings and needs no restart.
docker-configuration:
  file.serialize:
    - name: /etc/docker/daemon.json
    - dataset:
        live-restore: true
        log-driver: {{ docker.log_driver }}
    - serializer: json
    - merge_if_exists: true
    - backup: minion
    - user: root
    - group: root
    - mode: '0644'
    - makedirs: true
    - require:
      - plasma_docker: docker-configuration-is-remembered

docker-engine:
  plasma_docker.installed:
    - source: {{ docker.source }}
    - packages:
{% if docker.source == 'docker-ce' %}
        - docker-ce
        - docker-ce-cli
        - containerd.io
        - docker-buildx-plugin
        - docker-compose-plugin
    - repository: deb [arch={{ grains['osarch'] }} signed-by=/etc/apt/keyrings/docker.asc] {{ repository_url }} {{ grains['oscodename'] }} stable
    - key: {{ (repository.key_url or repository_url ~ '/gpg') | json }}
    - key_hash: sha256={{ repository.key_sha256 }}
{% else %}
        - docker.io
{% if grains['os'] == 'Debian' and grains.get('osmajorrelease', 99) >= 13 %}
        - docker-cli  # its own package since Debian 13
{% endif %}
{% endif %}
    - require:
      - file: docker-configuration

docker-service:
  plasma_docker.running:
    - log_driver: {{ docker.log_driver }}
    - require:
      - plasma_docker: docker-engine
