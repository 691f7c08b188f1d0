"""The Argo backend: a pipeline as an Argo Workflow, what runs in its pods, and its way back into the run's records."""
