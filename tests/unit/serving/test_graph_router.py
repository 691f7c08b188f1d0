"""Graphs, run: what goes to which step, and what the client gets. Services answer in this process."""

import asyncio
import contextlib
from collections import Counter

import orjson
import pytest
from mlmesh_kit.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.graph.manifest import parse_graph
from mlmesh_serving.graph.payload import Payload
from mlmesh_serving.graph.router import HOPS_HEADER, GraphRouter, Outcome
from mlmesh_serving.remote.connections import Connections
from mlmesh_serving.remote.headers import HeaderRules
from mlmesh_serving.remote.hosts import LOOPBACK, parse_hosts
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from support.oip_servers import http_server

REQUEST = {"instances": [[1, 2]], "kind": "cat"}


class Services:
    """InferenceServices that answer what they are told to.

    Attributes:
        asked: What came: service, request.
    """

    def __init__(self, **answers) -> None:
        self._answers = answers
        self.asked: list[tuple[str, WireRequest]] = []

    async def ask(self, namespace: str, name: str, request: WireRequest) -> WireAnswer:
        assert namespace == "ns"
        self.asked.append((name, request))
        answer = self._answers.get(name)
        if answer is None:
            raise NotFound(message=f"model {name!r} not found")
        if callable(answer):
            answer = await answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, WireAnswer) else WireAnswer(orjson.dumps(answer))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.asked]

    def given(self, name: str):
        """What a service was asked last."""
        return next(orjson.loads(request.body) for asked, request in reversed(self.asked) if asked == name)


def node(kind: str, *steps: dict) -> dict:
    return {"routerType": kind, "steps": list(steps)}


async def infer(
    nodes: dict,
    services: Services,
    body: object = REQUEST,
    *,
    headers=(),
    deadline=None,
    patterns=(),
    max_bytes=1 << 20,
    draw=None,
    json_length=None,
    **spec,
) -> Outcome:
    hosts = parse_hosts(LOOPBACK)
    made = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": "graph"},
        "spec": {"nodes": nodes, **spec},
    }
    connections = Connections(hosts, max_bytes, HeaderRules(patterns))
    async with connections.running():
        router = GraphRouter(services.ask, connections, *([draw] if draw else []))
        payload = Payload(body if isinstance(body, bytes) else orjson.dumps(body), json_length)
        return await router.infer(parse_graph(made, hosts), "ns", payload, dict(headers), deadline)


def run(nodes: dict, services: Services, body: object = REQUEST, **options) -> tuple[int, object]:
    """Runs a graph; gives status and JSON."""
    outcome = asyncio.run(infer(nodes, services, body, **options))
    return outcome.status, orjson.loads(outcome.payload.body)


def test_a_sequence_hands_on_the_request_or_the_response() -> None:
    services = Services(a={"predictions": ["dog"], "instances": [7]}, b={"instances": [8]}, c={"predictions": [3]})
    steps = ({"serviceName": "a"}, {"serviceName": "b", "data": "$response"}, {"serviceName": "c", "data": "$request"})
    assert run({"root": node("Sequence", *steps)}, services) == (200, {"predictions": [3]})
    assert services.names == ["a", "b", "c"]
    assert services.given("a") == REQUEST == services.given("c")
    assert services.given("b") == {"predictions": ["dog"], "instances": [7]}
    assert {request.door for _, request in services.asked} == {Door.REST_V1}


def test_predictions_become_instances_where_asked() -> None:
    services = Services(a={"predictions": [[5]], "x": 1}, b={"predictions": [6]})
    steps = (
        {"serviceName": "a"},
        {"serviceName": "b", "data": "$response", "mapPredictionsToInstances": True},
    )
    assert run({"root": node("Sequence", *steps)}, services)[1] == {"predictions": [6]}
    assert services.given("b") == {"instances": [[5]], "x": 1}


def test_the_condition_of_a_step_ends_a_sequence() -> None:
    steps = ({"serviceName": "a"}, {"serviceName": "b", "condition": '[@this].#(predictions.0=="dog")'})
    for animal, status, answer in (("dog", 200, {"breed": "beagle"}), ("cat", 200, {"predictions": ["cat"]})):
        services = Services(a={"predictions": [animal]}, b={"breed": "beagle"})
        assert run({"root": node("Sequence", *steps)}, services) == (status, answer)
        assert services.names == (["a", "b"] if animal == "dog" else ["a"])


def test_a_switch_takes_the_first_that_holds() -> None:
    steps = (
        {"serviceName": "dogs", "condition": "[@this].#(kind==dog)"},
        {"serviceName": "cats", "condition": "[@this].#(kind==cat)"},
        {"serviceName": "any", "condition": "kind"},
    )
    for kind, name in (("dog", "dogs"), ("cat", "cats"), ("eel", "any")):
        services = Services(**{name: {"predictions": [name]}})
        assert run({"root": node("Switch", *steps)}, services, {**REQUEST, "kind": kind}) == (
            200,
            {"predictions": [name]},
        )
    with pytest.raises(NotFound, match="no condition of the Switch holds"):
        run({"root": node("Switch", *steps)}, Services(), {"instances": []})
    with pytest.raises(InvalidArgument, match="body: must be JSON"):
        run({"root": node("Switch", *steps)}, Services(), b"{")


