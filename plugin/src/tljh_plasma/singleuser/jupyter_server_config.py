# Read by the Jupyter server of every container: where it finds plasma_server.py. Last, and for the server alone: a
# variable would be inherited by every kernel.
import sys

if "/opt/plasma/lib" not in sys.path:
    sys.path.append("/opt/plasma/lib")
