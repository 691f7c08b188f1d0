"""Gathers the dependencies of the workspace's members for the all-in-one distribution."""

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class WorkspaceMetadataHook(MetadataHookInterface):
    """Sets the root's dependencies and extras to the union of its members' (see [tool.mlmesh.workspace])."""

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        workspace = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["mlmesh"]["workspace"]
        gathered: set[str] = set()
        extras: dict[str, list[str]] = {}
        for member in workspace["members"]:
            project = tomllib.loads((root / member / "pyproject.toml").read_text())["project"]
            gathered.update(project.get("dependencies", []))
            extras |= project.get("optional-dependencies", {})
        metadata["dependencies"] = sorted(d for d in gathered if not d.startswith("mlmesh-"))
        metadata["optional-dependencies"] = {**extras, "dev": workspace["dev"]}
