"""Remote backends against real servers: what goes on untouched, what is mapped, and servers that misbehave."""

import asyncio
import contextlib
import dataclasses
import datetime
import json

import grpc
import numpy as np
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mlmesh_kit.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Unimplemented,
)
from mlmesh_protos.inference import grpc_service_pb2 as oip
from mlmesh_serving.backend import Door, WireAnswer, WireRequest
from mlmesh_serving.datatypes import Limits
from mlmesh_serving.manifest.stages import parse_remote
from mlmesh_serving.remote.backend import RemoteBackend
from mlmesh_serving.remote.connections import Connections
from mlmesh_serving.remote.headers import HeaderRules
from mlmesh_serving.remote.hosts import LOOPBACK, parse_hosts
from mlmesh_serving.remote.model import remote_model
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from support.oip_servers import echo, grpc_model, http_server, tcp_server, wire

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LIMITS = Limits(max_elements=1 << 20, max_tensors=8)


@contextlib.asynccontextmanager
async def remote(url: str, *, hosts: str = LOOPBACK, max_bytes: int = 1 << 20, start: bool = False, **options):
    """Gives a backend of a server."""
    connection_options = {key: options.pop(key) for key in ("headers", "credentials", "ca_file") if key in options}
    backend_options = {key: options.pop(key) for key in ("version", "max_in_flight") if key in options}
    model_version = options.pop("model_version", None)
    connections = Connections(parse_hosts(hosts), max_bytes, **connection_options)
    value = {"url": url, **({"version": model_version} if model_version else {}), **options}
    seconds = value.pop("timeout", None)
    model = remote_model(parse_remote(value, "remote"), parse_hosts("*"))
    if seconds is not None:  # manifests have whole seconds, for which tests do not wait
        model = dataclasses.replace(model, timeout_seconds=seconds)
    async with connections.running():
        backend = RemoteBackend(model, "predictor", connections, LIMITS, **backend_options)
        if start:
            await backend.start("ours")
        try:
            yield backend
        finally:
            await backend.close(0)


def grpc_request(model: str = "ns.ours", **options) -> WireRequest:
    message = oip.ModelInferRequest(model_name=model, model_version="2", id="7", raw_input_contents=[b"\0" * 16])
    message.inputs.add(name="x", datatype="FP64", shape=[2])
    return WireRequest(Door.GRPC, model, message.SerializeToString(), **options)


