"""`mlmesh.tune`: a Katib Experiment of a Python function."""
