"""
What is installed under the hub's prefix, and how it differs from what is wanted.
"""

import plasma_public
from plasma_hub_installed import compare, packages, provider, receipt

plasma_public.offer(globals(), compare, packages, provider, receipt)
