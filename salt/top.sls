# The site: what `salt-ssh '*' state.apply` brings to every server, in this order.
base:
  '*':
    - preflight
    - docker
    - utils
    - tljh
    - https
    - cockpit
    - groups
    - users
    - ssh
    - quotas
    - admins
    - environments
    - backup
    - applied
