# Care for the engine's disk: a timer that removes what builds left behind, when pillar asks for it.
{% set prune = pillar['plasma']['docker']['prune'] %}

include:
  - docker

{% if prune.enabled %}
docker-prune-program:
  file.managed:
    - name: /usr/local/lib/plasma/prune.py
    - source: salt://docker/files/prune.py
    - user: root
    - group: root
    - mode: '0644'
    - makedirs: true
    - require:
      - plasma_docker: docker-service

docker-prune-timer:
  plasma_prune.scheduled:
    - schedule: {{ prune.schedule | json }}
    - min_age: {{ prune.min_age }}
    - require:
      - file: docker-prune-program
{% else %}
docker-prune-timer:
  plasma_prune.unscheduled: []
{% endif %}
