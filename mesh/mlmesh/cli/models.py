"""The command models: which models are served, their revisions, and what they are on Kubernetes."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlmesh.cli.completion import complete_models
from mlmesh.cli.connection import connected
from mlmesh.cli.finding_models import DEFAULT_NAMESPACE, Model, explained, models_path
from mlmesh.cli.options import DataDir, IngressUrl, Json, Namespace
from mlmesh.cli.output import console, emit, fail, printable

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress


class Platform(StrEnum):
    """What a model can be rendered for."""

    KNATIVE = "knative"
    KSERVE = "kserve"


def models(
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="Show this one with its revisions", autocompletion=complete_models)
    ] = "",
    render: Annotated[
        Platform | None, typer.Option(help="Print it as YAML: a Knative Service, or KServe's InferenceService")
    ] = None,
    image: Annotated[str, typer.Option(help="Image of the serving router, for Knative")] = "mlmesh/serving:0.1.0",
    namespace: Namespace = "",
    ingress: IngressUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """List the models that are served; with NAME, show its revisions and how requests are spread over them."""
    if render and not model:
        fail("name the model to render: mlmesh models NAME --render knative", as_json=as_json, code=2)
    with connected(ingress, data_dir, as_json=as_json) as mesh:
        if not model:
            list_models(mesh, models_path(namespace or DEFAULT_NAMESPACE), as_json)
            return
        where = Model.named(model, namespace)
        with explained(where, as_json=as_json):
            service = mesh.get(where.path)
            if render is None:
                _show(service, list(mesh.pages(where.revisions, "revisions")), as_json)
            else:
                _render(service, where, render, image, as_json)


def list_models(mesh: "Ingress", path: str, as_json: bool) -> None:
    """Prints the models of a namespace.

    Args:
        mesh: Where they are.
        path: Of the namespace's InferenceServices at the ingress.
        as_json: Print JSON.
    """
    from mlmesh.cli.serving_view import service_table

    found = list(mesh.pages(path, "inference_services"))
    if as_json:
        emit(found)
    elif found:
        console().print(service_table(found))
    else:
        console().print("no model is served yet; serve one with: mlmesh deploy FILE")


def _show(service: dict[str, Any], revisions: list[dict[str, Any]], as_json: bool) -> None:
    from mlmesh.cli.traffic_view import revisions_table, traffic_lines

    if as_json:
        emit({**service, "revisions": revisions})
        return
    out = console()
    for line in traffic_lines(service):
        out.print(line, soft_wrap=True)
    out.print()
    out.print(revisions_table(revisions))


def _render(service: dict[str, Any], model: Model, platform: Platform, image: str, as_json: bool) -> None:
    import yaml

    from mlmesh.render.model import RenderError, render_model_knative, render_model_kserve

    try:
        rendered = (
            render_model_knative(service, model.namespace, image)
            if platform is Platform.KNATIVE
            else render_model_kserve(service, model.namespace)
        )
    except RenderError as error:
        fail(str(error), as_json=as_json)
    for text in rendered.left_out:
        sys.stderr.write(f"mlmesh: left out: {printable(text)}\n")
    if as_json:
        emit({"object": rendered.tree, "left_out": list(rendered.left_out)})
    else:
        sys.stdout.write(yaml.safe_dump(rendered.tree, sort_keys=False, width=120))
