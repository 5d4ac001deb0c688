# Environments that pillar does not name any more stay: there is nothing to go back to.
include:
  - preflight.turn

environments-stay:
  test.nop:
    - name: environments stay; name one with `absent` in plasma.environments, and apply the state environments, to remove it
