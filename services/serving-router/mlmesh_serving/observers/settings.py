"""What those who look at predictions can be told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlmesh_serving.remote.hosts import LOOPBACK


@dataclass(frozen=True, slots=True)
class ObserverSettings:
    """Limits and places.

    Attributes:
        folder: Where references and logs of the process are kept.
        sink_hosts: Hosts that events may be sent to, as `remote.hosts.parse_hosts` reads them.
        default_url: Where payloads of InferenceServices are sent whose loggers say nothing.
        log_roots: URIs of folders and buckets that events may be written below.
        redact_headers: Headers that are never logged, beside those that never are.
        redact_fields: Tensors and fields of JSON that are never logged.
        queue_items: Predictions that wait to be handed over.
        queue_bytes: Their bytes.
        rate: Predictions a second, of one revision, that are handed over; 0: all.
        max_payload_bytes: Request and answer of one prediction; a larger one is not looked at.
        memory_bytes: Of the process.
        nice: How much the process stands back for those that predict, 0 to 19.
        log_keep_bytes: Of the logged files of one InferenceService on this machine.
        max_elements: Of a tensor.
        max_tensors: Of a request.
        drain_seconds: Time that what waits gets to be delivered at the end.
    """

    folder: Path
    sink_hosts: str = LOOPBACK
    log_roots: Sequence[str] = ()
    default_url: str = ""
    redact_headers: Sequence[str] = ()
    redact_fields: Sequence[str] = ()
    queue_items: int = 2048
    queue_bytes: int = 32 << 20
    rate: float = 0.0
    max_payload_bytes: int = 4 << 20
    memory_bytes: int = 2 << 30
    nice: int = 19
    log_keep_bytes: int = 1 << 30
    max_elements: int = 16_000_000
    max_tensors: int = 64
    drain_seconds: float = 2.0

    def message(self) -> dict[str, Any]:
        """Gives what the process needs to know."""
        return {
            "folder": str(self.folder),
            "sink_hosts": self.sink_hosts,
            "default_url": self.default_url,
            "log_roots": [root.rstrip("/") for root in self.log_roots],
            "redact_headers": list(self.redact_headers),
            "redact_fields": list(self.redact_fields),
            "log_keep_bytes": self.log_keep_bytes,
            "max_elements": self.max_elements,
            "max_tensors": self.max_tensors,
        }
