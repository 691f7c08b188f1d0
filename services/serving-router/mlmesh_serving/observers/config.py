"""What the serving router can be told of what is off the path of predictions."""

from mlmesh_kit.interceptor import is_loopback
from pydantic import Field

from mlmesh_serving.observers.settings import ObserverSettings
from mlmesh_serving.remote.hosts import LOOPBACK
from mlmesh_serving.remote.settings import RemoteSettings


class BesideSettings(RemoteSettings):
    """The part of the settings that is about payload logging, detectors and explainers."""

    log_roots: str = Field(
        "",
        description="URIs of folders and buckets that payloads may be written below, separated by commas; empty: "
        "payload-logs below the artifact root",
    )
    log_url: str = Field("", description="Where payloads go whose InferenceService says only that they are logged")
    log_keep_bytes: int = Field(1 << 30, ge=0, description="Of the payload files of one InferenceService; 0: all")
    redact_headers: str = Field("", description="Headers that are never logged, beside authorization, cookie and such")
    redact_fields: str = Field("", description="Tensors and JSON fields that are never logged, separated by commas")
    observer_queue_items: int = Field(2048, gt=0, description="Predictions that may wait to be looked at")
    observer_queue_bytes: int = Field(32 << 20, gt=0, description="Bytes of these predictions")
    observer_rate: float = Field(
        1000.0, ge=0, description="Predictions a second of one revision that are looked at; more are dropped; 0: all"
    )
    observer_payload_bytes: int = Field(4 << 20, gt=0, description="Largest prediction that is looked at")
    observer_memory_bytes: int = Field(2 << 30, ge=0, description="Of the process that looks at predictions; 0: any")
    observer_nice: int = Field(19, ge=0, le=19, description="How much that process stands back for the others")
    explainer_memory_bytes: int = Field(4 << 30, ge=0, description="Of a process that explains; 0: no limit")

    def observers(self, max_elements: int, max_tensors: int) -> ObserverSettings:
        """What the observers are told.

        Args:
            max_elements: Of a tensor.
            max_tensors: Of a request.
        """
        hosts = self.remote_hosts
        if hosts is None:
            hosts = LOOPBACK if is_loopback(self.host) else ""
        return ObserverSettings(
            folder=self.service_dir / "observers",
            sink_hosts=hosts,
            log_roots=_listed(self.log_roots) or [f"{self.resolved_artifact_root}/payload-logs"],
            default_url=self.log_url,
            redact_headers=_listed(self.redact_headers),
            redact_fields=_listed(self.redact_fields),
            queue_items=self.observer_queue_items,
            queue_bytes=self.observer_queue_bytes,
            rate=self.observer_rate,
            max_payload_bytes=self.observer_payload_bytes,
            memory_bytes=self.observer_memory_bytes,
            nice=self.observer_nice,
            log_keep_bytes=self.log_keep_bytes,
            max_elements=max_elements,
            max_tensors=max_tensors,
        )


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
