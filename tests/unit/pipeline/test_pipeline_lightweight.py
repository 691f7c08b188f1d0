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


@dsl.component(
    packages_to_install=["six", "b[x]>=1; python_version>'3'"],
    pip_index_urls=["https://a/simple", "https://b/simple"],
    pip_trusted_hosts=["a", "b"],
    use_venv=True,
)
def in_venv(a: int) -> int:
    return a


@dsl.component(packages_to_install=["six"], install_kfp_package=False, use_venv=True)
def in_venv_without_kfp(a: int) -> int:
    return a


def test_virtual_environments_and_several_indexes():
    found = _recognise(in_venv)
    assert found.requirements == ("six", "b[x]>=1; python_version>'3'")
    assert found.pip_options == (
        *("--index-url", "https://a/simple", "--extra-index-url", "https://b/simple"),
        *("--trusted-host", "a", "--trusted-host", "b"),
    )
    assert _recognise(in_venv_without_kfp).requirements == ("six",)


@pytest.mark.parametrize(
    "path",
    [
        "kfp==2.9.0",
        "kfp @ https://example.com/kfp.zip",
        "git+https://github.com/kubeflow/pipelines.git@master#subdirectory=sdk/python",
        "git+https://github.com/kubeflow/pipelines@refs/pull/1/merge#egg=kfp&subdirectory=sdk/python",
        "/tmp/kfp-2.17.0-py3-none-any.whl",
        "https://example.com/kfp-2.4.0.tar.gz",
    ],
)
def test_kfp_is_not_installed_wherever_it_is_to_come_from(path):
    @dsl.component(kfp_package_path=path, packages_to_install=["six"])
    def component(a: int) -> int:
        return a

    assert _recognise(component).requirements == ("six",)


@pytest.mark.parametrize(
    "package",
    [
        "kfp-kubernetes",
        "kfp[kubernetes]",
        "kfpx==1",
        "/tmp/kfp_tools-1.0-py3-none-any.whl",
        "git+https://github.com/kubeflow/pipelines#subdirectory=kubernetes_platform/python",
        "git+https://github.com/me/kfp-tools@v1",
        "file:///tmp/y-1.0-py3-none-any.whl",
    ],
)
def test_what_only_looks_like_kfp_is_installed(package):
    @dsl.component(packages_to_install=[package])
    def component(a: int) -> int:
        return a

    assert _recognise(component).requirements == (package,)


def test_options_of_pip_among_the_packages():
    command = [
        *("sh", "-c", 'python3 -m pip install --quiet --no-index --find-links=/wheels -f /more --pre six && "$0" "$@"'),
        *("sh", "-ec", "python3 -m kfp.dsl.executor_main ephemeral_component.py ", "def f(): pass"),
    ]
    found = recognise(command, ["--executor_input", "{{$}}", "--function_to_execute", "f"])
    assert found.requirements == ("six",)
    assert found.pip_options == ("--no-index", "--find-links", "/wheels", "-f", "/more", "--pre")
    command[2] = command[2].replace("--pre", "--target=/etc")
    with pytest.raises(NotLightweight, match="--target"):
        recognise(command, ["--executor_input", "{{$}}", "--function_to_execute", "f"])


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
