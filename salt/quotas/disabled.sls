# Undoes what the state quotas did to the file system of the homes. Limits stay, and count again when it is applied again.
include:
  - preflight.turn

quotas-disabled:
  plasma_quota.disabled: []
