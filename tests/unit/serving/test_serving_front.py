"""All that stands before a revision, put together from its manifest; and the same settings for Knative."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlmesh_kit.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from mlmesh_serving.manifest import Feature, InferenceServiceSpec, ScaleMetric, ScalingSpec, parse_manifest
from mlmesh_serving.manifest.scaling import parse_scaling
from mlmesh_serving.protection.admission import AdmissionLimits
from mlmesh_serving.protection.breaker import BreakerSettings
from mlmesh_serving.protection.front import Front, Fronts, FrontSettings
from mlmesh_serving.protection.hedge import HedgeSettings
from mlmesh_serving.protection.retry import RetrySettings
from mlmesh_serving.protection.settings import ProtectionSpec, parse_protection
from mlmesh_serving.scaling.annotations import scaling_annotations, template
from mlmesh_serving.scaling.scaler import Scaler, ScalerSettings
from support.replicas import Replicas, answer_to, request
from support.virtual_time import run_virtually


def service(annotations: dict[str, str] | None = None, **predictor: Any) -> InferenceServiceSpec:
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "m", "annotations": annotations or {}},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "file:///m"}, **predictor}},
    }
    return parse_manifest(manifest, frozenset({"sklearn"}), frozenset(Feature))


def fronts(settings: FrontSettings | None = None, max_workers: int = 4) -> tuple[Scaler, Fronts]:
    clock = asyncio.get_running_loop().time
    scaler = Scaler(ScalerSettings(max_workers), clock)
    return scaler, Fronts(scaler, settings, clock)


async def started(made: Fronts, replicas: Replicas, spec: InferenceServiceSpec, revision: int = 1) -> Front:
    front = made.put(("default", "m", revision), replicas, spec)
    await front.start()
    return front


def test_a_front_from_its_manifest() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scaler, made = fronts(FrontSettings(admission=AdmissionLimits(in_flight=5)))
        async with scaler.running():
            replicas = Replicas(start_seconds=1.0, answer_seconds=4.0)
            front = await started(made, replicas, service(minReplicas=2, containerConcurrency=2, timeout=3))
            await asyncio.sleep(2)
            assert replicas.ready == front.ready == 2
            begun = loop.time()
            futures = [front.submit(request(b"%d" % number)) for number in range(5)]
            assert (replicas.in_flight, front.waiting, front.in_flight) == (4, 1, 5)
            assert replicas.served[0].deadline == begun + 3
            with pytest.raises(ResourceExhausted):
                front.submit(request())
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            assert all(isinstance(outcome, DeadlineExceeded) for outcome in outcomes)
            assert loop.time() - begun == pytest.approx(3, abs=0.02)
            replicas.answer_seconds = 0.1
            assert await front.submit(request(b"x")) == answer_to(b"x")
            await front.close(1)
            assert replicas.closed

    run_virtually(main())


def test_a_model_that_cannot_be_loaded_is_known_at_the_start() -> None:
    async def main() -> None:
        scaler, made = fronts()
        async with scaler.running():
            replicas = Replicas(broken=FailedPrecondition("no model"))
            front = made.put(("default", "m", 1), replicas, service())
            with pytest.raises(FailedPrecondition, match="no model"):
                await front.start()
            await front.close(0)
            assert replicas.closed
            never_started = made.put(("default", "m", 2), Replicas(), service())
            await never_started.close(0)

    run_virtually(main())


def test_a_revision_takes_the_place_of_another_without_a_lost_request() -> None:
    async def main() -> None:
        scaler, made = fronts(max_workers=2)
        async with scaler.running():
            old = await started(made, Replicas(start_seconds=1.0, answer_seconds=0.5), service())
            front, closing = old, []
            answers = []
            for number in range(200):
                if number == 50:
                    new = await started(made, Replicas(start_seconds=1.0, answer_seconds=0.5), service(), revision=2)
                    front, closing = new, [asyncio.create_task(old.close(10))]
                answers.append(front.submit(request(b"%d" % number)))
                await asyncio.sleep(0.01)
            assert await asyncio.gather(*answers) == [answer_to(b"%d" % number) for number in range(200)]
            await asyncio.gather(*closing)

    run_virtually(main())


def test_a_revision_is_loaded_anew_beside_itself() -> None:
    async def main() -> None:
        scaler, made = fronts()
        async with scaler.running():
            old = await started(made, Replicas(start_seconds=1.0, answer_seconds=1.0), service())
            running = old.submit(request(b"x"))
            new = await started(made, Replicas(start_seconds=0.5, answer_seconds=1.0), service())
            closing = asyncio.create_task(old.close(10))
            assert await new.submit(request(b"y")) == answer_to(b"y")
            assert await running == answer_to(b"x")
            await closing
            await asyncio.sleep(300)
            assert new.ready == 1

    run_virtually(main())


def test_what_waits_for_a_cold_start_is_answered_though_its_revision_is_replaced() -> None:
    async def main() -> None:
        scaler, made = fronts(max_workers=1)
        async with scaler.running():
            old = await started(made, Replicas(start_seconds=1.0, answer_seconds=0.5), service(minReplicas=0))
            new = await started(made, Replicas(start_seconds=1.0, answer_seconds=0.5), service(), revision=2)
            assert (old.ready, new.ready) == (0, 1)
            waiting = [old.submit(request(b"%d" % number)) for number in range(3)]
            await old.close(30)
            assert [await future for future in waiting] == [answer_to(b"%d" % number) for number in range(3)]
            assert await new.submit(request(b"x")) == answer_to(b"x")

    run_virtually(main())


def test_a_revision_that_is_still_being_loaded_goes_at_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scaler, made = fronts()
        async with scaler.running():
            front = made.put(("default", "m", 1), Replicas(start_seconds=100.0), service())
            starting = asyncio.create_task(front.start())
            await asyncio.sleep(1)
            begun = loop.time()
            await front.close(60)
            with pytest.raises(Unavailable):
                await starting
            assert loop.time() - begun < 1

    run_virtually(main())


def test_a_revision_that_nobody_is_sent_to_goes_to_zero() -> None:
    async def main() -> None:
        scaler, made = fronts()
        async with scaler.running():
            replicas = Replicas(start_seconds=0.1)
            front = await started(made, replicas, service(minReplicas=1))
            front.set_reachable(False)
            await asyncio.sleep(120)
            assert front.ready == 0
            assert await front.submit(request(b"x")) == answer_to(b"x")  # a tag may still ask for it

    run_virtually(main())


def test_retries_and_hedges_by_annotation() -> None:
    async def main() -> None:
        scaler, made = fronts()
        async with scaler.running():
            asked = {"serving.mlmesh.dev/retry-attempts": "3", "serving.mlmesh.dev/hedge-percentile": "95"}
            replicas = Replicas(answer_seconds=0.1)
            front = await started(made, replicas, service(asked))
            running = front.submit(request(b"x"))
            await asyncio.sleep(0.05)
            replicas.crash()
            assert await running == answer_to(b"x")
            replicas = Replicas(answer_seconds=0.1)
            plain = await started(made, replicas, service(), revision=2)
            running = plain.submit(request(b"x"))
            await asyncio.sleep(0.05)
            replicas.crash()
            with pytest.raises(Unavailable):  # nobody has asked for a retry
                await running
            with pytest.raises(InvalidArgument):
                made.put(("default", "n", 1), Replicas(), service({"serving.mlmesh.dev/retry-attempts": "x"}))

    run_virtually(main())


def test_before_a_stage_somewhere_else() -> None:
    async def main() -> None:
        _, made = fronts()
        remote = Replicas(answer_seconds=0.1, failing=Unavailable("gone"))
        await remote.scale(1)
        before = made.put_remote("elsewhere", remote, 5.0, breaker=BreakerSettings(consecutive_faults=3))
        for _ in range(3):
            with pytest.raises(Unavailable, match="gone"):
                await before.submit(request())
        with pytest.raises(Unavailable, match="not asked"):
            before.submit(request())
        assert len(remote.served) == 3
        assert remote.served[0].deadline is not None
        remote.failing = None
        again = made.put_remote("elsewhere", remote, 5.0, retry=RetrySettings())
        assert await again.submit(request(b"x")) == answer_to(b"x")
        made.forget("elsewhere")

    run_virtually(main())


class TestAnnotations:
    def test_nothing_said_is_nothing_done(self) -> None:
        assert parse_protection({"other": "x"}) == ProtectionSpec()

    def test_what_is_said(self) -> None:
        said = {
            "serving.mlmesh.dev/retry-attempts": "2",
            "serving.mlmesh.dev/hedge-percentile": "99",
            "serving.mlmesh.dev/hedge-budget-percentage": "10",
        }
        expected = ProtectionSpec(RetrySettings(max_attempts=2), HedgeSettings(percentile=99, budget=0.1))
        assert parse_protection(said) == expected

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("retry-attempts", "1"),
            ("retry-attempts", "2.5"),
            ("retry-attempts", "6"),
            ("retry-attempts", "many"),
            ("hedge-percentile", "100"),
            ("hedge-percentile", "nan"),
            ("hedge-budget-percentage", "5"),  # without a percentile
        ],
    )
    def test_what_is_wrong_is_named(self, name: str, value: str) -> None:
        with pytest.raises(InvalidArgument, match=f"serving.mlmesh.dev/{name}"):
            parse_protection({f"serving.mlmesh.dev/{name}": value})

    def test_for_knative(self) -> None:
        spec = service(
            minReplicas=0, maxReplicas=4, scaleTarget=7, scaleMetric="rps", containerConcurrency=3, timeout=9
        )
        rendered = template(spec)
        assert rendered["spec"] == {"containerConcurrency": 3, "timeoutSeconds": 9}
        annotations = rendered["metadata"]["annotations"]
        assert annotations["autoscaling.knative.dev/class"] == "kpa.autoscaling.knative.dev"
        assert annotations["autoscaling.knative.dev/min-scale"] == "0"
        assert annotations["autoscaling.knative.dev/max-scale"] == "4"
        assert annotations["autoscaling.knative.dev/metric"] == "rps"
        assert annotations["autoscaling.knative.dev/target"] == "7"
        assert annotations["autoscaling.knative.dev/target-utilization-percentage"] == "70"
        assert annotations["autoscaling.knative.dev/window"] == "60s"
        assert annotations["autoscaling.knative.dev/target-burst-capacity"] == "211"

    @given(
        st.builds(
            ScalingSpec,
            min_replicas=st.integers(0, 3),
            max_replicas=st.sampled_from([0, 3, 1000]),
            initial_replicas=st.integers(0, 9),
            activation_replicas=st.integers(1, 9),
            metric=st.sampled_from(ScaleMetric),
            target=st.none() | st.integers(1, 10**6).map(lambda hundredths: hundredths / 100),
            target_utilization=st.integers(1, 100).map(lambda percent: percent / 100),
            window_seconds=st.integers(6, 3600).map(float),
            panic_window_percentage=st.integers(1, 100).map(float),
            panic_threshold_percentage=st.integers(110, 1000).map(float),
            scale_down_delay_seconds=st.integers(0, 3600).map(float),
            zero_retention_seconds=st.integers(0, 3600).map(float),
            burst_capacity=st.sampled_from([-1.0, 0.0, 211.0, 1e6]),
        )
    )
    @settings(max_examples=50, deadline=None)
    def test_for_knative_and_back(self, scaling: ScalingSpec) -> None:
        again = parse_scaling({}, "spec.predictor", [(scaling_annotations(scaling), "metadata.annotations")])
        assert again == scaling
