"""
What the site was when it was last applied completely, as digests of the pillar's sections.
"""

import plasma_public
from plasma_site_record import forget, record

plasma_public.offer(globals(), forget, record)
