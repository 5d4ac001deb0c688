"""
Read, compare and change the hub's ``config.yaml``, and make the hub take the change over.

Keys are dotted (``limits.memory``). Settings are nested or dotted: ``{"limits": {"memory": "2G"}}`` and
``{"limits.memory": "2G"}`` mean the same, and leave ``limits.cpu`` alone. Keys inside a nested mapping are taken as
they are, dots included. Lists and empty mappings are values. Changes and diffs hide values whose keys look secret.
"""

import plasma_public
from tljh_settings import apply, compare, get, pending, ready, reload, show, update

plasma_public.offer(globals(), apply, compare, get, pending, ready, reload, show, update)
