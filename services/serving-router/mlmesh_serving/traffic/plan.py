"""From what was asked for and what is ready to a split.

Without targets of an operator's, KServe's rules hold: canaryTrafficPercent of the requests go to the newest revision
once it is ready, the others to the one that was rolled out last; without it all go to the newest, which is rolled out
thereby. Where the newest was rolled out already, a canary percentage takes it back: the others go to the one before.
"""

from collections.abc import Container
from dataclasses import dataclass, replace

from mlmesh_serving.traffic.settings import LATEST, WHOLE, HeaderRule, Traffic
from mlmesh_serving.traffic.split import Shares

TAG_LATEST = "latest"
TAG_PREVIOUS = "prev"


@dataclass(frozen=True, slots=True)
class RolloutState:
    """What has to be remembered of a model's traffic.

    Attributes:
        newest: The revision that was made last.
        rolled_out: The one that got all requests last; 0: none yet.
        previous: The one that did before it; 0: none.
        buckets: The revision of each bucket of sticky keys; empty: there are none.
    """

    newest: int
    rolled_out: int = 0
    previous: int = 0
    buckets: tuple[int, ...] = ()


def plan(traffic: Traffic, canary: int | None, state: RolloutState, ready: Container[int]) -> Shares:
    """Gives the split that should decide now.

    Args:
        traffic: What the operator has said.
        canary: canaryTrafficPercent of the manifest.
        state: What was.
        ready: Revisions that answer.
    """
    latest = latest_of(state, ready)
    percents, tags = _targets(traffic, latest) if traffic.targets else _by_manifest(canary, state, latest)
    shadow = traffic.shadow
    target = _number(shadow.revision, latest) if shadow else 0
    return Shares(
        percents=percents,
        tags=tags,
        rules=tuple(_resolved(rule, latest) for rule in traffic.rules),
        sticky_header=traffic.sticky.header if traffic.sticky else "",
        # A revision that gets every request anyway needs no copies.
        shadow=(target, shadow.percent) if shadow and percents.get(target) != WHOLE else None,
        buckets=state.buckets,
    )


def latest_of(state: RolloutState, ready: Container[int]) -> int:
    """Gives the newest revision that is ready; one that was rolled out counts as ready, answer it now or not."""
    if state.newest in ready or not state.rolled_out:
        return state.newest
    return state.rolled_out


def wanted(traffic: Traffic, canary: int | None, state: RolloutState, ready: Container[int]) -> frozenset[int]:
    """Gives the revisions that have to be there: those of the split, and the newest while it may become part of it.

    Args: See `plan`.
    """
    shares = plan(traffic, canary, state, ready)
    pinned = bool(traffic.targets) and LATEST not in traffic.revisions()
    return shares.revisions() | (frozenset() if pinned else {state.newest})


def remembered(shares: Shares, buckets: tuple[int, ...], state: RolloutState) -> RolloutState:
    """Gives what to remember once a split decides.

    Args:
        shares: Of the split.
        buckets: That it uses.
        state: What was.
    """
    whole = next((revision for revision, percent in shares.percents.items() if percent == WHOLE), 0)
    if not whole or whole == state.rolled_out:
        return replace(state, buckets=buckets)
    return RolloutState(state.newest, rolled_out=whole, previous=state.rolled_out, buckets=buckets)


def _by_manifest(canary: int | None, state: RolloutState, latest: int) -> tuple[dict[int, int], dict[str, int]]:
    stable = state.previous if state.rolled_out == latest else state.rolled_out
    if latest != state.newest or canary is None or canary == WHOLE or stable in {0, latest}:
        return {latest: WHOLE}, {TAG_LATEST: latest}
    percents = {latest: canary, stable: WHOLE - canary}
    return {k: v for k, v in percents.items() if v}, {TAG_LATEST: latest, TAG_PREVIOUS: stable}


def _targets(traffic: Traffic, latest: int) -> tuple[dict[int, int], dict[str, int]]:
    percents: dict[int, int] = {}
    tags: dict[str, int] = {}
    for target in traffic.targets:
        revision = _number(target.revision, latest)
        if target.percent:
            percents[revision] = percents.get(revision, 0) + target.percent
        if target.tag:
            tags[target.tag] = revision
    return percents, tags


def _number(revision: int, latest: int) -> int:
    return latest if revision == LATEST else revision


def _resolved(rule: HeaderRule, latest: int) -> HeaderRule:
    return replace(rule, revision=_number(rule.revision, latest))
