# The end of the site: what was applied goes on record, for `plasma.status` to tell what is pending.
site-applied:
  plasma_site.applied:
    - order: last
