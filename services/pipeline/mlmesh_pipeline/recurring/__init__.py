"""Recurring runs: when they fire, what the runs get, and who fires them."""
