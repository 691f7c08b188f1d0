"""Load, rolling updates and kills on one serving router, with every answer checked against the models themselves.

`make soak-serving MINUTES=5`. Clients of gRPC and REST send one to eight flowers at a time and compare what comes back
with predict_proba of the two models that updates alternate between: while an update is under way either may answer,
before and after it only one. Each third update is a canary of half the requests first, if the service knows canaries.
Another model is unloaded and loaded again meanwhile, and one of the processes below the router is killed (SIGKILL) now
and then. Every answer that is not OK is a lost request. Ends with 1 if a request was lost, or an answer wrong.
"""

import argparse
import asyncio
import collections
import itertools
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from google.protobuf import json_format
from mlmesh_protos.inference import grpc_service_pb2, grpc_service_pb2_grpc
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2, inference_service_pb2_grpc
from sklearn.datasets import load_iris

from bench.serving_models import Model, iris, message, request, values
from bench.serving_servers import PARENT, Server, deploy, manifest, router

GRPC_CLIENTS, REST_CLIENTS = 12, 4
MOST_ROWS = 8
DEADLINE_SECONDS = 10.0
ROLL_SECONDS, KILL_SECONDS, CHURN_SECONDS, SAMPLE_SECONDS = 2.0, 5.0, 3.0, 1.0
AFTER_KILL_SECONDS = 3.0
SETTLED_SECONDS = 5.0
NAME = f"{PARENT}/inferenceservices/soak"


@dataclass
class Tally:
    """What happened.

    Attributes:
        answers: By protocol.
        lost: Requests without a good answer, by what came instead, and what was killed shortly before.
        wrong: Answers with other values than may have come.
        updates, canaries, reloads, kills: How many there were.
        again: Updates and reloads that were asked for again: the process that loaded the model had been killed.
        memory: MB of the router and all below it, as time went on.
        notes: What the service does not do.
    """

    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    lost: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    updates: int = 0
    canaries: int = 0
    reloads: int = 0
    kills: int = 0
    again: int = 0
    memory: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Soak:
    """One soak.

    Args:
        server: The router; `soak` is deployed with the first of the models.
        folder: Of the models' files.
        models: Two with the same input.
    """

    def __init__(self, server: Server, folder: Path, models: tuple[Model, Model]) -> None:
        self.tally = Tally()
        self._server = server
        self._files = [model.write(folder) for model in models]
        self._flowers = load_iris().data
        self._expected = [model.estimator.predict_proba(self._flowers) for model in models]
        self._may_answer = {0}
        self._killed, self._killed_at = "", 0.0
        self._random = random.Random(0)

    async def run(self, seconds: float) -> None:
        """Runs it so long."""
        end = time.monotonic() + seconds
        async with (
            grpc.aio.insecure_channel(self._server.grpc) as channel,
            httpx.AsyncClient(base_url=self._server.http, timeout=DEADLINE_SECONDS) as client,
        ):
            stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
            control: Any = inference_service_pb2_grpc.ServingServiceStub(channel)
            await asyncio.gather(
                *(self._ask_by_grpc(stub, end) for _ in range(GRPC_CLIENTS)),
                *(self._ask_by_rest(client, end) for _ in range(REST_CLIENTS)),
                self._roll(control, end),
                self._reload(stub, end),
                self._kill(end),
                self._sample(end),
            )

    def _some_flowers(self) -> tuple[slice, Any]:
        rows = self._random.randint(1, MOST_ROWS)
        first = self._random.randrange(len(self._flowers) - rows)
        chosen = slice(first, first + rows)
        return chosen, self._flowers[chosen]

    async def _ask_by_grpc(self, stub: Any, end: float) -> None:
        while time.monotonic() < end:
            chosen, data = self._some_flowers()
            allowed = set(self._may_answer)
            try:
                answer = await stub.ModelInfer(message("soak", data), timeout=DEADLINE_SECONDS)
            except grpc.aio.AioRpcError as error:
                self._lose(f"gRPC {error.code().name} {error.details()}")
            else:
                self._check("gRPC", chosen, values(answer), allowed)

    async def _ask_by_rest(self, client: httpx.AsyncClient, end: float) -> None:
        while time.monotonic() < end:
            chosen, data = self._some_flowers()
            sent = request("REST", "soak", data)
            allowed = set(self._may_answer)
            try:
                response = await client.post(sent.path, content=sent.body, headers={"content-type": "application/json"})
            except httpx.TransportError as error:
                self._lose(f"REST {type(error).__name__} {error}")
                continue
            if response.status_code == 200:
                self._check("REST", chosen, response.json()["outputs"][0]["data"], allowed)
            else:
                self._lose(f"REST {response.status_code} {response.text[:200]}")

    def _lose(self, what: str) -> None:
        lately = time.monotonic() - self._killed_at < AFTER_KILL_SECONDS
        self.tally.lost[f"{what}, after a kill of {self._killed}" if lately else what] += 1

    def _check(self, protocol: str, chosen: slice, found: list[float], allowed: set[int]) -> None:
        """Compares an answer with those of the models that may have answered from when it was asked until now."""
        self.tally.answers[protocol] += 1
        flat = np.ravel(found)
        answered_by = [
            number
            for number, table in enumerate(self._expected)
            if flat.size == table[chosen].size and np.allclose(flat, table[chosen].ravel(), rtol=1e-9, atol=1e-12)
        ]
        if not answered_by:
            self.tally.wrong.append(f"{protocol}: rows {chosen.start} to {chosen.stop}: neither model answers {found}")
        elif not (allowed | self._may_answer).intersection(answered_by):
            self.tally.wrong.append(f"{protocol}: model {answered_by[0]} answered when it was not its turn")

    async def _roll(self, control: Any, end: float) -> None:
        current, canaries = 0, True
        while time.monotonic() + ROLL_SECONDS < end:
            await asyncio.sleep(ROLL_SECONDS)
            following = 1 - current
            self._may_answer = {current, following}
            if canaries and self.tally.updates % 3 == 2:
                try:
                    await self._update(control, following, canaryTrafficPercent=50)
                    self.tally.canaries += 1
                    await asyncio.sleep(ROLL_SECONDS)
                except grpc.aio.AioRpcError as error:
                    canaries = False
                    self.tally.notes.append(f"no canaries: {error.details()}")
            await self._update(control, following)
            self.tally.updates += 1
            current, self._may_answer = following, {following}

    async def _update(self, control: Any, model: int, **predictor: Any) -> None:
        """Changes what is served, and waits until it is; asks again, with another spec, where it is not."""
        for attempt in itertools.count():
            described = manifest(
                "soak", self._files[model], method="predict_proba", maxReplicas=9 + attempt, **predictor
            )
            change = inference_service_pb2.UpdateInferenceServiceRequest(name=NAME)
            json_format.ParseDict(described, change.manifest)
            found = await control.UpdateInferenceService(change)
            deadline = time.monotonic() + SETTLED_SECONDS
            while not _settled(found.status) and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                question = inference_service_pb2.GetInferenceServiceRequest(name=NAME)
                found = await control.GetInferenceService(question, timeout=DEADLINE_SECONDS)
            if _settled(found.status):
                return
            self.tally.again += 1

    async def _reload(self, stub: Any, end: float) -> None:
        """Unloads another model and loads it again."""
        while time.monotonic() + CHURN_SECONDS < end:
            await asyncio.sleep(CHURN_SECONDS)
            await stub.RepositoryModelUnload(grpc_service_pb2.RepositoryModelUnloadRequest(model_name="other"))
            try:
                await stub.RepositoryModelLoad(grpc_service_pb2.RepositoryModelLoadRequest(model_name="other"))
                self.tally.reloads += 1
            except grpc.aio.AioRpcError as error:
                self.tally.again += 1
                self.tally.notes.append(f"a reload failed: {error.code().name} {error.details()}")

    async def _kill(self, end: float) -> None:
        """Kills one of the processes below the router."""
        while time.monotonic() + KILL_SECONDS < end:
            await asyncio.sleep(KILL_SECONDS)
            _, *below = self._server.processes()
            if not below:
                self.tally.notes.append("no kills: the router has no other processes")
                return
            chosen = self._random.choice(below)
            self._killed = f"{chosen.name()} ({' '.join(chosen.cmdline())[-60:]})"
            self._killed_at = time.monotonic()
            chosen.kill()
            self.tally.kills += 1

    async def _sample(self, end: float) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(SAMPLE_SECONDS)
            self.tally.memory.append(sum(await asyncio.to_thread(self._server.memory)))


