"""What people run on the controller beside salt-ssh, and what writes parts of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# So that the schema of the pillar can be imported as a package.
sys.path.append(str(ROOT / "_pillar"))
