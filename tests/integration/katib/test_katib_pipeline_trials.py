"""Trials that are runs of pipelines, by a real pipeline service."""

import asyncio
import functools
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from mlmesh_katib.jobs.base import JobSpec
from mlmesh_katib.jobs.pipeline import PipelineBackend
from mlmesh_katib.jobs.pipeline_values import metrics_of, typed
from mlmesh_kit.errors import FailedPrecondition, InvalidArgument
from mlmesh_protos.kubeflow.pipelines.backend.api.v2beta1 import pipeline_pb2, pipeline_pb2_grpc, run_pb2, run_pb2_grpc

warnings.simplefilter("ignore", FutureWarning)
USER = "user@mlmesh.local"


def in_loop(test):
    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 60))

    return run


@pytest.fixture(scope="module")
def pipeline_spec(tmp_path_factory) -> dict:
    from kfp import compiler, dsl

    @dsl.component
    def train(rate: float, layers: int, name: str, deep: bool, numbers: dsl.Output[dsl.Metrics]) -> float:
        numbers.log_metric("accuracy", 1 - rate)
        assert isinstance(layers, int)
        assert deep
        if name == "bad":
            raise ValueError("this name is bad")
        if name == "slow":
            import time

            time.sleep(60)
        return rate * layers

    @dsl.pipeline(name="tuned")
    def tuned(rate: float, layers: int = 1, name: str = "good", deep: bool = True) -> float:
        trained = train(rate=rate, layers=layers, name=name, deep=deep)
        trained.set_caching_options(False)
        return trained.outputs["Output"]

    path = tmp_path_factory.mktemp("compiled") / "tuned.yaml"
    compiler.Compiler().compile(tuned, str(path))
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def runs(pipeline):
    with pipeline.channel() as channel:
        yield run_pb2_grpc.RunServiceStub(channel)


@pytest.fixture
def backend(pipeline, tmp_path) -> PipelineBackend:
    return PipelineBackend(tmp_path, pipeline.grpc, USER)


def manifest_of(parameters: dict, **source) -> dict:
    spec = {**source, "runtimeConfig": {"parameters": parameters}}
    return {"apiVersion": "mlmesh.dev/v1", "kind": "PipelineRun", "spec": spec}


def spec_of(trial: str, manifest: dict, experiment_id: int = 7) -> JobSpec:
    return JobSpec(experiment_id, "user", "tuning", trial, manifest)


@in_loop
async def test_a_run_gets_typed_parameters_and_gives_its_metrics(backend, pipeline_spec, runs, tmp_path):
    given = {"rate": "0.25", "layers": "3", "deep": "True"}  # text, as placeholders leave it
    manifest = manifest_of(given, pipelineSpec=pipeline_spec)
    backend.check(manifest, "", "t")
    job = await backend.start(spec_of("metrics-1", manifest))
    assert (await job.wait()).ok
    assert dict(await job.reports()) == {
        "Output": "0.75",
        "accuracy": "0.75",
        "train.Output": "0.75",
        "train.accuracy": "0.75",
    }
    assert await job.reports() == []
    run = runs.GetRun(run_pb2.GetRunRequest(run_id=job.reference["run_id"]))
    assert run.display_name == "metrics-1"
    assert "train SUCCEEDED" in job.log_path.read_text()
    again = await PipelineBackend(tmp_path, backend._address, USER).find(spec_of("metrics-1", manifest), job.reference)
    assert (await again.wait()).ok  # by a service that has been restarted
    assert ("accuracy", "0.75") in await again.reports()


@in_loop
async def test_a_run_that_fails_says_why(backend, pipeline_spec):
    manifest = manifest_of({"rate": "0.25", "name": "bad"}, pipelineSpec=pipeline_spec)
    ended = await (await backend.start(spec_of("bad-1", manifest))).wait()
    assert not ended.ok
    assert "this name is bad" in ended.message


@in_loop
async def test_killing_a_trial_terminates_its_run(backend, pipeline_spec, runs):
    manifest = manifest_of({"rate": "0.25", "name": "slow"}, pipelineSpec=pipeline_spec)
    job = await backend.start(spec_of("slow-1", manifest))
    waiting = asyncio.create_task(job.wait())
    await job.kill()
    assert runs.GetRun(run_pb2.GetRunRequest(run_id=job.reference["run_id"])).state == run_pb2.CANCELED
    assert "was terminated" in (await waiting).message
    await job.kill()  # it may have ended


@in_loop
async def test_starting_again_gives_the_run_that_there_is(backend, pipeline_spec):
    spec = spec_of("twice-1", manifest_of({"rate": "0.5"}, pipelineSpec=pipeline_spec))
    first, second = await backend.start(spec), await backend.start(spec)
    assert first.reference == second.reference
    other = await backend.start(replace(spec, experiment_id=8))  # of a later experiment of the same name
    assert other.reference["run_id"] != first.reference["run_id"]
    assert [(await job.wait()).ok for job in (first, second, other)] == [True] * 3


