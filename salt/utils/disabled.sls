# Removes ctop, which is no package of the system. Packages stay: somebody else may need them by now.
{% set utils = pillar['plasma']['utils'] %}

include:
  - preflight.turn

utils-ctop-removed:
  plasma_uninstall.file_removed:
    - name: /usr/local/bin/ctop
    - sha256: {{ utils.ctop.sha256.get(grains['osarch']) | json }}

utils-packages-stay:
  test.nop:
    - name: packages of plasma.utils.packages stay; remove those you do not need with apt-get remove
