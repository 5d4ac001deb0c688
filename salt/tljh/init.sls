# The hub: installed by the chosen provider, configured, running, and seen to answer.
include:
  - tljh.{{ pillar['plasma']['hub']['provider'] }}
  # Nothing while no upgrade is open; otherwise it ends one that `state.apply upgrade` began and could not finish.
  - upgrade.settled
