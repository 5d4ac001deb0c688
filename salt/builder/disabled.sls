# Removes the images that builds begin with, where they were made here.
include:
  - preflight.turn

builder-images:
  plasma_builds.images_removed: []
