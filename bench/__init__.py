"""Benchmarks: ourselves beside our peers, in a process each. `python -m bench [NAME ...]`."""
