# Leaves SSH, sessions, cron and at as the server has them itself: people with a key or a password log in again.
include:
  - preflight.turn

ssh-as-before:
  plasma_ssh.removed: []
