"""How the worker processes of a machine are shared between revisions that want more of them than there are."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def share(wanted: Sequence[tuple[Key, int]], capacity: int) -> Mapping[Key, int]:
    """Gives each revision its number of replicas.

    Each gets one, as far as they go, in the order given: so those at the end go to zero first. What is left is shared
    max-min fair (D. Bertsekas, R. Gallager: Data Networks, 1992, section 6.5.2): nobody has more than another who
    wants more, unless that other has all that he wants; a last one that cannot be divided goes by the order.

    Args:
        wanted: Each revision with the replicas that it wants, the most deserving first.
        capacity: Replicas that there may be in all.
    """
    shares = dict.fromkeys((key for key, _ in wanted), 0)
    hungry = [(key, most) for key, most in wanted if most > 0]
    while capacity > 0 and hungry:
        level = capacity // len(hungry)
        if level == 0:
            for key, _ in hungry[:capacity]:
                shares[key] += 1
            break
        for key, most in hungry:
            given = min(level, most - shares[key])
            shares[key] += given
            capacity -= given
        hungry = [(key, most) for key, most in hungry if shares[key] < most]
    return shares
