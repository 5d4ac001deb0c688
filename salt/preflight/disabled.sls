# The state preflight only looks.
preflight-leaves-nothing:
  test.nop:
    - name: the state preflight changes nothing that could be undone
