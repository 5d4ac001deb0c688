# Gives /etc/docker/daemon.json back what it said before, and removes the timer. The engine stays, with everything in it:
# plasma.uninstall.docker removes that.
include:
  - preflight.turn

docker-settings-given-back:
  plasma_uninstall.docker_settings:
    - log_driver: {{ pillar['plasma']['docker']['log_driver'] }}

docker-prune-timer:
  plasma_prune.unscheduled: []
