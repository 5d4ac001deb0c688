# Settings of all servers. What is commented out shows the default: remove the `# ` to change it.
# docs/reference/pillar.md has every key. A mistake stops `salt-ssh` before a server is touched.
plasma:
  # What each user server may use.
  # limits:
  #   memory: 2G
  #   cpu: 2

  # Idle servers are stopped after this many seconds.
  # cull:
  #   timeout: 3600

  # People: accounts on the server, e.g. `- {name: anna, password: ..., groups: [biology]}`. docs/people/add.md
  # users: []

  # CSV files with more people, beside this file.
  # users_csv: []

  # Groups of people, with their ids or quotas; groups that only users name need not be here.
  # groups: []

  # Administrators of the hub. When there is any, all others lose the rights.
  # admins: []

  # When passwords are set: with the new account only, or at every apply (`enforce`).
  # password_policy: on_create

  # Where the homes are.
  # home_path: /home

  # Disk quota of each user, such as `{soft: 10G, hard: 12G}`.
  # quota: {}

  # Named servers a user may have beside the default one; 0 is no limit.
  # named_servers:
  #   limit: 2

  # A directory of the server that every user sees, read-only.
  # shared_data: /srv/data

  # Who may start an environment that has no groups on the permissions page: everybody, or (`closed`) administrators.
  # permissions:
  #   default: open

  # Which administrators of the hub may enter other people's servers, to help: all, names, %groups, or ([]) nobody.
  # enter_servers: [administrators]

  # What builds environments: a pinned image of repo2docker, how many builds at a time, seconds until one is ended.
  # builder:
  #   image: quay.io/jupyterhub/repo2docker:2025.12.0
  #   parallel: 2
  #   timeout: 7200

  # Environments beside those of the browser, e.g. `- {name: py, repository: 'https://...'}`. docs/environments/as-code.md
  # environments: []

  # Who may log in to the server itself, beside those who could become root: nobody of the hub. docs/people/ssh.md
  # ssh:
  #   open_to:
  #     users: []
  #     groups: []

  # Where the monitoring link in the hub's pages leads: an https:// or http:// URL or a path such as /cockpit/.
  # monitoring_url: ''

  # The hub: `tljh` is the official installer of The Littlest JupyterHub, `pypi` needs nothing but a package index.
  # hub:
  #   provider: tljh
  #   prefix: /opt/tljh

  # Docker CE from Docker's repository, or the engine of the distribution (`distro`).
  # docker:
  #   source: docker-ce

  # HTTPS: from Let's Encrypt for `domains` (names of each server: servers/ID.sls), or a pair. docs/configuration/https.md
  # https: {}

  # Where the hub's proxy listens, e.g. `port: 81`, and the addresses of proxies in front of it. docs/configuration/front.md
  # http:
  #   behind: []

  # Certificates of your own authorities: files beside this one. docs/configuration/trust.md
  # trust: []

  # Cockpit for administrators, behind the hub. Needs https.
  # cockpit:
  #   enabled: false

  # Backups by a timer, with or without homes and images. docs/keeping/backup.md
  # backup:
  #   enabled: false
  #   schedule: '*-*-* 03:30:00'
  #   keep: 7

  # Tools for debugging on the server; `monitor: none` leaves out ctop.
  # utils:
  #   packages:
  #     - jq
  #     - tree
  #   monitor: ctop

  # What a server must have free before anything is changed on it.
  # preflight:
  #   min_disk: 10G
  #   min_memory: 1G
