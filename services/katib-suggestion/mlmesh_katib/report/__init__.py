"""A report of an experiment: one HTML page that needs nothing else. `draw.py` is where it begins."""
