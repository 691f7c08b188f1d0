"""CloudEvents 1.0, in the binary content mode of HTTP and as JSON.

Sources: https://github.com/cloudevents/spec, "CloudEvents - Version 1.0.2", its HTTP protocol binding (3.1, binary
content mode) and its JSON event format. The types and attributes of payloads are KServe's logger's.
"""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"
DRIFT = "org.kubeflow.serving.inference.drift"
OUTLIER = "org.kubeflow.serving.inference.outlier"
JSON = "application/json"

_PLAIN = frozenset(range(0x21, 0x7F)) - {0x22, 0x25}  # printable ASCII but space, double quote, percent


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """An event.

    Attributes:
        type: What happened.
        source: Who tells it, a URI reference.
        id: Request and response of one prediction share it.
        seconds: When it happened, since the epoch.
        content_type: Of the data.
        data: The payload.
        extensions: Further attributes; names are lower case letters and digits.
    """

    type: str
    source: str
    id: str
    seconds: float
    content_type: str
    data: bytes
    extensions: Mapping[str, str] = field(default_factory=dict)

    @property
    def time(self) -> str:
        """When it happened, as RFC 3339 has it."""
        whole = int(self.seconds)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((self.seconds - whole) * 1e6):06d}Z"

    def attributes(self) -> dict[str, str]:
        """Gives the context attributes but `datacontenttype`."""
        own = {"specversion": "1.0", "type": self.type, "source": self.source, "id": self.id, "time": self.time}
        return {**own, **self.extensions}

    def http_headers(self) -> dict[str, str]:
        """Gives the headers of the binary content mode; the data is the body."""
        headers = {f"ce-{name}": _header_value(value) for name, value in self.attributes().items()}
        headers["content-type"] = self.content_type
        return headers

    def to_json(self) -> bytes:
        """Gives the event as one line of JSON: data as JSON where it is, else in base64."""
        entry: dict[str, Any] = {**self.attributes(), "datacontenttype": self.content_type}
        if self.content_type == JSON:
            try:
                orjson.loads(self.data)
            except orjson.JSONDecodeError:
                entry["data_base64"] = base64.b64encode(self.data).decode()
            else:
                entry["data"] = orjson.Fragment(self.data.replace(b"\n", b" "))  # JSON has line feeds only as space
        else:
            entry["data_base64"] = base64.b64encode(self.data).decode()
        return orjson.dumps(entry)


def _header_value(value: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in value.encode("utf-8", "replace"))
