"""
Care for the disks of the server: what builds left in the Docker engine is removed, and how full disks are.
"""

import plasma_public
from plasma_prune_timer import disks, health, run

plasma_public.offer(globals(), disks, health, run)
