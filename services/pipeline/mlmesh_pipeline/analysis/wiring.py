"""Whether two pipelines say the same of a task: how it is wired, and what it runs."""

from typing import Any

from google.protobuf import json_format

from mlmesh_pipeline.ir.document import PipelineDocument

_ASIDE = ("component_ref", "caching_options", "retry_policy", "task_info")
"""Fields of a task that do not change what it gives."""


def wiring(task: Any) -> dict[str, Any]:
    """Gives how a task is wired, JSON-ready: its inputs, what it waits for, its condition, its loop."""
    bare = type(task)()
    bare.CopyFrom(task)
    for name in _ASIDE:
        bare.ClearField(name)
    found: dict[str, Any] = json_format.MessageToDict(bare)
    return found


def interface(component: Any) -> dict[str, Any]:
    """Gives the inputs and outputs that a component declares, JSON-ready."""
    found: dict[str, Any] = json_format.MessageToDict(component)
    return {key: found[key] for key in ("inputDefinitions", "outputDefinitions") if key in found}


def executor_of(document: PipelineDocument, component: Any) -> dict[str, Any]:
    """Gives what a component that is no DAG runs, JSON-ready."""
    found: dict[str, Any] = json_format.MessageToDict(document.executor(component.executor_label))
    return found
