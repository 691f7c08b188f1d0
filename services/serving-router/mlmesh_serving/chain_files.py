"""The parts of a chain, brought to this machine."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mlmesh_serving.manifest import InferenceServiceSpec, StageSpec
from mlmesh_serving.predictors import CODE
from mlmesh_serving.storage import LocalModel, ModelStorage
from mlmesh_serving.workers.plan import ChainFiles


@contextmanager
def chain_files(spec: InferenceServiceSpec, storage: ModelStorage) -> Iterator[ChainFiles]:
    """Gives where model and stages lie on this machine; what was downloaded for it is gone on leaving. Blocks.

    Raises:
        InvalidArgument, FailedPrecondition: See `ModelStorage.local`.
        Unavailable: The store cannot be reached.
    """
    model = spec.predictor
    with ExitStack() as stack:
        code = None
        if model.options.code_uri:
            code = stack.enter_context(storage.local(model.options.code_uri, f"{model.where}.codeUri"))
        stages: dict[str, LocalModel] = {}
        for role in ("preprocessor", "postprocessor", "transformer"):
            stage: StageSpec | None = getattr(spec, role)
            if stage is not None:
                stages[role] = stack.enter_context(storage.local(stage.storage_uri, stage.field))
        found = stack.enter_context(storage.local(model.storage_uri, model.field, model.options.sha256))
        yield ChainFiles(found, code, **stages)


def check_storage(spec: InferenceServiceSpec, storage: ModelStorage) -> None:
    """Checks at the door that everything a spec names may be loaded.

    Raises:
        InvalidArgument, FailedPrecondition: See `ModelStorage.check`.
    """
    model = spec.predictor
    if model.remote is not None:
        return
    if model.options.code_uri:
        storage.check(model.options.code_uri, f"{model.where}.codeUri", "Python code")
        storage.check(model.storage_uri, model.field)
    else:
        storage.check(model.storage_uri, model.field, CODE.get(model.format, ""))
    for stage in (spec.preprocessor, spec.postprocessor, spec.transformer):
        if stage is not None and stage.remote is None:
            storage.check(stage.storage_uri, stage.field, "Python code")
