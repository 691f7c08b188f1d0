"""What a process may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a process with all that descends from it; 0: none.

    What counts over several processes is looked at ten times a second, and the whole tree is killed when it is over;
    that needs Linux. The rest is the system's and counts for each process.

    Args:
        memory_bytes: Memory of all together (not mapped files). A single process is refused memory beyond twice as much
            and 1 GiB, so that it cannot outrun the watch.
        processes: Processes and threads of all together.
        cpus: How many CPUs they are bound to, the least used.
        open_files: Of each process.
        file_bytes: Largest file; writing beyond it fails.
        log_bytes: Size of the log; when it grows beyond it the middle is dropped, and the process goes on.
        nice: How much it stands back for others, 0 to 19.
        oom_score: How much rather than others it is killed when the machine runs out of memory, 0 to 1000.
    """

    memory_bytes: int = 0
    processes: int = 0
    cpus: int = 0
    open_files: int = 0
    file_bytes: int = 0
    log_bytes: int = 0
    nice: int = 0
    oom_score: int = 0

    def message(self) -> dict[str, int]:
        """Gives those that there are as the helper process reads them."""
        named = {
            "memory": self.memory_bytes,
            "processes": self.processes,
            "cpus": self.cpus,
            "files": self.open_files,
            "file_bytes": self.file_bytes,
            "log": self.log_bytes,
            "nice": self.nice,
            "oom": self.oom_score,
        }
        return {name: value for name, value in named.items() if value > 0}
