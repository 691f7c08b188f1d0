"""The time as ML Metadata counts it."""

import time


def now_ms() -> int:
    """Gives milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
