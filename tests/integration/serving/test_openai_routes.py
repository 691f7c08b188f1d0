"""OpenAI's routes in front of a real server that streams: nothing is held back, and who goes away is told on."""

import asyncio
import contextlib
import json

import aiohttp
import orjson
import pytest
from mlmesh_kit.access import AccessChecker, LocalReviewer
from mlmesh_kit.config import ServiceSettings
from mlmesh_kit.errors import NotFound
from mlmesh_kit.http import create_app
from mlmesh_kit.interceptor import Surroundings
from mlmesh_kit.telemetry import configure_tracing
from mlmesh_serving.datatypes import Limits
from mlmesh_serving.manifest.stages import parse_remote
from mlmesh_serving.remote.backend import RemoteBackend
from mlmesh_serving.remote.connections import Connections
from mlmesh_serving.remote.hosts import LOOPBACK, parse_hosts
from mlmesh_serving.remote.model import remote_model
from mlmesh_serving.routes.openai import openai_routes
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from support.oip_servers import http_server, tcp_server

DONE = b"data: [DONE]\n\n"


class Llm:
    """A server with OpenAI's routes; a stream goes on only when it is told to."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], dict]] = []
        self.go = asyncio.Event()
        self.left = asyncio.Event()
        self.asked = asyncio.Event()
        self.app = Starlette(routes=[Route("/llm/v1/{what:path}", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        self.seen.append((request.path_params["what"], dict(request.headers), body))
        self.asked.set()
        if body.get("fail"):
            return JSONResponse({"error": {"message": "too long", "type": "invalid_request_error"}}, 400)
        if body.get("slow"):
            while not await request.is_disconnected():  # noqa: ASYNC110 - Starlette has no event for it
                await asyncio.sleep(0.01)
            self.left.set()
            return Response()
        if not body.get("stream"):
            return JSONResponse({"object": "chat.completion", "model": body["model"]})
        return StreamingResponse(self.tokens(), media_type="text/event-stream")

    async def tokens(self):
        try:
            for number in range(3):
                yield b"data: %s\n\n" % json.dumps({"choices": [{"delta": {"content": str(number)}}]}).encode()
                await self.go.wait()
                self.go.clear()
            yield DONE
        finally:
            self.left.set()


@contextlib.asynccontextmanager
async def router(url: str, **remote):
    """Gives the URL of a service with the routes, and the backend behind them."""
    hosts = parse_hosts(LOOPBACK)
    connections = Connections(hosts, 1 << 20, credentials={url.split("/")[2]: {"authorization": "Bearer key"}})
    async with connections.running():
        model = remote_model(parse_remote({"url": url, "openai": "/v1", **remote}, "remote"), hosts)
        backend = RemoteBackend(model, "predictor", connections, Limits(1000, 8))

        def find(namespace: str, name: str) -> RemoteBackend:
            if (namespace, name) != ("default", "chat"):
                raise NotFound(message=f"model {name!r} not found")
            return backend

        settings = ServiceSettings(local_user="me", default_namespace="default")
        checker = AccessChecker(LocalReviewer("me", "default"))
        around = Surroundings(settings, checker, configure_tracing("test"), asyncio.get_running_loop())
        app = create_app(openai_routes(find, lambda namespace: ["chat"]), around, lambda: True)
        async with http_server(app) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            yield client, backend
        await backend.close(0)


def test_answers_pass_through() -> None:
    async def run() -> None:
        llm = Llm()
        async with http_server(llm.app) as port, router(f"http://127.0.0.1:{port}/llm") as (client, backend):
            for prefix in ("/openai", ""):
                for what in ("chat/completions", "completions", "embeddings"):
                    async with client.post(f"{prefix}/v1/{what}", json={"model": "chat", "x": 1.5}) as answer:
                        assert answer.status == 200 and (await answer.json())["model"] == "chat"
                        assert answer.content_type == "application/json"
                    route, headers, body = llm.seen[-1]
                    assert route == what and body == {"model": "chat", "x": 1.5}
                    assert headers["authorization"] == "Bearer key"
            async with client.post("/openai/v1/embeddings", json={"model": "default.chat", "fail": True}) as answer:
                assert answer.status == 400 and (await answer.json())["error"]["message"] == "too long"
            assert llm.seen[-1][2]["model"] == "chat"  # without our namespace
            async with client.get("/openai/v1/models") as answer:
                assert [model["id"] for model in (await answer.json())["data"]] == ["chat"]
            assert backend.in_flight == 0

    asyncio.run(run())


def test_a_stream_is_handed_on_as_it_comes() -> None:
    async def run() -> None:
        llm = Llm()
        async with (
            http_server(llm.app) as port,
            router(f"http://127.0.0.1:{port}/llm", model="llama-3") as (client, backend),
            client.post("/openai/v1/chat/completions", json={"model": "chat", "stream": True}) as answer,
        ):
            assert answer.status == 200 and answer.content_type == "text/event-stream"
            assert llm.seen[0][2] == {"model": "llama-3", "stream": True}
            for number in range(3):  # each is here before the server is let go on to the next
                event = await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 10)
                assert json.loads(event[6:])["choices"][0]["delta"]["content"] == str(number)
                assert backend.in_flight == 1
                llm.go.set()
            assert await asyncio.wait_for(answer.content.read(), 10) == DONE

    asyncio.run(run())


@pytest.mark.parametrize("body", [{"stream": True}, {"slow": True}])
def test_a_client_that_goes_away_is_told_on(body: dict) -> None:
    """In the middle of a stream, and before there is an answer at all."""

    async def run() -> None:
        llm = Llm()
        async with http_server(llm.app) as port, router(f"http://127.0.0.1:{port}/llm") as (client, backend):
            asking = asyncio.ensure_future(client.post("/v1/chat/completions", json={"model": "chat", **body}))
            await asyncio.wait_for(llm.asked.wait(), 10)
            if body.get("stream"):
                answer = await asking
                await answer.content.readuntil(b"\n\n")
                answer.close()
            else:
                asking.cancel()
            await asyncio.wait_for(llm.left.wait(), 10)
            async with asyncio.timeout(10):
                while backend.in_flight:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_stream_that_breaks_off_says_so() -> None:
    async def run() -> None:
        async def breaking(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            kind = b"text/event-stream" if streams else b"application/json"
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % kind)
            writer.write(b"9\r\ndata: 1\n\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.05 if streams else 0)

        async with tcp_server(breaking) as port, router(f"http://127.0.0.1:{port}/llm") as (client, _):
            streams = True
            async with client.post("/v1/completions", json={"model": "chat"}) as answer:
                events = (await answer.read()).split(b"\n\n")
            assert events[0] == b"data: 1"
            assert json.loads(events[1][6:])["error"]["message"] == (
                "the predictor hung up before its answer was whole"
            )
            streams = False
            with pytest.raises(aiohttp.ClientPayloadError):
                async with client.post("/v1/completions", json={"model": "chat"}) as answer:
                    await answer.read()

    asyncio.run(run())


def test_what_cannot_be_asked_is_refused() -> None:
    async def run() -> None:
        async with router("http://127.0.0.1:1/llm") as (client, _):
            for content, status, says in (
                (b"{", 400, "body: must be JSON"),
                (b"[]", 400, "body: must be a JSON object"),
                (b"{}", 400, "model: must be the name"),
                (b'{"model": 3}', 400, "model: must be the name"),
                (b'{"model": "other"}', 404, "model 'other' not found"),
                (b'{"model": "chat"}', 503, "the predictor at 127.0.0.1:1 cannot be reached"),
            ):
                async with client.post("/openai/v1/chat/completions", data=content) as answer:
                    assert answer.status == status and says in (await answer.json())["error"]
            nobody = {"kubeflow-userid": "stranger"}
            async with client.post("/v1/completions", json={"model": "chat"}, headers=nobody) as answer:
                assert answer.status == 403
        async with (
            router("http://127.0.0.1:1/llm", openai=False) as (client, _),
            client.post("/v1/completions", json={"model": "chat"}) as answer,
        ):
            assert answer.status == 400 and "has no OpenAI routes" in (await answer.json())["error"]

    asyncio.run(run())
