"""A small Argo for tests: walks the DAG templates of a Workflow, and runs its pods as processes of this machine.

What it does not know it refuses, so that no test passes because something was left out.
"""

import asyncio
import copy
import datetime
import json
import os
import re
import shutil
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mlmesh_kit.errors import ServiceError
from mlmesh_kit.launch import ProcessSpec, WarmLauncher
from mlmesh_pipeline.argo.__main__ import main as run_our_code
from mlmesh_pipeline.ir.lightweight import NotLightweight, recognise

ENDED_WELL = {"Succeeded", "Skipped"}
_VARIABLE = re.compile(r"\{\{([^{}]*)\}\}")
_KUBERNETES = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_TEMPLATE_KEYS = {
    "name", "inputs", "outputs", "metadata", "retryStrategy", "container", "containerSet", "volumes", "podSpecPatch",
    "dag", "parallelism", "activeDeadlineSeconds",
}  # fmt: skip
_TASK_KEYS = {"name", "template", "arguments", "depends", "when", "withParam"}


_PREFIXES = """
from kfp.dsl.types import artifact_types
artifact_types._S3_LOCAL_MOUNT_PREFIX = {root!r} + "/s3/"
"""
Spoil = Callable[[str, str, int], str]


class Shutdown(Exception):
    """The Workflow was told to end."""


@dataclass
class Result:
    phase: str
    outputs: dict[str, str] = field(default_factory=dict)
    message: str = ""
    exit_code: str = ""


class Pods:
    """Runs pods one after the other; their folders are folders of this machine.

    Args:
        folder: For logs and sources.
        spoil: Called with the pod, the task's path and the number of the attempt; "Error" loses the pod, as if
            its node had gone.
        root: Stands for the root of containers: KFP's SDK looks for artifacts of S3 in `/s3`.
        secrets: Values of secrets, by name and key.
    """

    def __init__(
        self,
        folder: Path,
        spoil: Callable[[str, str, int], str] | None = None,
        root: str = "",
        secrets: dict | None = None,
    ) -> None:
        self.folder = folder
        self.spoil = spoil or (lambda pod, path, number: "")
        self.secrets = secrets or {}
        self.specs: dict[str, list[dict]] = {}
        self.environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "_KFP_RUNTIME": "true"}
        if root:
            (folder / "sitecustomize.py").write_text(_PREFIXES.format(root=root))
            self.environment["PYTHONPATH"] = str(folder)
        self._launcher = WarmLauncher(["kfp.dsl.executor_main", "kfp.dsl"], env=self.environment)
        self._lock = asyncio.Lock()
        self._attempts: dict[tuple[str, str], int] = {}

    async def __aenter__(self) -> "Pods":
        await self._launcher.warm_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._launcher.close()

    def log(self, pod: str) -> Path:
        return self.folder / f"{pod}.log"

    async def run(self, template: dict, pod: str, path: str, is_ending: Callable[[], bool]) -> Result:
        async with self._lock:
            spec = pod_spec(template)
            assert "{{" not in json.dumps(spec), "something that Argo takes for a variable"
            self.specs.setdefault(path, []).append(spec)
            for volume in spec["volumes"]:
                if "emptyDir" in volume:
                    _empty(spec, volume["name"])
            if "container" in template:
                return self._driver(template, spec)
            key = (pod.rpartition("-")[0], path)
            self._attempts[key] = self._attempts.get(key, 0) + 1
            if lost := self.spoil(pod, path, self._attempts[key]):
                return Result(lost, message="pod deleted")
            return await self._set(spec, pod, is_ending)

    def _environment(self, container: dict) -> dict[str, str]:
        found: dict[str, str] = {}
        for variable in container.get("env", []):
            if "value" in variable:
                found[variable["name"]] = _words([variable["value"]], found)[0]
            elif key := variable["valueFrom"].get("secretKeyRef"):
                found[variable["name"]] = self.secrets[key["name"], key["key"]]
        return found

    def _ours(self, words: list[str], environment: dict[str, str]) -> int:
        """Runs what our image would, here: a process of its own each time would take a second."""
        before = dict(os.environ)
        os.environ.update({name: value for name, value in environment.items() if name.startswith("MLMESH_S3_")})
        try:
            return run_our_code(words, environment)
        except ServiceError:  # as a process would end that raises it
            traceback.print_exc()
            return 1
        finally:
            os.environ.clear()
            os.environ.update(before)

    def _driver(self, template: dict, spec: dict) -> Result:
        (container,) = spec["containers"]
        assert container["command"][:3] == ["python", "-m", "mlmesh_pipeline.argo"]
        environment = self._environment(container)
        code = self._ours([*container["command"][3:], *_words(container.get("args", []), environment)], environment)
        outputs = {}
        for output in template["outputs"]["parameters"]:
            place = Path(output["valueFrom"]["path"])
            outputs[output["name"]] = place.read_text() if place.exists() else output["valueFrom"]["default"]
        message = f"Error (exit code {code})" if code else ""
        return Result("Failed" if code else "Succeeded", outputs, message, str(code))

    async def _set(self, spec: dict, pod: str, is_ending: Callable[[], bool]) -> Result:
        codes: dict[str, int] = {}
        for container in spec["containers"]:
            if any(codes[other] for other in container.get("dependencies", [])):
                codes[container["name"]] = 64  # as the emissary's
                continue
            environment = self._environment(container)
            words = _words([*container["command"], *container.get("args", [])], environment)
            if words[:3] == ["python", "-m", "mlmesh_pipeline.argo"]:
                codes[container["name"]] = self._ours(words[3:], environment)
            else:
                codes[container["name"]] = await self._main(words, environment, pod, is_ending)
        code = codes["main"] or max(codes.values())
        message = f"main: Error (exit code {code})" if code else ""
        return Result("Failed" if code else "Succeeded", {}, message, str(code))

    async def _main(self, words: list[str], environment: dict[str, str], pod: str, is_ending) -> int:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        environment = {**self.environment, "HOME": str(folder), **environment}
        try:
            found = recognise(words[:-4], ["--executor_input", "{{$}}", *words[-2:]])
        except NotLightweight:
            found = None
        if found is not None:
            source = folder / "ephemeral_component.py"
            source.write_text(found.source)
            given = words[words.index("--executor_input") + 1]
            words = [sys.executable, "-m", "kfp.dsl.executor_main", "--component_module_path", str(source)]
            words += ["--executor_input", given, "--function_to_execute", found.function]
        process = await self._launcher.start(
            ProcessSpec(argv=words, cwd=folder, env=environment, log_path=self.log(pod), timeout_seconds=60)
        )
        waiting = asyncio.create_task(process.wait())
        while not (await asyncio.wait({waiting}, timeout=0.05))[0]:
            if is_ending():
                await process.terminate(1)
        status = await waiting
        return status.code if status.code is not None else 137


