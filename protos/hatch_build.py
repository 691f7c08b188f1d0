"""Build hook: generates mlmesh_protos before a wheel or an editable install is made."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))


class ProtosBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs build_protos.build(); the result is shipped although it is not committed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each target is built."""
        import build_protos

        build_protos.build()
        build_data["artifacts"].append("mlmesh_protos/**")