def test_a_splitter_draws_by_weight() -> None:
    steps = (
        {"serviceName": "a", "weight": 20},
        {"serviceName": "never", "weight": 0},
        {"serviceName": "b", "weight": 80},
    )
    seen = Counter[str]()
    for number in range(100):
        services = Services(a={}, b={})
        run({"root": node("Splitter", *steps)}, services, draw=lambda n=number: n / 100)
        seen.update(services.names)
    assert seen == {"a": 20, "b": 80}


def test_an_ensemble_asks_all_at_once_and_joins_their_answers() -> None:
    waiting = asyncio.Barrier(2)

    async def together(request: WireRequest) -> dict:
        async with asyncio.timeout(10):
            await waiting.wait()  # each waits until the other has been asked, too
        return {"predictions": [len(request.body)]}

    services = Services(a=together, b=together)
    size = len(orjson.dumps(REQUEST))
    answer = {"first": {"predictions": [size]}, "1": {"predictions": [size]}}
    steps = ({"serviceName": "a", "name": "first"}, {"serviceName": "b"})
    assert run({"root": node("Ensemble", *steps)}, services) == (200, answer)


def test_nodes_are_nested() -> None:
    nodes = {
        "root": node("Sequence", {"serviceName": "a"}, {"nodeName": "both", "data": "$response"}, {"nodeName": "last"}),
        "both": node("Ensemble", {"serviceName": "b", "name": "b"}, {"nodeName": "last", "name": "l"}),
        "last": node("Switch", {"serviceName": "c", "condition": "instances"}),
    }
    services = Services(a={"instances": [1]}, b={"predictions": 2}, c={"predictions": 3})
    assert run(nodes, services) == (200, {"predictions": 3})
    assert services.given("b") == {"instances": [1]} and sorted(services.names) == ["a", "b", "c", "c"]


def failing(dependency: str | None) -> dict:
    return {"serviceName": "bad", **({"dependency": dependency} if dependency else {})}


@pytest.mark.parametrize("dependency", [None, "Soft"])
def test_a_soft_step_that_fails_does_not_end_the_graph(dependency: str | None) -> None:
    services = Services(bad=Unavailable("not now"), good={"predictions": [1]})
    steps = (failing(dependency), {"serviceName": "good"})
    assert run({"root": node("Sequence", *steps)}, services) == (200, {"predictions": [1]})
    status, answer = run({"root": node("Ensemble", *steps)}, services)
    assert status == 200 and answer["1"] == {"predictions": [1]}
    assert answer["0"]["error"] == "not now" and answer["0"]["code"] == 14


def test_a_hard_step_that_fails_ends_the_graph_with_its_status() -> None:
    cancelled = asyncio.Event()

    async def slow(request: WireRequest) -> dict:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        return {}

    services = Services(bad=ResourceExhausted("too much"), good={"predictions": [1]}, slow=slow)
    for kind, last in (("Sequence", "good"), ("Ensemble", "slow")):
        status, answer = run({"root": node(kind, failing("Hard"), {"serviceName": last})}, services)
        assert status == 429 and answer["error"] == "too much"
    assert "good" not in services.names and cancelled.is_set()


def test_the_status_of_the_last_step_is_that_of_the_graph() -> None:
    services = Services(bad=InvalidArgument("wrong", field="inputs"), good={"predictions": [1]})
    assert run({"root": node("Sequence", {"serviceName": "good"}, failing(None))}, services)[0] == 400
    assert run({"root": node("Switch", {**failing("Hard"), "condition": "kind"})}, services)[0] == 400
    assert run({"root": node("Sequence", {"serviceName": "nowhere"})}, services)[0] == 404


def test_a_failed_step_is_what_the_next_is_given() -> None:
    services = Services(bad=Unavailable("not now"), good={"predictions": [1]})
    steps = (failing(None), {"serviceName": "good", "data": "$response", "condition": "predictions"})
    status, answer = run({"root": node("Sequence", *steps)}, services)
    assert (status, answer["error"]) == (200, "not now") and services.names == ["bad"]