class Interpreter:
    """Runs one Workflow.

    Args:
        workflow: As it was submitted.
        pods: Runs its pods.
        publish: Called with the status, whenever it has changed.
        is_ending: Whether the Workflow was told to end.
    """

    def __init__(self, workflow: dict, pods: Pods, publish=lambda status: None, is_ending=lambda: False) -> None:
        self._workflow = workflow
        self._pods = pods
        self._publish = publish
        self._is_ending = is_ending
        self._templates = {template["name"]: template for template in workflow["spec"]["templates"]}
        for template in self._templates.values():
            assert set(template) <= _TEMPLATE_KEYS, f"unknown: {set(template) - _TEMPLATE_KEYS}"
        assert len(self._templates) == len(workflow["spec"]["templates"]), "names of templates must differ"
        self.nodes: dict[str, dict] = {}

    async def run(self) -> str:
        """Runs it to its end; gives its phase."""
        name = self._workflow["metadata"]["name"]
        self._tell("Running")
        try:
            result = await self._template(self._workflow["spec"]["entrypoint"], {}, name)
            phase = result.phase
        except Shutdown:
            phase = "Failed"
        for node in self.nodes.values():
            if node["phase"] in {"Pending", "Running"}:
                node |= {"phase": "Failed", "message": "workflow shutdown with strategy:  Terminate"}
        self._tell(phase, "Stopped with strategy 'Terminate'" if self._is_ending() else "")
        return phase

    def _tell(self, phase: str, message: str = "") -> None:
        self._publish({"phase": phase, "message": message, "nodes": copy.deepcopy(self.nodes)})

    def _node(self, name: str, kind: str, template: str, inputs: dict[str, str]) -> dict:
        ident = f"{self._workflow['metadata']['name']}-{zlib.crc32(name.encode())}"
        assert ident not in self.nodes
        parameters = [{"name": key, "value": value} for key, value in inputs.items()]
        self.nodes[ident] = node = {
            "id": ident, "name": name, "type": kind, "templateName": template, "phase": "Running",
            "startedAt": self._now(), "inputs": {"parameters": parameters},
        }  # fmt: skip
        return node

    def _now(self) -> str:
        return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _end(self, node: dict, result: Result) -> Result:
        node |= {"phase": result.phase, "message": result.message, "finishedAt": self._now()}
        if result.exit_code:
            node["outputs"] = {"exitCode": result.exit_code}
        self._tell("Running")
        return result

    async def _template(self, name: str, arguments: dict[str, str], node_name: str) -> Result:
        template = copy.deepcopy(self._templates[name])
        wanted = [one["name"] for one in template.get("inputs", {}).get("parameters", [])]
        assert sorted(wanted) == sorted(arguments), f"{name} wants {wanted}, got {sorted(arguments)}"
        scope = {f"inputs.parameters.{key}": value for key, value in arguments.items()}
        if "dag" in template:
            return await self._dag(template, scope, node_name, arguments)
        return await self._retried(template, scope, node_name, arguments)

    async def _retried(self, template: dict, scope: dict, node_name: str, arguments: dict[str, str]) -> Result:
        strategy = template.get("retryStrategy")
        if strategy is None:
            return await self._pod(template, scope, node_name, arguments)
        assert set(strategy) <= {"limit", "retryPolicy", "expression", "backoff"}
        node = self._node(node_name, "Retry", template["name"], arguments)
        number = 0
        while True:
            result = await self._pod(template, scope, f"{node_name}({number})", arguments)
            number += 1
            if result.phase == "Succeeded" or number > int(strategy["limit"]) or not _again(strategy, result):
                break
        if result.phase != "Succeeded" and number > 1:
            result.message = f"No more retries left: {result.message}"
        return self._end(node, result)

    async def _pod(self, template: dict, scope: dict, node_name: str, arguments: dict[str, str]) -> Result:
        if self._is_ending():
            raise Shutdown
        node = self._node(node_name, "Pod", template["name"], arguments)
        self._tell("Running")
        filled = _filled(template, scope)
        result = await self._pods.run(filled, node["id"], arguments["path"], self._is_ending)
        return self._end(node, result)

    async def _dag(self, template: dict, scope: dict, node_name: str, arguments: dict[str, str]) -> Result:
        assert template["dag"]["failFast"] is False
        node = self._node(node_name, "DAG", template["name"], arguments)
        tasks = {task["name"]: task for task in template["dag"]["tasks"]}
        assert len(tasks) == len(template["dag"]["tasks"])
        results: dict[str, Result] = {}
        while len(results) < len(tasks):
            ready = [name for name, task in tasks.items() if name not in results and _needs(task) <= set(results)]
            assert ready, "a circle"
            for name in ready:
                result = await self._task(tasks[name], dict(scope), results, f"{node_name}.{name}")
                results[name] = result
                for key, value in result.outputs.items():
                    scope[f"tasks.{name}.outputs.parameters.{key}"] = value
        needed = {other for task in tasks.values() for other in _needs(task)}
        # A task's failure is the DAG's, unless another made something of it.
        bad = [name for name in tasks if name not in needed and results[name].phase not in ENDED_WELL | {"Omitted"}]
        omitted = [name for name in tasks if name not in needed and results[name].phase == "Omitted"]
        return self._end(node, Result("Failed" if bad or omitted else "Succeeded"))

    async def _task(self, task: dict, scope: dict, results: dict[str, Result], node_name: str) -> Result:
        assert set(task) <= _TASK_KEYS, f"unknown: {set(task) - _TASK_KEYS}"
        if not _depends(task.get("depends", ""), results):
            return self._end(self._node(node_name, "Skipped", task["template"], {}), Result("Omitted"))
        if "withParam" not in task:
            return await self._once(task, scope, node_name)
        items = json.loads(_filled(task["withParam"], scope))
        group = self._node(node_name, "TaskGroup", task["template"], {})
        phases = []
        for number, item in enumerate(items):
            inner = {**scope, "item": json.dumps(item)}
            phases.append((await self._once(task, inner, f"{node_name}({number}:{item})")).phase)
        return self._end(group, Result("Failed" if set(phases) - ENDED_WELL else "Succeeded"))

    async def _once(self, task: dict, scope: dict, node_name: str) -> Result:
        if "when" in task:
            left, right = _filled(task["when"], scope).split(" == ")
            if left != right:
                return self._end(self._node(node_name, "Skipped", task["template"], {}), Result("Skipped"))
        arguments = {one["name"]: _filled(one["value"], scope) for one in task["arguments"]["parameters"]}
        return await self._template(task["template"], arguments, node_name)


