"""InferenceGraphs, as the commands make and show them."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlmesh.cli.search_state import last_part
from mlmesh.cli.serving_view import ready_condition

if TYPE_CHECKING:
    from rich.text import Text

    from mlmesh.cli.client import Ingress

KIND = "InferenceGraph"


def graphs_path(namespace: str) -> str:
    """Gives the path of a namespace's InferenceGraphs below the ingress."""
    return f"/serving/v1/namespaces/{quote(namespace, safe='')}/inferencegraphs"


def apply_graph(mesh: "Ingress", namespace: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Makes an InferenceGraph; if there is one by that name, it gets the manifest.

    Args:
        mesh: A connection.
        namespace: Of the graph.
        manifest: Has a name.

    Raises:
        IngressError: It was refused, or there was no answer.
    """
    from mlmesh.cli.client import IngressError

    body = {"manifest": manifest}
    try:
        made: dict[str, Any] = mesh.send("POST", graphs_path(namespace), body)
    except IngressError as error:
        if error.status != 409:
            raise
        name = quote(str(manifest["metadata"]["name"]), safe="")
        made = mesh.send("PATCH", f"{graphs_path(namespace)}/{name}", body)
    return made


def graph_text(graph: dict[str, Any]) -> "Text":
    """Draws an InferenceGraph in a line."""
    from rich.text import Text

    condition = ready_condition(graph)
    is_ready = condition.get("status") == "True"
    return Text.assemble(
        (last_part(graph), "bold"),
        "  ",
        ("ready", "green") if is_ready else ("not ready", "yellow"),
        f"  {graph.get('status', {}).get('url', '')}",
        (f"  {condition['message']}", "yellow") if condition.get("message") else "",
    )
