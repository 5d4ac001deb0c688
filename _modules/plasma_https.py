"""
The certificate of the hub: how it is, and what it is good for.
"""

import plasma_public
from plasma_https_settings import health

plasma_public.offer(globals(), health)
