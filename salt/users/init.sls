# The people of pillar, with their groups, quotas and rights at the hub, in this order. Nothing of it requires the
# accounts: what is wrong with one person must not keep limits and revoked rights of others from being set.
include:
  - groups
  - users.accounts
  - quotas
  - admins
