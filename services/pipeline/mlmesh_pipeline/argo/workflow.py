"""Compiles a pipeline to an Argo Workflow.

Each DAG of the pipeline is a DAG template. Each task in it is a driver (ours), then what the driver decides on: the
pod of a container, the template of a nested DAG, or a loop over one. Argo keeps the order and runs the pods; what a
task gets, whether it runs, and what became of it is decided by the drivers, by the code that the local engine has.
"""

from typing import Any

from mlmesh_pipeline.argo.names import Names, is_label_value, slug, workflow_name
from mlmesh_pipeline.argo.options import Options
from mlmesh_pipeline.argo.state import run_uri
from mlmesh_pipeline.argo.templates import (
    DECISION,
    DRIVER,
    ITERATIONS,
    PATCH,
    PATH,
    RUN,
    RUN_LABEL,
    TASK,
    WORKSPACE_DRIVER,
    WORKSPACE_VOLUME,
    Json,
    driver_template,
    executor_template,
    own_environment,
)
from mlmesh_pipeline.ir.check import upstream_of
from mlmesh_pipeline.ir.document import PipelineDocument
from mlmesh_pipeline.ir.proto import TriggerStrategy
from mlmesh_pipeline.ir.values import whole
from mlmesh_pipeline.resources import Run

API_VERSION = "argoproj.io/v1alpha1"
MANAGED_BY = "mlmesh-pipeline"
TRY_LABEL = "pipelines.mlmesh.dev/try"
_COMPLETED = TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED
_RAN = ("Succeeded", "Skipped")
_ENDED = ("Succeeded", "Skipped", "Failed", "Errored", "Omitted")


def compile_workflow(document: PipelineDocument, run: Run, number: int, options: Options) -> Json:
    """Gives the Workflow of a run.

    Args:
        document: The pipeline, checked.
        run: What runs it.
        number: Of the try, from 1.
        options: Of the service.
    """
    return _Compiler(document, run, number, options).workflow()


