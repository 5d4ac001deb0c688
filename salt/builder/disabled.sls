# Removes the images that builds begin with, where they were made here, and the profile of builds.
include:
  - preflight.turn

builder-images:
  plasma_builds.images_removed: []

builder-profile:
  cmd.run:
    - name: apparmor_parser --remove /etc/apparmor.d/plasma-build; rm /etc/apparmor.d/plasma-build
    - onlyif: test -e /etc/apparmor.d/plasma-build
