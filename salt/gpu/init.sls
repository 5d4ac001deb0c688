# GPUs of NVIDIA for servers: its container toolkit, and an engine that knows it. The driver is the operator's.
{% set gpu = pillar['plasma']['gpu'] %}
{% set key = '/etc/apt/keyrings/nvidia-container-toolkit.asc' %}

{% if gpu.enabled %}
include:
  - preflight
  - docker

gpu-key:
  file.managed:
    - name: {{ key }}
    - source: {{ gpu.repository.key_url | json }}
    - source_hash: sha256={{ gpu.repository.key_sha256 }}
    - user: root
    - group: root
    - mode: '0644'
    - makedirs: true
    - require:
      - plasma_apt: preflight-packages-are-settled

# By the name that NVIDIA's own guide gives it: apt refuses the same repository with another key beside it.
gpu-repository:
  file.managed:
    - name: /etc/apt/sources.list.d/nvidia-container-toolkit.list
    - contents:
        - '# Managed by Plasma on Salt'
        - deb [signed-by={{ key }}] {{ gpu.repository.url }}/{{ grains['osarch'] }} /
    - backup: minion
    - user: root
    - group: root
    - mode: '0644'
    - require:
      - file: gpu-key

# Other packages of the same run may have asked apt already, before there was this repository. What is installed already
# is not asked for.
gpu-toolkit:
  pkg.installed:
    - pkgs: [nvidia-container-toolkit]
    - refresh: true
    - install_recommends: false
    - require:
      - file: gpu-repository

gpu-configuration:
  file.serialize:
    - name: /etc/docker/daemon.json
    - dataset:
        runtimes:
          nvidia:
            path: nvidia-container-runtime
            args: []
    - serializer: json
    - merge_if_exists: true
    - backup: minion
    - user: root
    - group: root
    - mode: '0644'
    - require:
      - pkg: gpu-toolkit
      - plasma_docker: docker-service

gpu-known:
  plasma_gpu.known:
    - require:
      - file: gpu-configuration
{% else %}
gpu-known:
  test.nop:
    - name: pillar asks for no GPUs; what was set up for them stays until `state.apply gpu.disabled`
{% endif %}
