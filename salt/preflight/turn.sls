# One apply of a server at a time, wherever it comes from: everything else includes this.
apply-has-its-turn:
  plasma_preflight.turn:
    - order: first
    - failhard: true