def test_requests_of_v2_with_binary_tensors_go_on_whole() -> None:
    head = b'{"inputs":[{"name":"x","parameters":{"binary_data_size":2}}]}'

    async def binary(request: WireRequest) -> WireAnswer:
        assert request.json_length is not None and request.door is Door.REST_V2
        return WireAnswer(request.body, request.json_length)

    services = Services(a=binary, b=binary)
    steps = ({"serviceName": "a"}, {"serviceName": "b", "data": "$response", "condition": "inputs.#(name==x)"})
    outcome = asyncio.run(infer({"root": node("Sequence", *steps)}, services, head + b"\0\1", json_length=len(head)))
    assert (outcome.payload.body, outcome.payload.json_length) == (head + b"\0\1", len(head))
    with pytest.raises(InvalidArgument, match="without binary_data"):
        run({"root": node("Ensemble", {"serviceName": "a"})}, services, head + b"\0\1", json_length=len(head))


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b'{"x":1}', b'{"inputs"', b"\xff"])
def test_what_is_no_request_is_a_bad_request(body: bytes) -> None:
    services = Services(a={})
    status, answer = run({"root": node("Sequence", {"serviceName": "a"})}, services, body)
    assert status == 400 and answer["error"].startswith("body: must") and not services.asked


def test_the_deadline_ends_a_graph_and_its_steps() -> None:
    async def slow(request: WireRequest) -> dict:
        await asyncio.sleep(60)
        return {}

    services = Services(slow=slow, good={"predictions": [1]})
    steps = ({"serviceName": "slow"}, {"serviceName": "good"})
    with pytest.raises(DeadlineExceeded, match="graph 'graph' did not answer in time"):
        run({"root": node("Sequence", *steps)}, services, timeout=0.05)
    status, answer = run({"root": node("Ensemble", *steps)}, services, routerTimeouts={"serviceClient": 0.05})
    assert status == 200 and answer["0"]["error"] == "slow did not answer in time"

    async def asked() -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.05
        with pytest.raises(DeadlineExceeded):
            await infer({"root": node("Sequence", *steps)}, services, deadline=until)
        assert services.asked[-1][1].deadline == until

    asyncio.run(asked())


def test_the_answer_of_an_ensemble_is_bounded() -> None:
    services = Services(a={"predictions": "x" * 600}, b={"predictions": "x" * 600})
    with pytest.raises(ResourceExhausted, match="more than the 1000 bytes"):
        run({"root": node("Ensemble", {"serviceName": "a"}, {"serviceName": "b"})}, services, max_bytes=1000)


@contextlib.asynccontextmanager
async def elsewhere():
    """Gives the URL of a server, and what it was asked."""
    seen: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: Request) -> Response:
        seen.append((dict(request.headers), await request.body()))
        what = request.path_params["what"]
        if what == "text":
            return PlainTextResponse("<html>", 200)
        if what == "binary":
            return Response(b"{}\0", headers={"Inference-Header-Content-Length": "2"})
        if what == "lie":
            return Response(b"{}\0", headers={"Inference-Header-Content-Length": "7"})
        return JSONResponse({"said": what}, 200 if what == "ok" else int(what))

    app = Starlette(routes=[Route("/base/{what}", answer, methods=["POST"])])
    async with http_server(app) as port:
        yield f"http://127.0.0.1:{port}/base", seen


def test_services_elsewhere() -> None:
    async def check() -> None:
        services = Services()
        async with elsewhere() as (url, seen):
            nodes = {"root": node("Sequence", {"serviceUrl": f"{url}/ok"})}
            headers = {"x-user": "me", "authorization": "no", HOPS_HEADER: "3"}
            found = await infer(nodes, services, headers=headers, patterns=["^X-"])
            assert (found.status, orjson.loads(found.payload.body)) == (200, {"said": "ok"})
            sent, body = seen[0]
            assert body == orjson.dumps(REQUEST) and sent["content-type"] == "application/json"
            assert sent["x-user"] == "me" and "authorization" not in sent and sent[HOPS_HEADER] == "4"

            for status in ("404", "503"):
                nodes = {"root": node("Sequence", {"serviceUrl": f"{url}/{status}", "dependency": "Hard"})}
                found = await infer(nodes, services)
                assert (found.status, orjson.loads(found.payload.body)) == (int(status), {"said": status})
            nodes = {"root": node("Sequence", {"serviceUrl": f"{url}/binary"})}
            found = await infer(nodes, services)
            assert found.payload.json_length == 2
            nodes = {"root": node("Sequence", {"serviceUrl": f"{url}/lie"})}
            assert (await infer(nodes, services)).status == 500
            nodes = {"root": node("Ensemble", {"serviceUrl": f"{url}/text"})}
            with pytest.raises(Internal, match="step '0' answered what is no JSON"):
                await infer(nodes, services)
            nodes = {"root": node("Sequence", {"serviceUrl": f"{url}/ok"})}
            with pytest.raises(FailedPrecondition, match="calls itself"):
                await infer(nodes, services, headers={HOPS_HEADER: "8"})
        found = await infer(nodes, services)  # nobody listens any more
        assert found.status == 503 and b"cannot be reached" in found.payload.body

    asyncio.run(check())
