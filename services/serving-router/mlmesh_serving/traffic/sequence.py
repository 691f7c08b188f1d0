"""Shares without chance: a low-discrepancy sequence.

The k-th request gets the point frac(k * phi), phi the golden ratio (a Weyl sequence, H. Weyl, "Über die
Gleichverteilung von Zahlen mod. Eins", 1916; the golden ratio has the least discrepancy of its kind, see
H. Niederreiter, "Random Number Generation and Quasi-Monte Carlo Methods", 1992, section 3.1). In any run of requests,
however short, each part of the unit interval gets its share but for a few; chance would be off by some tens in 10,000.
Unlike turns in a fixed order it does not resonate with clients that themselves take turns: every second, third, ...
point is spread as evenly.
"""

from collections.abc import Sequence

GOLDEN = 0x9E3779B9
"""frac(phi) * 2^32, to the nearest odd number."""
ROOT_OF_TWO = 0x6A09E667
"""frac(sqrt(2)) * 2^32: a second sequence that keeps no step with the first."""
_MASK = 0xFFFFFFFF


class Sequence32:
    """Gives indexes of a table, each as often as any other.

    Args:
        table: What is chosen from; a share of it is a share of the choices.
        start: Where the sequence begins, 0 to 2^32 - 1.
        step: From point to point; odd.
    """

    __slots__ = ("_point", "_size", "_step", "_table")

    def __init__(self, table: Sequence[int], start: int = 0, step: int = GOLDEN) -> None:
        self._table = tuple(table)
        self._size = len(self._table)
        self._point = start & _MASK
        self._step = step

    def choose(self) -> int:
        """Gives the next entry."""
        self._point = point = (self._point + self._step) & _MASK
        return self._table[(point * self._size) >> 32]
