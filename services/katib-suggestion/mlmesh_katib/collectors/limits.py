"""How much is read of one trial."""

MAX_BYTES = 64 << 20
"""Of its files, in all; what comes after is not read."""
MAX_REPORTS = 100_000
"""In all; as many as DBManager gives in one answer."""
MAX_SECONDS = 30.0
"""Spent on finding reports in what was read, in all."""
POLL_BYTES = 1 << 20
"""While it runs, so that the next trial has its turn."""
POLL_SECONDS = 0.2
"""The same."""
