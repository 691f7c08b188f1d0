"""The custom properties that are ours: clients see them and filter by them, and do not change them."""

from mlmesh_metadata.kinds import Node

BAD_DATA = "mlmesh_bad_data"
"""On what was built on bad data: why that is bad. See marks.py."""
DELETED = "mlmesh_deleted"
"""On a tombstone: when it was deleted, in ISO 8601. See tombstones.py."""


def is_deleted(node: Node) -> bool:
    """Tells whether a node that was read is a tombstone."""
    return DELETED in node.custom_properties


def keep_reserved(stored: Node | None, wanted: Node) -> Node:
    """Gives a node that a client puts, with our properties as they are stored, whatever the client says of them.

    Args:
        stored: As it is; None: it is new.
        wanted: As the client wants it; not changed.
    """
    for name in (BAD_DATA, DELETED):
        known = stored.custom_properties.get(name) if stored is not None else None
        given = wanted.custom_properties.get(name)
        if known == given:
            continue
        kept = type(wanted)()
        kept.CopyFrom(wanted)  # type: ignore[arg-type]
        if known is None:
            del kept.custom_properties[name]
        else:
            kept.custom_properties[name].CopyFrom(known)
        wanted = kept
    return wanted
