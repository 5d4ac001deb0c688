"""
GPUs of NVIDIA for servers: how many there are, how many are in use, and whether the Docker engine can give them.
"""

import plasma_public
from plasma_gpu_engine import compare, count, forget, health, leftovers, make_known, missing, withdraw

plasma_public.offer(globals(), compare, count, forget, health, leftovers, make_known, missing, withdraw)