def _settled(status: Any) -> bool:
    ready = any(one.type == "Ready" and one.status == "True" for one in status.conditions)
    return ready and status.latest_ready_revision == status.latest_created_revision


def report(tally: Tally, seconds: float) -> int:
    """Prints what happened; gives the exit code."""
    total = sum(tally.answers.values())
    by_protocol = ", ".join(f"{count:,} by {protocol}" for protocol, count in tally.answers.items())
    print(f"{seconds:.0f} s: {total:,} answers ({by_protocol}), {total / seconds:.0f} in a second")
    print(
        f"{tally.updates} rolling updates ({tally.canaries} by a canary), {tally.reloads} reloads, {tally.kills} kills"
    )
    for note in tally.notes:
        print(note)
    lost = sum(tally.lost.values())
    print(f"lost: {lost} (0 wanted)")
    for what, count in tally.lost.most_common(10):
        print(f"  {count} x {what}")
    print(f"wrong: {len(tally.wrong)} (0 wanted)")
    for wrong in tally.wrong[:10]:
        print(f"  {wrong}")
    fifth = max(1, len(tally.memory) // 5)
    early, late = (statistics.median(part) for part in (tally.memory[fifth : 2 * fifth], tally.memory[-fifth:]))
    print(f"memory: {early:.0f} MB in the second fifth of the time, {late:.0f} MB in the last: {late / early - 1:+.1%}")
    return 1 if lost or tally.wrong or not total else 0


def main() -> int:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    seconds = 60 * parser.parse_args().minutes
    if seconds < 10:
        parser.error("--minutes: at least 10 seconds, 0.17")
    models = (iris("strong", 1.0), iris("weak", 0.01))
    with tempfile.TemporaryDirectory() as name, router(Path(name)) as server:
        artifacts = Path(name) / "artifacts"
        soak = Soak(server, artifacts, models)
        deploy(server, manifest("soak", artifacts / "strong" / "model.joblib", method="predict_proba"))
        deploy(server, manifest("other", artifacts / "weak" / "model.joblib"))
        asyncio.run(soak.run(seconds))
        return report(soak.tally, seconds)


if __name__ == "__main__":
    raise SystemExit(main())
