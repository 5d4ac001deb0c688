# Settings of one server, over those in ../plasma.sls: copy to ID.sls, where ID is its name in the roster with dashes for
# dots. Sections are merged key by key; a list replaces the whole list.
plasma:
  limits:
    memory: 4G
    cpu: 4
