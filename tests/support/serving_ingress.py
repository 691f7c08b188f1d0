"""The REST paths of ServingService as the ingress gives them, without an ingress: for tests of the commands."""

import asyncio
import json
import threading
from collections.abc import Coroutine
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from google.protobuf import json_format
from mlmesh_kit.errors import HTTP_STATUS, NotFound, ServiceError
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as pb
from support.serving_world import ServingWorld

_PREFIX = "/serving/v1/"
_VERBS = {"setTraffic": "SetTraffic", "promote": "Promote", "rollback": "Rollback"}
_OF_SERVICE = {"GET": "GetInferenceService", "PATCH": "UpdateInferenceService", "DELETE": "DeleteInferenceService"}


class ServingIngress:
    """Serves a `ServingWorld` by HTTP. A context manager.

    Args:
        folder: For its database.

    Attributes:
        world: Behind it; touch it by `run` alone.
        url: Of the server.
        asked: Method, path and body of each request.
    """

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        ingress = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status, answer = ingress.answer(self.command, self.path, json.loads(body or b"{}"))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "ServingIngress":
        serve = partial(self._server.serve_forever, poll_interval=0.02)
        for target in (self._loop.run_forever, serve):
            threading.Thread(target=target, daemon=True).start()
        self.world = self.run(self._made())
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _made(self) -> ServingWorld:
        return ServingWorld(self._folder, "default")

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Runs something on the world's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        """Calls the RPC that a path is transcoded to."""
        url = urlsplit(target)
        self.asked.append((method, url.path, body))
        try:
            rpc, fields = _rpc(method, unquote(url.path))
            fields |= {key: values[0] for key, values in parse_qs(url.query).items()}
            request = json_format.ParseDict({**body, **fields}, getattr(pb, f"{rpc}Request")())
            answer = self.run(getattr(self.world.servicer, rpc)(request, None))
        except ServiceError as error:
            return HTTP_STATUS[error.code], {"code": error.code.value[0], "message": error.message}
        return 200, json_format.MessageToDict(answer, preserving_proto_field_name=True)


def _rpc(method: str, path: str) -> tuple[str, dict[str, Any]]:
    name, _, verb = path.removeprefix(_PREFIX).partition(":")
    parts = name.split("/")
    if verb:
        return _VERBS[verb], {"name": name}
    if parts[-1] == "inferenceservices":
        return ("CreateInferenceService" if method == "POST" else "ListInferenceServices"), {
            "parent": "/".join(parts[:2])
        }
    if parts[-1] == "revisions":
        return "ListRevisions", {"parent": "/".join(parts[:4])}
    if len(parts) == 6:
        return "GetRevision", {"name": name}
    if len(parts) == 4:
        return _OF_SERVICE[method], {"name": name}
    raise NotFound(message=f"no path {path}")
