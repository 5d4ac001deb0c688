"""
The schema of the `plasma` pillar, as pydantic models: the only place where keys, types, units, defaults, examples and
descriptions are written. `../plasma.py` loads it on the controller; `tools/pillar_reference.py` prints it.

This file imports nothing on purpose: Salt's loader scans `_pillar/` and must be able to look at it.
"""
