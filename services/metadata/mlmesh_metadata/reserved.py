"""The custom property that is ours: clients see it and filter by it, and do not change it."""

from mlmesh_metadata.kinds import Node

BAD_DATA = "mlmesh_bad_data"
"""On what was built on bad data: why that is bad. See marks.py."""


def keep_reserved(stored: Node | None, wanted: Node) -> Node:
    """Gives a node that a client puts, with our property as it is stored, whatever the client says of it.

    Args:
        stored: As it is; None: it is new.
        wanted: As the client wants it; not changed.
    """
    known = stored.custom_properties.get(BAD_DATA) if stored is not None else None
    given = wanted.custom_properties.get(BAD_DATA)
    if known == given:
        return wanted
    kept = type(wanted)()
    kept.CopyFrom(wanted)  # type: ignore[arg-type]
    if known is None:
        del kept.custom_properties[BAD_DATA]
    else:
        kept.custom_properties[BAD_DATA].CopyFrom(known)
    return kept
