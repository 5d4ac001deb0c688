# SSH and the other doors of the host: closed to people of the hub, unless pillar opens them.
{% set plasma = pillar['plasma'] %}
{% set ssh = plasma.ssh %}

{% if ssh.enabled %}
include:
  - preflight

# What keeps them closed needs no Salt; three of its files are used by Salt too.
{% for name, source in [
  ('doors.py', 'ssh/files/doors.py'),
  ('plasma_doors.py', '_utils/plasma_doors.py'),
  ('plasma_doors_files.py', '_utils/plasma_doors_files.py'),
  ('plasma_doors_rules.py', '_utils/plasma_doors_rules.py'),
] %}
ssh-keeper-{{ name }}:
  file.managed:
    - name: /usr/local/lib/plasma/{{ name }}
    - source: salt://{{ source }}
    - user: root
    - group: root
    - mode: '0644'
    - makedirs: true
    - require:
      - plasma_preflight: preflight-server-is-fit
    - require_in:
      - plasma_ssh: ssh-closed
{% endfor %}

ssh-closed:
  plasma_ssh.closed:
    - users: {{ ssh.open_to.users | json }}
    - groups: {{ ssh.open_to.groups | json }}
    - limits: {{ ssh.limits | json }}
    # Of those, who is in pillar: where accounts are to come with this apply, they need not be there in a dry run.
    - coming:
        users: {{ plasma.users | map(attribute='name') | select('in', ssh.open_to.users) | list | json }}
        groups: {{ plasma.groups | map(attribute='name') | select('in', ssh.open_to.groups) | list | json }}
{% else %}
ssh-stays:
  test.nop:
    - name: pillar leaves SSH alone; what was set up here stays until `state.apply ssh.disabled`
{% endif %}
