"""The RPCs that are there three times: for artifacts, for executions and for contexts."""

from collections.abc import Callable, Sequence
from typing import Any

from mlmesh_kit.errors import NotFound
from mlmesh_protos.ml_metadata import metadata_store_service_pb2 as service

from mlmesh_metadata.checks import check_external_ids
from mlmesh_metadata.clock import now_ms
from mlmesh_metadata.kinds import CONTEXT, Kind
from mlmesh_metadata.listing import Page, list_page
from mlmesh_metadata.nodes import put_node
from mlmesh_metadata.servicers.requests import check_counts, some
from mlmesh_metadata.store import Session, Stamp, Store
from mlmesh_metadata.typing_rules import put_type
from mlmesh_metadata.wire import messages

Handler = Callable[[Any, Any], Any]
_QUICK_ITEMS = 25


class KindRpcs:
    """RPCs on one kind of node. Their messages differ in names alone: `artifacts`, `executions`, `contexts`.

    Args:
        store: Where everything is.
        kind: Of the nodes.
        max_items: Nodes or ids in one request.
    """

    def __init__(self, store: Store, kind: Kind, max_items: int) -> None:
        self._store = store
        self._kind = kind
        self._max_items = max_items
        self._name = kind.name
        self._title = kind.name.capitalize()

    def handlers(self) -> dict[str, Handler]:
        """Gives the handlers by the names of their RPCs."""
        title = self._title
        return {
            f"Put{title}Type": self.put_type,
            f"Get{title}Type": self.get_type,
            f"Get{title}Types": self.get_types,
            f"Get{title}TypesByID": self.get_types_by_id,
            f"Get{title}TypesByExternalIds": self.get_types_by_external_ids,
            f"Put{title}s": self.put_nodes,
            f"Get{title}s": self.get_nodes,
            f"Get{title}sByID": self.get_nodes_by_id,
            f"Get{title}sByType": self.get_nodes_by_type,
            f"Get{title}ByTypeAndName": self.get_node_by_type_and_name,
            f"Get{title}sByExternalIds": self.get_nodes_by_external_ids,
        }

    def member_handlers(self) -> dict[str, Handler]:
        """Gives the handlers that artifacts and executions have as members of contexts."""
        return {
            f"Get{self._title}sByContext": self.get_nodes_by_context,
            f"GetContextsBy{self._title}": self.get_contexts_by_node,
        }

    def quick(self) -> dict[str, Callable[[Any], bool]]:
        """Says which requests are answered by a few rows that an index finds, by the names of their RPCs."""
        title = self._title
        return {
            f"Get{title}Type": lambda _: True,
            f"Get{title}sByID": lambda request: len(getattr(request, f"{self._name}_ids")) <= _QUICK_ITEMS,
            f"Get{title}sByType": _is_quick_page,
            f"Get{title}s": _is_quick_page,
            f"Get{title}ByTypeAndName": lambda _: True,
        }

    def put_type(self, request: Any, _: Any) -> Any:
        """PutArtifactType, ..."""
        field = f"{self._name}_type"
        type_id = self._store.write(
            lambda session: put_type(
                session,
                self._kind,
                getattr(request, field),
                can_add_fields=request.can_add_fields,
                can_omit_fields=request.can_omit_fields,
                field=field,
            )
        )
        return self._response(f"Put{self._title}Type", type_id=type_id)

    def get_type(self, request: Any, _: Any) -> Any:
        """GetArtifactType, ..."""
        with self._store.read() as session:
            found = session.types.find(self._kind, request.type_name, request.type_version)
        if found is None:
            said = f"name: {request.type_name}"
            said += f", version: {request.type_version}" if request.type_version else ""
            raise NotFound(f"{self._name} type", request.type_name, message=f"No {self._name} type found for {said}")
        return self._response(f"Get{self._title}Type", **{f"{self._name}_type": found})

    def get_types(self, _: Any, __: Any) -> Any:
        """GetArtifactTypes, ..."""
        with self._store.read() as session:
            return self._types("Types", session.types.all(self._kind))

    def get_types_by_id(self, request: Any, _: Any) -> Any:
        """GetArtifactTypesByID, ..."""
        check_counts(request, self._max_items, "type_ids")
        with self._store.read() as session:
            return self._types("TypesByID", [*session.types.by_ids(self._kind, request.type_ids).values()])

    def get_types_by_external_ids(self, request: Any, _: Any) -> Any:
        """GetArtifactTypesByExternalIds, ..."""
        check_counts(request, self._max_items, "external_ids")
        check_external_ids(request.external_ids)
        with self._store.read() as session:
            found = session.types.by_external_ids(self._kind, request.external_ids)
        return self._types("TypesByExternalIds", some(found, request.external_ids, f"{self._name} type"))

    def put_nodes(self, request: Any, _: Any) -> Any:
        """PutArtifacts, ..."""
        field = f"{self._name}s"
        check_counts(request, self._max_items, field)
        now = now_ms()
        # Of the three requests only that of artifacts has options.
        options = getattr(request, "options", None)

        nodes = getattr(request, field)
        new = sum(not node.HasField("id") for node in nodes)

        def change(session: Session) -> list[int]:
            with session.nodes.together(self._kind, new):
                return [
                    put_node(
                        session,
                        self._kind,
                        node,
                        now=now,
                        field=f"{field}[{index}]",
                        mask=request.update_mask.paths,
                        abort_if_changed=bool(options and options.abort_if_latest_updated_time_changed),
                    )
                    for index, node in enumerate(nodes)
                ]

        return self._response(f"Put{self._title}s", **{f"{self._name}_ids": self._store.write(change)})

    def get_nodes(self, request: Any, _: Any) -> Any:
        """GetArtifacts, ..."""
        with self._store.read() as session:
            return self._page(session, "", list_page(session, self._kind, _options(request)))

    def get_nodes_by_id(self, request: Any, _: Any) -> Any:
        """GetArtifactsByID, ..."""
        field = f"{self._name}_ids"
        check_counts(request, self._max_items, field)
        more: dict[str, Any] = {}
        with self._store.read() as session:
            stamps = session.nodes.stamps(self._kind, getattr(request, field))
            if getattr(request, "populate_artifact_types", False):
                types = session.types.by_ids(self._kind, {stamp.type_id for stamp in stamps})
                more["artifact_types"] = [*types.values()]
            return self._nodes(session, "ByID", stamps, **more)

    def get_nodes_by_type(self, request: Any, _: Any) -> Any:
        """GetArtifactsByType, ..."""
        with self._store.read() as session:
            found = session.types.find(self._kind, request.type_name, request.type_version)
            page = list_page(session, self._kind, _options(request), type_id=found.id) if found else Page([])
            return self._page(session, "ByType", page)

    def get_node_by_type_and_name(self, request: Any, _: Any) -> Any:
        """GetArtifactByTypeAndName, ..."""
        name = getattr(request, f"{self._name}_name")
        with self._store.read() as session:
            found = session.types.find(self._kind, request.type_name, request.type_version)
            node = session.nodes.by_name(self._kind, found.id, name) if found else None
        return self._response(f"Get{self._title}ByTypeAndName", **{self._name: node})

    def get_nodes_by_external_ids(self, request: Any, _: Any) -> Any:
        """GetArtifactsByExternalIds, ..."""
        check_counts(request, self._max_items, "external_ids")
        check_external_ids(request.external_ids)
        with self._store.read() as session:
            found = session.nodes.by_external_ids(self._kind, request.external_ids)
        found = some(found, request.external_ids, self._name)
        return self._response(f"Get{self._title}sByExternalIds", **{f"{self._name}s": found})

    def get_nodes_by_context(self, request: Any, _: Any) -> Any:
        """GetArtifactsByContext, GetExecutionsByContext."""
        with self._store.read() as session:
            page = list_page(session, self._kind, _options(request), context_id=request.context_id)
            return self._page(session, "ByContext", page)

    def get_contexts_by_node(self, request: Any, _: Any) -> Any:
        """GetContextsByArtifact, GetContextsByExecution."""
        field = f"{self._name}_id"
        node_id = getattr(request, field)
        with self._store.read() as session:
            ids = [context_id for _, context_id in session.links.memberships(self._kind, [node_id])]
            found = session.nodes.by_ids(CONTEXT, ids)
        if not found:
            raise NotFound("context", node_id, message=f"No contexts found for {field}: {node_id}")
        return self._response(f"GetContextsBy{self._title}", contexts=found)

    def _types(self, rpc: str, found: list[Any]) -> Any:
        return self._response(f"Get{self._title}{rpc}", **{f"{self._name}_types": found})

    def _page(self, session: Session, rpc: str, page: Page) -> bytes:
        return self._nodes(session, rpc, page.stamps, next_page_token=page.next_page_token or None)

    def _nodes(self, session: Session, rpc: str, stamps: Sequence[Stamp], **more: Any) -> bytes:
        """Answers with nodes, encoded as they may be at hand."""
        message = getattr(service, f"Get{self._title}s{rpc}Response")
        encoded = messages(message, f"{self._name}s", session.nodes.encoded(self._kind, stamps))
        rest: bytes = message(**more).SerializeToString()
        return encoded + rest

    @staticmethod
    def _response(rpc: str, **fields: Any) -> Any:
        return getattr(service, f"{rpc}Response")(**fields)


def _is_quick_page(request: Any) -> bool:
    options = _options(request)
    return options is not None and options.max_result_size <= _QUICK_ITEMS and not options.filter_query


def _options(request: Any) -> Any:
    return request.options if request.HasField("options") else None
