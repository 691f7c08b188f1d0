"""How experiments and trials are named in the metadata service."""

CONTEXT_TYPE = "katib.Experiment"
EXECUTION_TYPE = "katib.Trial"
ARTIFACT_TYPE = "katib.Observation"
PARAMETER = "parameter/"
"""What the names of custom properties begin with that hold a trial's parameters."""
METRIC = "metric/"
"""The same, of the last value of each metric."""