def pod_spec(template: dict) -> dict:
    """Makes the pod of a template, patched."""
    if "container" in template:
        containers, mounts = [{"name": "main", **template["container"]}], []
    else:
        containers = template["containerSet"]["containers"]
        mounts = template["containerSet"]["volumeMounts"]
    for container in containers:
        container["volumeMounts"] = [*container.get("volumeMounts", []), *mounts]
    spec = {"containers": containers, "volumes": template.get("volumes", [])}
    return merge(spec, json.loads(template.get("podSpecPatch", "{}")))


def merge(base: dict, patch: dict) -> dict:
    """Patches as Kubernetes does: lists of containers, volumes and variables by name, mounts by path."""
    keys = {"containers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath"}
    found = dict(base)
    for key, value in patch.items():
        old = found.get(key)
        if isinstance(old, list) and key in keys:
            by = {one[keys[key]]: one for one in old}
            by |= {one[keys[key]]: merge(by.get(one[keys[key]], {}), one) for one in value}
            found[key] = list(by.values())
        elif isinstance(old, dict) and isinstance(value, dict):
            found[key] = merge(old, value)
        else:
            found[key] = value
    return found


def _filled(value, scope: dict[str, str]):
    """Puts in values, twice, as Argo does: what was put in is looked at again."""
    text = json.dumps(value)
    for _ in range(2):
        text = _VARIABLE.sub(lambda found: json.dumps(scope[found[1]])[1:-1], text)
    return json.loads(text)