@in_loop
async def test_a_pipeline_that_was_uploaded_is_named(backend, pipeline, pipeline_spec, runs):
    with pipeline.channel() as channel:
        pipelines = pipeline_pb2_grpc.PipelineServiceStub(channel)
        asked = pipeline_pb2.Pipeline(display_name="mine", namespace="user")
        made = pipelines.CreatePipeline(pipeline_pb2.CreatePipelineRequest(pipeline=asked))
        versions = {}
        for name in ("one", "two"):
            version = pipeline_pb2.PipelineVersion(pipeline_id=made.pipeline_id, display_name=name)
            json_format.ParseDict(pipeline_spec, version.pipeline_spec)
            request = pipeline_pb2.CreatePipelineVersionRequest(pipeline_id=made.pipeline_id, pipeline_version=version)
            versions[name] = pipelines.CreatePipelineVersion(request).pipeline_version_id
    for trial, wanted, source in (
        ("named-1", "two", {"pipelineName": "mine"}),
        ("named-2", "one", {"pipelineName": "mine", "pipelineVersion": "one"}),
        ("named-3", "one", {"pipelineId": made.pipeline_id, "pipelineVersionId": versions["one"]}),
    ):
        job = await backend.start(spec_of(trial, manifest_of({"rate": "0.5", "layers": "2"}, **source)))
        run = runs.GetRun(run_pb2.GetRunRequest(run_id=job.reference["run_id"]))
        assert run.pipeline_version_reference.pipeline_version_id == versions[wanted]
        await job.kill()
    ended = await (await backend.start(spec_of("named-4", manifest_of({}, pipelineName="none")))).wait()
    assert "it cannot be started: pipeline service" in ended.message
    wrong = manifest_of({"rate": "fast"}, pipelineName="mine")
    assert "rate" in (await (await backend.start(spec_of("named-5", wrong))).wait()).message


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "t.spec"),
        ({"pipelineName": "a", "pipelineId": "b"}, "t.spec"),
        ({"pipelineName": 7}, "t.spec.pipelineName"),
        ({"pipelineName": "a", "parameters": {}}, "t.spec.parameters"),
        ({"pipelineName": "a", "pipelineVersion": "b", "pipelineVersionId": "c"}, "t.spec.pipelineVersionId"),
        ({"pipelineName": "a", "runtimeConfig": []}, "t.spec.runtimeConfig"),
        ({"pipelineName": "a", "runtimeConfig": {"parameters": "x"}}, "t.spec.runtimeConfig.parameters"),
        (
            {"pipelineSpec": {"root": {}}, "runtimeConfig": {"parameters": {"x": 1}}},
            "t.spec.runtimeConfig.parameters.x",
        ),
        ({"pipelineSpec": "text"}, "t.spec.pipelineSpec"),
    ],
)
def test_what_cannot_be_run_is_refused_when_the_experiment_is_made(tmp_path, spec, field):
    backend = PipelineBackend(tmp_path, "127.0.0.1:1", USER)
    with pytest.raises(InvalidArgument) as caught:
        backend.check({"spec": spec}, "", "t")
    assert caught.value.violations[0][0] == field


def test_without_a_pipeline_service_pipelines_are_refused(tmp_path: Path):
    with pytest.raises(FailedPrecondition, match="PIPELINE_ADDRESS"):
        PipelineBackend(tmp_path, "", USER).check(manifest_of({}, pipelineName="a"), "", "t")


def test_text_becomes_what_the_pipeline_declares():
    kinds = {"a": "NUMBER_INTEGER", "b": "NUMBER_DOUBLE", "c": "BOOLEAN", "d": "LIST", "e": "STRING"}
    definitions = {name: {"parameterType": kind} for name, kind in kinds.items()}
    given = {"a": "3", "b": "1e-3", "c": "false", "d": "[1]", "e": "3", "f": "3"}
    assert typed(given, definitions) == {"a": 3, "b": 0.001, "c": False, "d": [1], "e": "3", "f": "3"}
    assert typed({"a": "3.0", "b": 2}, definitions) == {"a": 3, "b": 2}
    wrong = {"a": "0.5", "b": "inf", "c": "maybe", "d": "["}
    assert typed(wrong, definitions) == wrong


def test_an_output_of_the_pipeline_stands_before_those_of_its_tasks():
    outputs = {
        "parameters": {"loss": 0.5, "words": "many"},
        "tasks": [
            {"task_id": "1", "display_name": "one", "parameters": {"loss": 0.75, "kept": True, "note": "0.1"}},
            {
                "task_id": "2",
                "display_name": "two",
                "artifacts": [
                    {"type": "system.Metrics", "metadata": {"accuracy": 0.25}},
                    {"type": "system.Model", "metadata": {"size": 7}},
                ],
            },
        ],
    }
    assert list(metrics_of(outputs, frozenset({"loss", "words"}))) == [
        ("", "loss", "0.5"),
        ("1", "one.loss", "0.75"),
        ("1", "one.note", "0.1"),
        ("1", "note", "0.1"),
        ("2", "two.accuracy", "0.25"),
        ("2", "accuracy", "0.25"),
    ]