class _Compiler:
    def __init__(self, document: PipelineDocument, run: Run, number: int, options: Options) -> None:
        self._document = document
        self._run = run
        self._number = number
        self._options = options
        uri = run_uri(options.state_root, run.namespace, run.run_id)
        self._environment = own_environment(options, uri, number)
        self._names = Names()
        self._templates: list[Json] = []
        self._dags: dict[str, str] = {}
        self._executors: dict[tuple[str, bytes], str] = {}
        platform = document.platform.platforms.get("kubernetes")
        self._config = platform.pipelineConfig if platform is not None else None
        self._workspace = self._config is not None and self._config.HasField("workspace")

    def workflow(self) -> Json:
        for name in (DRIVER, WORKSPACE_DRIVER):
            self._names.take("", name)
        self._templates.append(driver_template(self._options, self._environment))
        root = self._dag_template(self._names.take("", "root"), self._document.spec.root, prefix="")
        run, options = self._run, self._options
        spec: Json = {
            "entrypoint": root,
            "serviceAccountName": run.service_account or options.service_account,
            "podMetadata": {"labels": {RUN_LABEL: run.run_id, "pipelines.kubeflow.org/v2_component": "true"}},
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "templates": self._templates,
            **self._life(),
        }
        if options.parallelism:
            spec["parallelism"] = options.parallelism
        if self._workspace:
            spec["volumeClaimTemplates"] = [self._claim()]
        labels = {
            "app.kubernetes.io/managed-by": MANAGED_BY,
            RUN_LABEL: run.run_id,
            TRY_LABEL: str(self._number),
            "pipelines.mlmesh.dev/pipeline": slug(run.pipeline_name, 63),
        }
        ids = {"pipelines.mlmesh.dev/pipeline-id": run.pipeline_id, "pipelines.mlmesh.dev/version-id": run.version_id}
        labels |= {key: value for key, value in ids.items() if value and is_label_value(value)}
        if options.instance_id:
            labels["workflows.argoproj.io/controller-instanceid"] = options.instance_id
        return {
            "apiVersion": API_VERSION,
            "kind": "Workflow",
            "metadata": {
                "name": workflow_name(run.pipeline_name, run.run_id, self._number),
                "namespace": options.namespace or run.namespace,
                "labels": labels,
                "annotations": {
                    "pipelines.kubeflow.org/run_name": run.display_name,
                    "workflows.argoproj.io/pod-name-format": "v1",  # a pod is called as its node
                },
            },
            "spec": spec,
        }

    def _life(self) -> Json:
        """Gives how long the Workflow may run, and stays when it has ended."""
        config = self._config
        found: Json = {}
        if config is not None and config.active_deadline_seconds:
            found["activeDeadlineSeconds"] = config.active_deadline_seconds
        stays = {}
        if config is not None:
            stays = {
                "secondsAfterCompletion": config.resource_ttl_on_completion,
                "secondsAfterSuccess": config.resource_ttl_on_success,
                "secondsAfterFailure": config.resource_ttl_on_failure,
            }
        stays = {name: seconds for name, seconds in stays.items() if seconds}
        if not stays and self._options.ttl_seconds:
            stays = {"secondsAfterCompletion": self._options.ttl_seconds}
        if stays:
            found["ttlStrategy"] = stays
        return found

    def _claim(self) -> Json:
        """Gives the claim of the workspace; Argo makes it for the run, and removes it."""
        assert self._config is not None
        workspace = self._config.workspace
        patch = {}
        if workspace.HasField("kubernetes"):
            from google.protobuf import json_format

            patch = whole(json_format.MessageToDict(workspace.kubernetes.pvc_spec_patch))
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": workspace.size or "10Gi"}}}
        return {"metadata": {"name": WORKSPACE_VOLUME}, "spec": merged(spec, patch)}

    # -- templates -----------------------------------------------------------------------------------------------

    def _dag_of(self, component_name: str) -> str:
        """Gives the template of a component that is a DAG, made once."""
        if component_name not in self._dags:
            name = self._dags[component_name] = self._names.take("dag-", component_name)
            component = self._document.component(component_name)
            self._dag_template(name, component, prefix="{{inputs.parameters.path}}")
        return self._dags[component_name]

    def _dag_template(self, name: str, component: Any, *, prefix: str) -> str:
        names = Names()
        tasks = component.dag.tasks
        # A task is told by one node of Argo's: the last of it.
        nodes = {task: names.take("", task) for task in sorted(tasks)}
        drivers = {task: names.take("", task, "-driver") for task in sorted(tasks)}
        steps: list[Json] = []
        for task in sorted(tasks):
            steps += self._steps(nodes, drivers[task], task, tasks[task], prefix)
        template: Json = {"name": name, "dag": {"failFast": False, "tasks": steps}}
        if prefix:
            template["inputs"] = {"parameters": [{"name": PATH}]}
        self._templates.append(template)
        return name

    def _steps(self, nodes: dict[str, str], driver: str, name: str, spec: Any, prefix: str) -> list[Json]:
        component = self._document.component(spec.component_ref.name)
        path = prefix + name
        depends = " && ".join(
            f"({' || '.join(f'{nodes[other]}.{result}' for result in _results(spec))})"
            for other in sorted(upstream_of(spec))
        )
        before = {"depends": depends} if depends else {}
        if not spec.WhichOneof("iterator") and self._is_driver_alone(component):
            template = self._driver_of(component)
            return [{"name": nodes[name], "template": template, "arguments": _arguments(path=path), **before}]
        decided = {
            "depends": f"{driver}.Succeeded",
            "when": f"{{{{tasks.{driver}.outputs.parameters.{DECISION}}}}} == {RUN}",
        }
        if spec.WhichOneof("iterator"):
            template = self._loop_template(name, spec, component)
            iterations = f"{{{{tasks.{driver}.outputs.parameters.{ITERATIONS}}}}}"
            arguments = _arguments(path=path, iterations=iterations)
        elif component.WhichOneof("implementation") == "dag":
            template, arguments = self._dag_of(spec.component_ref.name), _arguments(path=f"{path}/")
        else:
            template, arguments = self._executor_of(spec, component), _executor_arguments(path, driver)
        return [
            {"name": driver, "template": DRIVER, "arguments": _arguments(path=path), **before},
            {"name": nodes[name], "template": template, "arguments": arguments, **decided},
        ]

    def _loop_template(self, name: str, spec: Any, component: Any) -> str:
        """Gives the template of a loop: one of its own, so that its limit is of its iterations alone."""
        path = "{{inputs.parameters.path}}[{{item}}]"
        if component.WhichOneof("implementation") == "dag":
            body, path = self._dag_of(spec.component_ref.name), f"{path}/"
        else:
            body = self._iteration_template(name, spec, component)
        template: Json = {
            "name": self._names.take("loop-", name),
            "inputs": {"parameters": [{"name": PATH}, {"name": ITERATIONS}]},
            "dag": {
                "failFast": False,
                "tasks": [
                    {
                        "name": "iteration",
                        "template": body,
                        "arguments": _arguments(path=path),
                        "withParam": "{{inputs.parameters.iterations}}",
                    }
                ],
            },
        }
        if spec.iterator_policy.parallelism_limit:
            template["parallelism"] = spec.iterator_policy.parallelism_limit
        self._templates.append(template)
        return str(template["name"])

    def _iteration_template(self, name: str, spec: Any, component: Any) -> str:
        """Gives the template of an iteration that is no DAG."""
        path = "{{inputs.parameters.path}}"
        template = self._driver_of(component) if self._is_driver_alone(component) else DRIVER
        steps: list[Json] = [{"name": "driver", "template": template, "arguments": _arguments(path=path)}]
        if not self._is_driver_alone(component):
            steps.append(
                {
                    "name": "executor",
                    "template": self._executor_of(spec, component),
                    "arguments": _executor_arguments(path, "driver"),
                    "depends": "driver.Succeeded",
                    "when": f"{{{{tasks.driver.outputs.parameters.{DECISION}}}}} == {RUN}",
                }
            )
        made = self._names.take("iteration-", name)
        inputs = {"parameters": [{"name": PATH}]}
        self._templates.append({"name": made, "inputs": inputs, "dag": {"failFast": False, "tasks": steps}})
        return made

    def _is_driver_alone(self, component: Any) -> bool:
        """Tells whether a task is done by its driver: importers, and claims made and removed."""
        if component.WhichOneof("implementation") == "dag":
            return False
        executor = self._document.executor(component.executor_label)
        return executor.WhichOneof("spec") == "importer" or executor.container.image in CLAIM_IMAGES

    def _driver_of(self, component: Any) -> str:
        """Gives the template of the driver of a task that is done by it."""
        executor = self._document.executor(component.executor_label)
        if executor.WhichOneof("spec") != "importer" or not executor.importer.download_to_workspace:
            return DRIVER
        if all(template["name"] != WORKSPACE_DRIVER for template in self._templates):
            self._templates.append(driver_template(self._options, self._environment, workspace=True))
        return WORKSPACE_DRIVER

    def _executor_of(self, spec: Any, component: Any) -> str:
        """Gives the template of a container, made once for each way of trying it again."""
        label = component.executor_label
        key = (label, spec.retry_policy.SerializeToString(deterministic=True))
        if key not in self._executors:
            name = self._executors[key] = self._names.take("", label)
            config = self._document.platform_config(label)
            template = executor_template(
                name,
                self._document.executor(label).container,
                self._options,
                environment=self._environment,
                metadata=config.get("podMetadata", {}),
                workspace=self._workspace,
            )
            template["retryStrategy"] = _retry_strategy(spec.retry_policy)
            limits = [int(config.get("activeDeadlineSeconds", 0)), self._options.task_timeout_seconds]
            if any(limits):
                template["activeDeadlineSeconds"] = min(limit for limit in limits if limit)
            self._templates.append(template)
        return self._executors[key]


