import re
import warnings

import pytest
from kfp import dsl
from mlmesh_pipeline.ir.lightweight import NotLightweight, recognise

warnings.simplefilter("ignore")


@dsl.component
def plain(a: int) -> int:
    return a


@dsl.component(packages_to_install=["numpy>=1.0", "scikit-learn"], pip_index_urls=["https://example.com/simple"])
def with_packages(a: int) -> int:
    return a


@dsl.component(install_kfp_package=False)
def without_kfp(a: int) -> int:
    return a


@dsl.container_component
def container():
    return dsl.ContainerSpec(image="alpine", command=["echo"], args=["hello"])


def _recognise(component):
    spec = component.component_spec.implementation.container
    return recognise(list(spec.command or []), list(spec.args or []))


def test_a_plain_component():
    found = _recognise(plain)
    assert found.function == "plain"
    assert "def plain(" in found.source
    assert found.requirements == ()


def test_the_executor_of_kfp_2_0():
    spec = plain.component_spec.implementation.container
    command = [word.replace("kfp.dsl.executor_main", "kfp.components.executor_main") for word in spec.command]
    assert command != list(spec.command)
    assert recognise(command, list(spec.args)) == _recognise(plain)


def test_packages_and_index():
    found = _recognise(with_packages)
    assert found.requirements == ("numpy>=1.0", "scikit-learn")
    assert found.pip_options[:2] == ("--index-url", "https://example.com/simple")


@pytest.mark.parametrize(
    "source",
    [
        "git+https://github.com/kubeflow/pipelines.git@refs/pull/1/merge#subdirectory=sdk/python",
        "git+https://github.com/kubeflow/pipelines#egg=kfp&subdirectory=sdk/python",
    ],
)
def test_kfp_from_its_sources_is_kfp(source):
    spec = plain.component_spec.implementation.container
    command = [re.sub(r"kfp==[\d.]+", source, word) for word in spec.command]
    assert source in command[2]
    assert recognise(command, list(spec.args)).requirements == ()


def test_without_kfp():
    assert _recognise(without_kfp).requirements == ()


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ([], []),
        (["sh", "-c", "echo hi"], []),
        (["sh", "-ec", "python3 -m kfp.dsl.executor_main x", "source", "more"], ["--executor_input", "{{$}}"]),
    ],
)
def test_others_are_not(command, args):
    with pytest.raises(NotLightweight):
        recognise(command, args)


def test_a_container_is_not():
    with pytest.raises(NotLightweight):
        _recognise(container)
