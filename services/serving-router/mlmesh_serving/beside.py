"""What is beside the path of a model's predictions: its payload logger, its detectors, its explainer."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlmesh_kit.launch import Launcher

from mlmesh_serving.explainers.backend import ExplainerBackend
from mlmesh_serving.explainers.plan import ExplainerPlan, plan_explainer
from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.observers.backend import ObservedBackend
from mlmesh_serving.observers.observers import Observers
from mlmesh_serving.observers.subject import Subject
from mlmesh_serving.revision import Revision
from mlmesh_serving.storage import ModelStorage
from mlmesh_serving.store import StoredRevision

_PICKLE, _PYTHON = "a pickle", "Python code"


class Beside:
    """Puts beside a revision what its manifest asks for.

    Args:
        observers: Look at predictions.
        launcher: Forks explainers.
        storage: Where references and background data come from.
        folder: Working directory of explainers.
        memory_bytes: Of an explainer's process; 0: no limit.
    """

    def __init__(
        self, observers: Observers, launcher: Launcher, storage: ModelStorage, folder: Path, memory_bytes: int = 0
    ) -> None:
        self._observers = observers
        self._launcher = launcher
        self._storage = storage
        self._folder = folder
        self._memory_bytes = memory_bytes

    def check(self, spec: InferenceServiceSpec) -> None:
        """Checks at the door that what a manifest asks for can be had.

        Raises:
            InvalidArgument, FailedPrecondition, Unimplemented: It cannot; the message names the field.
        """
        subject = Subject.of("", 0, spec)
        self._observers.check(subject)
        for _, uri, field in _references(subject):
            self._storage.check(uri, field)
        plan = plan_explainer(spec)
        if plan is not None:
            for _, uri, field, code in _sources(plan, spec):
                self._storage.check(uri, field, code)

    async def attach(self, stored: StoredRevision, spec: InferenceServiceSpec, revision: Revision) -> Revision:
        """Gives the revision with what is beside it; if that cannot be had, the revision is closed.

        Raises:
            InvalidArgument, FailedPrecondition, Unavailable: It cannot be had.
        """
        explainer: ExplainerBackend | None = None
        try:
            plan = plan_explainer(spec)
            if plan is not None:
                plan = await asyncio.to_thread(self._bring_sources, plan, spec, revision)
                # It asks the revision itself: what it makes up is neither logged nor watched.
                explainer = ExplainerBackend(
                    self._launcher, plan, revision.backend, self._folder, memory_bytes=self._memory_bytes
                )
                await explainer.scale(1)
            subject = Subject.of(stored.namespace, stored.number, spec)
            tap = self._observers.watch(await asyncio.to_thread(self._bring_references, subject, revision))
        except BaseException:
            if explainer is not None:
                await explainer.close(0)
            await revision.close(0)
            raise
        if tap is None:
            return replace(revision, explainer=explainer)
        backend = ObservedBackend(revision.backend, tap)
        return replace(revision, backend=backend, explainer=explainer, leave=partial(self._observers.unwatch, tap))

    def _bring_references(self, subject: Subject, revision: Revision) -> Subject:
        found = {
            name: revision.files.enter_context(self._storage.local(uri, field)).path
            for name, uri, field in _references(subject)
        }
        return subject.located(found)

    def _bring_sources(self, plan: ExplainerPlan, spec: InferenceServiceSpec, revision: Revision) -> ExplainerPlan:
        for place, uri, field, code in _sources(plan, spec):
            found = revision.files.enter_context(self._storage.local(uri, field))
            if code:
                found.check_code(code)
            path = str(found.path)
            if place == "background":
                plan = replace(plan, background_path=path)
            elif place == "model":
                plan = replace(plan, model_path=path)
            else:
                plan = replace(plan, code_path=path)
        return plan


def _references(subject: Subject) -> Iterator[tuple[str, str, str]]:
    """Gives name, URI and field of each detector's reference."""
    for detector in subject.detectors:
        if detector.reference_uri:
            yield detector.name, detector.reference_uri, f"{detector.field}.storageUri"


def _sources(plan: ExplainerPlan, spec: InferenceServiceSpec) -> Iterator[tuple[str, str, str, str]]:
    """Gives what an explainer loads: what it is, URI, field, and what of it can run code."""
    if plan.background:
        yield "background", plan.background, f"{plan.field}.storageUri", ""
    if plan.model:
        yield "model", plan.model, spec.predictor.field, _PICKLE
    if plan.code:
        yield "code", plan.code, plan.field, _PYTHON