CLAIM_IMAGES = {"argostub/createpvc": "create", "argostub/deletepvc": "delete"}
"""Images by which kfp-kubernetes says that a claim is to be made or removed: its driver does it."""


def merged(base: Any, patch: Any) -> Any:
    """Puts a patch over a value: mappings are joined, all else is replaced."""
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    return {**base, **{key: merged(base.get(key), value) for key, value in patch.items()}}


def _results(spec: Any) -> tuple[str, ...]:
    return _ENDED if spec.trigger_policy.strategy == _COMPLETED else _RAN


def _arguments(**values: str) -> Json:
    return {"parameters": [{"name": name, "value": value} for name, value in values.items()]}


def _executor_arguments(path: str, driver: str) -> Json:
    found = _arguments(path=path)
    for name in (PATCH, TASK):
        value = f"{{{{tasks.{driver}.outputs.parameters.{name}}}}}"
        found["parameters"].append({"name": name, "value": value})
    return found


def _retry_strategy(policy: Any) -> Json:
    """Gives how a task is tried again. Without a policy only what is not the task's own fault is."""
    if not policy.max_retry_count:
        return {"limit": "2", "retryPolicy": "OnError"}
    strategy: Json = {"limit": str(policy.max_retry_count), "retryPolicy": "Always"}
    delay = policy.backoff_duration.ToNanoseconds() / 1e9
    longest = policy.backoff_max_duration.ToNanoseconds() / 1e9 or 3600
    if delay:
        strategy["backoff"] = {
            "duration": _seconds(delay),
            "factor": str(max(1, round(policy.backoff_factor or 2))),
            "cap": _seconds(longest),
        }
    return strategy


def _seconds(value: float) -> str:
    return f"{value:g}s" if value >= 1 else f"{max(1, round(value * 1000))}ms"
