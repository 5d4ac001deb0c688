# Groups own files: none is removed without being named.
include:
  - preflight.turn

groups-stay:
  test.nop:
    - name: groups stay as they are; name one in plasma.groups with absent, and apply the state groups, to remove it
