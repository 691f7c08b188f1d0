"""Commands for InferenceServices: deploy, predict."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from mlmesh.cli.connection import connected
from mlmesh.cli.options import DataDir, IngressUrl, Json, Namespace
from mlmesh.cli.output import console, emit, fail

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress
    from mlmesh.cli.finding_models import Model


class Datatype(StrEnum):
    """Datatypes of the Open Inference Protocol."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


def deploy(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An InferenceService (YAML, JSON; - for standard input)")
    ] = "",
    canary: Annotated[
        int | None, typer.Option(min=0, max=100, help="Percent of the requests for the new revision; the rest stays")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait until it is ready")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that it may take to be ready")] = 120,
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Serve a model: make an InferenceService, or give it a new revision. Without FILE, list what is served."""
    from mlmesh.cli.finding_models import Model, models_path
    from mlmesh.cli.models import list_models
    from mlmesh.documents import namespace_of, read_manifest

    if canary is not None and not file:
        fail("--canary goes with a FILE", as_json=as_json, code=2)
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        manifest = read_manifest(file, "InferenceService") if file else {}
        where = namespace or (namespace_of(manifest) if manifest else "default")
        if not manifest:
            list_models(mesh, models_path(where), as_json)
            return
        if canary is not None:
            _set_canary(manifest, canary, file, as_json)
        model = Model(where, str(manifest["metadata"]["name"]))
        found = _apply(mesh, model, manifest)
        if not detach:
            found = _wait(mesh, model, timeout, as_json)
        _show(found, model, as_json)


def _set_canary(manifest: dict[str, Any], percent: int, file: str, as_json: bool) -> None:
    spec = manifest.get("spec")
    predictor = spec.get("predictor") if isinstance(spec, dict) else None
    if not isinstance(predictor, dict):
        fail(f"{file}: spec.predictor must be an object", as_json=as_json)
    predictor["canaryTrafficPercent"] = percent


def _apply(mesh: "Ingress", model: "Model", manifest: dict[str, Any]) -> dict[str, Any]:
    """Makes the InferenceService; if there is one by that name, it gets the manifest."""
    from mlmesh.cli.client import IngressError
    from mlmesh.cli.finding_models import models_path

    body = {"manifest": manifest}
    try:
        made: dict[str, Any] = mesh.send("POST", models_path(model.namespace), body)
    except IngressError as error:
        if error.status != 409:
            raise
        made = mesh.send("PATCH", model.path, body)
    return made


def _wait(mesh: "Ingress", model: "Model", timeout: float, as_json: bool) -> dict[str, Any]:
    from mlmesh.cli.serving_view import has_failed, is_ready, service_lines, service_text
    from mlmesh.cli.watching import PATIENCE_SECONDS, watch

    found: dict[str, Any] = watch(
        lambda: mesh.get(model.path, patience_seconds=PATIENCE_SECONDS),
        lambda service: is_ready(service) or has_failed(service),
        service_text,
        service_lines,
        goes_on=f"the model goes on loading; see how far it is with: {model.command('models')}",
        quiet=as_json,
        timeout_seconds=timeout,
    )
    if has_failed(found):
        _fail(found, "could not be loaded", as_json)
    if not is_ready(found):
        _fail(found, f"is not ready after {timeout:g} s", as_json)
    return found


def _fail(service: dict[str, Any], what: str, as_json: bool) -> None:
    from mlmesh.cli.search_state import last_part
    from mlmesh.cli.serving_view import ready_condition

    condition, status = ready_condition(service), service.get("status", {})
    reason = condition.get("message") or condition.get("reason") or "no reason given"
    message = f"{last_part(service)} {what}: {reason}"
    if status.get("latest_ready_revision", 0):
        message += f"\nrevision {status['latest_ready_revision']} goes on answering"
    fail(f"{message}\ncorrect the manifest and deploy it again; more is in: mlmesh logs serving", as_json=as_json)


def _show(service: dict[str, Any], model: "Model", as_json: bool) -> None:
    from mlmesh.cli.serving_view import is_ready, service_text
    from mlmesh.cli.traffic_view import canary_of

    if as_json:
        emit(service)
        return
    out = console()
    out.print(service_text(service))
    if is_ready(service):
        out.print(f"ask it with: mlmesh predict {service['status']['model_name']} INPUT", soft_wrap=True)
    else:
        out.print(f"see how far it is with: {model.command('models')}", soft_wrap=True)
    target = canary_of(service)
    if service.get("status", {}).get("traffic", {}).get("targets"):
        out.print(
            f"requests are spread by hand; see how with: {model.command('traffic')}, and give it back to the manifest "
            f"with: {model.command('traffic', ' --by-manifest')}",
            soft_wrap=True,
        )
    elif target is not None:
        out.print(
            f"{target['revision_name']} gets {target['percent']}% of the requests; give it all of them with: "
            f"{model.command('promote')}, take them back with: {model.command('rollback')}",
            soft_wrap=True,
        )


def predict(
    model: Annotated[str, typer.Argument(help="Name of the model; mlmesh models lists them")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help='JSON, a file of it, or - for standard input: {"inputs": \\[tensor, ...]}, or rows [[1, 2], [3, 4]]',
        ),
    ],
    name: Annotated[str, typer.Option(help="Of the tensor that the rows become (what the model declares)")] = "",
    datatype: Annotated[
        Datatype | None, typer.Option(help="Of that tensor (what the model declares, else what fits)")
    ] = None,
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Ask a model for a prediction."""
    from mlmesh.cli.client import IngressError
    from mlmesh.cli.serving_view import prediction_table
    from mlmesh.tensors import as_request, read_request

    with connected(ingress, data_dir, as_json=as_json) as mesh:
        content = read_request(data)
        whole = isinstance(content, dict) and "inputs" in content
        if whole and (name or datatype):
            fail("--name and --datatype are for rows; a request names its tensors itself", as_json=as_json, code=2)
        path = f"/v2/models/{quote(model, safe='')}"
        try:
            declared = [] if whole else mesh.get(path).get("inputs", [])
            answer = mesh.send("POST", f"{path}/infer", as_request(content, declared, name, datatype or ""))
        except IngressError as error:
            if error.status == 404:
                fail(f"{error}; see which models there are with: mlmesh models", as_json=as_json)
            raise
        if as_json:
            emit(answer)
        else:
            console().print(prediction_table(answer))
