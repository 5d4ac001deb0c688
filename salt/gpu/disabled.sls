# Takes the container toolkit away that the state gpu brought, and the engine's knowledge of it. Refused while servers
# with GPUs run: the engine could not stop them any more.
include:
  - preflight.turn

gpu-disabled:
  plasma_gpu.disabled: []
