# What the hub and its proxy may take of the server, whoever asks them for it.
include:
  - preflight
  - tljh.settings

{% for unit in ['traefik', 'jupyterhub'] %}
hub-limits-{{ unit }}:
  file.managed:
    - name: /etc/systemd/system/{{ unit }}.service.d/plasma-limits.conf
    - source: salt://tljh/files/limits-{{ unit }}.conf
    - makedirs: true
    - user: root
    - group: root
    - mode: '0644'
    - require:
      - plasma_preflight: preflight-server-is-fit
    - watch_in:
      - service: hub-service-{{ unit }}
{% endfor %}
