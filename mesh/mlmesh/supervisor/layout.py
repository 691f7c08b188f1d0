"""Where a mesh keeps its files, below its data directory."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a mesh.

    Args:
        data_dir: Absolute.
    """

    data_dir: Path

    @property
    def run(self) -> Path:
        """What only a running mesh needs."""
        return self.data_dir / "run"

    @property
    def logs(self) -> Path:
        """A log for each process, and the ingress' access log."""
        return self.data_dir / "logs"

    @property
    def lock(self) -> Path:
        """Locked while a supervisor runs; the kernel lets go when it dies."""
        return self.run / "lock"

    @property
    def plan(self) -> Path:
        """What the supervisor is to run."""
        return self.run / "plan.json"

    @property
    def state(self) -> Path:
        """What the supervisor says of its processes."""
        return self.run / "mesh.json"

    @property
    def admin_socket(self) -> Path:
        """Envoy's admin interface."""
        return self.run / "envoy.sock"

    def log(self, name: str) -> Path:
        """Gives the log of a process."""
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Makes the folders, for their owner only.

        Raises:
            OSError: It cannot be made or written.
        """
        for folder in (self.data_dir, self.run, self.logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
