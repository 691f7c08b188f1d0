"""YAML and JSON from users: read safely, within limits, with errors that say where."""

from typing import Any

import yaml

from mlmesh_kit.errors import InvalidArgument

MAX_BYTES = 8 << 20
MAX_DEPTH = 100
MAX_NODES = 500_000
MAX_ALIASES = 1000

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(
    text: str | bytes,
    *,
    field: str = "manifest",
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_nodes: int = MAX_NODES,
) -> Any:
    """Reads one YAML (or JSON) document.

    Args:
        text: The document, UTF-8.
        field: Where the client wrote it; named in errors.
        max_bytes: Largest document.
        max_depth: Deepest nesting.
        max_nodes: Most scalars, lists and maps, aliases counted as often as they are used (so no "billion laughs").

    Raises:
        InvalidArgument: Too large, too deep, not UTF-8, not YAML, a key twice, or more than one document.
    """
    documents = load_yaml_all(text, field=field, max_bytes=max_bytes, max_depth=max_depth, max_nodes=max_nodes)
    if len(documents) != 1:
        raise InvalidArgument(f"must hold one document, got {len(documents)}", field=field)
    return documents[0]


def load_yaml_all(
    text: str | bytes,
    *,
    field: str = "manifest",
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_nodes: int = MAX_NODES,
) -> list[Any]:
    """Reads all documents of a YAML stream; arguments and errors as `load_yaml`."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > max_bytes:
        raise InvalidArgument(f"must be at most {max_bytes} bytes, got {len(data)}", field=field)
    try:
        decoded = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"must be UTF-8 (byte {error.start})", field=field) from error
    try:
        _check_events(decoded, field, max_depth, max_nodes)
        return [document for document in yaml.load_all(decoded, Loader=_UniqueKeys) if document is not None]
    except yaml.MarkedYAMLError as error:
        where = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidArgument(f"not valid YAML{where}: {error.problem or error.context}", field=field) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"not valid YAML: {str(error)[:200]}", field=field) from error


def _check_events(text: str, field: str, max_depth: int, max_nodes: int) -> None:
    """Walks the parser's events, which cost no memory, before anything is built."""
    depth = nodes = aliases = 0
    sizes: dict[str, int] = {}
    open_anchors: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            aliases += 1
            nodes += sizes.get(str(event.anchor), max_nodes + 1)
            if aliases > MAX_ALIASES:
                raise InvalidArgument(f"must use at most {MAX_ALIASES} aliases", field=field)
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            nodes += 1
            open_anchors.append((event.anchor, nodes))
            if depth > max_depth:
                raise InvalidArgument(f"must be nested at most {max_depth} deep", field=field)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            anchor, before = open_anchors.pop()
            if anchor:
                sizes[anchor] = nodes - before + 1
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if nodes > max_nodes:
            raise InvalidArgument(f"must have at most {max_nodes} nodes", field=field)


class _UniqueKeys(_Loader):  # type: ignore[misc]
    """A key written twice is a mistake that plain YAML loaders hide."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            try:
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} twice", key_node.start_mark)
                seen.add(key)
            except TypeError as error:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a scalar", key_node.start_mark
                ) from error
        return super().construct_mapping(node, deep=deep)


def with_integers(value: Any) -> Any:
    """Copies what came as JSON or as a protobuf Struct, in which every number is a double: whole numbers as such."""
    if isinstance(value, dict):
        return {key: with_integers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [with_integers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
