# Cockpit at /services/cockpit/ of the hub, for its administrators. Taking it away again is `state.apply cockpit.disabled`.
{% set plasma = pillar['plasma'] %}
{% set packages = ['cockpit-bridge', 'cockpit-system', 'cockpit-ws'] %}

{% if plasma.cockpit.enabled %}
include:
  - preflight

cockpit-allowed:
  plasma_cockpit.allowed:
    - prefix: {{ plasma.hub.prefix }}
    - require:
      - plasma_apt: preflight-packages-are-settled

# Before the packages: they start the socket, which is to be no port even for a moment.
cockpit-prepared:
  plasma_cockpit.prepared:
    - packages: {{ packages | json }}
    - prefix: {{ plasma.hub.prefix }}
    - require:
      - plasma_cockpit: cockpit-allowed

# What is recommended beside them manages networks and packages, which is not a hub's business.
cockpit-packages:
  pkg.installed:
    - pkgs: {{ packages | json }}
    - install_recommends: false
    - require:
      - plasma_cockpit: cockpit-prepared

# The page with the servers of the hub's users.
cockpit-page:
  file.recurse:
    - name: /usr/local/share/cockpit/plasma
    - source: salt://cockpit/files/page
    - user: root
    - group: root
    - dir_mode: '0755'
    - file_mode: '0644'
    - clean: true
    - require:
      - plasma_cockpit: cockpit-allowed

cockpit-socket:
  plasma_cockpit.listening:
    - require:
      - pkg: cockpit-packages

cockpit-offered:
  tljh_config.managed:
    - prefix: {{ plasma.hub.prefix }}
    - settings:
        plasma.cockpit.enabled: true
    - timeout: {{ plasma.hub.ready_timeout }}
    - require:
      - plasma_cockpit: cockpit-socket
      - file: cockpit-page
{% else %}
cockpit-allowed:
  test.nop:
    - name: pillar asks for no Cockpit; what was set up here stays until `state.apply cockpit.disabled`
{% endif %}
