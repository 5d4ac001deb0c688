# What pillar says of the hub, written to config.yaml in one go; then the hub must answer.
{% set plasma = pillar['plasma'] %}

include:
  - docker
  - trust

hub-settings:
  tljh_config.managed:
    - prefix: {{ plasma.hub.prefix }}
    - settings: {{ plasma.hub_config | json }}
    - timeout: {{ plasma.hub.ready_timeout }}

# Made when it is missing. Who may write to it is the operator's business; servers see it read-only.
hub-shared-data:
  plasma_data_directory.present:
    - name: {{ plasma.shared_data }}
    - require:
      - tljh_config: hub-settings

# Read from pillar by the state itself: it may have a login, and Salt shows arguments of states.
hub-builds-proxy:
  plasma_builds.proxy:
    - prefix: {{ plasma.hub.prefix }}
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
{% if unit == 'jupyterhub' %}
    - watch:
      - plasma_trust: trust-authorities
{% endif %}
    - require_in:
      - tljh_config: hub-ready
{% endfor %}

hub-ready:
  tljh_config.ready:
    - prefix: {{ plasma.hub.prefix }}
    - timeout: {{ plasma.hub.ready_timeout }}
    - require:
      - tljh_config: hub-settings
