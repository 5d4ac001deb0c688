# Removes the images that builds begin with, where they were made here, and the profile of builds.
include:
  - preflight.turn

builder-images:
  plasma_builds.images_removed: []

builder-profile:
  plasma_builds.profile_removed: []