def _again(strategy: dict, result: Result) -> bool:
    if expression := strategy.get("expression"):
        (code,) = re.fullmatch(r"lastRetry\.exitCode != '(\d+)'", expression).groups()
        if (result.exit_code or "-1") == code:
            return False
    return {"Always": True, "OnError": result.phase == "Error"}[strategy["retryPolicy"]]


def _needs(task: dict) -> set[str]:
    return {found[1] for found in re.finditer(r"([A-Za-z][A-Za-z0-9-]*)\.[A-Z]", task.get("depends", ""))}


def _depends(expression: str, results: dict[str, Result]) -> bool:
    def value(found: re.Match[str]) -> str:
        phase = {"Errored": "Error"}.get(found[2], found[2])
        assert phase in {"Succeeded", "Failed", "Error", "Skipped", "Omitted"}, found[0]
        return str(results[found[1]].phase == phase)

    text = re.sub(r"([A-Za-z][A-Za-z0-9-]*)\.([A-Z][a-z]+)", value, expression)
    text = text.replace("&&", " and ").replace("||", " or ")
    assert re.fullmatch(r"[()\sA-Za-z]*", text)
    return bool(eval(text)) if text else True


def _words(words: list[str], environment: dict[str, str]) -> list[str]:
    """Expands as Kubernetes does."""
    return [
        _KUBERNETES.sub(lambda found: "$" if found[0] == "$$" else environment.get(found[1], found[0]), word)
        for word in words
    ]


def _empty(spec: dict, volume: str) -> None:
    """Makes a volume of a pod anew. Folders in the root of the machine are left alone: no test writes there."""
    for container in spec["containers"]:
        for mount in container["volumeMounts"]:
            folder = Path(mount["mountPath"])
            if mount["name"] == volume and len(folder.parts) > 3:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
