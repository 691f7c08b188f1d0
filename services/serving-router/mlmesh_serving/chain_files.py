"""The parts of a chain, brought to this machine."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.workers.plan import ChainFiles


@contextmanager
def chain_files(spec: InferenceServiceSpec, storage: ModelStorage) -> Iterator[ChainFiles]:
    """Gives where model and stages lie on this machine; what was downloaded for it is gone on leaving. Blocks.

    Raises:
        InvalidArgument, FailedPrecondition: See `ModelStorage.local`.
        Unavailable: The store cannot be reached.
    """
    with ExitStack() as stack:
        found = {
            name: stack.enter_context(storage.local(part.storage_uri, part.field))
            for name, part in _parts(spec).items()
        }
        yield ChainFiles(**found)


def check_storage(spec: InferenceServiceSpec, storage: ModelStorage) -> None:
    """Checks at the door that everything a spec names may be loaded.

    Raises:
        InvalidArgument, FailedPrecondition: See `ModelStorage.check`.
    """
    for part in _parts(spec).values():
        storage.check(part.storage_uri, part.field)


def _parts(spec: InferenceServiceSpec) -> dict[str, Any]:
    parts = {"preprocessor": spec.preprocessor, "predictor": spec.predictor, "postprocessor": spec.postprocessor}
    return {name: part for name, part in parts.items() if part is not None}
