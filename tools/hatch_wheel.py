"""Build hook of the all-in-one distribution: generates the protos and puts every member's package in one wheel."""

import sys
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class AllInOneWheelHook(BuildHookInterface):  # type: ignore[type-arg]
    """An editable install points at the folders instead (dev-mode-dirs in pyproject.toml)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each target is built."""
        root = Path(self.root)
        sys.path.insert(0, str(root / "protos"))
        import build_protos

        build_protos.build()
        if version == "editable":
            return
        workspace = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["mlmesh"]["workspace"]
        included = build_data["force_include"]
        for member in workspace["members"]:
            project = tomllib.loads((root / member / "pyproject.toml").read_text())
            for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
                included[str(root / member / package)] = package
        included[str(root / "deploy" / "mesh.yaml")] = "mlmesh/data/mesh.yaml"
