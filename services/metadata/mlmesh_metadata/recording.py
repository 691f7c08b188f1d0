"""Contexts by who made them, of which change, in which project and experiment."""

import re
from dataclasses import dataclass
from typing import Any

from mlmesh_kit.errors import InvalidArgument
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.kinds import CONTEXT, Node
from mlmesh_metadata.links import put_membership
from mlmesh_metadata.nodes import put_node
from mlmesh_metadata.store import Session
from mlmesh_metadata.typing_rules import put_type

OWNER, COMMIT, PROJECT, EXPERIMENT = "owner", "git_commit", "project", "experiment"
"""The custom properties in which a context keeps them."""
_COMMIT_BEGINNING = re.compile(r"[0-9a-fA-F]{4,39}")


@dataclass(frozen=True)
class Record:
    """A context to record.

    Args:
        type_name: Of its type, which is made where there is none.
        name: Unique within the type.
        facts: Owner, commit, project and experiment by the names of their properties; those that are said.
        properties: More custom properties: text, numbers, true and false.
        artifact_ids: To put into it.
        execution_ids: To put into it.
    """

    type_name: str
    name: str
    facts: dict[str, str]
    properties: dict[str, Any]
    artifact_ids: list[int]
    execution_ids: list[int]


def record_context(session: Session, record: Record, now: int) -> Node:
    """Makes a context, or brings it up to date: what is not said stays as it was. Twice is once.

    Args:
        session: Of a transaction that writes.
        record: What to record.
        now: Milliseconds since the epoch.

    Raises:
        InvalidArgument: No type or name, a property that is neither text nor number nor truth value, unknown members.
    """
    for field in ("type_name", "name"):
        if not getattr(record, field):
            raise InvalidArgument("is needed", field=field.removesuffix("_name") if field == "type_name" else field)
    found = session.types.find(CONTEXT, record.type_name)
    type_id = (
        found.id
        if found
        else put_type(
            session,
            CONTEXT,
            mlpb.ContextType(name=record.type_name),
            can_add_fields=False,
            can_omit_fields=True,
            field="type",
        )
    )
    context = session.nodes.by_name(CONTEXT, type_id, record.name) or mlpb.Context(type_id=type_id, name=record.name)
    for name, value in record.properties.items():
        _set(context.custom_properties[name], value, f"properties[{name!r}]")
    for name, value in record.facts.items():
        context.custom_properties[name].string_value = value
    context_id = put_node(session, CONTEXT, context, now=now, field="context")
    for index, artifact_id in enumerate(record.artifact_ids):
        put_membership(
            session, mlpb.Attribution(artifact_id=artifact_id, context_id=context_id), f"artifact_ids[{index}]"
        )
    for index, execution_id in enumerate(record.execution_ids):
        put_membership(
            session, mlpb.Association(execution_id=execution_id, context_id=context_id), f"execution_ids[{index}]"
        )
    return session.nodes.by_ids(CONTEXT, [context_id])[0]


def contexts_filter(type_name: str, facts: dict[str, str]) -> str:
    """Gives the filter_query for contexts of a type ("": any) with these facts; a commit may be its beginning."""
    conditions = [f"type = {_literal(type_name)}"] if type_name else []
    for name, value in facts.items():
        begins = name == COMMIT and _COMMIT_BEGINNING.fullmatch(value)
        condition = f"LIKE {_literal(f'{value}%')}" if begins else f"= {_literal(value)}"
        conditions.append(f"custom_properties.{name}.string_value {condition}")
    return " AND ".join(conditions)


def _literal(text: str) -> str:
    escaped = "".join(c if c.isprintable() and c not in '\\"' else f"\\U{ord(c):08x}" if ord(c) else "" for c in text)
    return f'"{escaped}"'


def _set(value: mlpb.Value, given: Any, field: str) -> None:
    if isinstance(given, bool):
        value.bool_value = given
    elif isinstance(given, float) and given.is_integer() and abs(given) < 2**53:
        value.int_value = int(given)
    elif isinstance(given, int | float):
        value.double_value = given
    elif isinstance(given, str):
        value.string_value = given
    else:
        raise InvalidArgument("must be text, a number, true or false", field=field)
