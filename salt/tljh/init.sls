# The hub: installed by the chosen provider, configured, running, and seen to answer.
include:
  - tljh.{{ pillar['plasma']['hub']['provider'] }}
