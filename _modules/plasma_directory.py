"""
A directory of people (LDAP, Active Directory) that this server asks: how it is.
"""

import plasma_public
from plasma_directory_sssd import health

plasma_public.offer(globals(), health)
