"""What runs a trial: a process of this machine, a run of a pipeline, a resource of Kubernetes."""
