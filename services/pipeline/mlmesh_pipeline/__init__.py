"""Kubeflow Pipelines v2: API, IR and a local engine."""
