# The end of the site: what was applied goes on record, for `plasma.status` to tell what is pending.
include:
  - preflight.turn

site-applied:
  plasma_site.applied:
    - order: last

# After that: what is of earlier releases says nothing about this site.
earlier-releases-tidied:
  plasma_site.tidied:
    - order: last
    - require:
      - plasma_site: site-applied
