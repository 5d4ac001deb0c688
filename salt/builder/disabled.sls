# Removes the images that builds begin with, where they were made here, and the profile of builds.
include:
  - preflight.turn

builder-images:
  plasma_builds.images_removed: []

builder-profile-is-gone:
  cmd.run:
    - name: apparmor_parser --remove /etc/apparmor.d/plasma-build
    - onlyif: test -e /etc/apparmor.d/plasma-build && grep -q '^plasma-build ' /sys/kernel/security/apparmor/profiles

builder-profile:
  file.absent:
    - name: /etc/apparmor.d/plasma-build
    - require:
      - cmd: builder-profile-is-gone
