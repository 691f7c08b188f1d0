"""What does not fit a message is named by its place, and by what was expected there."""

from typing import Any

import pytest
from mlmesh_kit.errors import InvalidArgument
from mlmesh_pipeline.ir.messages import read_message
from mlmesh_pipeline.ir.proto import DeploymentConfig, PipelineSpec, PlatformSpec

TASK = "spec.root.dag.tasks['a b'].retryPolicy"


def task(**policy: Any) -> dict[str, Any]:
    return {"root": {"dag": {"tasks": {"first": {}, "a b": {"retryPolicy": policy}}}}}


@pytest.mark.parametrize(
    ("content", "kind", "place", "words"),
    [
        ([], PipelineSpec, "spec", "must be a mapping"),
        ({"nope": 1}, PipelineSpec, "spec.nope", "no such field (there are: pipelineInfo, "),
        ({"a b": 1}, PipelineSpec, "spec['a b']", "no such field"),
        (task(maxRetryCount="x"), PipelineSpec, f"{TASK}.maxRetryCount", "a whole number of 32 bits"),
        (task(maxRetryCount=2**40), PipelineSpec, f"{TASK}.maxRetryCount", "a whole number of 32 bits"),
        (task(max_retry_count=[]), PipelineSpec, f"{TASK}.max_retry_count", "a whole number"),
        (task(backoffFactor="x"), PipelineSpec, f"{TASK}.backoffFactor", "a number"),
        (task(backoffDuration=7), PipelineSpec, f"{TASK}.backoffDuration", "a duration such as 7s"),
        (task(nope=1), PipelineSpec, f"{TASK}.nope", "no such field"),
        ({"root": {"dag": {"tasks": [1]}}}, PipelineSpec, "spec.root.dag.tasks", "a mapping"),
        ({"components": {"c": 3}}, PipelineSpec, "spec.components['c']", "a mapping"),
        ({"components": {"c": {"executorLabel": 3}}}, PipelineSpec, "spec.components['c'].executorLabel", "text"),
        (
            {"components": {"c": {"executorLabel": "x", "dag": {}}}},
            PipelineSpec,
            "spec.components['c']",
            "more than one of implementation",
        ),
        ({"deploymentSpec": []}, PipelineSpec, "spec.deploymentSpec", "a mapping"),
        (
            {"executors": {"e": {"container": {"env": [{}, {"name": 1}]}}}},
            DeploymentConfig,
            "spec.executors['e'].container.env[1].name",
            "text",
        ),
        (
            {"executors": {"e": {"container": {"args": "x"}}}},
            DeploymentConfig,
            "spec.executors['e'].container.args",
            "list",
        ),
        (
            {"executors": {"e": {"container": {"args": ["x", 1]}}}},
            DeploymentConfig,
            "spec.executors['e'].container.args[1]",
            "text",
        ),
        (
            {"executors": {"e": {"importer": {"reimport": "yes"}}}},
            DeploymentConfig,
            "spec.executors['e'].importer.reimport",
            "true or false",
        ),
        (
            {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"e": 7}}}}},
            PlatformSpec,
            "spec.platforms['kubernetes'].deploymentSpec.executors['e']",
            "a mapping",
        ),
    ],
)
def test_places(content: Any, kind: Any, place: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_message(content, kind(), "spec")
    ((field, message),) = caught.value.violations
    assert field == place
    assert words in message


def test_a_wrong_name_of_an_enum_lists_the_right_ones() -> None:
    content = {"root": {"inputDefinitions": {"parameters": {"n": {"parameterType": "INTEGER"}}}}}
    with pytest.raises(InvalidArgument, match=r"parameters\['n'\].parameterType: must be one of .*NUMBER_INTEGER"):
        read_message(content, PipelineSpec(), "spec")


def test_what_fits() -> None:
    assert read_message(task(maxRetryCount=3, backoffDuration="7s"), PipelineSpec(), "spec").HasField("root")
