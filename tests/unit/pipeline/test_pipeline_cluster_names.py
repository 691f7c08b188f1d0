"""How kfp-kubernetes names secrets and config maps, and what of it is refused."""

from typing import Any

import pytest
from mlmesh_pipeline.engine.inputs import Outcome, name_beside
from mlmesh_pipeline.ir.cluster_names import Source, faults, sources, unsupported, volumes
from mlmesh_pipeline.resources import RuntimeState, Values

KEYS = [{"secretKey": "password", "envVar": "PASSWORD"}]


def one(**named: Any) -> Source:
    (found,) = sources({"secretAsEnv": [{"keyToEnv": KEYS, **named}]})
    return found


def test_a_name_is_a_constant_an_input_or_an_output() -> None:
    upstream = {"emit": Outcome(RuntimeState.SUCCEEDED, Values({"Output": "of-task"}))}
    around = {"given": "of-input", "nothing": None}
    assert one(secretName="old").name == "old"
    assert one(secretName="old", secretNameParameter={"runtimeValue": {"constant": "new"}}).name == "new"
    for parameter, expected in [
        ({"componentInputParameter": "given"}, "of-input"),
        ({"componentInputParameter": "nothing"}, None),
        ({"componentInputParameter": "unknown"}, None),
        ({"taskOutputParameter": {"producerTask": "emit", "outputParameterKey": "Output"}}, "of-task"),
        ({"taskOutputParameter": {"producerTask": "emit", "outputParameterKey": "other"}}, None),
        ({"taskOutputParameter": {"producerTask": "other", "outputParameterKey": "Output"}}, None),
    ]:
        source = one(secretNameParameter=parameter)
        assert not source.name
        assert name_beside(around, upstream, source) == expected


def test_volumes_are_told_apart() -> None:
    config = {
        "secretAsVolume": [{"secretName": "s", "mountPath": "/s"}],
        "configMapAsVolume": [{"configMapNameParameter": {"componentInputParameter": "c"}, "optional": True}],
    }
    assert [(one.kind, one.name, one.parameter, one.optional) for one in volumes(config)] == [
        ("secret", "s", "", False),
        ("config map", "", "c", True),
    ]
    assert not list(sources(config))


@pytest.mark.parametrize("entry", [{}, {"secretNameParameter": {}}, {"secretNameParameter": {"runtimeValue": {}}}])
def test_a_secret_without_a_name(entry: dict[str, Any]) -> None:
    assert "secret" in unsupported({"secretAsEnv": [{**entry, "keyToEnv": KEYS}]})
    assert "secret" in unsupported({"secretAsVolume": [entry]})


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"secretAsEnv": {"a": 1}}, "secretAsEnv"),
        ({"configMapAsVolume": [1]}, "configMapAsVolume"),
        ({"podMetadata": {"labels": ["a"]}}, "podMetadata.labels"),
        ({"podMetadata": {"annotations": "a"}}, "podMetadata.annotations"),
        ({"activeDeadlineSeconds": "soon"}, "activeDeadlineSeconds"),
        ({"activeDeadlineSeconds": [1]}, "activeDeadlineSeconds"),
        ({"activeDeadlineSeconds": True}, "activeDeadlineSeconds"),
        ({"activeDeadlineSeconds": -1}, "activeDeadlineSeconds"),
        ({"secretAsEnv": [{"secretName": "s", "keyToEnv": [{"secretKey": "k", "envVar": "A=B"}]}]}, "keyToEnv.envVar"),
        ({"secretAsEnv": [{"secretName": "s", "keyToEnv": [{"secretKey": "k"}]}]}, "keyToEnv.envVar"),
    ],
)
def test_what_is_of_the_wrong_type_is_named(config: dict[str, Any], field: str) -> None:
    assert [name for name, _ in faults(config)] == [field]


@pytest.mark.parametrize("seconds", ["30", 30.0, 0])
def test_seconds(seconds: Any) -> None:
    assert not list(faults({"activeDeadlineSeconds": seconds}))
