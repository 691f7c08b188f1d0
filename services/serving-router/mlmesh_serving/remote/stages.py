"""Revisions whose stages are elsewhere, wholly or in part."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mlmesh_kit.errors import FailedPrecondition

from mlmesh_serving.backend import Backend
from mlmesh_serving.datatypes import Limits
from mlmesh_serving.manifest.spec import InferenceServiceSpec, RemoteSpec
from mlmesh_serving.remote.backend import RemoteBackend
from mlmesh_serving.remote.chain import ChainBackend
from mlmesh_serving.remote.connections import Connections
from mlmesh_serving.remote.model import remote_model
from mlmesh_serving.traffic.rollout import NotYetError


@dataclass(frozen=True, slots=True)
class Opened:
    """What answers for a revision.

    Attributes:
        backend: All stages.
        predictor: The predictor, where it is elsewhere and has OpenAI's routes.
    """

    backend: Backend
    predictor: RemoteBackend | None


def remotes_of(spec: InferenceServiceSpec) -> Iterator[tuple[str, RemoteSpec]]:
    """Gives the stages of a manifest that are elsewhere: role, and where."""
    if spec.preprocessor is not None and spec.preprocessor.remote is not None:
        yield "preprocessor", spec.preprocessor.remote
    if spec.predictor.remote is not None:
        yield "predictor", spec.predictor.remote
    if spec.postprocessor is not None and spec.postprocessor.remote is not None:
        yield "postprocessor", spec.postprocessor.remote


def local_part(spec: InferenceServiceSpec) -> InferenceServiceSpec | None:
    """Gives what of a manifest runs here; None: nothing.

    What a stage elsewhere takes or gives is declared for the whole, and not for the part that runs here.
    """
    roles = {role for role, _ in remotes_of(spec)}
    if not roles:
        return spec
    if "predictor" in roles:
        return None
    return replace(
        spec,
        preprocessor=None if "preprocessor" in roles else spec.preprocessor,
        postprocessor=None if "postprocessor" in roles else spec.postprocessor,
        inputs=() if "preprocessor" in roles else spec.inputs,
        outputs=() if "postprocessor" in roles else spec.outputs,
    )


class RemoteStages:
    """Puts the backends of a revision together.

    Args:
        connections: To servers elsewhere.
        limits: Of tensors, where they are read.
    """

    def __init__(self, connections: Connections, limits: Limits) -> None:
        self._connections = connections
        self._limits = limits

    def check(self, spec: InferenceServiceSpec) -> None:
        """Checks at the door that the stages of a manifest can be put together.

        Raises:
            InvalidArgument: A host may not be called.
            FailedPrecondition: It asks for what is not served.
        """
        for _, remote in remotes_of(spec):
            remote_model(remote, self._connections.hosts)
        for stage in (spec.transformer, spec.explainer.stage if spec.explainer is not None else None):
            if stage is not None and stage.remote is not None:
                raise FailedPrecondition(
                    f"{stage.field} is not served: it would ask this model for predictions; "
                    "use a preprocessor and a postprocessor"
                )
        if spec.predictor.remote is not None:
            for stage in (spec.preprocessor, spec.postprocessor, spec.transformer):
                if stage is not None and stage.remote is None:
                    raise FailedPrecondition(
                        f"{stage.field} is not served: beside a predictor elsewhere, stages are elsewhere too"
                    )

    async def open(self, spec: InferenceServiceSpec, version: str, local: Backend | None) -> Opened:
        """Connects the stages that are elsewhere with what runs here, once they say that they are ready.

        Args:
            spec: Of the whole.
            version: Of the revision, for answers.
            local: What runs here; closed with the rest. None: nothing does.

        Raises:
            InvalidArgument: A host may not be called.
            NotYetError: A stage is not ready now.
        """
        opened: dict[str, RemoteBackend] = {}
        try:
            for role, remote in remotes_of(spec):
                model = remote_model(remote, self._connections.hosts)
                opened[role] = RemoteBackend(model, role, self._connections, self._limits, version=version)
            await asyncio.gather(*(backend.start(spec.name) for backend in opened.values()))
            problems = [backend.problem for backend in opened.values() if backend.problem]
            if problems:
                raise NotYetError("; ".join(problems), retry_after_seconds=1)
        except BaseException:
            await asyncio.gather(*(backend.close(0) for backend in opened.values()))
            raise
        predictor = opened.get("predictor")
        middle = predictor or local
        assert middle is not None, "what is not elsewhere runs here"
        around = (opened.get("preprocessor"), middle, opened.get("postprocessor"))
        stages = [stage for stage in around if stage is not None]
        has_openai = predictor is not None and bool(predictor.model.openai_path)
        return Opened(stages[0] if len(stages) == 1 else ChainBackend(stages), predictor if has_openai else None)
