"""Commands of container components: their placeholders, and whether they may be run here as processes.

Placeholders are those of the KFP compiler: `{{$}}`, `{{$.inputs...}}`, `{{$.outputs...}}`, the names of
`placeholders.CONTEXT_NAMES`, and words that are JSON: `{"Concat": [...]}` and
`{"IfPresent": {"InputName": ..., "Then": ..., "Else": ...}}`.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmesh_pipeline.ir.placeholders import CONTEXT_NAMES
from mlmesh_pipeline.ir.values import whole

_STRUCTURES = ('{"Concat":', '{"IfPresent":')
_PLACEHOLDER = re.compile(r"\{\{\$(?P<path>[^{}]*)\}\}")
_QUOTED = r"\[(?:'([^']+)'|\"([^\"]+)\")\]"
_PARAMETER = re.compile(rf"\.inputs\.parameters{_QUOTED}")
_OUTPUT_FILE = re.compile(rf"\.outputs\.parameters{_QUOTED}\.output_file")
_ARTIFACT = re.compile(rf"\.(inputs|outputs)\.artifacts{_QUOTED}(\.path|\.uri|\.name|\.metadata(?:{_QUOTED})?)?")
_REPORT = {".outputs.output_file", ".outputMetadataUri", ".outputs.output_metadata_uri"}
_MAX_DEPTH = 50
_LENIENT_SHELLS = re.compile(r"alpine|busybox|\bubi\d*\b|centos|fedora|rocky|alma|amazonlinux")


class BadCommand(ValueError):
    """A placeholder is not known, or names what the component does not have; the message says which."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What a container component runs: command and arguments, with placeholders; and the image it is meant for."""

    words: tuple[str, ...]
    image: str = ""


@dataclass(frozen=True, slots=True)
class AllowedCommands:
    """Which programs container components may start on this machine.

    Args:
        names: Names of programs; `*` is any.
        search_path: Where they are looked for, as PATH.
    """

    names: frozenset[str] = frozenset()
    search_path: str = ""

    def problem(self, program: str) -> str:
        """Says why a program may not be started; "" if it may."""
        if "*" in self.names and "{{$" in program:  # it is said when the task runs
            return ""
        if "*" not in self.names and program not in self.names:
            return (
                "container components run here as processes, without their image, only if the service is told their "
                f"program: MLMESH_PIPELINE_CONTAINER_COMMANDS={program}; their image needs the backend argo"
            )
        if program not in {"python", "python3"} and shutil.which(program, path=self.search_path) is None:
            return f"there is no program {program!r} on this machine; its image needs the backend argo"
        return ""


def check_command(command: CommandLine, component: Any) -> None:
    """Checks that each placeholder is known, and names an input or output of the component.

    Raises:
        BadCommand: One does not.
    """
    inputs, outputs = component.input_definitions, component.output_definitions
    for text in _texts(command.words):
        for found in _PLACEHOLDER.finditer(text):
            path = found["path"]
            if not path or path in _REPORT or path.removeprefix(".") in CONTEXT_NAMES:
                continue
            if match := _PARAMETER.fullmatch(path):
                known = inputs.parameters
                name = match[1] or match[2]
            elif match := _OUTPUT_FILE.fullmatch(path):
                known = outputs.parameters
                name = match[1] or match[2]
            elif match := _ARTIFACT.fullmatch(path):
                known = (inputs if match[1] == "inputs" else outputs).artifacts
                name = match[2] or match[3]
            else:
                raise BadCommand(f"unknown placeholder {found[0]}")
            # What the compiler adds for f-strings is an input of the task alone.
            if name not in known and not name.startswith("pipelinechannel--"):
                raise BadCommand(f"{found[0]} names what the component does not have")


def programs_of(command: CommandLine) -> list[str]:
    """Gives the programs that a command may start: its first word, or those that a structure there may stand for.

    Raises:
        BadCommand: A structure is none.
    """
    found: list[str] = []
    for word in command.words:
        ways = _ways(_structure(word))
        found += [words[0] for words in ways if words and words[0] not in found]
        if all(ways):
            break
    return found


