"""Numbers as a line of blocks."""

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """Draws numbers, oldest first: the lowest as ▁, the highest as █; of more than fit, the last in each part.

    Args:
        values: Numbers; what is not finite is left out.
        width: Blocks at most; at least 1.
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) > width:
        finite = [finite[(place + 1) * len(finite) // width - 1] for place in range(width)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    # The difference of huge numbers may be infinite; that of their halves is not.
    span = high / 2 - low / 2
    if span <= 0:
        return _BLOCKS[0] * len(finite)
    return "".join(_BLOCKS[round((value / 2 - low / 2) / span * (len(_BLOCKS) - 1))] for value in finite)
