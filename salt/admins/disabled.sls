# A hub has administrators: there is nothing to go back to.
include:
  - preflight.turn

admins-stay:
  test.nop:
    - name: administrators stay as they are; name the others in plasma.admins, and apply the state admins, to revoke one
