"""JSON in columns."""

import json
from dataclasses import asdict
from typing import Any

from mlmesh_pipeline.resources import Artifact, Problem, Values


def dump(value: Any) -> str:
    """Gives compact JSON with sorted keys."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)


def load(text: str) -> Any:
    """Reads what `dump` wrote; nothing gives None."""
    return json.loads(text) if text else None


def dump_problem(problem: Problem | None) -> str:
    """Gives a problem as JSON, or nothing."""
    return dump({"code": problem.code, "message": problem.message}) if problem else ""


def load_problem(text: str) -> Problem | None:
    """Reads what `dump_problem` wrote."""
    return Problem(**json.loads(text)) if text else None


def dump_values(values: Values) -> str:
    """Gives values as JSON."""
    artifacts = {name: [asdict(artifact) for artifact in items] for name, items in values.artifacts.items()}
    return dump({"parameters": values.parameters, "artifacts": artifacts})


def load_values(text: str) -> Values:
    """Reads what `dump_values` wrote."""
    found = load(text) or {"parameters": {}, "artifacts": {}}
    return Values(
        found["parameters"],
        {name: [Artifact(**artifact) for artifact in items] for name, items in found["artifacts"].items()},
    )
