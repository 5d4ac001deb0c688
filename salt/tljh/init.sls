# The hub: installed by the chosen provider, configured, running, and seen to answer.
include:
  - preflight
  - docker
  - tljh.{{ pillar['plasma']['hub']['provider'] }}
  - tljh.settings
