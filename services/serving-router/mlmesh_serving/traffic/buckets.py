"""Sticky keys: a hundred buckets of keys, each of one revision.

A share is a whole percentage, so that a hundred buckets say it exactly. When shares change, a revision that gets less
gives away as many buckets as that, and no other bucket changes hands; the assignment is kept, so that restarting moves
nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from mlmesh_serving.traffic.settings import WHOLE


def bucket_of(key: str, salt: bytes) -> int:
    """Gives the bucket of a key, 0 to 99.

    Args:
        key: What has to stay together.
        salt: Of the model, at most 64 bytes: the same keys are together elsewhere in other models.
    """
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=salt).digest()
    return int.from_bytes(digest, "big") % WHOLE


def assign(before: Sequence[int], shares: Mapping[int, int]) -> tuple[int, ...]:
    """Gives each bucket its revision, moving as few as the shares ask for.

    Args:
        before: The revision of each bucket until now; empty: there were none.
        shares: Percentages by revision, together 100.
    """
    if len(before) != WHOLE:
        return tuple(revision for revision, percent in sorted(shares.items()) for _ in range(percent))
    room = Counter(dict(shares))
    after: list[int | None] = []
    for revision in before:
        keeps = room[revision] > 0
        room[revision] -= keeps
        after.append(revision if keeps else None)
    free = iter([revision for revision, left in sorted(room.items()) for _ in range(left)])
    return tuple(next(free) if revision is None else revision for revision in after)
