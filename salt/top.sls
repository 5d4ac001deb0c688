# The site: what `salt-ssh '*' state.apply` brings to every server, in this order.
base:
  '*':
    - preflight
    - trust
    - docker
    - gpu
    - utils
    - tljh
    - https
    - cockpit
    - directory
    - groups
    - users
    - ssh
    - quotas
    - admins
    - builder
    - environments
    - backup
    - applied
