"""What a Workflow's status says of the tasks of the pipeline: which of Argo's nodes are a task's."""

import base64
import binascii
import datetime
import json
import zlib
from dataclasses import dataclass
from typing import Any

from mlmesh_pipeline.argo.templates import DRIVER, PATH, WORKSPACE_DRIVER

Json = dict[str, Any]
_ENDED = {"Succeeded", "Failed", "Error", "Skipped", "Omitted"}
_MAX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Node:
    """One of Argo's nodes.

    Attributes:
        ident: Its id; with the pod names of our Workflows, its pod's name.
        kind: Pod, Retry, ...
        phase: Pending, Running, Succeeded, Failed, Error, ...
        message: Of Argo.
        started_at, finished_at: Microseconds; 0: not yet.
        exit_code: Of `main`; None: not known.
    """

    ident: str
    kind: str
    phase: str
    message: str
    started_at: int
    finished_at: int
    exit_code: int | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens."""
        return self.phase in _ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it went well."""
        return self.phase == "Succeeded"


class Nodes:
    """The nodes of a Workflow, by the tasks that they are of.

    Args:
        workflow: As the cluster gives it; None: there is none.
    """

    def __init__(self, workflow: Json | None) -> None:
        status = (workflow or {}).get("status") or {}
        self.phase = str(status.get("phase") or "")
        self.message = str(status.get("message") or "")
        self._drivers: dict[str, Node] = {}
        self._executors: dict[str, Node] = {}
        self._pods: dict[str, list[Node]] = {}
        self._inside: set[str] = set()
        for content in _all(status).values():
            self._take(content)
        for pods in self._pods.values():
            pods.sort(key=lambda node: (node.started_at, node.ident))

    def _take(self, content: Json) -> None:
        parameters = (content.get("inputs") or {}).get("parameters") or []
        path = next((str(one.get("value", "")) for one in parameters if one.get("name") == PATH), "")
        kind = content.get("type", "")
        if not path or kind not in {"Pod", "Retry"}:
            return
        node = _node(content)
        parts = path.split("/")
        self._inside |= {"/".join(parts[:number]) for number in range(1, len(parts))}
        is_driver = content.get("templateName") in {DRIVER, WORKSPACE_DRIVER}
        whole = self._drivers if is_driver else self._executors
        if kind == "Retry" or path not in whole or whole[path].kind != "Retry":
            whole[path] = node
        if kind == "Pod" and not is_driver:
            self._pods.setdefault(path, []).append(node)

    @property
    def has_ended(self) -> bool:
        """Whether the Workflow has ended."""
        return self.phase in {"Succeeded", "Failed", "Error"}

    def driver(self, path: str) -> Node | None:
        """Gives the driver of a task, over all that it was tried."""
        return self._drivers.get(path)

    def executor(self, path: str) -> Node | None:
        """Gives the executor of a task, over all that it was tried."""
        return self._executors.get(path)

    def pods(self, path: str) -> list[Node]:
        """Gives the pods of a task's executor, oldest first."""
        return self._pods.get(path, [])

    def has_begun(self, path: str) -> bool:
        """Tells whether something inside a DAG has begun."""
        return path in self._inside


def _all(status: Json) -> dict[str, Json]:
    if status.get("compressedNodes"):
        try:
            data = base64.b64decode(status["compressedNodes"])
            unpacked = zlib.decompressobj(wbits=47).decompress(data, _MAX_BYTES)
            found: dict[str, Json] = json.loads(unpacked)
        except (binascii.Error, zlib.error, ValueError):
            return {}
        return found
    return status.get("nodes") or {}


def _node(content: Json) -> Node:
    code = (content.get("outputs") or {}).get("exitCode")
    return Node(
        ident=str(content.get("podName") or content.get("id", "")),
        kind=str(content.get("type", "")),
        phase=str(content.get("phase", "")),
        message=str(content.get("message") or ""),
        started_at=_time(content.get("startedAt")),
        finished_at=_time(content.get("finishedAt")),
        exit_code=int(str(code)) if str(code or "").lstrip("-").isdecimal() else None,
    )


def _time(text: Any) -> int:
    if not text:
        return 0
    try:
        return int(datetime.datetime.fromisoformat(str(text)).timestamp() * 1e6)
    except ValueError:
        return 0
