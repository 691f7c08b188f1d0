"""Lineage, drawn."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

_HIDDEN = frozenset(
    {
        "display_name", "task_name", "namespace", "run_id", "pod_name", "parent_dag_id", "inputs", "outputs",
        "cache_fingerprint", "cached_execution_id", "content_digest", "iteration_index", "resource_name",
        "mlmesh_deleted",
    }
)  # fmt: skip
"""Properties that say nothing to people, or that the tree shows another way."""
_MOST_PROPERTIES = 6
_SHORT_ID = 8


class Lineage:
    """An answer of the metadata service, ready to be walked.

    Args:
        graph: nodes and edges.
    """

    def __init__(self, graph: dict[str, Any]) -> None:
        self.start = str(graph.get("artifact_id", ""))
        self.truncated = bool(graph.get("truncated"))
        self._nodes = {(str(node["kind"]), str(node["id"])): node for node in graph.get("nodes", [])}
        self._made_by: dict[str, list[str]] = {}
        self._makes: dict[str, list[str]] = {}
        self._uses: dict[str, list[str]] = {}
        self._used_by: dict[str, list[str]] = {}
        self._runs: dict[str, list[str]] = {}
        for edge in graph.get("edges", []):
            artifact, execution = str(edge.get("artifact_id", "")), str(edge.get("execution_id", ""))
            if edge["type"] == "OUTPUT":
                self._made_by.setdefault(artifact, []).append(execution)
                self._makes.setdefault(execution, []).append(artifact)
            elif edge["type"] == "INPUT":
                self._uses.setdefault(execution, []).append(artifact)
                self._used_by.setdefault(artifact, []).append(execution)
            elif edge["type"] == "ASSOCIATION":
                self._runs.setdefault(execution, []).append(str(edge.get("context_id", "")))

    def trees(self, *, upstream: bool, downstream: bool) -> "list[Tree]":
        """Draws how the artifact came to be, what was made of it, or both."""
        from rich.text import Text
        from rich.tree import Tree

        found = []
        if upstream:
            found.append(self._grow(Tree(self._artifact(self.start)), self.start, self._made_by, self._uses, "by"))
        if downstream:
            tree = Tree(Text("and what was made of it", "dim")) if upstream else Tree(self._artifact(self.start))
            found.append(self._grow(tree, self.start, self._used_by, self._makes, "used by"))
        return found

    def _grow(
        self, tree: "Tree", start: str, to_execution: dict[str, list[str]], to_artifact: dict[str, list[str]], word: str
    ) -> "Tree":
        """Adds what follows, each artifact once: executions below it, their artifacts below them."""
        from rich.text import Text

        drawn: set[str] = set()
        waiting = [(tree, start)]
        while waiting:  # not by recursion: a chain may be long
            branch, artifact = waiting.pop()
            following = dict.fromkeys(to_execution.get(artifact, []))
            if artifact in drawn:
                if following and isinstance(branch.label, Text):
                    branch.label.append("  (see above)", "dim")
                continue
            drawn.add(artifact)
            for execution in self._without_cached(following):
                below = branch.add(self._execution(execution, word))
                for each in dict.fromkeys(to_artifact.get(execution, [])):
                    waiting.insert(0, (below.add(self._artifact(each)), each))
        return tree

    def _without_cached(self, executions: Iterable[str]) -> list[str]:
        """Leaves out executions that only repeat another's answer, where that one is there."""
        found = list(executions)
        real = {self._name(each) for each in found if not self._is_cached(each)}
        return [each for each in found if not self._is_cached(each) or self._name(each) not in real]

    def _is_cached(self, execution: str) -> bool:
        return bool(self._nodes.get(("execution", execution), {}).get("state") == "CACHED")

    def _name(self, execution: str) -> str:
        node = self._nodes.get(("execution", execution), {})
        return str(node.get("properties", {}).get("display_name") or node.get("name") or "?")

    def _artifact(self, number: str) -> "Text":
        from rich.text import Text

        node = self._nodes.get(("artifact", number), {})
        properties = node.get("properties", {})
        name = str(properties.get("display_name") or node.get("name") or node.get("uri") or "?")
        return Text.assemble(
            (name, "bold"),
            "  ",
            (str(node.get("type", "?")), "cyan"),
            f"  #{number}",
            (_gone(node), "yellow"),
            (_facts(properties), "dim"),
        )

    def _execution(self, number: str, word: str) -> "Text":
        from rich.text import Text

        node = self._nodes.get(("execution", number), {})
        properties = node.get("properties", {})
        state = str(node.get("state", ""))
        return Text.assemble(
            f"{word} ",
            (self._name(number), "bold"),
            "  ",
            (str(node.get("type", "?")), "magenta"),
            f"  {state}" if state not in {"", "COMPLETE"} else "",
            (_gone(node), "yellow"),
            (self._context(number), "dim"),
            (_facts(properties), "dim"),
        )

    def _context(self, execution: str) -> str:
        for number in self._runs.get(execution, []):
            node = self._nodes.get(("context", number), {})
            if node.get("type") == "system.PipelineRun":
                return f"  run {str(node.get('name'))[:_SHORT_ID]}"
        return ""


def _gone(node: dict[str, Any]) -> str:
    when = str(node.get("tombstone", {}).get("delete_time", ""))[:10]
    return f"  deleted {when}" if "tombstone" in node else ""


def _facts(properties: dict[str, Any]) -> str:
    shown = []
    for name, value in sorted(properties.items()):
        if name in _HIDDEN or isinstance(value, dict | list) or value in {"", None}:
            continue
        text = f"{value:.5g}" if isinstance(value, float) else str(value)
        shown.append(f"{name}={text if len(text) <= 40 else text[:37] + '...'}")
    more = f" and {len(shown) - _MOST_PROPERTIES} more" if len(shown) > _MOST_PROPERTIES else ""
    return f"  {' '.join(shown[:_MOST_PROPERTIES])}{more}" if shown else ""
