"""The doors of explanations and of what detectors have found."""

import asyncio

import httpx
import pytest
from mlmesh_kit.access import AccessChecker, LocalReviewer
from mlmesh_kit.errors import ResourceExhausted
from mlmesh_kit.http import create_app
from mlmesh_kit.interceptor import Surroundings
from mlmesh_serving.backend import Door, WireAnswer
from mlmesh_serving.config import Settings
from mlmesh_serving.observers.observers import Observers
from mlmesh_serving.observers.spec import Detection
from mlmesh_serving.observers.subject import Subject
from mlmesh_serving.routes.detectors import detector_routes
from mlmesh_serving.routes.explain import explain_routes
from opentelemetry import trace


@pytest.fixture
def ask(tmp_path):
    """Sends a request to routes."""

    def go(routes, method, path, **more):
        async def around():
            settings = Settings(data_dir=tmp_path)
            checker = AccessChecker(LocalReviewer(settings.local_user, "default"))
            surroundings = Surroundings(settings, checker, trace.get_tracer("test"), asyncio.get_running_loop())
            app = create_app(routes, surroundings, lambda: True)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
                return await client.request(method, path, **more)

        return asyncio.run(around())

    return go


def test_requests_for_explanations_reach_the_explainer_as_they_came(ask):
    asked = []

    async def explain(request, version):
        asked.append((request, version))
        if request.model == "busy":
            raise ResourceExhausted("busy", retry_after_seconds=1)
        return WireAnswer(b'{"explanations": {}}')

    routes = explain_routes(explain)
    answer = ask(routes, "POST", "/v1/models/iris:explain", content=b'{"instances": [1]}')
    assert (answer.status_code, answer.json()) == (200, {"explanations": {}})
    assert answer.headers["content-type"] == "application/json"
    ask(routes, "POST", "/v2/models/iris/explain", content=b"{}12", headers={"Inference-Header-Content-Length": "2"})
    ask(routes, "POST", "/v2/models/iris/versions/3/explain", content=b"{}")
    assert [(r.door, r.model, r.body, r.json_length, version) for r, version in asked] == [
        (Door.EXPLAIN, "iris", b'{"instances": [1]}', None, ""),
        (Door.EXPLAIN, "iris", b"{}12", 2, ""),
        (Door.EXPLAIN, "iris", b"{}", None, "3"),
    ]
    busy = ask(routes, "POST", "/v1/models/busy:explain", content=b"{}")
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
    for length in ("3", "-1", "x"):
        headers = {"Inference-Header-Content-Length": length}
        wrong = ask(routes, "POST", "/v2/models/iris/explain", content=b"{}", headers=headers)
        assert wrong.status_code == 400
        assert "Inference-Header-Content-Length" in wrong.json()["message"]


def test_detectors_tell_what_they_found(ask, tmp_path):
    observers = Observers(None, Settings(data_dir=tmp_path).observers(1000, 8))
    observers.watch(Subject("default", "iris", 2, detectors=(Detection("drift", "ks"),)))
    answer = ask(detector_routes(observers), "GET", "/v2/models/iris/detectors")
    assert answer.json() == {
        "name": "iris",
        "revisions": [
            {
                "revision": 2,
                "events": {},
                "detectors": [{"name": "drift", "type": "ks", "on": "request", "state": "STARTING", "message": ""}],
            }
        ],
    }
    missing = ask(detector_routes(observers), "GET", "/v2/models/team.iris/detectors")
    assert missing.status_code == 404


def test_settings_say_where_payloads_may_go(tmp_path, monkeypatch):
    monkeypatch.setenv("MLMESH_SERVING_REMOTE_HOSTS", "broker,*.events")
    monkeypatch.setenv("MLMESH_SERVING_REDACT_FIELDS", "ssn")
    settings = Settings(data_dir=tmp_path).observers(1000, 8)
    assert settings.sink_hosts == "broker,*.events"
    assert list(settings.redact_fields) == ["ssn"]
    assert list(settings.log_roots) == [f"file://{tmp_path}/artifacts/payload-logs"]
