"""What passes between the tasks of a run: objects in the store, written by pods, read by pods and by the service.

`STATE_ROOT/NAMESPACE/runs/RUN_ID/` holds `~run.json`, `~pipeline.json` and a folder for each task with `~inputs.json`
(it has begun), `~outputs.json` (it has ended) and, for loops, `~items.json`; `STATE_ROOT/NAMESPACE/cache/` holds
outputs by fingerprint. Names of tasks never begin with `~`, so files and folders do not meet.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from mlmesh_kit.errors import NotFound, Unavailable
from mlmesh_kit.objectstore import ObjectStore

from mlmesh_pipeline.engine.inputs import Outcome, outcome_at_end
from mlmesh_pipeline.engine.paths import folder_of
from mlmesh_pipeline.ir.document import PipelineDocument, parse
from mlmesh_pipeline.resources import Artifact, Problem, Run, RuntimeState, StorageState, Values
from mlmesh_pipeline.store.codec import dump_values, load_values

logger = logging.getLogger(__name__)
T = TypeVar("T")

MAX_BYTES = 64 << 20
_TRIES = 6


@dataclass(frozen=True, slots=True)
class Record:
    """How a task ended.

    Attributes:
        state: SUCCEEDED, SKIPPED or FAILED.
        outputs: What it gave.
        problem: What went wrong, or why it was not run.
        fingerprint: Of the task; empty: none.
        cached_from: Id of the task whose outputs these are; empty: its own.
    """

    state: RuntimeState
    outputs: Values
    problem: Problem | None = None
    fingerprint: str = ""
    cached_from: str = ""

    @property
    def outcome(self) -> Outcome:
        """The outcome, for the tasks that wait for it."""
        return outcome_at_end(self.state, self.outputs, self.problem, self.cached_from)


def run_uri(state_root: str, namespace: str, run_id: str) -> str:
    """Gives the URI of a run's folder."""
    return f"{state_root}/{folder_of(namespace)}/runs/{folder_of(run_id)}"


class RunState:
    """The state of one run.

    Args:
        store: Where it is.
        uri: Of the run's folder.
        number: Of the try.
    """

    def __init__(self, store: ObjectStore, uri: str, number: int) -> None:
        self.store = store
        self.uri = uri
        self.number = number
        self._cache = f"{uri.rsplit('/runs/', 1)[0]}/cache"

    def describe(self, run: Run, document: PipelineDocument, options: dict[str, Any]) -> None:
        """Writes what pods need to know of the run."""
        self._write(f"{self.uri}/~pipeline.json", document.content)
        self._write(f"{self.uri}/~run.json", {"run": asdict(run), "options": options})

    def described(self) -> tuple[Run, PipelineDocument, dict[str, Any]]:
        """Reads what `describe` wrote."""
        about = self._read(f"{self.uri}/~run.json") or {}
        run = _run(about["run"])
        return run, parse(self._read(f"{self.uri}/~pipeline.json")), about["options"]

    def begin(self, path: str, inputs: Values, fingerprint: str = "") -> None:
        """Writes that a task of this try has begun."""
        content = {"try": self.number, "values": json.loads(dump_values(inputs)), "fingerprint": fingerprint}
        self._write(self._file(path, "inputs"), content)

    def begun(self, path: str) -> tuple[Values, str] | None:
        """Gives the inputs and the fingerprint of a task that has begun in this try, or None."""
        found = self._read(self._file(path, "inputs"))
        if found is None or found["try"] != self.number:
            return None
        return load_values(json.dumps(found["values"])), found["fingerprint"]

    def set_items(self, path: str, items: list[Any]) -> None:
        """Writes what a loop goes over."""
        plain = [asdict(item) if isinstance(item, Artifact) else item for item in items]
        artifacts = bool(items) and isinstance(items[0], Artifact)
        self._write(self._file(path, "items"), {"try": self.number, "items": plain, "artifacts": artifacts})

    def items(self, path: str) -> list[Any] | None:
        """Gives what a loop goes over, or None where it has not begun in this try."""
        found = self._read(self._file(path, "items"))
        if found is None or found["try"] != self.number:
            return None
        items: list[Any] = found["items"]
        return [Artifact(**item) for item in items] if found["artifacts"] else items

    def end(self, path: str, record: Record) -> None:
        """Writes how a task ended."""
        content = {
            "try": self.number,
            "state": record.state.value,
            "values": json.loads(dump_values(record.outputs)),
            "problem": asdict(record.problem) if record.problem else None,
            "fingerprint": record.fingerprint,
            "cached_from": record.cached_from,
        }
        self._write(self._file(path, "outputs"), content)

    def forget(self, path: str) -> None:
        """Removes what is written of a task's end."""
        patiently(lambda: self.store.delete(self._file(path, "outputs")))

    def ended(self, path: str) -> Record | None:
        """Gives how a task ended in this try, or None."""
        found = self._read(self._file(path, "outputs"))
        if found is None or found["try"] != self.number:
            return None
        problem = Problem(**found["problem"]) if found["problem"] else None
        outputs = load_values(json.dumps(found["values"]))
        return Record(RuntimeState(found["state"]), outputs, problem, found["fingerprint"], found["cached_from"])

    def remember(self, fingerprint: str, task_id: str, outputs: Values) -> None:
        """Puts outputs into the cache."""
        content = {"task_id": task_id, "values": json.loads(dump_values(outputs))}
        self._write(f"{self._cache}/{fingerprint}.json", content)

    def cached(self, fingerprint: str) -> tuple[str, Values] | None:
        """Gives the id of the task of this fingerprint and its outputs, if there is one."""
        found = self._read(f"{self._cache}/{fingerprint}.json")
        return (found["task_id"], load_values(json.dumps(found["values"]))) if found else None

    def log_uri(self, task_id: str, number: int) -> str:
        """Gives where the log of an attempt is kept when its pod is gone."""
        return f"{self.uri}/~logs/{task_id}/{number}.log"

    def delete(self) -> None:
        """Removes all that was written of the run."""
        for item in list(self.store.list(self.uri)):
            self.store.delete(item.uri)

    def _file(self, path: str, name: str) -> str:
        return f"{self.uri}/{folder_of(path)}/~{name}.json"

    def _write(self, uri: str, content: Any) -> None:
        data = json.dumps(content, allow_nan=False).encode()
        patiently(lambda: self.store.put_bytes(data, uri))

    def _read(self, uri: str) -> Any:
        try:
            return json.loads(patiently(lambda: self.store.get_bytes(uri, MAX_BYTES)))
        except NotFound:
            return None


def patiently(action: Callable[[], T]) -> T:
    """Does something again while the store is away, for about a minute.

    Raises:
        Unavailable: It still is.
    """
    for number in range(_TRIES):
        try:
            return action()
        except Unavailable as error:
            if number == _TRIES - 1:
                raise
            logger.warning("%s; again", error.message)
            time.sleep(2**number)
    raise AssertionError


def _run(content: dict[str, Any]) -> Run:
    problem = Problem(**content["problem"]) if content["problem"] else None
    run = Run(**{**content, "problem": problem})
    return replace(run, state=RuntimeState(content["state"]), storage_state=StorageState(content["storage_state"]))
