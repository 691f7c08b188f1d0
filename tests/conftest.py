import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tests import what they share from `support`

from support.databases import database_url, mariadb_server, postgresql_server
from support.mesh import mesh
from support.s3 import s3_server, s3_wire

# Who starts the suite in the background may have it ignore SIGINT, which every process that it starts would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Who runs the suite in several processes sets it, and the command is to believe that nobody said how wide lines are.
os.environ.pop("COLUMNS", None)

__all__ = ["database_url", "mariadb_server", "mesh", "postgresql_server", "s3_server", "s3_wire"]
