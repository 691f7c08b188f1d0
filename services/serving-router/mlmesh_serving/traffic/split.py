"""Which revision a request goes to."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mlmesh_serving.traffic.buckets import assign, bucket_of
from mlmesh_serving.traffic.rules import HeaderRules
from mlmesh_serving.traffic.sequence import ROOT_OF_TWO, Sequence32
from mlmesh_serving.traffic.settings import WHOLE, HeaderRule


@dataclass(frozen=True, slots=True)
class Shares:
    """A split, as values: every revision a number.

    Attributes:
        percents: By revision, above 0, together 100.
        tags: Revisions by tag.
        rules: In order.
        sticky_header: Whose value keeps requests together; empty: nothing does.
        shadow: The revision that gets copies, and of how many percent; None: none does.
        buckets: The revision of each bucket of sticky keys.
    """

    percents: Mapping[int, int]
    tags: Mapping[str, int] = field(default_factory=dict)
    rules: tuple[HeaderRule, ...] = ()
    sticky_header: str = ""
    shadow: tuple[int, int] | None = None
    buckets: tuple[int, ...] = ()

    def revisions(self) -> frozenset[int]:
        """Gives the revisions that requests may go to."""
        others = [rule.revision for rule in self.rules] + ([self.shadow[0]] if self.shadow else [])
        return frozenset([*self.percents, *self.tags.values(), *others])


class Split:
    """Chooses a revision for each request: by header rules, else by the sticky key, else by shares.

    It counts requests, so one event loop alone asks it.

    Args:
        shares: What it does.
        salt: Of the model; see `bucket_of`.
        start: Where its sequences begin; None: anywhere, so that several routers do not go in step.
    """

    __slots__ = ("_by_share", "_rules", "_salt", "_shadow", "buckets", "only", "shadow_revision", "shares")

    def __init__(self, shares: Shares, salt: bytes = b"", start: int | None = None) -> None:
        begin = random.getrandbits(32) if start is None else start
        self.shares = shares
        self._salt = salt
        self._rules = HeaderRules(shares.rules)
        self._by_share = Sequence32(_table(shares.percents.items()), begin)
        self.buckets = assign(shares.buckets, shares.percents) if shares.sticky_header else ()
        self.shadow_revision: int | None = None
        self._shadow: Sequence32 | None = None
        if shares.shadow is not None:
            self.shadow_revision, percent = shares.shadow
            # Another sequence, so that copies are the same share of each revision's requests.
            self._shadow = Sequence32([1] * percent + [0] * (WHOLE - percent), begin, ROOT_OF_TWO)
        plain = len(shares.percents) == 1 and not shares.rules and shares.shadow is None
        self.only: int | None = next(iter(shares.percents)) if plain else None

    def choose(self, headers: Mapping[str, str]) -> int:
        """Gives the revision of a request that names none.

        Args:
            headers: Names in lower case.
        """
        if self.only is not None:
            return self.only
        if self._rules:
            ruled = self._rules.choose(headers)
            if ruled is not None:
                return ruled
        if self.buckets:
            key = headers.get(self.shares.sticky_header)
            if key:
                return self.buckets[bucket_of(key, self._salt)]
        return self._by_share.choose()

    def mirrors(self) -> bool:
        """Tells whether the shadow gets a copy of this request."""
        return self._shadow is not None and self._shadow.choose() == 1


def _table(percents: Iterable[tuple[int, int]]) -> list[int]:
    return [revision for revision, percent in sorted(percents) for _ in range(percent)]
