"""
Disk quotas of homes: whether this server can have them, and what people use.
"""

import plasma_public
from plasma_quota_report import report
from plasma_quota_setup import compare, discover

plasma_public.offer(globals(), compare, discover, report)