def v2_request(model: str = "ns.ours", **options) -> WireRequest:
    body = {"id": "7", "inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1.5, 2.5]}]}
    return WireRequest(Door.REST_V2, model, orjson.dumps(body), **options)


def test_grpc_passes_through_with_the_name_alone_changed() -> None:
    async def run() -> None:
        async with (
            grpc_model() as server,
            remote(
                f"grpc://localhost:{server.port}",
                model="there",
                headers=HeaderRules(["^x-"]),
                credentials={f"localhost:{server.port}": {"authorization": "Bearer secret"}},
            ) as backend,
        ):
            now = asyncio.get_running_loop().time()
            request = grpc_request(headers={"x-a": "1", "b": "2"}, deadline=now + 5)
            pending = backend.submit(request)
            assert backend.in_flight == 1
            answer = oip.ModelInferResponse.FromString((await pending).body)
            assert backend.in_flight == 0
            assert (answer.model_name, answer.model_version, answer.id) == ("ns.ours", "9", "7")
            assert list(answer.raw_output_contents) == [b"\0" * 16]
            message, metadata, remaining = server.seen[0]
            expected = oip.ModelInferRequest.FromString(request.body)
            expected.model_name, expected.model_version = "there", ""
            assert oip.ModelInferRequest.FromString(message) == expected
            assert metadata["x-a"] == "1" and metadata["authorization"] == "Bearer secret" and "b" not in metadata
            assert remaining is not None and 3 < remaining < 5.5

    asyncio.run(run())


def test_names_and_versions_as_configured() -> None:
    async def run() -> None:
        async with (
            grpc_model() as server,
            remote(f"grpc://localhost:{server.port}", model_version="4", version="12") as backend,
        ):
            answer = oip.ModelInferResponse.FromString((await backend.submit(grpc_request())).body)
            sent = oip.ModelInferRequest.FromString(server.seen[0][0])
            assert (sent.model_name, sent.model_version) == ("ours", "4")  # without our namespace
            assert (answer.model_name, answer.model_version) == ("ns.ours", "12")

    asyncio.run(run())


def http_app(seen: list[tuple[str, dict[str, str], bytes]]) -> Starlette:
    async def infer(request: Request) -> Response:
        body = await request.body()
        seen.append((request.url.path, dict(request.headers), body))
        length = request.headers.get("inference-header-content-length")
        if length is not None:
            head = orjson.loads(body[: int(length)])
            described = {"model_name": "there", "model_version": "1", "outputs": head["inputs"]}
            first = orjson.dumps(described)
            return Response(
                first + body[int(length) :],
                media_type="application/octet-stream",
                headers={"Inference-Header-Content-Length": str(len(first))},
            )
        found = orjson.loads(body)
        return JSONResponse({"model_name": "there", "model_version": "1", "outputs": found["inputs"]})

    async def predict(request: Request) -> Response:
        seen.append((request.url.path, dict(request.headers), await request.body()))
        return JSONResponse({"predictions": [1]})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": True})

    return Starlette(
        routes=[
            Route("/base/v2/models/there/infer", infer, methods=["POST"]),
            Route("/base/v2/models/there/ready", ready),
            Route("/base/v1/models/there:{verb}", predict, methods=["POST"]),
        ]
    )


def test_rest_passes_through_untouched() -> None:
    async def run() -> None:
        seen: list[tuple[str, dict[str, str], bytes]] = []
        async with http_server(http_app(seen)) as port:
            url = f"http://127.0.0.1:{port}/base"
            async with remote(url, model="there", start=True) as backend:
                assert backend.ready == 1 and backend.problem == ""
                odd = WireRequest(Door.REST_V2, "ours", b' {"inputs" : [ ], "unknown":1e3}')
                answer = await backend.submit(odd)
                assert seen[0][2] == odd.body and orjson.loads(answer.body)["outputs"] == []
                assert seen[0][1]["content-type"] == "application/json" and "accept-encoding" not in seen[0][1]

                head = b'{"inputs":[{"name":"x","parameters":{"binary_data_size":3}}]}'
                binary = WireRequest(Door.REST_V2, "ours", head + b"\x00\x01\x02", json_length=len(head))
                answer = await backend.submit(binary)
                assert answer.json_length is not None and answer.body[answer.json_length :] == b"\x00\x01\x02"
                assert seen[1][2] == binary.body
            async with remote(url, model="there", protocol="v1") as backend:
                for door, verb in ((Door.REST_V1, "predict"), (Door.EXPLAIN, "explain")):
                    answer = await backend.submit(WireRequest(door, "ours", b'{"instances":[[1]]}'))
                    assert answer.body == b'{"predictions":[1]}' and seen[-1][0] == f"/base/v1/models/there:{verb}"
                with pytest.raises(Unimplemented, match="the predictor speaks v1"):
                    await backend.submit(v2_request())

    asyncio.run(run())


def test_doors_are_converted_where_they_differ() -> None:
    async def run() -> None:
        seen: list[tuple[str, dict[str, str], bytes]] = []
        async with grpc_model() as server, http_server(http_app(seen)) as port:
            async with remote(f"grpc://localhost:{server.port}", model="there", version="5") as backend:
                body = orjson.loads((await backend.submit(v2_request())).body)
                expected = {"name": "x", "datatype": "FP64", "shape": [2], "data": [1.5, 2.5]}
                assert body == {"model_name": "ns.ours", "model_version": "5", "id": "7", "outputs": [expected]}
                sent = oip.ModelInferRequest.FromString(server.seen[0][0])
                assert sent.model_name == "there"
                assert np.frombuffer(sent.raw_input_contents[0]).tolist() == [1.5, 2.5]

                asked = WireRequest(Door.REST_V1, "ours", b'{"instances":[[1,2],[3,4]]}')
                assert orjson.loads((await backend.submit(asked)).body) == {"predictions": [[1, 2], [3, 4]]}
                with pytest.raises(InvalidArgument, match=r"inputs\[0\]"):
                    await backend.submit(WireRequest(Door.REST_V2, "ours", b'{"inputs":[{}]}'))
                with pytest.raises(Unimplemented, match="has no explain"):
                    await backend.submit(WireRequest(Door.EXPLAIN, "ours", b"{}"))
            async with remote(f"http://127.0.0.1:{port}/base", model="there") as backend:
                answer = oip.ModelInferResponse.FromString((await backend.submit(grpc_request())).body)
                assert (answer.model_name, answer.model_version, answer.id) == ("ns.ours", "", "7")
                assert list(answer.raw_output_contents) == [b"\0" * 16]
                sent = orjson.loads(seen[0][2])
                assert sent["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [2], "data": [0.0, 0.0]}]
                text = oip.ModelInferRequest(model_name="ours", raw_input_contents=[b"\x01\0\0\0\xff"])
                text.inputs.add(name="x", datatype="BYTES", shape=[1])
                with pytest.raises(InvalidArgument, match="must be UTF-8"):
                    await backend.submit(WireRequest(Door.GRPC, "ours", text.SerializeToString()))

    asyncio.run(run())


def test_grpc_errors_are_passed_on() -> None:
    async def run() -> None:
        async def fail(message, context):
            code, text = failure
            await context.abort(code, text)

        async with (
            grpc_model(fail) as server,
            remote(f"grpc://localhost:{server.port}", credentials={f"localhost:{server.port}": {"x": "s3cret"}}) as b,
        ):
            for code, error, text in (
                (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument, "inputs[0].shape: must be [4]"),
                (grpc.StatusCode.NOT_FOUND, NotFound, "no such model"),
                (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted, "too much"),
                (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded, "did not answer in time"),
                (grpc.StatusCode.UNKNOWN, ServiceError, "it\nbroke"),
                (grpc.StatusCode.CANCELLED, Unavailable, "going"),
                (grpc.StatusCode.UNAVAILABLE, Unavailable, "not ready"),
            ):
                failure = (code, text)
                with pytest.raises(error) as raised:
                    await b.submit(grpc_request())
                assert raised.value.code is (code if code is not grpc.StatusCode.CANCELLED else Unavailable.code)
                assert raised.value.message.startswith("the predictor")
                assert text.replace("\n", " ") in raised.value.message and "s3cret" not in raised.value.message
            failure = (grpc.StatusCode.INTERNAL, "x" * 5000)
            with pytest.raises(Internal) as raised:
                await b.submit(grpc_request())
            assert len(raised.value.message) < 600

    asyncio.run(run())


def test_http_errors_are_passed_on() -> None:
    async def run() -> None:
        async def infer(request: Request) -> Response:
            return answers[-1]

        app = Starlette(routes=[Route("/{rest:path}", infer, methods=["POST"])])
        async with http_server(app) as port, remote(f"http://127.0.0.1:{port}") as backend:
            answers: list[Response] = []
            for answer, error, text in (
                (JSONResponse({"error": "bad shape"}, 400), InvalidArgument, "the predictor: bad shape"),
                (JSONResponse({"error": {"message": "no"}}, 404), NotFound, "the predictor: no"),
                (JSONResponse({"detail": "x"}, 422), InvalidArgument, "the predictor: x"),
                (PlainTextResponse("<html>", 502), Unavailable, "it answered HTTP 502"),
                (JSONResponse([], 500), Internal, "it answered HTTP 500"),
                (RedirectResponse("http://169.254.169.254/"), Internal, "it answered HTTP 307"),
                (PlainTextResponse("<html>hello"), Internal, "no valid answer"),
                (Response(b"{}", headers={"Inference-Header-Content-Length": "9"}), Internal, "no valid answer"),
                (Response(b"{}", headers={"Inference-Header-Content-Length": "-1"}), Internal, "no valid answer"),
                (Response(b"\x1f\x8b", headers={"content-encoding": "gzip"}), Internal, "compressed"),
            ):
                answers.append(answer)
                with pytest.raises(error) as raised:
                    await backend.submit(v2_request())
                assert text in raised.value.message
            answers.append(Response(b'{"error":"later"}', 429, {"retry-after": "7"}))
            with pytest.raises(ResourceExhausted) as exhausted:
                await backend.submit(v2_request())
            assert exhausted.value.retry_after_seconds == 7

    asyncio.run(run())


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_that_dies_is_unavailable_and_found_again(scheme: str) -> None:
    async def run() -> None:
        hangs = False
        reached = asyncio.Event()

        async def infer(message, context):
            reached.set()
            if hangs:
                await asyncio.sleep(60)
            return await echo(message, context)

        async def post(request: Request) -> Response:
            await infer(grpc_request().body, None)
            return JSONResponse({"outputs": []})

        app = Starlette(routes=[Route("/v2/models/there/infer", post, methods=["POST"])])
        ask = grpc_request if scheme == "grpc" else v2_request
        async with (
            grpc_model(infer) as server,
            http_server(app) as http_port,
            wire(server.port if scheme == "grpc" else http_port) as line,
            remote(f"{scheme}://localhost:{line.port}", model="there") as backend,
        ):
            await line.cut()
            with pytest.raises(Unavailable, match=f"localhost:{line.port} cannot be reached"):
                await backend.submit(ask())
            await line.mend()
            await answered(backend, ask())
            hangs = True
            reached.clear()
            pending = backend.submit(ask())
            await asyncio.wait_for(reached.wait(), 10)
            await line.cut()
            with pytest.raises(Unavailable, match="the predictor"):
                await pending
            assert backend.in_flight == 0
            hangs = False
            await line.mend()
            await answered(backend, ask())

    asyncio.run(run())


async def answered(backend: RemoteBackend, request: WireRequest) -> WireAnswer:
    """Asks until there is an answer, as a client with patience does."""
    while True:
        try:
            return await asyncio.wait_for(backend.submit(request), 10)
        except Unavailable:
            await asyncio.sleep(0.02)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_a_server_that_hangs_is_given_up_at_the_deadline() -> None:
    async def run() -> None:
        async def hang(message, context):
            await asyncio.sleep(60)

        async def silent(reader, writer):
            await reader.read()

        async with grpc_model(hang) as server, tcp_server(silent) as port:
            loop = asyncio.get_running_loop()
            for url, ask in (
                (f"grpc://localhost:{server.port}", grpc_request),
                (f"http://127.0.0.1:{port}", v2_request),
            ):
                async with remote(url) as backend:
                    with pytest.raises(DeadlineExceeded, match="the predictor did not answer in time"):
                        await backend.submit(ask(deadline=loop.time() + 0.1))
                    with pytest.raises(DeadlineExceeded, match="has passed"):
                        await backend.submit(ask(deadline=loop.time() - 1))
                    assert backend.in_flight == 0
                async with remote(url, timeout=0.1) as backend:
                    with pytest.raises(DeadlineExceeded):
                        await backend.submit(ask())

    asyncio.run(run())


def test_a_cancelled_request_is_cancelled_there() -> None:
    async def run() -> None:
        asked = asyncio.Event()
        gone = asyncio.Event()

        async def hang(message, context):
            asked.set()
            await asyncio.sleep(60)

        async def silent(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()
            gone.set()

        async with grpc_model(hang) as server, tcp_server(silent) as port:
            for url, ask, over in (
                (f"grpc://localhost:{server.port}", grpc_request, server.cancelled),
                (f"http://127.0.0.1:{port}", v2_request, gone),
            ):
                asked.clear()
                async with remote(url) as backend:
                    pending = backend.submit(ask())
                    await asyncio.wait_for(asked.wait(), 10)
                    pending.cancel()
                    await asyncio.wait_for(over.wait(), 10)
                    await until(lambda b=backend: b.in_flight == 0)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", Unavailable),
        (b"\x00\x01garbage\r\n\r\n", Unavailable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", Unavailable),
        (CHUNKED + b"zz\r\n", Unavailable),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20000 + b"\r\n", Unavailable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n{", ResourceExhausted),
        (CHUNKED + (b"10000\r\n" + b"{" * 0x10000 + b"\r\n") * 20, ResourceExhausted),
    ],
)  # fmt: skip
def test_broken_http_is_an_error(said: bytes, error: type[ServiceError]) -> None:
    async def run() -> None:
        async def speak(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()

        async with tcp_server(speak) as port, remote(f"http://127.0.0.1:{port}") as backend:
            with pytest.raises(error) as raised:
                await backend.submit(v2_request())
            assert "the predictor" in raised.value.message
            assert backend.in_flight == 0

    asyncio.run(run())


def test_broken_grpc_is_an_error() -> None:
    async def run() -> None:
        async def garbage(message, context):
            return b"\x0a\xff"

        async def large(message, context):
            return oip.ModelInferResponse(raw_output_contents=[b"\0" * (2 << 20)]).SerializeToString()

        async def other(reader, writer):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()

        async with grpc_model(garbage) as server, tcp_server(other) as port:
            async with remote(f"grpc://localhost:{server.port}") as backend:
                for request in (grpc_request(), v2_request()):
                    with pytest.raises(Internal, match="the predictor gave no valid answer"):
                        await backend.submit(request)
                server.infer = large
                with pytest.raises(ResourceExhausted, match="the predictor"):
                    await backend.submit(grpc_request())
                with pytest.raises(InvalidArgument, match="not a valid message"):
                    await backend.submit(WireRequest(Door.GRPC, "ours", b"\x0a\xff"))
            async with remote(f"grpc://localhost:{port}") as backend:
                with pytest.raises(Unavailable, match="the predictor"):
                    await backend.submit(grpc_request(deadline=asyncio.get_running_loop().time() + 5))

    asyncio.run(run())


def test_limits_and_hosts_hold_at_the_time_of_the_request() -> None:
    async def run() -> None:
        async def hang(message, context):
            await asyncio.sleep(60)

        async with grpc_model(hang) as server:
            async with remote(f"grpc://localhost:{server.port}", max_in_flight=1) as backend:
                pending = backend.submit(grpc_request())
                with pytest.raises(ResourceExhausted, match="1 requests to the predictor are in flight"):
                    backend.submit(grpc_request())
                await backend.close(0)
                assert pending.cancelled()
                with pytest.raises(Unavailable, match="no more requests"):
                    backend.submit(grpc_request())
            # The name was allowed when the manifest was read, and has another address now.
            for url, ask in ((f"grpc://localhost:{server.port}", grpc_request), ("http://localhost:1", v2_request)):
                async with remote(url, hosts="10.0.0.0/8") as backend:
                    with pytest.raises(ServiceError, match="localhost has no address that this server may call"):
                        await backend.submit(ask())

    asyncio.run(run())


def test_probes_tell_whether_the_model_is_ready() -> None:
    async def run() -> None:
        async with grpc_model() as server:
            async with remote(f"grpc://localhost:{server.port}", model="there", start=True) as backend:
                assert backend.ready == 1
                server.is_ready = False
                backend._probing.cancel()
                await backend.start("ours")
                assert backend.ready == 0 and backend.problem.startswith("the predictor at localhost:")
            async with remote(f"grpc://localhost:{server.port}", start=True) as backend:
                assert backend.ready == 0  # there is no model "ours"

    asyncio.run(run())


def test_credentials_are_read_from_a_file_and_never_told(tmp_path) -> None:
    from mlmesh_serving.remote.connections import read_credentials

    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({"a:1": {"Authorization": "Bearer x"}}))
    assert read_credentials(path) == {"a:1": {"authorization": "Bearer x"}}
    for text in ("{", "[]", '{"a": "hunter2"}', '{"a": {"b": "hunter2\\n"}}'):
        path.write_text(text)
        with pytest.raises(ValueError) as raised:
            read_credentials(path)
        assert "hunter2" not in str(raised.value)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate for localhost that signs itself, and its key: two files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
    return folder / "ca.pem", folder / "key.pem"


def test_tls_is_spoken_and_checked(certificates) -> None:
    async def run() -> None:
        ca, key = certificates
        credentials = grpc.ssl_server_credentials([(key.read_bytes(), ca.read_bytes())])
        app = http_app([])
        async with (
            grpc_model(credentials=credentials) as server,
            http_server(app, ssl_certfile=str(ca), ssl_keyfile=str(key)) as port,
        ):
            for scheme, at, ask in (("grpcs", server.port, grpc_request), ("https", port, v2_request)):
                path = "/base" if scheme == "https" else ""
                async with remote(f"{scheme}://localhost:{at}{path}", model="there", ca_file=ca) as backend:
                    assert (await backend.submit(ask())).body
                for host, options in (("localhost", {}), ("127.0.0.1", {"ca_file": ca})):  # unknown; of another name
                    async with remote(f"{scheme}://{host}:{at}{path}", model="there", **options) as backend:
                        with pytest.raises(Unavailable, match="cannot be reached"):
                            await backend.submit(ask())
            async with remote(f"grpcs://localhost:{port}", ca_file=ca) as backend:
                with pytest.raises(Unavailable, match="does not speak HTTP/2"):
                    await backend.submit(grpc_request())

    asyncio.run(run())
