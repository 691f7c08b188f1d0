"""Task and trial processes: each leads its own process group, writes to a log file, and dies with the service.

All processes of a service are started by one small single-threaded helper process (`mlmesh_kit.zygote`): forking from
the service itself, which has threads and gRPC in it, is not safe, and the helper can have Python modules imported
already, so that a Python command starts in milliseconds.
"""

from mlmesh_kit.launch.launcher import ExecLauncher, Launcher, WarmLauncher
from mlmesh_kit.launch.limits import Limits
from mlmesh_kit.launch.process import ExitStatus, Process, ProcessSpec
from mlmesh_kit.launch.sweep import mark_of, sweep

__all__ = [
    "ExecLauncher",
    "ExitStatus",
    "Launcher",
    "Limits",
    "Process",
    "ProcessSpec",
    "WarmLauncher",
    "mark_of",
    "sweep",
]
