# Which file goes to which server: plasma.sls to all of them, and over it servers/ID.sls to the server with that id in the
# roster, where it exists. A dot in an id is a dash in the file name: hub.example.org has servers/hub-example-org.sls.
base:
  '*':
    - plasma
  '{{ opts.id }}':
    - match: list
    - servers.{{ opts.id | replace('.', '-') }}
    - ignore_missing: True
