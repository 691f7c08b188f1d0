"""ListOperationOptions: sizes, orders and page tokens of lists."""

from dataclasses import dataclass

from mlmesh_kit.errors import InvalidArgument, ResourceExhausted
from mlmesh_kit.paging import decode_page_token, encode_page_token
from mlmesh_protos.ml_metadata import metadata_store_pb2 as mlpb

from mlmesh_metadata.filtering import parse_filter
from mlmesh_metadata.kinds import Kind, Node
from mlmesh_metadata.store import Session, Stamp
from mlmesh_metadata.store.listing import Order

MAX_PAGE = 100
MAX_UNPAGED = 100_000
"""Nodes in the answer to a request without options, which asks for all there are."""
_INT64 = 2**63
_COLUMNS = {
    mlpb.ListOperationOptions.OrderByField.CREATE_TIME: "create_time_since_epoch",
    mlpb.ListOperationOptions.OrderByField.LAST_UPDATE_TIME: "last_update_time_since_epoch",
    mlpb.ListOperationOptions.OrderByField.ID: "id",
}


@dataclass(frozen=True)
class Page:
    """Part of a list.

    Args:
        stamps: Which nodes, in order.
        next_page_token: "" at the end.
    """

    stamps: list[Stamp]
    next_page_token: str = ""


def list_nodes(
    session: Session,
    kind: Kind,
    options: mlpb.ListOperationOptions | None,
    *,
    type_id: int | None = None,
    context_id: int | None = None,
) -> tuple[list[Node], str]:
    """Gives the nodes of a page, and the token of the next ("" at the end). See `list_page`."""
    page = list_page(session, kind, options, type_id=type_id, context_id=context_id)
    return session.nodes.in_order(kind, [stamp.id for stamp in page.stamps]), page.next_page_token


def list_page(
    session: Session,
    kind: Kind,
    options: mlpb.ListOperationOptions | None,
    *,
    type_id: int | None = None,
    context_id: int | None = None,
    with_deleted: bool = True,
    where: tuple[str, str] = ("options.filter_query", "options.next_page_token"),
) -> Page:
    """Says which nodes are on a page.

    Args:
        session: Of a transaction.
        kind: Of the nodes.
        options: As the client wrote them; None: all nodes by id, in one page.
        type_id: Only of this type.
        context_id: Only members of this context.
        with_deleted: Also tombstones; without options they are always there.
        where: The request's fields with the filter_query and with the page token.

    Raises:
        InvalidArgument: A size that is not positive, an unknown order, a token that is not ours.
        InvalidArgument: A filter_query that is no condition on such nodes.
        ResourceExhausted: Without options: more than 100,000 nodes.
    """
    if options is None:
        found = session.listing.page(kind, Order("id", True), MAX_UNPAGED + 1, type_id=type_id, context_id=context_id)
        if len(found) > MAX_UNPAGED:
            raise ResourceExhausted(
                f"there are more than {MAX_UNPAGED} {kind.name}s: read them in pages, with options.max_result_size"
            )
        return Page([stamp for _, stamp in found])
    wanted = parse_filter(options.filter_query, kind, where[0]) if options.filter_query else None
    if options.max_result_size <= 0:
        message = (
            f"is required to be greater than 0 and less than or equal to {MAX_PAGE}, not {options.max_result_size}"
        )
        raise InvalidArgument(message, field="options.max_result_size")
    size = min(options.max_result_size, MAX_PAGE)
    if options.order_by_field.field not in _COLUMNS:
        raise InvalidArgument("must be CREATE_TIME, LAST_UPDATE_TIME or ID", field="options.order_by_field.field")
    order = Order(_COLUMNS[options.order_by_field.field], options.order_by_field.is_asc)
    query = [kind.name, order.column, order.ascending, type_id, context_id, options.filter_query]
    if not with_deleted:
        query.append("alive")
    after = _position(options.next_page_token, query, where[1])
    found = session.listing.page(
        kind,
        order,
        size + 1,
        after,
        type_id=type_id,
        context_id=context_id,
        wanted=wanted,
        with_deleted=with_deleted,
    )
    token = ""
    if len(found) > size:
        value, last = found[size - 1]
        token = encode_page_token([value, last.id], query)
    return Page([stamp for _, stamp in found[:size]], token)


def _position(token: str, query: list[object], field: str) -> tuple[int, int] | None:
    """Reads a token; a client can make up one whose content is anything."""
    position = decode_page_token(token, query, field=field)
    if position is None and not token:
        return None
    match position:
        case [int(value), int(node_id)] if abs(value) < _INT64 and abs(node_id) < _INT64:
            return value, node_id
    raise InvalidArgument("must be a token from an earlier answer to the same list request", field=field)
