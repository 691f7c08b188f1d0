"""Recognises the command of a lightweight Python component, so that it runs without a shell.

The KFP compiler writes: `sh -c '<pip install ...> && "$0" "$@"' sh -ec '<write $0, run the executor>' '<source>'`
with the arguments `--executor_input {{$}} --function_to_execute NAME`; the first pair is missing where nothing is
to be installed.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

_EXECUTOR = re.compile(r"python3? -m kfp\.(dsl|components)\.executor_main\s")
_INSTALL = re.compile(r"python3? -m pip install\s+(?P<arguments>.*?)\s*(?=&&|$|\n)", re.DOTALL)
# --no-deps is what the compiler writes for kfp itself, which is not installed.
_DROPPED = {"--quiet", "-q", "--no-warn-script-location", "--no-deps", "--disable-pip-version-check", "--no-cache-dir"}
_FLAGS = {"--no-index", "--pre", "--prefer-binary", "--require-hashes"}
_VALUED = {"--index-url", "-i", "--extra-index-url", "--trusted-host", "--find-links", "-f", "--only-binary"}
_KFP_SOURCE = re.compile(r"(^|[/:@])kubeflow/pipelines(\.git)?([@#/]|$)|[#&]egg=kfp(-pipeline-spec)?($|[&\[])")
_KFP_FORK = re.compile(r"(^|[/:@])[\w.-]+/pipelines(\.git)?([@#/]|$)")
_KFP_FOLDERS = {"sdk/python", "api/v2alpha1/python"}
_KFP_FILE = re.compile(r"(^|/)kfp(-|_pipeline_spec-|-pipeline-spec-)\d[^/]*\.(whl|tar\.gz|zip)$")
_NAME = re.compile(r"^[A-Za-z_]\w*$")


class NotLightweight(ValueError):
    """The command is another one; the message says in what."""


@dataclass(frozen=True, slots=True)
class LightweightComponent:
    """What a lightweight component's command says.

    Attributes:
        source: Python module that holds the function.
        function: Name of the function.
        requirements: PEP 508 requirements to install (kfp itself left out).
        pip_options: Options that go with them (index URLs).
    """

    source: str
    function: str
    requirements: tuple[str, ...] = ()
    pip_options: tuple[str, ...] = ()


def recognise(command: Sequence[str], args: Sequence[str]) -> LightweightComponent:
    """Reads the command and arguments of a container.

    Raises:
        NotLightweight: They are not those of a lightweight Python component.
    """
    if len(command) < 4 or command[-4:-2] != ["sh", "-ec"] or not _EXECUTOR.search(command[-2]):
        raise NotLightweight("its command is not that of a lightweight Python component")
    if "ephemeral_component.py" not in command[-2] or len(command[:-4]) not in {0, 3}:
        raise NotLightweight("its command is not that of a lightweight Python component")
    function = _function(args)
    requirements: list[str] = []
    options: list[str] = []
    if len(command) == 7:
        if command[:2] != ["sh", "-c"]:
            raise NotLightweight("its command does not begin with sh -c")
        for found in _INSTALL.finditer(command[2]):
            wanted, with_options = _read_install(found["arguments"])
            requirements += wanted
            options += with_options if wanted else []  # else they are for kfp alone
    return LightweightComponent(command[-1], function, tuple(requirements), tuple(options))


def _function(args: Sequence[str]) -> str:
    expected = ["--executor_input", "{{$}}", "--function_to_execute"]
    if list(args[:3]) != expected or len(args) != 4 or not _NAME.match(args[3]):
        raise NotLightweight(f"its arguments are not {' '.join(expected)} NAME")
    return args[3]


def _read_install(arguments: str) -> tuple[list[str], list[str]]:
    """Gives the requirements and the options of pip."""
    requirements: list[str] = []
    options: list[str] = []
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise NotLightweight(f"its pip command cannot be read: {error}") from error
    rest = iter(words)
    for word in rest:
        name, is_joined, value = word.partition("=")
        if word in _DROPPED:
            continue
        if word in _FLAGS:
            options.append(word)
        elif word in _VALUED:
            options += [word, next(rest, "")]
        elif is_joined and name in _VALUED:
            options += [name, value]
        elif word.startswith("-"):
            raise NotLightweight(f"its pip option {word!r} is not known")
        elif not _is_own(word):
            requirements.append(word)
    return requirements, options


def _is_own(requirement: str) -> bool:
    """Tells whether it is what KFP adds itself: kfp, wherever from, and a backport for old Pythons."""
    bare = requirement.replace(" ", "")
    return (
        bool(re.match(r"^(kfp|kfp-pipeline-spec)([=<>!~@;].*)?$", bare))
        or bool(_KFP_FILE.search(bare.partition("#")[0]))
        or _is_kfp_source(bare)
        or (bare.startswith("typing-extensions") and 'python_version<"3.9"' in bare)
    )


def _is_kfp_source(url: str) -> bool:
    """Tells whether it is a repository with kfp in it: other packages are in that of Kubeflow Pipelines as well."""
    folder = re.search(r"subdirectory=([^&]*)", url)
    if folder is None:
        return bool(_KFP_SOURCE.search(url))
    return bool(_KFP_SOURCE.search(url) or _KFP_FORK.search(url)) and folder[1].strip("/") in _KFP_FOLDERS
