"""
The users that the hub knows: who administers it, and who is to be forgotten.
"""

import plasma_public
from plasma_hub_accounts import administrators, forget, set_admin, users

plasma_public.offer(globals(), administrators, forget, set_admin, users)