def _ways(found: Any) -> list[list[str]]:
    """Gives the words that a structure stands for, for each way that it can go."""
    match found:
        case {"IfPresent": {"InputName": str(), **ways}}:
            return [words for name in ("Then", "Else") for words in _ways(ways.get(name))]
        case list() if any(isinstance(one, dict) for one in found[:1]):
            return [[*first, *_expand(found[1:], None)] for first in _ways(found[0])]
    return [_expand(found, None)]


def fill_command(command: CommandLine, given: Mapping[str, Any], context: Mapping[str, str]) -> list[str]:
    """Gives the words of a command with values in the place of placeholders.

    Args:
        command: As the component has it.
        given: ExecutorInput.
        context: Values of `CONTEXT_NAMES`.

    Raises:
        BadCommand: A placeholder has no value.
    """
    present = {name for name, value in given["inputs"]["parameterValues"].items() if value is not None}
    present |= {name for name, value in given["inputs"]["artifacts"].items() if value["artifacts"]}
    words = [text for word in command.words for text in _expand(_structure(word), present)]
    return [_PLACEHOLDER.sub(lambda found: _value(found, given, context), word) for word in words]


def shell_of(image: str) -> str:
    """Gives the shell that `sh` stands for: that of many images takes `[ a == b ]`, that of Debian does not."""
    return "bash" if _LENIENT_SHELLS.search(image) and shutil.which("bash") else "sh"


def _structure(word: str) -> Any:
    if not word.startswith(_STRUCTURES):
        return word
    try:
        return json.loads(word)
    except (ValueError, RecursionError) as error:
        raise BadCommand(f"no JSON: {word[:100]}") from error


def _texts(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        found = _structure(word)
        if found is word:
            yield word
        else:
            yield from _expand(found, None)


def _expand(found: Any, present: set[str] | None, depth: int = 0) -> list[str]:
    """Gives the words that a structure stands for.

    Args:
        found: Text, a list of such, or a Concat or IfPresent.
        present: Inputs that have a value; None: both ways of each IfPresent.
        depth: How deep it is.
    """
    if depth > _MAX_DEPTH:
        raise BadCommand(f"placeholders are nested more than {_MAX_DEPTH} deep")
    match found:
        case None:
            return []
        case str():
            return [found]
        case list():
            return [text for one in found for text in _expand(one, present, depth + 1)]
        case {"Concat": list(parts)} if len(found) == 1:
            return ["".join(text for part in parts for text in _expand(part, present, depth + 1))]
        case {"IfPresent": {"InputName": str(name), **ways}} if len(found) == 1 and set(ways) <= {"Then", "Else"}:
            if present is None:
                return [text for way in ways.values() for text in _expand(way, None, depth + 1)]
            return _expand(ways.get("Then" if name in present else "Else"), present, depth + 1)
    raise BadCommand(f"neither Concat nor IfPresent: {json.dumps(found)[:100]}")


def _value(found: re.Match[str], given: Mapping[str, Any], context: Mapping[str, str]) -> str:
    path = found["path"]
    if not path:
        return json.dumps(given)
    if path in _REPORT:
        return str(given["outputs"]["outputFile"])
    if match := _PARAMETER.fullmatch(path):
        value = given["inputs"]["parameterValues"].get(match[1] or match[2])
        return value if isinstance(value, str) else json.dumps(whole(value))
    if match := _OUTPUT_FILE.fullmatch(path):
        return str(given["outputs"]["parameters"][match[1] or match[2]]["outputFile"])
    if match := _ARTIFACT.fullmatch(path):
        items = given[match[1]]["artifacts"].get(match[2] or match[3], {}).get("artifacts", [])
        return _of_artifact(items[0], match[4] or "", match[5] or match[6]) if items else ""
    name = path.removeprefix(".")
    if name not in context:
        raise BadCommand(f"unknown placeholder {found[0]}")
    return context[name]


def _of_artifact(artifact: dict[str, Any], part: str, key: str | None) -> str:
    if not part:
        return json.dumps(artifact)
    if not part.startswith(".metadata"):
        if part == ".path":  # in a container it is not the URI
            return str(artifact.get("path", artifact["uri"]))
        return str(artifact["uri" if part == ".uri" else "name"])
    value = artifact["metadata"].get(key) if key else artifact["metadata"]
    return value if isinstance(value, str) else json.dumps(value)
