"""How an InferenceService and its revisions are, as messages."""

import time
from collections.abc import Iterator
from typing import Any

from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as pb

from mlmesh_serving.servicers.traffic_messages import traffic_message
from mlmesh_serving.store import StoredRevision, StoredService
from mlmesh_serving.traffic.names import revision_name
from mlmesh_serving.traffic.rollout import RevisionState, RevisionStatus, Rollout
from mlmesh_serving.traffic.split import Shares

_NOTHING = Shares({})


def status_of(stored: StoredService, rollout: Rollout[Any] | None, model: str) -> pb.InferenceServiceStatus:
    """Gives the status of an InferenceService.

    Args:
        stored: As it is kept.
        rollout: Its revisions in memory; None: it is unloaded.
        model: Its name in the Open Inference Protocol.
    """
    return pb.InferenceServiceStatus(
        conditions=_conditions(stored, rollout),
        url=f"/v2/models/{model}",
        latest_created_revision=stored.revision,
        latest_ready_revision=rollout.latest_ready if rollout else 0,
        model_name=model,
        components={"predictor": _component(stored, rollout)},
        traffic=traffic_message(stored.name, stored.traffic),
        revisions=[
            revision_status(stored.name, number, rollout)
            for number in sorted({stored.revision, *(_shares(rollout).revisions())}, reverse=True)
        ],
    )


def revision_message(revision: StoredRevision, rollout: Rollout[Any] | None) -> pb.Revision:
    """Gives a revision."""
    made = pb.Revision(
        name=f"namespaces/{revision.namespace}/inferenceservices/{revision.name}"
        f"/revisions/{revision_name(revision.name, revision.number)}",
        status=revision_status(revision.name, revision.number, rollout),
    )
    made.manifest.update(revision.manifest)
    made.create_time.FromMilliseconds(revision.created_ms)
    return made


def revision_status(name: str, number: int, rollout: Rollout[Any] | None) -> pb.RevisionStatus:
    """Gives how a revision is.

    Args:
        name: Of the InferenceService.
        number: Of the revision.
        rollout: The revisions in memory; None: the model is unloaded.
    """
    status = rollout.status(number) if rollout else None
    shares = _shares(rollout)
    made = pb.RevisionStatus(
        revision_name=revision_name(name, number),
        number=number,
        state=(status.state if status else RevisionState.RETIRED).value,
        message=status.message if status else "",
        percent=shares.percents.get(number, 0),
        tags=sorted(tag for tag, revision in shares.tags.items() if revision == number),
    )
    if status is not None and status.since:
        made.since.FromMicroseconds(int(status.since * 1e6))
    return made


def _component(stored: StoredService, rollout: Rollout[Any] | None) -> pb.ComponentStatus:
    state = rollout.state if rollout else stored.rollout
    shares = _shares(rollout)
    name = stored.name
    tags = {revision: tag for tag, revision in shares.tags.items()}
    latest = rollout.latest_ready if rollout else 0
    return pb.ComponentStatus(
        latest_created_revision=revision_name(name, stored.revision),
        latest_ready_revision=revision_name(name, latest),
        latest_rolledout_revision=revision_name(name, state.rolled_out),
        previous_rolledout_revision=revision_name(name, state.previous),
        traffic=[
            pb.TrafficTarget(
                revision_name=revision_name(name, revision),
                latest_revision=revision == latest,
                percent=shares.percents.get(revision, 0),
                tag=tags.get(revision, ""),
            )
            for revision in sorted({*shares.percents, *shares.tags.values()}, reverse=True)
        ],
    )


def _conditions(stored: StoredService, rollout: Rollout[Any] | None) -> Iterator[pb.Condition]:
    """KServe's: the predictor is ready when its newest revision is and requests are spread as it was asked for."""
    if rollout is None:
        for kind in ("PredictorConfigurationReady", "PredictorRouteReady", "PredictorReady", "Ready"):
            yield _condition(kind, "False", "Unloaded", "", time.time())
        return
    newest = rollout.status(stored.revision)
    configuration = _of_newest(newest)
    route = _of_route(rollout)
    worst = configuration if configuration[0] != "True" else route
    yield _condition("PredictorConfigurationReady", *configuration, newest.since)
    yield _condition("PredictorRouteReady", *route, rollout.since)
    for kind in ("PredictorReady", "Ready"):
        yield _condition(kind, *worst, max(newest.since, rollout.since))


def _of_newest(newest: RevisionStatus) -> tuple[str, str, str]:
    status, reason = {
        RevisionState.READY: ("True", "Loaded"),
        RevisionState.LOADING: ("Unknown", "Loading"),
        RevisionState.FAILED: ("False", "LoadFailed"),
        RevisionState.RETIRED: ("True", "NoTraffic"),
    }[newest.state]
    return status, reason, newest.message


def _of_route(rollout: Rollout[Any]) -> tuple[str, str, str]:
    if rollout.is_settled:
        return "True", "Routed", ""
    broken = rollout.broken()
    if broken is None:
        return "Unknown", "Shifting", "waiting for revisions to load"
    return "False", "LoadFailed", f"revision {broken} cannot be loaded: {rollout.status(broken).message}"


def _condition(kind: str, status: str, reason: str, message: str, since: float) -> pb.Condition:
    made = pb.Condition(type=kind, status=status, reason=reason, message=message)
    made.last_transition_time.FromMicroseconds(int(since * 1e6))
    return made


def _shares(rollout: Rollout[Any] | None) -> Shares:
    return (rollout.shares if rollout else None) or _NOTHING
