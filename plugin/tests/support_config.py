"""A config.yaml as a person writes it."""

HANDWRITTEN = """\
# The hub of the course
limits: # for each server
  # enough for pandas
  memory: 1G # per user

# People
users:
  admin:
    - anna # teacher
    # visitors
    - "007"

  # banned ones
  banned: [x, y] # both left
base_url: "/x/"
# the end
"""
