# What pillar says of the hub, written to config.yaml in one go; then the hub must answer.
{% set plasma = pillar['plasma'] %}

include:
  - docker

hub-settings:
  tljh_config.managed:
    - prefix: {{ plasma.hub.prefix }}
    - settings:
        limits: {{ plasma.limits | json }}
        services:
          cull: {{ plasma.cull | json }}
{% if plasma.admins %}
        users:
          admin: {{ plasma.admins | json }}
{% endif %}
        # Below 512: nobody but root can take them while the hub restarts.
        traefik_api:
          port: 304
        plasma:
          service_port: 302
          named_servers: {{ plasma.named_servers | json }}
          shared_data: {{ plasma.shared_data | json }}
          # All of them, each time: a group that left pillar must leave the permissions page.
          groups: [{% for group in plasma.groups if not group.absent %}{{ group.name | json }}, {% endfor %}]
          permissions: {{ plasma.permissions | json }}
          enter_servers: {{ plasma.enter_servers | json }}
          builder: {{ plasma.builder | json }}
          network: {{ plasma.network | json }}
          monitoring_url: {{ plasma.monitoring_url | json }}
          disk:
            warn_at: {{ plasma.docker.prune.warn_at }}
            homes: {{ plasma.home_path | json }}
    - timeout: {{ plasma.hub.ready_timeout }}

# Made when it is missing. Who may write to it is the operator's business; servers see it read-only.
hub-shared-data:
  file.directory:
    - name: {{ plasma.shared_data }}
    - makedirs: true
    - require:
      - tljh_config: hub-settings

{% for unit in ['traefik', 'jupyterhub'] %}
hub-service-{{ unit }}:
  service.running:
    - name: {{ unit }}
    - enable: true
    - require:
      - plasma_docker: docker-service
      - tljh_config: hub-settings
    - require_in:
      - tljh_config: hub-ready
{% endfor %}

hub-ready:
  tljh_config.ready:
    - prefix: {{ plasma.hub.prefix }}
    - timeout: {{ plasma.hub.ready_timeout }}
    - require:
      - tljh_config: hub-settings
