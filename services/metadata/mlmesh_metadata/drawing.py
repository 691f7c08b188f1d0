"""A DAG as a picture: Graphviz DOT, and SVG without Graphviz."""

import html

from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.comparison import path_of
from mlmesh_metadata.dag import Dag
from mlmesh_metadata.kinds import ARTIFACT, CONTEXT, EXECUTION, INPUTS, OUTPUTS, Kind, Node
from mlmesh_metadata.reserved import is_deleted

_WIDTH, _HEIGHT = 190, 44
_GAP_X, _GAP_Y = 40, 56
_MARGIN = 24
_LABEL_CHARACTERS = 26
_DELETED = "#f4f4f4"
_COLOURS = {"FAILED": "#fde2e1", "CACHED": "#eef0f2", "CANCELED": "#eef0f2", "RUNNING": "#fff3cf"}


def label_of(node: Node) -> str:
    """Gives what people call a node."""
    display = node.custom_properties["display_name"].string_value if "display_name" in node.custom_properties else ""
    uri = node.uri if isinstance(node, mlpb.Artifact) else ""
    return display or node.name or uri.rstrip("/").rpartition("/")[2] or f"{node.type} {node.id}"


def to_dot(dag: Dag) -> str:
    """Draws for Graphviz: executions are boxes, artifacts are rounded; see https://graphviz.org/doc/info/lang.html."""
    lines = [f"digraph {_quoted(_shown(dag, CONTEXT, dag.context))} {{", "  rankdir=TB;"]
    for kind, node in dag.nodes:
        style = ("" if kind is EXECUTION else "rounded,") + ("dashed" if is_deleted(node) else "filled")
        text = f"{_shown(dag, kind, node)}\n{node.type}"
        fill = _quoted(_fill(kind, node))
        lines.append(f'  {_key(kind, node.id)} [shape=box, style="{style}", fillcolor={fill}, label={_quoted(text)}];')
    for event in dag.events:
        ends = [_key(ARTIFACT, event.artifact_id), _key(EXECUTION, event.execution_id)]
        if event.type in OUTPUTS:
            ends.reverse()
        lines.append(f"  {ends[0]} -> {ends[1]} [label={_quoted(path_of(event))}];")
    return "\n".join([*lines, "}", ""])


def to_svg(dag: Dag) -> str:
    """Draws in layers: each node below all that it was made of."""
    layers = _layers(dag)
    widest = max((len(layer) for layer in layers), default=1)
    width = 2 * _MARGIN + widest * _WIDTH + (widest - 1) * _GAP_X
    height = 2 * _MARGIN + max(1, len(layers)) * _HEIGHT + max(0, len(layers) - 1) * _GAP_Y
    places: dict[tuple[str, int], tuple[int, int]] = {}
    for row, layer in enumerate(layers):
        left = (width - len(layer) * _WIDTH - (len(layer) - 1) * _GAP_X) // 2
        for column, (kind, node) in enumerate(layer):
            places[kind.name, node.id] = (left + column * (_WIDTH + _GAP_X), _MARGIN + row * (_HEIGHT + _GAP_Y))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f"<title>{html.escape(_shown(dag, CONTEXT, dag.context))}</title>",
        '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#777"/></marker></defs>',
    ]
    for event in dag.events:
        ends = [places.get((ARTIFACT.name, event.artifact_id)), places.get((EXECUTION.name, event.execution_id))]
        if event.type in OUTPUTS:
            ends.reverse()
        source, target = ends
        if source is not None and target is not None and event.type in INPUTS | OUTPUTS:
            x1, y1, x2, y2 = source[0] + _WIDTH // 2, source[1] + _HEIGHT, target[0] + _WIDTH // 2, target[1]
            bend = f"M{x1} {y1}C{x1} {y1 + _GAP_Y // 2} {x2} {y2 - _GAP_Y // 2} {x2} {y2}"
            parts.append(f'<path d="{bend}" fill="none" stroke="#777" marker-end="url(#end)"/>')
    for layer in layers:
        parts += [_box(kind, node, _shown(dag, kind, node), *places[kind.name, node.id]) for kind, node in layer]
    return "\n".join([*parts, "</svg>", ""])


def _layers(dag: Dag) -> list[list[tuple[Kind, Node]]]:
    depth = {(kind.name, node.id): 0 for kind, node in dag.nodes}
    into: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for event in dag.events:
        artifact, execution = (ARTIFACT.name, event.artifact_id), (EXECUTION.name, event.execution_id)
        if event.type in INPUTS:
            into.setdefault(execution, []).append(artifact)
        elif event.type in OUTPUTS:
            into.setdefault(artifact, []).append(execution)
    placed: set[tuple[str, int]] = set()
    for kind, node in dag.nodes:  # each comes after what it was made of; in a circle, what came before counts
        key = (kind.name, node.id)
        depth[key] = max((depth[source] + 1 for source in into.get(key, []) if source in placed), default=0)
        placed.add(key)
    layers: list[list[tuple[Kind, Node]]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for kind, node in dag.nodes:
        layers[depth[kind.name, node.id]].append((kind, node))
    return layers


def _shown(dag: Dag, kind: Kind, node: Node) -> str:
    """Gives what a node is called, or was before it was deleted."""
    if not is_deleted(node):
        return label_of(node)
    return f"{dag.deleted.get((kind.name, node.id)) or f'{node.type} {node.id}'} (deleted)"


def _box(kind: Kind, node: Node, label: str, x: int, y: int) -> str:
    shown = label if len(label) <= _LABEL_CHARACTERS else f"{label[: _LABEL_CHARACTERS - 1]}…"
    centre = x + _WIDTH // 2
    dashes = ' stroke-dasharray="4 3"' if is_deleted(node) else ""
    return (
        f"<g><title>{html.escape(f'{label} ({node.type}, {kind.name} {node.id})')}</title>"
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="{2 if kind is EXECUTION else 16}" '
        f'fill="{_fill(kind, node)}" stroke="#555"{dashes}/>'
        f'<text x="{centre}" y="{y + 19}" text-anchor="middle">{html.escape(shown)}</text>'
        f'<text x="{centre}" y="{y + 34}" text-anchor="middle" fill="#666" font-size="10">'
        f"{html.escape(node.type)}</text>"
        "</g>"
    )


def _fill(kind: Kind, node: Node) -> str:
    if is_deleted(node):
        return _DELETED
    if isinstance(node, mlpb.Execution):
        return _COLOURS.get(mlpb.Execution.State.Name(node.last_known_state), "#dcebfb")
    return "#e5f4e3"


def _key(kind: Kind, node_id: int) -> str:
    return f"{kind.name[0]}{node_id}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", " ").replace("\0", " ").replace("\n", "\\n")
    return f'"{escaped}"'
